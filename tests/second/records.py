"""Frames, records, rekeying and padding (docs/protocol.md, 5.1 and 8)."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.second import chacha
from tests.second.messages import u16
from tests.second.noise import Refused, nonce

PAD, DATA, CLOSE, RESET, PARAMS, STATEMENT = range(6)
ANSWER, RECORD = 0x81, 0x82
FULL_RECORD = 16384
REKEY_AFTER = 16384
LARGE = 16384
FLOOR = 512
SILENCE = 0.005
GRID = 65536
OVERHEAD = 22
"""Octets that a record adds to its content: frame header, tag, inner header."""


@dataclass
class Key:
    """The key and the counter of one direction."""

    k: bytes
    rekey_after: int = REKEY_AFTER
    number: int = 0

    def _next(self) -> bytes:
        if self.number and self.number % self.rekey_after == 0:
            self.k = chacha.seal(self.k, nonce(2**64 - 1), b"", bytes(32))[:32]
        self.number += 1
        return nonce(self.number - 1)

    def skip_to(self, number: int) -> None:
        """As if so many records had been sealed or opened."""
        while self.number < number:
            self._next()

    def seal(self, type_: int, content: bytes, zeros: int) -> bytes:
        """A whole frame."""
        inner = bytes([type_]) + u16(len(content)) + content + bytes(zeros)
        header = bytes([RECORD]) + u16(len(inner) + chacha.TAG)
        number = self._next()
        return header + chacha.seal(self.k, number, header, inner)

    def open(self, body: bytes) -> tuple[int, bytes]:
        """(type, content) of a frame's body."""
        number = self._next()
        header = bytes([RECORD]) + u16(len(body))
        inner = chacha.unseal(self.k, number, header, body)
        if inner is None:
            raise Refused("tag of a record")
        type_, end = inner[0], 3 + int.from_bytes(inner[1:3], "big")
        if end > len(inner) or any(inner[end:]):
            raise Refused("inner plaintext")
        if STATEMENT < type_ < 0x40:
            raise Refused("type of a record")
        if type_ in (PAD, CLOSE, RESET) and end > 3:
            raise Refused("content where none is allowed")
        return type_, inner[3:end]


@dataclass
class Frames:
    """Cuts frames out of a stream. `expects` maps the types that may come now to their lengths."""

    expects: dict[int, range]
    _octets: bytearray = field(default_factory=bytearray)

    def feed(self, octets: bytes) -> None:
        self._octets += octets

    def pending(self) -> bytes:
        """What has not become a frame yet."""
        return bytes(self._octets)

    def next(self) -> tuple[int, bytes] | None:
        """The next whole frame's type and body. Wrong types and lengths are refused at the header."""
        if not self._octets:
            return None
        lengths = self.expects.get(self._octets[0])
        if lengths is None:
            raise Refused("clear octet" if self._octets[0] < 0x80 else "type of a frame")
        if len(self._octets) < 3:
            return None
        length = int.from_bytes(self._octets[1:3], "big")
        if length not in lengths:
            raise Refused("length of a frame")
        if len(self._octets) < 3 + length:
            return None
        type_, body = self._octets[0], bytes(self._octets[3 : 3 + length])
        del self._octets[: 3 + length]
        return type_, body


RECORDS_ONLY = {RECORD: range(19, 65536)}


def step(size: int) -> int:
    e = size.bit_length() - 1
    return 1 << max(0, e - e.bit_length())


def padme(size: int) -> int:
    return -(-size // step(size)) * step(size)


@dataclass
class Writer:
    """Seals what one side sends, and pads its flights (8.6)."""

    key: Key
    full_record: int = FULL_RECORD
    _padded: int = 0
    """n: the flight's size when it was padded last."""
    _since: int = 0
    """d, as far as frames have left since."""
    _waiting: tuple[tuple[int, bytes], ...] = ()
    """Records of other types, for the next write."""
    _held: bytes = b""
    _large: bool = False
    silent_at: float | None = None

    def data(self, octets: bytes, now: float, hold: bool = True) -> bytes:
        """The frames that leave now."""
        self._held += octets
        out = b""
        if self._padded + self._since + len(self._held) >= LARGE:
            self._large = True
        if self._large:
            self.silent_at = now + SILENCE
            seen = self._may_be_seen()
            if (
                seen
                >= sum(OVERHEAD + len(content) for _, content in self._waiting) + OVERHEAD + self.full_record
            ):
                out += b"".join(self._plain(*record) for record in self._waiting)
                self._waiting = ()
            while len(out) + OVERHEAD + self.full_record <= seen:
                out += self._plain(DATA, self._held[: self.full_record])
                self._held = self._held[self.full_record :]
        return out if self._large and hold else out + self._flush([])

    def _may_be_seen(self) -> int:
        """How many octets of frames may leave before the flight ends."""
        waiting = sum(OVERHEAD + len(content) for _, content in self._waiting)
        sent = self._padded + self._since
        frames = -(-len(self._held) // self.full_record)
        size = sent + waiting + len(self._held) + frames * OVERHEAD
        grid = min(step(size - 1), GRID)
        return (size - 1) // grid * grid - sent

    def wait(self, *records: tuple[int, bytes]) -> None:
        """Records that leave with what is written next, in front of it."""
        self._waiting += records

    def small(self, *records: tuple[int, bytes]) -> bytes:
        """Records that are not DATA; CLOSE or RESET can only be the last."""
        return self._flush(list(records))

    def silent(self) -> bytes:
        """5 ms have passed."""
        out = self._flush([])
        self._end_flight()
        return out

    def turn(self) -> bytes:
        """The other side has spoken."""
        out = self._flush([])
        self._end_flight()
        return out

    def _end_flight(self) -> None:
        self._padded, self._since, self._large, self.silent_at = 0, 0, False, None

    def _plain(self, type_: int, content: bytes, zeros: int = 0) -> bytes:
        self._since += OVERHEAD + len(content) + zeros
        return self.key.seal(type_, content, zeros)

    def _flush(self, records: list[tuple[int, bytes]]) -> bytes:
        held = [self._held[at : at + self.full_record] for at in range(0, len(self._held), self.full_record)]
        records = [*self._waiting, *((DATA, content) for content in held), *records]
        self._held, self._waiting, self.silent_at = b"", (), None
        if not records:
            return b""
        since = self._since + sum(OVERHEAD + len(content) for _, content in records)
        padding = padme(self._padded + max(since, FLOOR)) - self._padded - since
        last = [records.pop()] if records[-1][0] in (CLOSE, RESET) and len(records) > 1 else []
        zeros = [0] * (len(records) - 1) + [min(padding, max(0, FULL_RECORD - len(records[-1][1])))]
        padding -= zeros[-1]
        while padding >= OVERHEAD:
            records.append((PAD, b""))
            zeros.append(min(padding - OVERHEAD, FULL_RECORD))
            padding -= zeros[-1] + OVERHEAD
        zeros[-1] += padding
        out = b"".join(self._plain(*record, more) for record, more in zip(records, zeros, strict=True))
        out += b"".join(self._plain(*record) for record in last)
        self._padded, self._since = self._padded + self._since, 0
        return out
