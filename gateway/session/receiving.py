"""The receiving gateway's session: offers, waits for the verb, answers with a channel.

Near is the receiver (our mail server), far the client as it came from the wire. Before the decision every
octet passes as it came; the EHLO reply alone is held until it is complete and its offer is signed, so that
the offer can stand in its last lines. Gives the receiver nothing of a channel before message 2 has verified.
Counterpart: `session.sending`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from gateway.crypto.frames import Frame, FrameKind, FrameReader
from gateway.crypto.handshake import HandshakeResult, OfferForm, ReceivingHandshake, prologue
from gateway.crypto.messages import OfferFlags
from gateway.crypto.params import Params
from gateway.crypto.records import RecordLayer, RecordType
from gateway.crypto.resumption import ReceivingResumption
from gateway.crypto.tickets import Ticket
from gateway.errors import IdentityHashed, PeerProtocolError, Reason
from gateway.peers.sources import (
    CAME_IN_CLEAR,
    SourceSeen,
    after_endorsement,
    after_upgrade,
    greeting_name,
    is_another,
)
from gateway.policy import limits
from gateway.policy.cause import Sighting, likely_of_source
from gateway.session.channel import Channel
from gateway.session.commands import (
    CloseBoth,
    Command,
    NoteDecision,
    NoteFact,
    NoteSource,
    SendEnd,
    SendOctets,
    SignOffer,
)
from gateway.session.context import ReceivingContext
from gateway.session.events import (
    DeadlineReached,
    EndReceived,
    OctetsReceived,
    OfferSigned,
    ResetReceived,
    Side,
)
from gateway.session.flights import Flights, now_and_then
from gateway.session.machine import Handler, Machine, in_channel
from gateway.smtp.capability import (
    VERB_LINE,
    OfferSize,
    append_offer,
    carries_keyword,
    match_verb,
    offer_fits,
)
from gateway.smtp.events import Role, Unparsed
from gateway.smtp.observer import Observer

_PARAMS: Final = {sure: Params(dialled_address_confirmed=sure).encode() for sure in (True, False)}
CANNOT_GO_ON = b"454 4.7.0 Encrypted channel could not be set up, please try again\r\n"


class State(IdentityHashed):
    OBSERVING = "observing"
    SIGNING = "signing"
    OFFERED = "offered"
    OFFER_VOID = "offer-void"
    """The receiver spoke unasked behind the reply that carried the offer, so the transcript is gone; or it
    ended there, so nobody is there to hear."""
    ANSWERING = "answering"
    CHANNEL = "channel"
    RELAYED = "relayed"
    OVER = "over"


class ReceivingSession(Machine):
    """From the accepted connection and the dialled one to the end of both."""

    _RECEIVER = Side.NEAR
    _CHANNEL = State.CHANNEL
    _RELAYED = State.RELAYED
    _OVER = State.OVER

    def __init__(self, context: ReceivingContext) -> None:
        super().__init__(Observer(Role.RECEIVING))
        self._context = context
        self._handshake: ReceivingHandshake | ReceivingResumption | None = None
        self._frames = FrameReader()
        self._reply = b""
        self._ticket: Ticket | None = None
        self._answered_at = 0.0
        self._pending = b""
        self._receiver_is_silent = False
        """Its end has passed: nothing more can go to the client."""
        self.state = State.OBSERVING

    # --- Before the decision -------------------------------------------------------------------------

    def _observe_client(self, event: OctetsReceived, now: float) -> list[Command]:
        return self._observed(self._observer.sender_octets(event.octets), now)

    def _observe_receiver(self, event: OctetsReceived, now: float) -> list[Command]:
        return self._observed(self._observer.receiver_octets(event.octets), now)

    def _no_reply(self, unparsed: Unparsed, passed: list[Command]) -> list[Command]:
        return [*passed, *self._relay(unparsed.reason)]

    def _reply_complete(self, reply: bytes, now: float) -> list[Command]:
        size = offer_fits(reply)
        refusal = self._why_no_offer(reply, size)
        if size is None or refusal is not None:
            return [SendOctets(Side.FAR, reply), *self._relay(refusal or Reason.NO_ROOM_FOR_OFFER)]
        context = self._context
        transcript = prologue(self._observer.greeting + reply, self._observer.seen_from_sender)
        flags: int = OfferFlags.UNUSED if now_and_then(context.entropy) else OfferFlags.NONE
        if context.tickets is not None and size is OfferSize.FULL:
            flags |= OfferFlags.KEEPS_TICKET
            ticket = context.tickets.take(now)
            if ticket is not None:
                return self._offer_with(ticket, flags, reply, transcript)
        self._handshake = ReceivingHandshake(
            context.keys.identity,
            context.keys.endorsed.static,
            context.draw_ephemerals(),
            transcript,
            context.endorsements,
        )
        form = OfferForm.FULL if size is OfferSize.FULL else OfferForm.SHORT
        if context.statements:
            flags |= OfferFlags.STATEMENT_FOLLOWS
        self._reply = reply
        self.state = State.SIGNING
        self.deadline = now + limits.SIGN_SECONDS
        return [SignOffer(self._handshake.to_sign(form, flags))]

    def _offer_with(self, ticket: Ticket, flags: int, reply: bytes, transcript: bytes) -> list[Command]:
        """An offer that needs no signature: it leaves at once."""
        context = self._context
        draw = context.draw_for_ticket or context.draw_ephemerals
        handshake = ReceivingResumption(ticket, draw(), transcript)
        self._handshake = handshake
        self.state = State.OFFERED
        return [SendOctets(Side.FAR, append_offer(reply, handshake.offer(flags)))]

    def _why_no_offer(self, reply: bytes, size: OfferSize | None) -> Reason | None:
        context = self._context
        if not context.may_offer:
            return Reason.NEVER_OFFER
        if carries_keyword(reply):
            return Reason.OFFER_BY_INNER_GATEWAY
        if context.overloaded:
            return Reason.OVERLOADED
        if context.source_rests:
            return Reason.SOURCE_RESTS
        if size is None:
            return Reason.NO_ROOM_FOR_OFFER
        return Reason.OFFERS_IGNORED if context.offers_ignored() else None

    # --- Signing: the identity is in another process --------------------------------------------------

    def _signed(self, event: OfferSigned, now: float) -> list[Command]:
        """The reply goes on with its offer, or as it came where there is no signature to be had."""
        if event.signature is None:
            return [*self._release_reply(), *self._relay(Reason.SIGNER_SILENT)]
        assert isinstance(self._handshake, ReceivingHandshake)
        self.state = State.OFFERED
        self.deadline = None
        reply, self._reply = self._reply, b""
        return [SendOctets(Side.FAR, append_offer(reply, self._handshake.offer(event.signature)))]

    def _not_signed(self, event: DeadlineReached, now: float) -> list[Command]:
        return [*self._release_reply(), *self._relay(Reason.SIGNER_SILENT)]

    def _client_did_not_wait(self, event: OctetsReceived, now: float) -> list[Command]:
        passed = [*self._release_reply(), SendOctets(Side.NEAR, event.octets)]
        return [*passed, *self._relay(Reason.PIPELINED_BEHIND_EHLO)]

    def _receiver_said_more(self, event: OctetsReceived, now: float) -> list[Command]:
        passed = [*self._release_reply(), SendOctets(Side.FAR, event.octets)]
        return [*passed, *self._relay(Reason.ODD_REPLY)]

    def _release_reply(self) -> list[Command]:
        reply, self._reply = self._reply, b""
        return [SendOctets(Side.FAR, reply)] if reply else []

    # --- Offered: is the next command ours? ----------------------------------------------------------

    def _first_command(self, event: OctetsReceived, now: float) -> list[Command]:
        self._pending += event.octets
        verb = match_verb(self._pending)
        if verb is None:
            return []
        if not verb:
            self._ticket_not_taken(now)
            return [*self._release_pending(), *self._went_on(), *self._relay(Reason.NO_VERB)]
        frames, self._pending = self._pending[len(VERB_LINE) :], b""
        self.state = State.ANSWERING
        self.deadline = now + limits.VERB_HANDSHAKE_SECONDS
        commands = self._answer(frames, now) if frames else []
        if self.state is State.ANSWERING:
            # The receiver is not read before its words can be sealed.
            commands += self._pause_near()
        return commands

    def _receiver_spoke_unasked(self, event: OctetsReceived, now: float) -> list[Command]:
        """Say, a 421 for a client that idles. Passes; an answer to the offer can no longer be taken."""
        self.state = State.OFFER_VOID
        return [SendOctets(Side.FAR, event.octets)]

    def _receiver_ended(self, event: EndReceived, now: float) -> list[Command]:
        """Behind the reply. That passes; a verb that is on its way by then is none of its business."""
        self.state = State.OFFER_VOID
        self._receiver_is_silent = True
        return [SendEnd(Side.FAR)]

    def _pass_to_far(self, event: OctetsReceived, now: float) -> list[Command]:
        return [SendOctets(Side.FAR, event.octets)]

    def _first_command_in_void(self, event: OctetsReceived, now: float) -> list[Command]:
        self._pending += event.octets
        verb = match_verb(self._pending)
        if verb is None:
            return []
        if verb:
            return self._cannot_go_on(Reason.NO_VERB, now, "receiver spoke or ended unasked")
        return [*self._release_pending(), *self._relay(Reason.NO_VERB)]

    def _release_pending(self) -> list[Command]:
        octets, self._pending = self._pending, b""
        return [SendOctets(Side.NEAR, octets)] if octets else []

    # --- Answering: message 2 ------------------------------------------------------------------------

    def _more_answer(self, event: OctetsReceived, now: float) -> list[Command]:
        return self._answer(event.octets, now)

    def _answer(self, octets: bytes, now: float) -> list[Command]:
        try:
            frames = self._frames.feed(octets)
            if not frames:
                return []
            if frames[0].kind is not FrameKind.ANSWER:
                raise PeerProtocolError(Reason.BAD_FRAME, "first frame is no message 2")
            assert self._handshake is not None
            result = self._handshake.read_answer(frames[0].body, self._context.today)
        except PeerProtocolError as error:
            return self._cannot_go_on(error.reason, now, error.detail)
        self._handshake = None  # and with it the ticket that has served
        self._ticket, self._answered_at = result.ticket, now
        return self._open_channel(result, frames[1:], now)

    def _open_channel(self, result: HandshakeResult, frames: Sequence[Frame], now: float) -> list[Command]:
        commands: list[Command] = []
        confirmed = result.dialled == self._context.dialled or self._context.own_addresses(result.dialled)
        if not confirmed:
            # Behind NAT that the operator did not list, or a swapped offer: S's own pin decides that.
            commands.append(NoteFact("dialled-address-not-confirmed", Reason.WRONG_DIALLED_ADDRESS))
        flights = Flights(RecordLayer(result))
        self._channel = Channel(flights, self._frames)
        self.state = State.CHANNEL
        self.deadline = None
        commands += [*self._upgraded(result), *self._resume_near()]
        asked = self._channel.far_frames(frames)
        if not self._channel.finished:
            statements = () if result.resumed else self._context.statements
            commands += self._first_record(flights, confirmed, statements, now if asked else None)
        return self._channelled([*commands, *asked])

    def _first_record(
        self, flights: Flights, confirmed: bool, statements: Sequence[bytes], now: float | None
    ) -> list[Command]:
        """PARAMS and what goes with it, together with the receiver's answer if it was asked for one `now`.

        Not so a statement: S may say nothing before it has come.
        """
        flights.add(RecordType.PARAMS, _PARAMS[confirmed])
        for statement in statements:
            flights.add(RecordType.STATEMENT, statement)
        if now_and_then(self._context.entropy):
            flights.add(RecordType.IGNORABLE)
        if now is None or statements:
            return [SendOctets(Side.FAR, flights.at_once())]
        flights.wait(now)
        return []

    def _upgraded(self, result: HandshakeResult) -> list[Command]:
        context = self._context
        sender = context.sender_of(result.identity.octets)
        # A ticket's epoch was judged when it was made; the day may have changed since.
        is_old = result.epoch < sender.epoch and not result.resumed
        reason = Reason.UPGRADED_OLD_EPOCH if is_old else Reason.UPGRADED
        form = "resumed" if result.resumed else result.form.value
        decision = NoteDecision(True, reason, detail=f"form={form}", resumed=result.resumed)
        name = greeting_name(self._observer.seen_from_sender)
        known = after_upgrade(context.source, name, context.today) is context.source
        if known and after_endorsement(sender, result.epoch, context.today) is sender:
            return [decision]
        met = NoteSource(SourceSeen.UPGRADED, name, result.identity.octets, result.epoch)
        return [decision, met]

    def _answer_late(self, event: DeadlineReached, now: float) -> list[Command]:
        return self._cannot_go_on(Reason.HANDSHAKE_TIMEOUT, now)

    def _answer_ended(self, event: EndReceived, now: float) -> list[Command]:
        return self._cannot_go_on(Reason.FAR_CLOSED_DURING_HANDSHAKE, now)

    def _cannot_go_on(self, reason: Reason, now: float, detail: str = "") -> list[Command]:
        """Say so in words that a mail server would also understand, and end both connections."""
        self._ticket_not_taken(now)
        self._end()
        return [
            NoteDecision(
                False,
                Reason.HANDSHAKE_FAILED,
                detail=f"cause={reason.value} {detail}".strip(),
                seen=Sighting(reason),
            ),
            *([] if self._receiver_is_silent else [SendOctets(Side.FAR, CANNOT_GO_ON)]),
            CloseBoth(),
        ]

    def _heard(self, channel: Channel, commands: list[Command]) -> list[Command]:
        """Keeps the ticket: not before S has ended its direction in a record, which it does not do before it
        has confirmed us.

        Until then S may fail and dial again, and must not find an offer with a ticket that it does not have.
        """
        if channel.far_closed and self._ticket is not None and self._context.tickets is not None:
            self._context.tickets.keep(self._ticket, self._answered_at)
            self._ticket = None
        return commands

    # --- Ends and resets outside of a channel ---------------------------------------------------------

    def _ended_early(self, event: EndReceived, now: float) -> list[Command]:
        """A half-close before the decision: nobody will upgrade this; it passes as what it was."""
        offered = self.state in (State.OFFERED, State.OFFER_VOID)
        reason = Reason.NO_VERB if offered else Reason.ENDED_BEFORE_DECISION
        dropped = self._dropped(event.side, now)
        held = [*self._release_observed(), *self._release_reply(), *self._release_pending()]
        commands = [*dropped, *held]
        return [*commands, SendEnd(event.side.other), *self._in_clear(NoteDecision(False, reason))]

    def _reset_early(self, event: ResetReceived, now: float) -> list[Command]:
        return [*self._dropped(event.side, now), *self._pass_reset(event)]

    def _dropped(self, side: Side, now: float) -> list[Command]:
        """The client went away right behind our offer: it may have choked on it."""
        if side is Side.FAR:
            self._ticket_not_taken(now)
        with_ticket = isinstance(self._handshake, ReceivingResumption)  # so it has read offers before
        offered = self.state is State.OFFERED and side is Side.FAR and not self._pending and not with_ticket
        return [NoteSource(SourceSeen.DROPPED)] if offered and not self._context.source.has_upgraded else []

    def _ticket_not_taken(self, now: float) -> None:
        """Whoever is there has lost its tickets, or cannot answer with one: its next dial must find an offer
        that it can take. A receiver that speaks unasked is no fault of the ticket's."""
        out = self.state in (State.OFFERED, State.ANSWERING)
        with_ticket = out and isinstance(self._handshake, ReceivingResumption)
        if with_ticket and self._context.tickets is not None:
            self._context.tickets.not_taken(now)

    def _went_on(self) -> list[Command]:
        return [NoteSource(SourceSeen.WENT_ON)] if self._context.source.drops else []

    def _relay(self, reason: Reason) -> list[Command]:
        """A client that has a gateway, and comes without it, is told to the operator."""
        source = self._context.source
        if not source.has_upgraded or reason not in CAME_IN_CLEAR:
            return self._in_clear(NoteDecision(False, reason))
        another = is_another(source, greeting_name(self._observer.seen_from_sender))
        cause = likely_of_source(reason, other_name=another)
        # Another mailer behind the same address is told, and rings no bell.
        decision = NoteDecision(
            False, Reason.SOURCE_IN_CLEAR, not another, f"cause={reason.value}", likely=cause
        )
        return self._in_clear(decision)

    _NEXT: ClassVar[dict[Handler, set[State]]]
    """Where each handler may lead; one that is not here stays. docs/protocol.md prints it, tests hold it."""


