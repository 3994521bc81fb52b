"""The sending gateway's session: recognises the offer, upgrades the far side, falls back without loss.

Near is the sender (our mail server), far what it dialled. The EHLO reply is held until it is complete; the
sender gets it without the offer. From the verb on no octet reaches the sender that did not come out of a
record; a handshake that fails is tried again on a new connection, then given up in clear with an alarm,
and only where greeting and reply are those that the sender has seen (docs/protocol.md, "Failed handshakes").
Counterparts: `session.attempt`, which is one dial's; `session.redials`, which knows all of them;
`session.unoffered`; `session.receiving`.
"""

from __future__ import annotations

from typing import ClassVar, Final

from gateway.crypto.records import VerifiedPeer
from gateway.errors import IdentityHashed, PeerProtocolError, Reason
from gateway.peers.looks import look_of
from gateway.policy import limits
from gateway.policy.cause import Sighting
from gateway.policy.decision import Decision
from gateway.session import unoffered
from gateway.session.attempt import Attempt, Proven
from gateway.session.channel import Channel
from gateway.session.commands import (
    CloseBoth,
    Command,
    NoteDecision,
    NoteFact,
    Redial,
    RememberPeer,
    SendEnd,
    SendOctets,
    SendReset,
)
from gateway.session.context import SendingContext
from gateway.session.events import (
    DeadlineReached,
    EndReceived,
    Event,
    OctetsReceived,
    RedialFailed,
    Redialled,
    ResetReceived,
    Side,
)
from gateway.session.first_flight import FirstFlight
from gateway.session.machine import Handler, Machine, in_channel
from gateway.session.redials import Redials
from gateway.session.rollover import announcement
from gateway.session.second_look import Continue, Differs, FirstLook, Same, SecondLook
from gateway.smtp.capability import host_name, split_offer
from gateway.smtp.dialogue import Stage
from gateway.smtp.events import Role, Unparsed
from gateway.smtp.observer import Observer

_BEFORE_EHLO: Final = (Stage.GREETING, Stage.EHLO)
TRY_AGAIN = b"421 4.7.0 Encrypted channel to the destination was lost, please try again\r\n"


class State(IdentityHashed):
    OBSERVING = "observing"
    RECEIVER_ENDED = "receiver-ended"
    """A pinned receiver has, before its reply was whole. Nothing of the sender's is in clear but its EHLO."""
    READY = "ready"
    """The sender has its reply; the verb goes out with its first command."""
    CONFIRMING = "confirming"
    """Verb and message 2 are out; nothing of the far side is believed before its first record."""
    AWAITING_STATEMENT = "awaiting-statement"
    """The same, and nothing of the sender's is out: R is a stranger until it has shown its statement."""
    REDIALLING = "redialling"
    REOBSERVING = "reobserving"
    """Greeting and EHLO reply of a redial, compared with what the sender has seen."""
    CHANNEL = "channel"
    RELAYED = "relayed"
    OVER = "over"


