"""The record layer: what travels between two gateways after their handshake, sealed and in order.

Made of a `HandshakeResult` and of nothing else. Gives out no octet whose tag has not verified; after a
record that fails it is dead. Reads no content: an SMTP octet is an octet. Counterparts: `frames` cuts what
`open` takes, `session.channel` says what a record means for a mail server.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import InitVar, dataclass
from typing import Final

from gateway.crypto.frames import FRAME_HEADER_OCTETS, FrameKind, frame_header
from gateway.crypto.handshake import HandshakeResult
from gateway.crypto.keys import IdentityPublic
from gateway.crypto.messages import OfferForm
from gateway.crypto.primitives import AEAD_TAG_OCTETS, Octets
from gateway.errors import LocalMisuseError, PeerProtocolError, Reason
from gateway.immutable import immutable
from gateway.policy.limits import (
    RECORD_CONTENT_OCTETS,
    RECORD_SEND_OCTETS,
    REKEY_AFTER_RECORDS,
)

_INNER_HEADER: Final = struct.Struct(">BH")
INNER_HEADER_OCTETS: Final = _INNER_HEADER.size
RECORD_OVERHEAD_OCTETS: Final = FRAME_HEADER_OCTETS + INNER_HEADER_OCTETS + AEAD_TAG_OCTETS
"""What a record adds to its content on the wire: 22."""

_PROOF: Final = object()
_REKEY_MASK: Final = REKEY_AFTER_RECORDS - 1
_FULL_HEADER: Final = frame_header(
    FrameKind.RECORD, INNER_HEADER_OCTETS + RECORD_SEND_OCTETS + AEAD_TAG_OCTETS
)

_FULL_OCTETS: Final = RECORD_SEND_OCTETS + RECORD_OVERHEAD_OCTETS


class RecordType(enum.IntEnum):
    """First octet of the inner plaintext."""

    PAD = 0
    DATA = 1
    CLOSE = 2
    RESET = 3
    PARAMS = 4
    STATEMENT = 5
    OPEN = 6
    END = 7
    IGNORABLE = 0x40
    """Stands for every type from here on: unknown ones are ignored."""


class Direction(enum.Enum):
    """One direction of a channel."""

    RUNNING = "running"
    CLOSED = "closed"
    """CLOSE or RESET was its last record."""
    DEAD = "dead"
    """A record failed."""


_FULL_INNER_HEADER: Final = _INNER_HEADER.pack(RecordType.DATA, RECORD_SEND_OCTETS)
_LAST: Final = frozenset((RecordType.CLOSE, RecordType.RESET))
_RESERVED: Final = frozenset((RecordType.OPEN, RecordType.END))
_WITHOUT_CONTENT: Final = frozenset((RecordType.PAD, RecordType.CLOSE, RecordType.RESET))
_KINDS: Final = {int(kind): kind for kind in RecordType if kind not in _RESERVED} | dict.fromkeys(
    range(RecordType.IGNORABLE, 0x100), RecordType.IGNORABLE
)
"""Every type that may come in now; what is missing is an error."""


@immutable
class Record:
    """One verified record; the content of an ignorable one is dropped."""

    kind: RecordType
    content: bytes


@dataclass(frozen=True, slots=True)
class VerifiedPeer:
    """A peer that has proven itself by a record: the only thing that may be remembered."""

    identity: IdentityPublic
    epoch: int
    form: OfferForm
    flags: int
    proof: InitVar[object]
    resumed: bool = False
    """By a ticket; then `form` is that of the handshake which the ticket goes back to."""

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise LocalMisuseError("a VerifiedPeer is made by a RecordLayer")


class RecordLayer:
    """Seals our direction, opens the peer's. One per handshake."""

    __slots__ = ("_peer", "_receiving", "_result", "_sending", "receives", "sends")

    def __init__(self, result: HandshakeResult) -> None:
        self._sending, self._receiving = result.ciphers.take()
        self._result = result
        self._peer: VerifiedPeer | None = None
        self.sends = Direction.RUNNING
        self.receives = Direction.RUNNING

    def peer(self) -> VerifiedPeer:
        """Who is there. Only after the first record from there has verified."""
        if self._peer is None:
            raise LocalMisuseError("the peer has not proven itself yet")
        return self._peer

    # --- Ours ----------------------------------------------------------------------------------------

    def seal(self, kind: RecordType, content: bytes = b"", inner_pad: int = 0) -> bytes:
        """One whole frame, `inner_pad` zeros behind the content."""
        if kind in _RESERVED or (content and kind in _WITHOUT_CONTENT):
            raise LocalMisuseError(f"{kind.name} with {len(content)} octets")
        sealed = self._seal(int(kind), content, inner_pad)
        if kind in _LAST:
            self.sends = Direction.CLOSED
        return sealed

    def seal_data(self, data: bytes, pad: int = 0) -> bytes:
        """All of `data` in as many DATA records as it needs, then `pad` octets on the wire of padding, as
        in `seal_padded`; b"" for nothing and no padding."""
        whole, rest = divmod(len(data), RECORD_SEND_OCTETS)
        if not whole and not pad:
            return self._seal(RecordType.DATA, data, 0) if rest else b""
        if whole and pad and not rest:
            whole, rest = whole - 1, RECORD_SEND_OCTETS
        parts: list[Octets] = [self.seal_full(b"", data, whole)] if whole else []
        if rest:
            parts.append(self.seal_padded(RecordType.DATA, data[-rest:], pad))
        elif pad:
            parts.append(self.seal_pad(pad))
        return b"".join(parts)

    def seal_padded(self, kind: int, content: bytes, pad: int) -> bytes:
        """One record that is not CLOSE or RESET, and `pad` octets on the wire behind its content: zeros up
        to a full record, then PAD records, full ones as long as they can be.

        A frame's length can be read by everybody: so it depends on the padded size alone, never on where the
        content ends.
        """
        parts = []
        while True:
            room = max(RECORD_SEND_OCTETS - len(content), 0)
            if pad - room < RECORD_OVERHEAD_OCTETS:
                parts.append(self._seal(kind, content, pad))
                return parts[0] if len(parts) == 1 else b"".join(parts)
            parts.append(self._seal(kind, content, room))
            pad -= room + RECORD_OVERHEAD_OCTETS
            kind, content = RecordType.PAD, b""

    def seal_pad(self, octets: int) -> bytes:
        """PAD records of `octets` on the wire in all, but of one record's 22 at least."""
        return self.seal_padded(RecordType.PAD, b"", max(octets - RECORD_OVERHEAD_OCTETS, 0))

    def _seal(self, kind: int, content: bytes, inner_pad: int) -> bytes:
        if self.sends is not Direction.RUNNING:
            raise LocalMisuseError(f"a record in a direction that is {self.sends.value}")
        length = len(content)
        if inner_pad < 0 or length + inner_pad > RECORD_CONTENT_OCTETS:
            raise LocalMisuseError(f"record of {length} octets and {inner_pad} of padding")
        cipher = self._sending
        inner = _INNER_HEADER.pack(kind, length) + content
        if inner_pad:
            inner += bytes(inner_pad)
        header = frame_header(FrameKind.RECORD, len(inner) + AEAD_TAG_OCTETS)
        sealed = header + cipher.encrypt_with_ad(header, inner)
        if not cipher.n & _REKEY_MASK:
            cipher.rekey()
        return sealed

    def seal_full(self, head: bytes | bytearray, data: bytes, count: int) -> bytearray:
        """`count` full DATA records, at least one, from the octets of `head` and then of `data`.

        One inner plaintext serves them all, and they are made where they leave from: the copy into the inner
        plaintext is all that a record costs beyond the AEAD's own work.
        """
        if self.sends is not Direction.RUNNING:
            raise LocalMisuseError(f"a record in a direction that is {self.sends.value}")
        cipher = self._sending
        inner = bytearray(_FULL_INNER_HEADER + bytes(RECORD_SEND_OCTETS))
        content = memoryview(inner)[INNER_HEADER_OCTETS:]
        front, source = memoryview(head), memoryview(data)
        sealed = bytearray(count * _FULL_OCTETS)
        target = memoryview(sealed)
        for number in range(count):
            begins, ends = number * RECORD_SEND_OCTETS, (number + 1) * RECORD_SEND_OCTETS
            of_head = front[begins:ends]
            content[: len(of_head)] = of_head
            if len(of_head) < RECORD_SEND_OCTETS:
                content[len(of_head) :] = source[max(begins - len(head), 0) : ends - len(head)]
            record = target[number * _FULL_OCTETS : (number + 1) * _FULL_OCTETS]
            record[:FRAME_HEADER_OCTETS] = _FULL_HEADER
            cipher.encrypt_into(_FULL_HEADER, inner, record[FRAME_HEADER_OCTETS:])
            if not cipher.n & _REKEY_MASK:
                cipher.rekey()
        return sealed

    # --- The peer's ----------------------------------------------------------------------------------

    def open(self, body: bytes) -> Record:
        """The record in one frame body. Raises OCTETS_AFTER_CLOSE, BAD_TAG or BAD_RECORD and is then dead."""
        if self.receives is not Direction.RUNNING:
            self._refuse_late()
        self.receives = Direction.DEAD
        cipher = self._receiving
        inner = bytearray(max(len(body) - AEAD_TAG_OCTETS, 0))
        if len(inner) < INNER_HEADER_OCTETS:
            raise PeerProtocolError(Reason.BAD_RECORD, f"record of {len(body)} octets")
        cipher.decrypt_into(frame_header(FrameKind.RECORD, len(body)), body, inner)
        if not cipher.n & _REKEY_MASK:
            cipher.rekey()
        try:
            record = _decoded(inner)
        except PeerProtocolError:
            inner[:] = bytes(len(inner))
            raise
        self.receives = Direction.CLOSED if record.kind in _LAST else Direction.RUNNING
        if self._peer is None:
            self._peer = self._verified()
        return record

    def _refuse_late(self) -> None:
        if self.receives is Direction.CLOSED:
            self.receives = Direction.DEAD
            raise PeerProtocolError(Reason.OCTETS_AFTER_CLOSE)
        raise LocalMisuseError("this record layer has failed before")

    def _verified(self) -> VerifiedPeer:
        result = self._result
        return VerifiedPeer(result.identity, result.epoch, result.form, result.flags, _PROOF, result.resumed)

    def __repr__(self) -> str:
        return f"<RecordLayer sends={self.sends.value} receives={self.receives.value}: redacted>"


def _decoded(inner: bytearray) -> Record:
    """Verified plaintext -> record. A peer that seals nonsense is broken or malicious: BAD_RECORD."""
    kind = _KINDS.get(inner[0])
    if kind is None:
        raise PeerProtocolError(Reason.BAD_RECORD, f"record type {inner[0]}")
    end = INNER_HEADER_OCTETS + ((inner[1] << 8) | inner[2])
    if end > len(inner):
        raise PeerProtocolError(Reason.BAD_RECORD, "content longer than its record")
    if end < len(inner) and inner.count(0, end) != len(inner) - end:
        raise PeerProtocolError(Reason.BAD_RECORD, "padding is not zero")
    if kind is RecordType.IGNORABLE:
        return Record(kind, b"")
    if kind in _WITHOUT_CONTENT and end != INNER_HEADER_OCTETS:
        raise PeerProtocolError(Reason.BAD_RECORD, f"{kind.name} with content")
    return Record(kind, bytes(memoryview(inner)[INNER_HEADER_OCTETS:end]))
