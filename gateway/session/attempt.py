"""One dial's attempt at a channel, at the sending gateway: its offer, the verb, what proves the peer.

An attempt that fails is thrown away as a whole; the next dial's begins with a fresh offer. Nothing that the
far side says is believed before its first record has verified, and a stranger that promises a statement is
shown nothing before that statement. Counterparts: `session.sending`, `crypto.handshake`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from gateway.crypto.frames import Frame, FrameKind, FrameReader, frame
from gateway.crypto.handshake import OfferForm, SendingHandshake, prologue
from gateway.crypto.messages import AnswerFlags, OfferFlags
from gateway.crypto.params import Params
from gateway.crypto.records import Record, RecordLayer, RecordType, VerifiedPeer
from gateway.crypto.resumption import SendingResumption, ticket_name
from gateway.crypto.tickets import Ticket
from gateway.errors import PeerProtocolError, Reason
from gateway.peers.comparison import Observed, compare
from gateway.peers.pins import MetStatement
from gateway.policy.decision import Decision, decide, waits_for_statement
from gateway.session.channel import Channel
from gateway.session.context import SendingContext
from gateway.session.flights import Flights, now_and_then
from gateway.session.rollover import ENDS_WAIT, verified
from gateway.session.second_look import FirstLook
from gateway.smtp.capability import VERB_LINE, OfferSize, offer_fits

_PLAIN: Final = frozenset({Reason.UPGRADED, Reason.UPGRADED_NEW_PEER})
"""What may be upgraded with a ticket: a peer that is as it was."""
_PARAMS: Final = Params().encode()
"""S has nothing to tell."""
_NEVER_OLD: Final = 0xFFFF_FFFF
"""An epoch that no memory is ahead of."""


@dataclass(frozen=True, slots=True)
class Proven:
    """The peer's first record has verified, or its statement has come: there is a channel."""

    peer: VerifiedPeer
    decision: Decision
    statement: MetStatement | None
    channel: Channel
    first: Record | None
    """The record that proved it, where it still has to be told to the channel; and the frames behind it."""
    rest: Sequence[Frame]
    ticket: Ticket | None
    """To be kept, now that the peer is proven."""


class Attempt:
    """Verifies `offer`, which stood behind `greeting`, and judges its identity. Raises PeerProtocolError."""

    def __init__(
        self, context: SendingContext, seen: FirstLook, greeting: bytes, offer: bytes, now: float
    ) -> None:
        self._context = context
        self._handshake = _handshake(context, prologue(greeting + seen.reply, seen.ehlo), offer, now)
        offered = self._handshake.read_offer(offer)
        full_fits = offer_fits(seen.reply) is OfferSize.FULL
        # A ticket's epoch was judged when it was made; the day may have changed since.
        epoch = _NEVER_OLD if isinstance(self._handshake, SendingResumption) else offered.epoch
        self._observed = Observed.offered(
            offered.identity.octets, epoch, full=offered.form is OfferForm.FULL, full_fits=full_fits
        )
        self.decision = decide(compare(context.pin, self._observed))
        follows = bool(offered.flags & OfferFlags.STATEMENT_FOLLOWS)
        self.waits_for_statement = waits_for_statement(context.pin, self._observed.identity, follows=follows)
        self._is_plain = self.decision.reason in _PLAIN and not self.waits_for_statement
        if isinstance(self._handshake, SendingResumption) and not self._is_plain:
            raise PeerProtocolError(Reason.TICKET_UNKNOWN, "the memory of this peer has changed")
        self._frames = FrameReader()
        self._ticket: Ticket | None = None

    def verb(self, may_send: bytes) -> bytes:
        """Verb, message 2 and the flight's records, for one write, so in as few segments as they fit."""
        odd = now_and_then(self._context.entropy)
        flags: int = AnswerFlags.UNUSED if odd else AnswerFlags.NONE
        tickets = self._context.tickets
        if tickets is not None and tickets.has_room and self._is_plain:
            flags |= AnswerFlags.KEEPS_TICKET
        answer, result = self._handshake.write_answer(self._context.dialled, flags)
        self._ticket = result.ticket
        self._records = RecordLayer(result)
        self._flights = Flights(self._records)
        self._flights.add(RecordType.PARAMS, _PARAMS)
        if odd:
            self._flights.add(RecordType.IGNORABLE)
        return VERB_LINE + frame(FrameKind.ANSWER, answer) + self._flights.at_once(may_send)

    def more(self, may_send: bytes) -> bytes:
        """More of the first flight, behind the verb."""
        return self._flights.at_once(may_send)

    def confirmed_by(self, octets: bytes) -> Proven | None:
        """What the far side says behind the verb; None while no record is complete.

        Raises PeerProtocolError, and nothing of it counts.
        """
        frames = self._frames.feed(octets)
        if not frames:
            return None
        if frames[0].kind is not FrameKind.RECORD:
            raise PeerProtocolError(Reason.BAD_FRAME, "first frame is no record")
        return self._proven(self.decision, self._records.open(frames[0].body), frames[1:])

    def statement_in(self, octets: bytes) -> Proven | None:
        """The same, but records are believed, and what they say waits for the statement: None until then.

        With the statement, or where there will be none, the peer is judged again.
        """
        frames = self._frames.feed(octets)
        for index, one in enumerate(frames):
            if one.kind is not FrameKind.RECORD:
                raise PeerProtocolError(Reason.BAD_FRAME, "a frame that is no record")
            record = self._records.open(one.body)
            if record.kind is RecordType.PARAMS:
                Params.decode(record.content)
            if record.kind in ENDS_WAIT:
                statement = verified(record.kind, record.content)
                decision = decide(compare(self._context.pin, self._observed, statement))
                first = record if record.kind is not RecordType.STATEMENT else None
                return self._proven(decision, first, frames[index + 1 :], statement)
        return None

    def _proven(
        self,
        decision: Decision,
        first: Record | None,
        rest: Sequence[Frame],
        statement: MetStatement | None = None,
    ) -> Proven:
        channel = Channel(self._flights, self._frames)
        return Proven(self._records.peer(), decision, statement, channel, first, rest, self._ticket)


def _handshake(
    context: SendingContext, prologue: bytes, offer: bytes, now: float
) -> SendingHandshake | SendingResumption:
    """With the ticket that the offer names, where it names one. Raises TICKET_UNKNOWN."""
    name = ticket_name(offer)
    if name is None:
        keys = context.keys
        return SendingHandshake(keys.identity, keys.endorsed, context.draw_ephemerals(), prologue)
    ticket = context.tickets.take(name, now) if context.tickets is not None else None
    if ticket is None:
        raise PeerProtocolError(Reason.TICKET_UNKNOWN)
    return SendingResumption(ticket, context.draw_ephemerals(), prologue)