class SendingSession(Machine):
    """From the accepted connection and the dialled one to the end of both."""

    _RECEIVER = Side.FAR
    _CHANNEL = State.CHANNEL
    _RELAYED = State.RELAYED
    _OVER = State.OVER

    def __init__(self, context: SendingContext) -> None:
        super().__init__(Observer(Role.SENDING))
        self._context = context
        self._seen = FirstLook(b"", b"", b"")
        self._attempt: Attempt | None = None
        self._flight = FirstFlight()
        self._redials = Redials()
        self._look: SecondLook | None = None
        self._peer: VerifiedPeer | None = None
        self._statements_left = limits.STATEMENTS_SHOWN
        self._near_ended = False
        self.state = State.OBSERVING

    @property
    def octets_kept(self) -> int:
        return self._observer.octets_held_from_sender + self._flight.octets_kept

    # --- Observing -----------------------------------------------------------------------------------

    def _observe_sender(self, event: OctetsReceived, now: float) -> list[Command]:
        if self._observer.greets_with_421 and self._context.pin is not None:
            return []  # the session ends as soon as the sender has the whole of it: see `_end_as_told`
        if self._observer.stage in _BEFORE_EHLO:
            self._redials.ehlo_sent_at = now
        commands = self._observed(self._observer.sender_octets(event.octets), now)
        if self.state is State.OBSERVING and not self._observer.may_read_sender:
            commands += self._pause_near()
        return commands

    def _observe_receiver(self, event: OctetsReceived, now: float) -> list[Command]:
        return self._observed(self._observer.receiver_octets(event.octets), now)

    def _no_reply(self, unparsed: Unparsed, passed: list[Command]) -> list[Command]:
        pin = self._context.pin
        if unoffered.closes(unparsed) and pin is not None:
            return [*_told_near(passed), *self._end_as_told(unparsed.reason)]
        decision = unoffered.of_no_reply(pin, unparsed)
        led = "HELO behind a greeting without ESMTP" if decision.alarm and unparsed.led else ""
        passed = [*passed, *self._held_end(), *self._resume_near()]
        return [*passed, *self._relay(decision, led, Sighting(unparsed.reason))]

    def _reply_complete(self, reply: bytes, now: float) -> list[Command]:
        context, greeting = self._context, self._observer.greeting
        split = split_offer(reply)
        if context.refusal is Reason.NEVER:
            return self._stay_clear(reply, Decision.in_clear(Reason.NEVER))
        if split.offer is None:
            return self._stay_clear(reply, *unoffered.of_reply(context.pin, greeting, reply))
        if context.refusal is not None:
            return self._stay_clear(split.stripped, Decision.in_clear(context.refusal))
        self._seen = FirstLook(self._observer.seen_from_sender, host_name(greeting), split.stripped)
        try:
            attempt = Attempt(context, self._seen, greeting, split.offer, now)
        except PeerProtocolError as error:
            return self._offer_is_none(error, now)
        if not attempt.decision.upgrade:
            return self._stay_clear(split.stripped, attempt.decision)
        self._attempt = attempt
        self.state = State.READY
        commands: list[Command] = [SendOctets(Side.NEAR, split.stripped)]
        return commands + (self._send_verb(now) if self._hold_early() else [])

    def _offer_is_none(self, error: PeerProtocolError, now: float) -> list[Command]:
        """What stands in an offer's place does not verify, or is our own."""
        if error.reason is Reason.OWN_IDENTITY:
            # Where another gateway is known to be, our own offer was led here by somebody.
            alarm = self._context.pin is not None
            return self._stay_clear(self._seen.reply, Decision.in_clear(error.reason, alarm=alarm))
        self._hold_early()
        failed = self._fail(error.reason, error.detail, now)
        return self._redials.show(self._seen.reply, failed, dials_again=True)

    def _hold_early(self) -> bool:
        """What stood behind the EHLO unasked becomes the first octets of the first flight."""
        early = self._observer.take_held_from_sender()
        if early:
            self._flight.hold(early)
        return bool(early)

    # --- Ready: the verb waits for the sender's first command -----------------------------------------

    def _first_command(self, event: OctetsReceived, now: float) -> list[Command]:
        self._flight.hold(event.octets)
        return self._send_verb(now)

    def _send_verb(self, now: float) -> list[Command]:
        assert self._attempt is not None
        if self._attempt.waits_for_statement:
            self.state, may_send = State.AWAITING_STATEMENT, b""
        else:
            self.state, may_send = State.CONFIRMING, self._flight.begin()
        self.deadline = now + limits.HANDSHAKE_SECONDS
        return [SendOctets(Side.FAR, self._attempt.verb(may_send)), *self._pause_if_full()]

    def _receiver_spoke_unasked(self, event: OctetsReceived, now: float) -> list[Command]:
        """Behind the reply, before the verb: a 421, say. In clear it came, in clear it passes.

        Anything else rings where a peer is pinned: an octet put in on the wire would be a silent way around
        the channel.
        """
        told = SendOctets(Side.NEAR, event.octets)
        pinned = self._context.pin is not None
        if pinned and unoffered.closes_unasked(event.octets):
            return [told, *self._end_as_told(Reason.NO_VERB)]
        return [told, *self._relay(Decision.in_clear(Reason.NO_VERB, alarm=pinned))]

    def _receiver_ended(self, event: EndReceived, now: float) -> list[Command]:
        """Before the verb the receiver closes for writing, and may still read: that passes as what it was.

        From a pinned one it rings: a FIN put in on the wire would be a silent way around the channel.
        """
        alarm = self._context.pin is not None
        clear = Decision.in_clear(Reason.ENDED_BEFORE_DECISION, alarm=alarm)
        return [SendEnd(Side.NEAR), *self._resume_near(), *self._relay(clear)]

    def _receiver_ended_early(self, event: EndReceived, now: float) -> list[Command]:
        """Before its reply is whole: that passes as what it was. But what a sender says without waiting for
        one, before that or behind it, goes out in clear then, so from a pinned one it rings: a FIN put in
        would be a silent way to that."""
        pinned, held = self._context.pin is not None, bool(self._observer.held_from_sender)
        if pinned and self._observer.is_within_421:
            # No more of it comes, and nothing of the sender's follows what was not passed on into it.
            return [*_told_near(self._release_observed()), *self._end_as_told(Reason.ENDED_BEFORE_DECISION)]
        commands = [*self._release_observed(), *self._held_end(), SendEnd(Side.NEAR), *self._resume_near()]
        if pinned and not held:
            self.state = State.RECEIVER_ENDED
            return commands
        return [*commands, *self._relay(Decision.in_clear(Reason.ENDED_BEFORE_DECISION, alarm=pinned))]

    def _spoke_behind_end(self, event: OctetsReceived, now: float) -> list[Command]:
        """No reply can come to this: whoever says it waits for none."""
        clear = Decision.in_clear(Reason.ENDED_BEFORE_DECISION, alarm=True)
        return [SendOctets(Side.FAR, event.octets), *self._relay(clear)]

    def _end_as_told(self, reason: Reason) -> list[Command]:
        """Towards a pin, whoever says that the session is over (421) gets no more of it: he may be
        in the middle, and a sender that talks on would give him in clear what the channel is for."""
        self._end()
        return [NoteDecision(False, reason), CloseBoth()]

    # --- Confirming: nothing is believed before a record verifies ------------------------------------

    def _more_first_flight(self, event: OctetsReceived, now: float) -> list[Command]:
        assert self._attempt is not None
        may_send = self._flight.add(event.octets)
        commands: list[Command] = []
        if may_send:
            commands.append(SendOctets(Side.FAR, self._attempt.more(may_send)))
        return commands + self._pause_if_full()

    def _confirm(self, event: OctetsReceived, now: float) -> list[Command]:
        assert self._attempt is not None
        try:
            proven = self._attempt.confirmed_by(event.octets)
        except PeerProtocolError as error:
            return self._fail(error.reason, error.detail, now, said=event.octets)
        return self._open_channel(proven, self._flight.held, now) if proven is not None else []

    def _await_statement(self, event: OctetsReceived, now: float) -> list[Command]:
        assert self._attempt is not None
        try:
            proven = self._attempt.statement_in(event.octets)
        except PeerProtocolError as error:
            return self._fail(error.reason, error.detail, now, said=event.octets)
        return self._open_channel(proven, self._flight.everything, now) if proven is not None else []

    def _open_channel(self, proven: Proven, unsent: bytes, now: float) -> list[Command]:
        """All that was kept of the sender goes out, then what the peer has said is told."""
        self.state = State.CHANNEL
        self.deadline = None
        self._channel, self._peer = proven.channel, proven.peer
        if proven.ticket is not None and self._context.tickets is not None:
            self._context.tickets.keep(proven.ticket, now)
        commands = self._confirmed(proven)
        if unsent:
            commands += self._channel.near_octets(unsent, now)
        self._flight = FirstFlight()
        self._attempt = None  # and with it the ticket that has served, and a copy of the next one
        if self._near_ended:
            commands += self._channel.near_end()
        commands += self._resume_near()
        if proven.first is not None:
            commands += self._channel.first_record(proven.first)
        return commands + self._channelled(self._channel.far_frames(proven.rest))

    def _confirmed(self, proven: Proven) -> list[Command]:
        decision, peer = proven.decision, proven.peer
        form = "resumed" if peer.resumed else peer.form.value
        detail = f"peer={peer.identity.fingerprint} form={form} dials={self._redials.dials}"
        look = look_of(self._seen.host, self._seen.reply)
        seen = Sighting(decision.reason, look) if decision.alarm else None
        commands: list[Command] = [
            NoteDecision(True, decision.reason, decision.alarm, detail, seen, resumed=peer.resumed)
        ]
        if decision.remember:
            commands.append(RememberPeer(peer, proven.statement, look, decision.alarm))
        return commands

    def _far_gone(self, event: EndReceived | ResetReceived, now: float) -> list[Command]:
        was_reset = isinstance(event, ResetReceived)
        return self._fail(Reason.FAR_CLOSED_DURING_HANDSHAKE, "", now, was_reset=was_reset)

    def _confirm_late(self, event: DeadlineReached, now: float) -> list[Command]:
        return self._fail(Reason.HANDSHAKE_TIMEOUT, "", now)

    # --- Failed: dial again, upgrade again, then clear -----------------------------------------------

    def _fail(
        self, reason: Reason, detail: str, now: float, *, said: bytes = b"", was_reset: bool = False
    ) -> list[Command]:
        failure = Sighting(reason, look_of(self._seen.host, self._seen.reply), said, was_reset)
        told = f"{detail} dial={self._redials.dials}".strip()
        self._redials.failed(failure, now)
        self._attempt = None
        self.state = State.REDIALLING
        self.deadline = now + limits.REDIAL_SECONDS
        # A ticket that is not known is no trouble of the line's: nobody is to look for a cause.
        seen = None if reason is Reason.TICKET_UNKNOWN else failure
        return [NoteFact("handshake-failed", reason, told, seen), Redial()]

    def _redialled(self, event: Redialled, now: float) -> list[Command]:
        self.state = State.REOBSERVING
        self._look = SecondLook(self._seen, unshown=self._redials.reply_is_kept_back)
        return []

    def _look_again(self, event: OctetsReceived, now: float) -> list[Command]:
        assert self._look is not None
        look = self._look.receiver_octets(event.octets)
        if isinstance(look, Continue):
            return [SendOctets(Side.FAR, look.say)] if look.say else []
        if isinstance(look, Differs):
            return self._defer(Reason.REDIAL_DIFFERS)
        self._seen = look.look
        judged = self._judge_again(look, now)
        if not self._redials.reply_is_kept_back:
            return judged
        return self._redials.show(self._seen.reply, judged, dials_again=self.state is State.REDIALLING)

    def _judge_again(self, look: Same, now: float) -> list[Command]:
        if look.offer is None:
            return self._give_up(Reason.OFFER_MISSING)
        if self._redials.were_enough:
            return self._give_up(Reason.HANDSHAKE_FAILED)
        return self._upgrade_again(look.offer, look.greeting, now)

    def _upgrade_again(self, offer: bytes, greeting: bytes, now: float) -> list[Command]:
        try:
            attempt = Attempt(self._context, self._seen, greeting, offer, now)
        except PeerProtocolError as error:
            return self._fail(error.reason, error.detail, now)
        if not attempt.decision.upgrade:
            return self._give_up(attempt.decision.reason)
        self._attempt = attempt
        if not self._flight.is_empty:
            return self._send_verb(now)
        self.state = State.READY
        self.deadline = None
        if not self._near_ended:
            return self._resume_near()
        return [SendEnd(Side.FAR), *self._relay(Decision.in_clear(Reason.ENDED_BEFORE_DECISION))]

    def _give_up(self, reason: Reason) -> list[Command]:
        """In clear, with the alarm, over a connection on which no verb was ever said."""
        octets = self._flight.everything
        self._flight = FirstFlight()
        commands: list[Command] = [SendOctets(Side.FAR, octets)] if octets else []
        commands += self._held_end()
        decision = Decision.in_clear(reason, alarm=True)
        told = self._relay(decision, self._redials.told(), self._redials.failure)
        return [*commands, *self._resume_near(), *told]

    def _defer(self, reason: Reason) -> list[Command]:
        """The sender keeps the message queued: 421, then the end."""
        self._end()
        return [
            NoteDecision(False, reason, True, self._redials.told(), self._redials.failure),
            SendOctets(Side.NEAR, TRY_AGAIN),
            SendReset(Side.FAR),
            CloseBoth(),
        ]

    def _redial_failed(self, event: Event, now: float) -> list[Command]:
        return self._defer(Reason.REDIAL_FAILED)

    def _hold_back(self, event: OctetsReceived, now: float) -> list[Command]:
        self._flight.hold(event.octets)
        return self._pause_if_full()

    # --- In the channel ------------------------------------------------------------------------------

    def _heard(self, channel: Channel, commands: list[Command]) -> list[Command]:
        # In front of what may be the end of the session: nothing is told behind that.
        return self._learn_ahead(channel.statements) + commands if channel.statements else commands

    def _learn_ahead(self, statements: list[bytes]) -> list[Command]:
        """The identity that the peer will have next, so that it is no stranger then."""
        assert self._peer is not None
        commands: list[Command] = []
        while self._statements_left and statements:
            self._statements_left -= 1
            statement = announcement(self._context.pin, self._peer.identity.octets, statements.pop(0))
            if statement is not None:
                commands += [NoteFact("next-identity-announced"), RememberPeer(self._peer, statement)]
        statements.clear()
        return commands

    # --- Ends, resets, pauses, and the way into clear --------------------------------------------------

    def _sender_ended_early(self, event: EndReceived, now: float) -> list[Command]:
        """Before the reply: behind what is held until that comes the end waits for it, too.

        Exim says all of a mail at once to a server that it knows, QUIT included, and ends there; and a reply
        kept back on the wire until the sender gives up must not bring out what is held.
        """
        if self._observer.held_from_sender:
            return self._near_ends(event, now)
        return self._ended_early(event, now)

    def _ended_early(self, event: EndReceived, now: float) -> list[Command]:
        """A half-close before the verb: nobody upgrades this; it passes as what it was."""
        released = self._release_observed() if self.state is State.OBSERVING else []
        clear = Decision.in_clear(Reason.ENDED_BEFORE_DECISION)
        return [*released, SendEnd(event.side.other), *self._resume_near(), *self._relay(clear)]

    def _near_ends(self, event: EndReceived, now: float) -> list[Command]:
        """While the far side is not confirmed the end waits, like everything else of the sender."""
        self._near_ended = True
        return []

    def _held_end(self) -> list[Command]:
        """That end, behind the last of what was held."""
        return [SendEnd(Side.FAR)] if self._near_ended else []

    def _reset_early(self, event: ResetReceived, now: float) -> list[Command]:
        return self._pass_reset(event)

    def _pause_if_full(self) -> list[Command]:
        return self._pause_near() if self._flight.is_full else []

    def _stay_clear(self, reply: bytes, decision: Decision, seen: Sighting | None = None) -> list[Command]:
        early = self._observer.take_held_from_sender()
        commands: list[Command] = [SendOctets(Side.NEAR, reply)]
        if early:
            commands.append(SendOctets(Side.FAR, early))
        return [*commands, *self._held_end(), *self._resume_near(), *self._relay(decision, seen=seen)]

    def _relay(self, decision: Decision, detail: str = "", seen: Sighting | None = None) -> list[Command]:
        return self._in_clear(NoteDecision(False, decision.reason, decision.alarm, detail, seen))

    _NEXT: ClassVar[dict[Handler, set[State]]]
    """Where each handler may lead; one that is not here stays. docs/protocol.md prints it, tests hold it."""


