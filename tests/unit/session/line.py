"""Flights of one side on a line with a clock of its own, and what docs/protocol.md says of their sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from gateway.crypto.frames import FrameReader
from gateway.crypto.handshake import OfferForm
from gateway.crypto.records import RecordType
from gateway.session.flights import Flights
from tests.unit.crypto.pairs import layers

FULL = 16_384 + 22
SILENCE = 0.005
START = 1000.0
ALMOST = 1e-6


def padme(size: int) -> int:
    """docs/protocol.md 8.6, as it is written there."""
    e = math.floor(math.log2(size))
    s = math.floor(math.log2(e)) + 1
    step: int = 2 ** max(0, e - s)
    return -(-size // step) * step


def frames_of(size: int) -> list[int]:
    """The frames that a padded part of a flight must have, whatever is in it: their headers are readable."""
    frames = []
    while size > FULL + 21:
        frames.append(FULL)
        size -= FULL
    return [*frames, size]


@dataclass
class Line:
    """Flights of S, and R at the other end; time passes only here, and the loop may be late."""

    late: float = 0.0
    now: float = START
    writes: list[bytes] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    heard: bytes = b""
    kinds: list[RecordType] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._far, near = layers(OfferForm.SHORT)
        self.flights = Flights(near)
        self._frames = FrameReader()

    def says(self, data: bytes) -> None:
        self._write(self.flights.octets(data, self.now))

    def hears(self) -> None:
        self._write(self.flights.turn())

    def ends(self, kind: RecordType = RecordType.CLOSE) -> None:
        self._write(self.flights.last(kind))

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while self.flights.deadline is not None and self.flights.deadline + self.late <= until:
            assert self.flights.deadline >= self.now - self.late
            self.now = self.flights.deadline + self.late
            self._write(self.flights.silence(self.now))
        self.now = until

    def _write(self, wire: bytes | bytearray) -> None:
        if not wire:
            return
        self.writes.append(bytes(wire))
        self.at.append(self.now)
        for frame in self._frames.feed(bytes(wire)):
            record = self._far.open(frame.body)
            self.kinds.append(record.kind)
            if record.kind is RecordType.DATA:
                self.heard += record.content
        assert not self._frames.held_octets, "a write that ends within a frame"

    @property
    def sizes(self) -> list[int]:
        return [len(write) for write in self.writes]

    def frames(self, begin: int = 0) -> list[int]:
        """Of all writes from one on; none is cut, so each can be read by itself."""
        return [len(frame.body) + 3 for frame in FrameReader().feed(b"".join(self.writes[begin:]))]
