"""Our direction of a channel as a listener sees it: flights, padded to sizes that tell little.

A flight ends with a turn of the dialogue (the other side has spoken), or, once it is large, with silence.
Small ones leave at once. Of large ones the octets above the last step of their size wait for more, so that
the padding can leave in the same write as the end (docs/protocol.md, "Padding"). They never wait longer than
`limits.FLIGHT_SILENCE_SECONDS`, and everything leaves in the order in which it came.
Counterparts: `crypto.padding` (how large), `crypto.records` (how it is made so large).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gateway.crypto.padding import flight_padding, passed_step
from gateway.crypto.records import RECORD_OVERHEAD_OCTETS, RecordLayer, RecordType
from gateway.policy import limits

_FULL_OCTETS = limits.RECORD_SEND_OCTETS + RECORD_OVERHEAD_OCTETS


def now_and_then(entropy: Callable[[int], bytes]) -> bool:
    """Whether this session shows the peer something to ignore, so that ignoring stays tested."""
    return entropy(1)[0] < limits.IGNORABLE_BELOW


class Flights:
    """Answers the octets that go to the far side now; `deadline` is when `silence` wants to be called."""

    __slots__ = (
        "_heard_at",
        "_held",
        "_looked",
        "_padded",
        "_since",
        "_until",
        "_waiting",
        "deadline",
        "records",
    )

    def __init__(self, records: RecordLayer) -> None:
        self.records = records
        self._padded = 0
        """Octets on the wire of this flight when it was padded last,"""
        self._since = 0
        """and of its frames since."""
        self._held = bytearray()
        """The last octets of a large flight. However they come, each is copied once."""
        self._waiting: list[tuple[int, bytes]] = []
        self._until = math.inf
        """Behind `wait`, those leave at the latest then."""
        self._heard_at = 0.0
        self._looked = False
        self.deadline: float | None = None

    def add(self, kind: int, content: bytes = b"") -> None:
        """A record of another type; it leaves with the next octets, in front of them."""
        self._waiting.append((kind, content))

    def wait(self, now: float) -> None:
        """The near side was asked something: what was added leaves with its answer, or a little later."""
        self.deadline = self._until = now + limits.FIRST_RECORD_SECONDS

    def octets(self, octets: bytes, now: float) -> bytes | bytearray:
        """What the near side has said: all of it padded, or full records while the rest waits for more."""
        size = self._padded + self._since + len(self._held) + len(octets)
        if size < limits.LARGE_FLIGHT_OCTETS:
            return self.at_once(octets)
        self._heard_at = now
        self._looked = False
        if self.deadline is None or self._waiting:
            self.deadline = self._in_time(now + limits.FLIGHT_SILENCE_SECONDS - limits.FLIGHT_LOOK_SECONDS)
        return self._full_records(octets)

    def at_once(self, octets: bytes = b"") -> bytes:
        """All that there is, padded: the flight may end here, or go on. At least one record."""
        self.deadline = None
        kind, content = (int(RecordType.DATA), octets)
        if not octets:
            kind, content = self._waiting.pop() if self._waiting else (int(RecordType.PAD), b"")
        ahead = self._ahead() if self._waiting else b""
        frames = (max(len(content), 1) - 1) // limits.RECORD_SEND_OCTETS + 1
        since = self._since + len(ahead) + len(content) + frames * RECORD_OVERHEAD_OCTETS
        pad = flight_padding(since, self._padded)
        self._padded += since + pad
        self._since = 0
        if frames == 1 or kind != RecordType.DATA:
            return ahead + self.records.seal_padded(kind, content, pad)
        return ahead + self.records.seal_data(content, pad)

    def turn(self) -> bytes:
        """The other side has spoken: what we say from now on is another flight."""
        if self._held or self._waiting:
            return self._ended()
        self._padded = self._since = 0
        return b""

    def silence(self, now: float) -> bytes:
        """`deadline` has come: of `wait`; or the end of a large flight, or another look a little later.

        A loop that is late finds the deadline before the octets that have come in the meantime; so it looks
        twice before it takes its own lateness for the end.
        """
        if self.deadline is None:
            return b""
        if self._looked or not self._held or (self._waiting and now >= self._until):
            return self._ended()
        self._looked = True
        quiet = self._heard_at + limits.FLIGHT_SILENCE_SECONDS
        self.deadline = self._in_time(max(quiet, now + limits.FLIGHT_LOOK_SECONDS))
        return b""

    def last(self, kind: RecordType) -> bytes:
        """CLOSE or RESET, behind everything that was held."""
        self.deadline = None
        since = self._since + RECORD_OVERHEAD_OCTETS
        pad = flight_padding(since, self._padded)
        if not (self._held or self._waiting) and pad <= limits.RECORD_SEND_OCTETS:
            return self.records.seal(kind, inner_pad=pad)
        self._since = since
        return self.at_once(self._released()) + self.records.seal(kind)

    def _in_time(self, deadline: float) -> float:
        """What waits for the near side's answer does not wait for its end."""
        return min(deadline, self._until) if self._waiting else deadline

    def _ended(self) -> bytes:
        sealed = self.at_once(self._released())
        self._padded = 0
        return sealed

    def _full_records(self, octets: bytes) -> bytes | bytearray:
        """What may leave before the flight's end: full records up to the last step of its size."""
        ahead = sum(len(content) + RECORD_OVERHEAD_OCTETS for _, content in self._waiting)
        sent = self._padded + self._since + ahead
        content = len(self._held) + len(octets)
        size = sent + content + -(-content // limits.RECORD_SEND_OCTETS) * RECORD_OVERHEAD_OCTETS
        count = (passed_step(size) - sent) // _FULL_OCTETS
        if count <= 0:
            self._held += octets
            return b""
        held, self._held = self._held, bytearray()
        front = self._ahead() if ahead else b""
        sealed = self.records.seal_full(held, octets, count)
        if front:
            sealed[:0] = front
        self._since += ahead + count * _FULL_OCTETS
        rest = count * limits.RECORD_SEND_OCTETS - len(held)
        if rest < 0:
            self._held += memoryview(held)[rest:]
        self._held += memoryview(octets)[max(rest, 0) :]
        return sealed

    def _released(self) -> bytes:
        octets = bytes(self._held)
        self._held.clear()
        return octets

    def _ahead(self) -> bytes:
        waiting, self._waiting = self._waiting, []
        return b"".join([self.records.seal_padded(kind, content, 0) for kind, content in waiting])