# Behind the class: in the body of a class that is compiled its functions have no names yet.
SendingSession._TABLE = {
    (State.OBSERVING, OctetsReceived, Side.NEAR): SendingSession._observe_sender,
    (State.OBSERVING, OctetsReceived, Side.FAR): SendingSession._observe_receiver,
    (State.OBSERVING, EndReceived, Side.NEAR): SendingSession._sender_ended_early,
    (State.OBSERVING, EndReceived, Side.FAR): SendingSession._receiver_ended_early,
    (State.OBSERVING, ResetReceived, Side.NEAR): SendingSession._reset_early,
    (State.OBSERVING, ResetReceived, Side.FAR): SendingSession._reset_early,
    (State.RECEIVER_ENDED, OctetsReceived, Side.NEAR): SendingSession._spoke_behind_end,
    (State.RECEIVER_ENDED, EndReceived, Side.NEAR): SendingSession._ended_early,
    (State.RECEIVER_ENDED, ResetReceived, Side.NEAR): SendingSession._reset_early,
    (State.RECEIVER_ENDED, ResetReceived, Side.FAR): SendingSession._reset_early,
    (State.READY, OctetsReceived, Side.NEAR): SendingSession._first_command,
    (State.READY, OctetsReceived, Side.FAR): SendingSession._receiver_spoke_unasked,
    (State.READY, EndReceived, Side.NEAR): SendingSession._ended_early,
    (State.READY, EndReceived, Side.FAR): SendingSession._receiver_ended,
    (State.READY, ResetReceived, Side.NEAR): SendingSession._reset_early,
    (State.READY, ResetReceived, Side.FAR): SendingSession._reset_early,
    (State.CONFIRMING, OctetsReceived, Side.NEAR): SendingSession._more_first_flight,
    (State.CONFIRMING, OctetsReceived, Side.FAR): SendingSession._confirm,
    (State.CONFIRMING, EndReceived, Side.NEAR): SendingSession._near_ends,
    (State.CONFIRMING, EndReceived, Side.FAR): SendingSession._far_gone,
    (State.CONFIRMING, ResetReceived, Side.NEAR): SendingSession._reset_early,
    (State.CONFIRMING, ResetReceived, Side.FAR): SendingSession._far_gone,
    (State.CONFIRMING, DeadlineReached, None): SendingSession._confirm_late,
    (State.AWAITING_STATEMENT, OctetsReceived, Side.NEAR): SendingSession._hold_back,
    (State.AWAITING_STATEMENT, OctetsReceived, Side.FAR): SendingSession._await_statement,
    (State.AWAITING_STATEMENT, EndReceived, Side.NEAR): SendingSession._near_ends,
    (State.AWAITING_STATEMENT, EndReceived, Side.FAR): SendingSession._far_gone,
    (State.AWAITING_STATEMENT, ResetReceived, Side.NEAR): SendingSession._reset_early,
    (State.AWAITING_STATEMENT, ResetReceived, Side.FAR): SendingSession._far_gone,
    (State.AWAITING_STATEMENT, DeadlineReached, None): SendingSession._confirm_late,
    (State.REDIALLING, OctetsReceived, Side.NEAR): SendingSession._hold_back,
    (State.REDIALLING, EndReceived, Side.NEAR): SendingSession._near_ends,
    (State.REDIALLING, ResetReceived, Side.NEAR): SendingSession._reset_early,
    (State.REDIALLING, Redialled, None): SendingSession._redialled,
    (State.REDIALLING, RedialFailed, None): SendingSession._redial_failed,
    (State.REDIALLING, DeadlineReached, None): SendingSession._redial_failed,
    (State.REOBSERVING, OctetsReceived, Side.NEAR): SendingSession._hold_back,
    (State.REOBSERVING, OctetsReceived, Side.FAR): SendingSession._look_again,
    (State.REOBSERVING, EndReceived, Side.NEAR): SendingSession._near_ends,
    (State.REOBSERVING, EndReceived, Side.FAR): SendingSession._redial_failed,
    (State.REOBSERVING, ResetReceived, Side.NEAR): SendingSession._reset_early,
    (State.REOBSERVING, ResetReceived, Side.FAR): SendingSession._redial_failed,
    (State.REOBSERVING, DeadlineReached, None): SendingSession._redial_failed,
    **in_channel(State.CHANNEL),
}
SendingSession._NEXT = {
    SendingSession._observe_sender: {State.OBSERVING, State.RELAYED},
    SendingSession._observe_receiver: {
        State.OBSERVING,
        State.OVER,
        State.READY,
        State.CONFIRMING,
        State.AWAITING_STATEMENT,
        State.REDIALLING,
        State.RELAYED,
    },
    SendingSession._first_command: {State.CONFIRMING, State.AWAITING_STATEMENT},
    SendingSession._receiver_spoke_unasked: {State.RELAYED, State.OVER},
    SendingSession._receiver_ended: {State.RELAYED},
    SendingSession._receiver_ended_early: {State.RECEIVER_ENDED, State.RELAYED, State.OVER},
    SendingSession._spoke_behind_end: {State.RELAYED},
    SendingSession._confirm: {State.CONFIRMING, State.CHANNEL, State.REDIALLING, State.OVER},
    SendingSession._await_statement: {State.AWAITING_STATEMENT, State.CHANNEL, State.REDIALLING, State.OVER},
    SendingSession._far_gone: {State.REDIALLING},
    SendingSession._confirm_late: {State.REDIALLING},
    SendingSession._redialled: {State.REOBSERVING},
    SendingSession._redial_failed: {State.OVER},
    SendingSession._look_again: {
        State.REOBSERVING,
        State.READY,
        State.CONFIRMING,
        State.AWAITING_STATEMENT,
        State.REDIALLING,
        State.RELAYED,
        State.OVER,
    },
    Machine._channel_far_octets: {State.CHANNEL, State.OVER},
    Machine._channel_ended: {State.CHANNEL, State.OVER},
    Machine._channel_reset: {State.OVER},
    SendingSession._sender_ended_early: {State.OBSERVING, State.RELAYED},
    SendingSession._ended_early: {State.RELAYED},
    SendingSession._reset_early: {State.OVER},
}


def _told_near(commands: list[Command]) -> list[Command]:
    """Of what was held, that which goes to the sender."""
    return [one for one in commands if isinstance(one, SendOctets) and one.side is Side.NEAR]
