"""Frames: type u8, length u16, body. Cuts what comes in, in any chunking; opens nothing.

A frame's first octet has its high bit set, so no SMTP reply or command can be taken for one: a clear octet
is an error at once. Lengths that no message can have are refused at the header, before their body is
waited for. Counterparts: `handshake` (0x81), `records` (0x82).
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Container, Mapping
from typing import Final

from gateway.crypto.messages import RESUMED_ANSWER_OCTETS, OfferForm
from gateway.crypto.primitives import AEAD_TAG_OCTETS
from gateway.errors import LocalMisuseError, PeerProtocolError, Reason
from gateway.immutable import immutable
from gateway.policy.limits import FRAME_BODY_OCTETS

_HEADER: Final = struct.Struct(">BH")
FRAME_HEADER_OCTETS: Final = _HEADER.size
_LOWEST_TYPE: Final = 0x80
_RECORD_INNER_HEADER_OCTETS: Final = 3
_SHORTEST_RECORD: Final = _RECORD_INNER_HEADER_OCTETS + AEAD_TAG_OCTETS


class FrameKind(enum.IntEnum):
    """The first octet of a frame."""

    ANSWER = 0x81
    RECORD = 0x82


_KINDS: Final[Mapping[int, FrameKind]] = {int(kind): kind for kind in FrameKind}
_LENGTHS: Final[Mapping[FrameKind, Container[int]]] = {
    FrameKind.ANSWER: frozenset((*(form.answer_octets for form in OfferForm), RESUMED_ANSWER_OCTETS)),
    FrameKind.RECORD: range(_SHORTEST_RECORD, FRAME_BODY_OCTETS + 1),
}
"""Those that a body of each kind can have."""


frame_header: Final[Callable[[FrameKind, int], bytes]] = _HEADER.pack
"""Of a kind, for a body of so many octets."""


@immutable
class Frame:
    """One whole frame without its header."""

    kind: FrameKind
    body: bytes


def frame(kind: FrameKind, body: bytes) -> bytes:
    """A frame as it goes on the wire."""
    if len(body) > FRAME_BODY_OCTETS:
        raise LocalMisuseError(f"frame body of {len(body)} octets")
    return frame_header(kind, len(body)) + body


class FrameReader:
    """Octets in, whole frames out. Holds one unfinished frame at most."""

    __slots__ = ("_dead", "_held", "_wanted")

    def __init__(self) -> None:
        self._held = bytearray()
        self._wanted = FRAME_HEADER_OCTETS
        self._dead = False

    @property
    def held_octets(self) -> int:
        """What is held of an unfinished frame: not 0 at a FIN means that it was cut off."""
        return len(self._held)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames completed by `data`; [] if none is. Raises PeerProtocolError, then is dead; frames
        completed by the same call are lost with it, as the channel is."""
        if self._dead:
            raise LocalMisuseError("this frame reader has failed before")
        self._dead = True
        frames, at = self._begun(data) if self._held else ([], 0)
        if not self._held:
            more, at, self._wanted = _cut(data, at)
            frames += more
            self._held += memoryview(data)[at:]
        self._dead = False
        return frames

    def _begun(self, data: bytes) -> tuple[list[Frame], int]:
        """The frame that was begun before, if `data` completes it, and how much of `data` belongs to it.

        Only this frame is put together; those behind it are cut where they are.
        """
        held, at = self._held, 0
        while held:
            more = memoryview(data)[at : at + self._wanted - len(held)]
            held += more
            at += len(more)
            if len(held) < self._wanted:
                break
            frames, taken, self._wanted = _cut(bytes(held), 0)
            if taken:
                held.clear()
                return frames, at
        return [], at


def _cut(octets: bytes, at: int) -> tuple[list[Frame], int, int]:
    """Whole frames from `at` on, where the unfinished one begins, and how long it is at least."""
    frames: list[Frame] = []
    while True:
        left = len(octets) - at
        if left and octets[at] < _LOWEST_TYPE:
            raise PeerProtocolError(Reason.CLEAR_OCTETS_IN_CHANNEL, f"octet 0x{octets[at]:02x} for a frame")
        if left < FRAME_HEADER_OCTETS:
            return frames, at, FRAME_HEADER_OCTETS
        first, length = _HEADER.unpack_from(octets, at)
        kind = _KINDS.get(first)
        if kind is None or length not in _LENGTHS[kind]:
            raise PeerProtocolError(Reason.BAD_FRAME, f"frame 0x{first:02x} of {length} octets")
        whole = FRAME_HEADER_OCTETS + length
        if left < whole:
            return frames, at, whole
        frames.append(Frame(kind, octets[at + FRAME_HEADER_OCTETS : at + whole]))
        at += whole
