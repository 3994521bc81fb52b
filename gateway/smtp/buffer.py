"""A bounded buffer that finds CRLF lines, in linear time however the octets come in.

Strict: a line ends in CRLF and holds no other CR, LF or NUL. Each of those is read as a line end by some
mail server and not by others, so a line that holds one has no agreed end, and behind it nobody knows what
was said.
It never drops or alters an octet: the caller has all of them in `octets`, also after a refusal.
Counterpart: `observer`, which owns one buffer for each of greeting, EHLO line and EHLO reply.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import PeerProtocolError, Reason

_LF: Final = 0x0A


class LineBuffer:
    """`add` octets, then ask for lines; `odd` is the reason with which it refuses."""

    __slots__ = ("_limit", "_line", "_octets", "_odd", "_searched")

    def __init__(self, limit: int, odd: Reason) -> None:
        self._limit = limit
        self._odd = odd
        self._octets = bytearray()
        self._line = 0  # where the current line begins
        self._searched = 0  # no CR, LF or NUL stands between `_line` and here

    def __len__(self) -> int:
        return len(self._octets)

    @property
    def octets(self) -> bytes:
        """Everything added and not taken back out."""
        return bytes(self._octets)

    @property
    def at_first_line(self) -> bool:
        """No line has been found yet."""
        return self._line == 0

    @property
    def has_rest(self) -> bool:
        """Octets stand behind the last complete line."""
        return self._line < len(self._octets)

    def add(self, octets: bytes) -> None:
        self._octets += octets

    def octets_begin(self, with_these: bytes) -> bool:
        """Whether everything in it begins so."""
        return self._octets.startswith(with_these)

    def head(self, size: int) -> bytes:
        """The first octets of the current line, which need not be complete; fewer if there are no more."""
        return bytes(self._octets[self._line : self._line + size])

    def next_line(self, behind: bytes | None = None) -> bytes | None:
        """The next line, CRLF included; None if more octets are needed. `behind`: lines that begin so are
        passed over.

        Raises `PeerProtocolError` as soon as the octets can no longer become a line within the limit.
        """
        octets = self._octets
        while True:
            begin = self._searched
            cr = octets.find(b"\r", begin)
            end = len(octets) if cr < 0 else cr
            if octets.find(b"\n", begin, end) >= 0 or octets.find(b"\0", begin, end) >= 0:
                raise PeerProtocolError(self._odd, "bare LF or NUL")
            past = end + 2
            if past > len(octets):  # no CR yet, or its LF is still to come
                if len(octets) > self._limit:
                    raise PeerProtocolError(self._odd, "too long")
                self._searched = end
                return None
            if octets[end + 1] != _LF:
                raise PeerProtocolError(self._odd, "bare CR")
            if past > self._limit:
                raise PeerProtocolError(self._odd, "too long")
            line, self._line, self._searched = self._line, past, past
            if behind is None or not octets.startswith(behind, line):
                return bytes(octets[line:past])

    def take_rest(self) -> bytes:
        """Take out what stands behind the last complete line."""
        rest = bytes(self._octets[self._line :])
        del self._octets[self._line :]
        self._searched = self._line
        return rest

    def take_all(self) -> bytes:
        """Take out everything."""
        self._line = 0
        return self.take_rest()

    def keep_only(self, size: int) -> None:
        """Drop all but the first octets, which have all passed. No more lines are asked for behind it."""
        del self._octets[size:]