# Behind the class: in the body of a class that is compiled its functions have no names yet.
ReceivingSession._TABLE = {
    (State.OBSERVING, OctetsReceived, Side.FAR): ReceivingSession._observe_client,
    (State.OBSERVING, OctetsReceived, Side.NEAR): ReceivingSession._observe_receiver,
    (State.OBSERVING, EndReceived, Side.FAR): ReceivingSession._ended_early,
    (State.OBSERVING, EndReceived, Side.NEAR): ReceivingSession._ended_early,
    (State.OBSERVING, ResetReceived, Side.FAR): ReceivingSession._reset_early,
    (State.OBSERVING, ResetReceived, Side.NEAR): ReceivingSession._reset_early,
    (State.SIGNING, OfferSigned, None): ReceivingSession._signed,
    (State.SIGNING, DeadlineReached, None): ReceivingSession._not_signed,
    (State.SIGNING, OctetsReceived, Side.FAR): ReceivingSession._client_did_not_wait,
    (State.SIGNING, OctetsReceived, Side.NEAR): ReceivingSession._receiver_said_more,
    (State.SIGNING, EndReceived, Side.FAR): ReceivingSession._ended_early,
    (State.SIGNING, EndReceived, Side.NEAR): ReceivingSession._ended_early,
    (State.SIGNING, ResetReceived, Side.FAR): ReceivingSession._reset_early,
    (State.SIGNING, ResetReceived, Side.NEAR): ReceivingSession._reset_early,
    (State.OFFERED, OctetsReceived, Side.FAR): ReceivingSession._first_command,
    (State.OFFERED, OctetsReceived, Side.NEAR): ReceivingSession._receiver_spoke_unasked,
    (State.OFFERED, EndReceived, Side.FAR): ReceivingSession._ended_early,
    (State.OFFERED, EndReceived, Side.NEAR): ReceivingSession._receiver_ended,
    (State.OFFERED, ResetReceived, Side.FAR): ReceivingSession._reset_early,
    (State.OFFERED, ResetReceived, Side.NEAR): ReceivingSession._reset_early,
    (State.OFFER_VOID, OctetsReceived, Side.FAR): ReceivingSession._first_command_in_void,
    (State.OFFER_VOID, OctetsReceived, Side.NEAR): ReceivingSession._pass_to_far,
    (State.OFFER_VOID, EndReceived, Side.FAR): ReceivingSession._ended_early,
    (State.OFFER_VOID, EndReceived, Side.NEAR): ReceivingSession._receiver_ended,
    (State.OFFER_VOID, ResetReceived, Side.FAR): ReceivingSession._reset_early,
    (State.OFFER_VOID, ResetReceived, Side.NEAR): ReceivingSession._reset_early,
    (State.ANSWERING, OctetsReceived, Side.FAR): ReceivingSession._more_answer,
    (State.ANSWERING, DeadlineReached, None): ReceivingSession._answer_late,
    (State.ANSWERING, EndReceived, Side.FAR): ReceivingSession._answer_ended,
    (State.ANSWERING, ResetReceived, Side.FAR): ReceivingSession._reset_early,
    (State.ANSWERING, ResetReceived, Side.NEAR): ReceivingSession._reset_early,
    **in_channel(State.CHANNEL),
}
ReceivingSession._NEXT = {
    ReceivingSession._observe_client: {State.OBSERVING, State.RELAYED},
    ReceivingSession._observe_receiver: {State.OBSERVING, State.SIGNING, State.OFFERED, State.RELAYED},
    ReceivingSession._signed: {State.OFFERED, State.RELAYED},
    ReceivingSession._not_signed: {State.RELAYED},
    ReceivingSession._client_did_not_wait: {State.RELAYED},
    ReceivingSession._receiver_said_more: {State.RELAYED},
    ReceivingSession._first_command: {
        State.OFFERED,
        State.ANSWERING,
        State.CHANNEL,
        State.RELAYED,
        State.OVER,
    },
    ReceivingSession._receiver_spoke_unasked: {State.OFFER_VOID},
    ReceivingSession._receiver_ended: {State.OFFER_VOID},
    ReceivingSession._first_command_in_void: {State.OFFER_VOID, State.RELAYED, State.OVER},
    ReceivingSession._more_answer: {State.ANSWERING, State.CHANNEL, State.OVER},
    ReceivingSession._answer_late: {State.OVER},
    ReceivingSession._answer_ended: {State.OVER},
    Machine._channel_far_octets: {State.CHANNEL, State.OVER},
    Machine._channel_ended: {State.CHANNEL, State.OVER},
    Machine._channel_reset: {State.OVER},
    ReceivingSession._ended_early: {State.RELAYED},
    ReceivingSession._reset_early: {State.OVER},
}
