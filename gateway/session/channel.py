"""The two directions of a session after its handshake: near octets <-> records on the far side.

Never lets an octet through whose record has not verified, and never turns a broken connection into an
orderly end: a far FIN without a CLOSE record resets the near side (docs/protocol.md, "Closing").
Counterpart: `crypto.records`, which seals and opens.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway.crypto.frames import Frame, FrameKind, FrameReader
from gateway.crypto.messages import STATEMENT
from gateway.crypto.params import Params
from gateway.crypto.records import Record, RecordType
from gateway.errors import PeerProtocolError, Reason
from gateway.policy import limits
from gateway.session.commands import (
    CloseBoth,
    Command,
    NoteFact,
    SendEnd,
    SendOctets,
    SendReset,
)
from gateway.session.events import Side
from gateway.session.flights import Flights


class Channel:
    """One established channel. `finished` is True once both directions are over, however they ended."""

    def __init__(self, flights: Flights, frames: FrameReader) -> None:
        self.flights = flights
        """Ours; its `deadline` counts until the channel is finished."""
        self._records = flights.records
        self._frames = frames
        self._near_ended = False
        self.far_closed = False
        """Whether the peer has ended its direction in a record, CLOSE or RESET."""
        self.finished = False
        self.broke: bool | None = None
        """Once it is finished: whether something between the gateways has ended it. None where that cannot be
        told, because the near side was the first to go."""
        self.statements: list[bytes] = []
        """Contents of the first STATEMENT records, empty where they cannot be one; only the sending gateway
        reads them, and they stay where nobody does."""

    def near_octets(self, octets: bytes, now: float) -> list[Command]:
        sealed = self.flights.octets(octets, now)
        return [SendOctets(Side.FAR, sealed)] if sealed else []

    def silence(self, now: float) -> list[Command]:
        """The flights' deadline has come: the near side has been silent since its last octets."""
        sealed = self.flights.silence(now)
        return [SendOctets(Side.FAR, sealed)] if sealed else []

    def near_end(self) -> list[Command]:
        """The near FIN travels as an authenticated CLOSE, then as a FIN."""
        self._near_ended = True
        close = self.flights.last(RecordType.CLOSE)
        return [SendOctets(Side.FAR, close, last=True), SendEnd(Side.FAR), *self._finish_if_over()]

    def near_reset(self) -> list[Command]:
        self.finished = True
        if self._near_ended:
            # CLOSE was our last record: a sender that closed and then met the receiver's last words.
            return [SendReset(Side.FAR)]
        return [SendOctets(Side.FAR, self.flights.last(RecordType.RESET), last=True), CloseBoth()]

    def far_octets(self, octets: bytes) -> list[Command]:
        """Open what is complete. Octets behind the last record of the peer, or a bad record, are fatal."""
        try:
            frames = self._frames.feed(octets)
        except PeerProtocolError as error:
            return self.fail(error.reason, error.detail)
        return self.far_frames(frames)

    def far_frames(self, frames: Iterable[Frame]) -> list[Command]:
        commands: list[Command] = []
        spoken: list[bytes] = []
        try:
            for frame in frames:
                if self.finished:
                    break  # RESET was the last record; what is behind it does not matter any more
                if frame.kind is not FrameKind.RECORD:
                    raise PeerProtocolError(Reason.BAD_FRAME, f"frame {frame.kind.name} in a channel")
                record = self._records.open(frame.body)
                if record.kind is RecordType.DATA:
                    spoken.append(record.content)
                    continue
                if spoken:
                    commands += self._spoken(spoken)
                    spoken = []
                commands += self._opened(record)
            if self.far_closed and self._frames.held_octets and not self.finished:
                raise PeerProtocolError(Reason.OCTETS_AFTER_CLOSE, "a frame is begun")
            if spoken:
                commands += self._spoken(spoken)
        except PeerProtocolError as error:
            commands += self._spoken(spoken)
            commands += self.fail(error.reason, error.detail)
        return commands

    def far_end(self) -> list[Command]:
        if self.far_closed:
            return []
        return self.fail(Reason.END_WITHOUT_CLOSE)

    def far_reset(self) -> list[Command]:
        self.finished = True
        self.broke = None if self.far_closed else True
        return [SendReset(Side.NEAR), SendReset(Side.FAR)]

    def fail(self, reason: Reason, detail: str = "") -> list[Command]:
        """Something that is not the peer's stands on the wire: the mail servers see a reset and retry."""
        self.finished = True
        self.broke = True
        return [
            NoteFact("channel-failed", reason, detail),
            SendReset(Side.NEAR),
            SendReset(Side.FAR),
        ]

    def first_record(self, record: Record) -> list[Command]:
        """The record that proved the peer, opened before there was a channel."""
        try:
            return self._opened(record)
        except PeerProtocolError as error:
            return self.fail(error.reason, error.detail)

    def _opened(self, record: Record) -> list[Command]:
        """What one verified record means for the near side. Raises PeerProtocolError for bad PARAMS."""
        if record.kind is RecordType.DATA:
            return self._spoken([record.content])
        if record.kind is RecordType.CLOSE:
            self.far_closed = True
            return [SendEnd(Side.NEAR), *self._finish_if_over()]
        if record.kind is RecordType.RESET:
            self.far_closed = self.finished = True
            self.broke = False
            return [SendReset(Side.NEAR), CloseBoth()]
        if record.kind is RecordType.PARAMS:
            Params.decode(record.content)
        elif record.kind is RecordType.STATEMENT and len(self.statements) < limits.STATEMENTS_SHOWN:
            self.statements.append(record.content if len(record.content) == STATEMENT.octets else b"")
        return []  # PAD, PARAMS and ignorable types carry nothing for the mail servers

    def _spoken(self, contents: list[bytes]) -> list[Command]:
        """The far side's mail server has spoken: a turn of the dialogue, for our own flights too.

        What came in one piece leaves in one: each write is carried through the kernel by itself.
        """
        octets = contents[0] if len(contents) == 1 else b"".join(contents)
        if not octets:
            return []
        commands: list[Command] = [SendOctets(Side.NEAR, octets)]
        sealed = self.flights.turn()
        if sealed:
            commands.append(SendOctets(Side.FAR, sealed))
        return commands

    def _finish_if_over(self) -> list[Command]:
        if not (self._near_ended and self.far_closed):
            return []
        self.finished = True
        self.broke = False
        return [CloseBoth()]
