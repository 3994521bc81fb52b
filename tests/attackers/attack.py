"""What an attacker sees and what he can do: pieces of a session in, acts out. No socket, no clock.

A piece is one whole message as the protocol cuts it (a greeting, a reply, an answer, a record, ...), so an
attack is a few lines: it overrides `piece` for the messages that it is about and lets the others pass.
Counterpart: `wire`, which feeds it and carries its acts out.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass

VERB = b"XNIGHTMAIL\r\n"
FRAME_HEADER = 3
FIRST_FRAME_OCTET = 0x80
_LAST_LINE = re.compile(rb"(?:\A|\n)\d{3}(?: [^\n]*)?\n")


class End(enum.Enum):
    """Who is meant: the sending gateway's side of the wire or the receiving one's."""

    S = "S"
    R = "R"

    @property
    def other(self) -> End:
        return End.R if self is End.S else End.S


class Kind(enum.Enum):
    """What a piece is."""

    GREETING = "greeting"
    EHLO = "ehlo"
    REPLY = "reply"
    VERB = "verb"
    ANSWER = "answer"
    RECORD = "record"
    CLEAR = "clear"
    """Anything else: what mail servers say to each other where nobody upgrades."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One message; `number` counts those of its kind that came from there before it."""

    origin: End
    kind: Kind
    number: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class Say:
    """Octets for this side. `apart`: in a segment of their own."""

    to: End
    octets: bytes
    apart: bool = False


@dataclass(frozen=True, slots=True)
class Fin:
    """An orderly end for this side."""

    to: End


@dataclass(frozen=True, slots=True)
class Rst:
    """A reset for this side."""

    to: End


Act = Say | Fin | Rst


class Attack:
    """One session's man in the middle; this one is honest. Made anew for each session, told of each dial.

    `dials`: so many connections of a session he attacks; the others he lets pass.
    """

    dials = 1

    def __init__(self) -> None:
        self.dial = 0

    @property
    def bites(self) -> bool:
        return 0 < self.dial <= self.dials

    def begin(self) -> list[Act]:
        """A connection has come, the `dial`th of its session; both sides are there."""
        return []

    def piece(self, piece: Piece) -> list[Act]:
        return [Say(piece.origin.other, piece.octets)]

    def end(self, origin: End) -> list[Act]:
        return [Fin(origin.other)]

    def reset(self, origin: End) -> list[Act]:
        return [Rst(origin.other)]


class Always(Attack):
    """Attacks every connection of a session."""

    dials = 1 << 30


class Cutter:
    """One direction's octets -> its pieces. What is not complete at the end comes out of `rest`."""

    def __init__(self, origin: End) -> None:
        self._origin = origin
        self._opening = [Kind.EHLO] if origin is End.S else [Kind.GREETING, Kind.REPLY]
        self._counts: dict[Kind, int] = {}
        self._held = b""
        self._sealed = False

    def feed(self, octets: bytes) -> Iterator[Piece]:
        self._held += octets
        while self._held:
            found = self._next()
            if found is None:
                return
            kind, size = found
            yield self._made(kind, size)

    def rest(self) -> bytes:
        octets, self._held = self._held, b""
        return octets

    def _made(self, kind: Kind, size: int) -> Piece:
        number = self._counts.get(kind, 0)
        self._counts[kind] = number + 1
        octets, self._held = self._held[:size], self._held[size:]
        return Piece(self._origin, kind, number, octets)

    def _next(self) -> tuple[Kind, int] | None:
        held = self._held
        if self._opening:
            return self._next_opening()
        if self._origin is End.S and not self._counts.keys() & {Kind.VERB, Kind.CLEAR}:
            if held.startswith(VERB):
                self._sealed = True
                return Kind.VERB, len(VERB)
            if VERB.startswith(held):
                return None
        if held[0] >= FIRST_FRAME_OCTET and (self._sealed or self._origin is End.R):
            size = FRAME_HEADER + int.from_bytes(held[1:FRAME_HEADER], "big")
            if len(held) < max(FRAME_HEADER, size):
                return None
            return (Kind.ANSWER if held[0] == 0x81 else Kind.RECORD), size
        return Kind.CLEAR, len(held)

    def _next_opening(self) -> tuple[Kind, int] | None:
        line_end = self._held.find(b"\n") + 1
        if self._origin is End.S:
            size = line_end
        else:
            found = _LAST_LINE.search(self._held)
            size = found.end() if found else 0
        return (self._opening.pop(0), size) if size else None


# --- Words for attacks ------------------------------------------------------------------------------------


def altered(octets: bytes, at: int, mask: int = 0x01) -> bytes:
    """One octet changed."""
    return octets[:at] + bytes([octets[at] ^ mask]) + octets[at + 1 :]


def without_offer(reply: bytes) -> bytes:
    """The reply as it was before the receiving gateway put its lines in."""
    own = re.sub(rb"(?m)^250[- ]XNIGHTMAIL [^\n]*\n", b"", reply)
    last = own.rfind(b"\n", 0, -1) + 1
    return own[:last] + b"250 " + own[last + 4 :]
