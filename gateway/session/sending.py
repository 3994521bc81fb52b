"""The sending gateway's session: recognises the offer, upgrades the far side, falls back without loss.

Near is the sender (our mail server), far what it dialled. The EHLO reply is held until it is complete; the
sender gets it without the offer. From the verb on no octet reaches the sender that did not come out of a
record; a handshake that fails is tried again on a new connection, then given up in clear with an alarm,
and only where greeting and reply are those that the sender has seen (docs/protocol.md, "Failed handshakes").
Counterpart: `session.receiving`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from gateway.crypto.frames import Frame, FrameKind, FrameReader, frame
from gateway.crypto.handshake import OfferForm, SendingHandshake, prologue
from gateway.crypto.keys import Ephemerals
from gateway.crypto.messages import AnswerFlags, OfferFlags
from gateway.crypto.params import Params
from gateway.crypto.records import Record, RecordLayer, RecordType, VerifiedPeer
from gateway.errors import IdentityHashed, LocalMisuseError, PeerProtocolError, Reason
from gateway.peers.comparison import Observed, compare
from gateway.peers.looks import look_of
from gateway.peers.pins import MetStatement
from gateway.policy import limits
from gateway.policy.cause import Sighting
from gateway.policy.decision import Decision, decide, waits_for_statement
from gateway.session.channel import Channel
from gateway.session.commands import (
    CloseBoth,
    Command,
    NoteDecision,
    NoteFact,
    PauseReading,
    Redial,
    RelayInClear,
    RememberPeer,
    ResumeReading,
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
from gateway.session.flights import Flights, now_and_then
from gateway.session.in_channel import InChannel
from gateway.session.rollover import ENDS_WAIT, announcement, verified
from gateway.session.second_look import Continue, Differs, SecondLook
from gateway.smtp.capability import VERB_LINE, OfferSize, host_name, offer_fits, split_offer
from gateway.smtp.events import Observation, Passed, Role, Unparsed
from gateway.smtp.observer import Observer

_LOST_OFFER = frozenset({Reason.EHLO_REFUSED, Reason.ODD_REPLY, Reason.ODD_GREETING, Reason.GREETING_REFUSED})
_CLOSING = 421
TRY_AGAIN = b"421 4.7.0 Encrypted channel to the destination was lost, please try again\r\n"


class State(IdentityHashed):
    OBSERVING = "observing"
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


Key = tuple[State, type[Event], Side | None]


class SendingSession(InChannel):
    """`handle(event, now)` answers commands; `deadline` is when it wants `DeadlineReached`, or None."""

    def __init__(self, context: SendingContext) -> None:
        self._context = context
        self._observer = Observer(Role.SENDING)
        self._handshake: SendingHandshake | None = None
        self._records: RecordLayer | None = None
        self._flights: Flights | None = None
        self._channel: Channel | None = None
        self._frames = FrameReader()
        self._flight = FirstFlight()
        self._decision: Decision | None = None
        self._observed_offer: Observed | None = None
        self._confirming = State.CONFIRMING
        self._statements_left = limits.STATEMENTS_SHOWN
        self._seen_host = b""
        self._seen_reply = b""
        self._ehlo = b""
        self._dials = 1
        self._failure = Reason.HANDSHAKE_FAILED
        self._failure_seen: Sighting | None = None
        self._look: SecondLook | None = None
        self._near_ended = False
        self._paused = False
        self.state = State.OBSERVING
        self.deadline: float | None = None

    @property
    def waits_for_silence(self) -> bool:
        """Whether `deadline` is that of a large flight's end: it only counts while the near side is read."""
        return self.state is State.CHANNEL

    def handle(self, event: Event, now: float) -> list[Command]:
        side = getattr(event, "side", None)
        handler = self._TABLE.get((self.state, type(event), side))
        if handler is None:
            if self.state in (State.OVER, State.RELAYED):
                return []
            raise LocalMisuseError(f"{type(event).__name__} {side} in state {self.state.value}")
        return handler(self, event, now)

    # --- Observing -----------------------------------------------------------------------------------

    def _observe_sender(self, event: OctetsReceived, now: float) -> list[Command]:
        commands = self._observed(self._observer.sender_octets(event.octets), now)
        if self.state is State.OBSERVING and not self._observer.may_read_sender and not self._paused:
            self._paused = True
            commands.append(PauseReading(Side.NEAR))
        return commands

    def _observe_receiver(self, event: OctetsReceived, now: float) -> list[Command]:
        return self._observed(self._observer.receiver_octets(event.octets), now)

    def _observed(self, observations: list[Observation], now: float) -> list[Command]:
        commands: list[Command] = []
        for observation in observations:
            if isinstance(observation, Passed):
                side = Side.FAR if observation.to_receiver else Side.NEAR
                commands.append(SendOctets(side, observation.octets))
            elif isinstance(observation, Unparsed):
                if observation.code == _CLOSING and self._context.pin is not None:
                    return [*commands, *self._end_as_told(observation.reason)]
                seen = Sighting(observation.reason)
                commands += [*self._resume_near(), *self._relay(self._judge_unparsed(observation), seen=seen)]
            else:
                commands += self._reply_complete(observation.octets, now)
        return commands

    def _reply_complete(self, reply: bytes, now: float) -> list[Command]:
        split = split_offer(reply)
        if self._context.refusal is Reason.NEVER:
            return self._stay_clear(reply, Decision.in_clear(Reason.NEVER))
        if split.offer is None:
            return self._stay_clear(reply, self._judge_missing(), self._seen_without_offer(reply))
        if self._context.refusal is not None:
            return self._stay_clear(split.stripped, Decision.in_clear(self._context.refusal))
        self._ehlo = self._observer.seen_from_sender
        self._seen_host = host_name(self._observer.greeting)
        self._seen_reply = split.stripped
        try:
            decision = self._read_offer(split.offer, self._observer.greeting)
        except PeerProtocolError as error:
            if error.reason is Reason.OWN_IDENTITY:
                # Where another gateway is known to be, our own offer was led here by somebody.
                alarm = self._context.pin is not None
                return self._stay_clear(split.stripped, Decision.in_clear(error.reason, alarm=alarm))
            self._hold_early()
            failed = self._fail(error.reason, error.detail, now)
            return [SendOctets(Side.NEAR, split.stripped), *failed]
        if not decision.upgrade:
            return self._stay_clear(split.stripped, decision)
        self.state = State.READY
        commands: list[Command] = [SendOctets(Side.NEAR, split.stripped)]
        return commands + (self._send_verb(now) if self._hold_early() else [])

    def _hold_early(self) -> bool:
        """What stood behind the EHLO unasked becomes the first octets of the first flight."""
        early = self._observer.held_from_sender
        if early:
            self._flight.add(early)
        return bool(early)

    def _read_offer(self, offer: bytes, greeting: bytes) -> Decision:
        """Verify this dial's offer, judge its identity. Raises PeerProtocolError, then nothing is kept."""
        context = self._context
        handshake = SendingHandshake(
            context.keys.identity,
            context.keys.endorsed,
            Ephemerals.draw_for_answer(context.entropy),
            prologue(greeting + self._seen_reply, self._ehlo),
        )
        offered = handshake.read_offer(offer)
        full_fits = offer_fits(self._seen_reply) is OfferSize.FULL
        observed = Observed.offered(
            offered.identity.octets, offered.epoch, full=offered.form is OfferForm.FULL, full_fits=full_fits
        )
        decision = decide(compare(context.pin, observed))
        follows = OfferFlags.STATEMENT_FOLLOWS in offered.flags
        waits = waits_for_statement(context.pin, observed.identity, follows=follows)
        self._confirming = State.AWAITING_STATEMENT if waits else State.CONFIRMING
        self._handshake, self._decision, self._observed_offer = handshake, decision, observed
        return decision

    def _seen_without_offer(self, reply: bytes) -> Sighting | None:
        if self._context.pin is None:
            return None
        return Sighting(Reason.OFFER_MISSING, look_of(host_name(self._observer.greeting), reply))

    def _judge_missing(self) -> Decision:
        return decide(compare(self._context.pin, Observed.missing()))

    def _judge_unparsed(self, unparsed: Unparsed) -> Decision:
        """A pinned peer whose greeting or reply cannot carry an offer has lost it, and that is told as such.

        One line feed put in on the wire would else be a silent way back to clear. A 421 is the receiver's
        own business, and who greets with HELO or talks out of turn is the sender.
        """
        lost = unparsed.reason in _LOST_OFFER and unparsed.code != _CLOSING and self._context.pin is not None
        return self._judge_missing() if lost else Decision.in_clear(unparsed.reason)

    # --- Ready: the verb waits for the sender's first command -----------------------------------------

    def _first_command(self, event: OctetsReceived, now: float) -> list[Command]:
        self._flight.add(event.octets)
        return self._send_verb(now)

    def _send_verb(self, now: float) -> list[Command]:
        """Verb, message 2 and the flight's records in one write, so in as few segments as they fit."""
        assert self._handshake is not None
        odd = now_and_then(self._context.entropy)
        flags = AnswerFlags.UNUSED if odd else AnswerFlags.NONE
        answer, result = self._handshake.write_answer(self._context.dialled, flags)
        self._records = RecordLayer(result)
        self._flights = flights = Flights(self._records)
        self._frames = FrameReader()
        flights.add(RecordType.PARAMS, Params().encode())
        if odd:
            flights.add(RecordType.IGNORABLE)
        may_send = self._flight.again() if self._confirming is State.CONFIRMING else b""
        octets = VERB_LINE + frame(FrameKind.ANSWER, answer) + flights.at_once(may_send)
        self.state = self._confirming
        self.deadline = now + limits.HANDSHAKE_SECONDS
        return [SendOctets(Side.FAR, octets), *self._pause_if_full()]

    def _receiver_spoke_unasked(self, event: OctetsReceived, now: float) -> list[Command]:
        """Behind the reply, before the verb: a 421, say. In clear it came, in clear it passes.

        Anything else rings where a peer is pinned: an octet put in on the wire would be a silent way around
        the channel.
        """
        told = SendOctets(Side.NEAR, event.octets)
        pinned = self._context.pin is not None
        if pinned and event.octets.startswith(b"%d" % _CLOSING) and event.octets.endswith(b"\n"):
            return [told, *self._end_as_told(Reason.NO_VERB)]
        return [told, *self._relay(Decision.in_clear(Reason.NO_VERB, alarm=pinned))]

    def _receiver_ended(self, event: EndReceived, now: float) -> list[Command]:
        """Before the verb the receiver closes for writing, and may still read: that passes as what it was.

        From a pinned one it rings: a FIN put in on the wire would be a silent way around the channel.
        """
        alarm = self._context.pin is not None
        clear = Decision.in_clear(Reason.ENDED_BEFORE_DECISION, alarm=alarm)
        return [SendEnd(Side.NEAR), *self._resume_near(), *self._relay(clear)]

    def _end_as_told(self, reason: Reason) -> list[Command]:
        """Towards a pin, whoever says that the session is over (421) gets no more of it: he may be
        in the middle, and a sender that talks on would give him in clear what the channel is for."""
        self.state = State.OVER
        self.deadline = None
        return [NoteDecision(False, reason), CloseBoth()]

    # --- Confirming: nothing is believed before a record verifies ------------------------------------

    def _more_first_flight(self, event: OctetsReceived, now: float) -> list[Command]:
        assert self._flights is not None
        may_send = self._flight.add(event.octets)
        commands: list[Command] = []
        if may_send:
            commands.append(SendOctets(Side.FAR, self._flights.at_once(may_send)))
        return commands + self._pause_if_full()

    def _confirm(self, event: OctetsReceived, now: float) -> list[Command]:
        assert self._records is not None
        assert self._flights is not None
        try:
            frames = self._frames.feed(event.octets)
            if not frames:
                return []
            if frames[0].kind is not FrameKind.RECORD:
                raise PeerProtocolError(Reason.BAD_FRAME, "first frame is no record")
            first = self._records.open(frames[0].body)
        except PeerProtocolError as error:
            return self._fail(error.reason, error.detail, now, said=event.octets)
        self._channel = Channel(self._flights, self._frames)
        self.state = State.CHANNEL
        self.deadline = None
        commands = self._confirmed(self._records.peer(), now, self._flight.held)
        commands += self._channel.first_record(first)
        return commands + self._channelled(self._channel.far_frames(frames[1:]))

    def _await_statement(self, event: OctetsReceived, now: float) -> list[Command]:
        """Records are believed, and what they say waits for the statement, as the sender's octets do."""
        assert self._records is not None
        try:
            frames = self._frames.feed(event.octets)
            for index, one in enumerate(frames):
                if one.kind is not FrameKind.RECORD:
                    raise PeerProtocolError(Reason.BAD_FRAME, "a frame that is no record")
                record = self._records.open(one.body)
                if record.kind is RecordType.PARAMS:
                    Params.decode(record.content)
                if record.kind in ENDS_WAIT:
                    return self._waited(record, frames[index + 1 :], now)
        except PeerProtocolError as error:
            return self._fail(error.reason, error.detail, now, said=event.octets)
        return []

    def _waited(self, record: Record, rest: Sequence[Frame], now: float) -> list[Command]:
        """Judge the peer again, now with its statement or without one, and send all that was kept."""
        assert self._records is not None
        assert self._flights is not None
        assert self._observed_offer is not None
        statement = verified(record.kind, record.content)
        self._decision = decide(compare(self._context.pin, self._observed_offer, statement))
        self._channel = Channel(self._flights, self._frames)
        self.state = State.CHANNEL
        self.deadline = None
        commands = self._confirmed(self._records.peer(), now, self._flight.everything, statement)
        if record.kind is not RecordType.STATEMENT:
            commands += self._channel.first_record(record)
        return commands + self._channelled(self._channel.far_frames(rest))

    def _confirmed(
        self, peer: VerifiedPeer, now: float, unsent: bytes, statement: MetStatement | None = None
    ) -> list[Command]:
        assert self._channel is not None
        assert self._decision is not None
        decision = self._decision
        detail = f"peer={peer.identity.fingerprint} form={peer.form.value} dials={self._dials}"
        look = look_of(self._seen_host, self._seen_reply)
        seen = Sighting(decision.reason, look) if decision.alarm else None
        commands: list[Command] = [NoteDecision(True, decision.reason, decision.alarm, detail, seen)]
        if decision.remember:
            commands.append(RememberPeer(peer, statement, look))
        if unsent:
            commands += self._channel.near_octets(unsent, now)
        self._flight = FirstFlight()
        if self._near_ended:
            commands += self._channel.near_end()
        return commands + self._resume_near()

    def _far_gone(self, event: EndReceived | ResetReceived, now: float) -> list[Command]:
        was_reset = isinstance(event, ResetReceived)
        return self._fail(Reason.FAR_CLOSED_DURING_HANDSHAKE, "", now, was_reset=was_reset)

    def _confirm_late(self, event: DeadlineReached, now: float) -> list[Command]:
        return self._fail(Reason.HANDSHAKE_TIMEOUT, "", now)

    # --- Failed: dial again, upgrade again, then clear -----------------------------------------------

    def _fail(
        self, reason: Reason, detail: str, now: float, *, said: bytes = b"", was_reset: bool = False
    ) -> list[Command]:
        self._failure = reason
        look = look_of(self._seen_host, self._seen_reply)
        self._failure_seen = Sighting(reason, look, said, was_reset)
        self._handshake = self._records = None
        self._dials += 1
        self.state = State.REDIALLING
        self.deadline = now + limits.REDIAL_SECONDS
        told = f"{detail} dial={self._dials - 1}".strip()
        return [NoteFact("handshake-failed", reason, told, self._failure_seen), Redial()]

    def _redialled(self, event: Redialled, now: float) -> list[Command]:
        self.state = State.REOBSERVING
        self._look = SecondLook(self._ehlo, self._seen_host, self._seen_reply)
        return []

    def _look_again(self, event: OctetsReceived, now: float) -> list[Command]:
        assert self._look is not None
        look = self._look.receiver_octets(event.octets)
        if isinstance(look, Continue):
            return [SendOctets(Side.FAR, look.say)] if look.say else []
        if isinstance(look, Differs):
            return self._defer(Reason.REDIAL_DIFFERS)
        if look.offer is None:
            return self._give_up(Reason.OFFER_MISSING)
        if self._dials >= limits.DIALS_PER_SESSION:
            return self._give_up(Reason.HANDSHAKE_FAILED)
        return self._upgrade_again(look.offer, look.greeting, now)

    def _upgrade_again(self, offer: bytes, greeting: bytes, now: float) -> list[Command]:
        try:
            decision = self._read_offer(offer, greeting)
        except PeerProtocolError as error:
            return self._fail(error.reason, error.detail, now)
        if not decision.upgrade:
            return self._give_up(decision.reason)
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
        if self._near_ended:
            commands.append(SendEnd(Side.FAR))
        detail = f"cause={self._failure.value} dials={self._dials}"
        decision = Decision.in_clear(reason, alarm=True)
        return [*commands, *self._resume_near(), *self._relay(decision, detail, self._failure_seen)]

    def _defer(self, reason: Reason) -> list[Command]:
        """The sender keeps the message queued: 421, then the end."""
        self.state = State.OVER
        self.deadline = None
        detail = f"cause={self._failure.value} dials={self._dials}"
        return [
            NoteDecision(False, reason, True, detail, self._failure_seen),
            SendOctets(Side.NEAR, TRY_AGAIN),
            SendReset(Side.FAR),
            CloseBoth(),
        ]

    def _redial_failed(self, event: Event, now: float) -> list[Command]:
        return self._defer(Reason.REDIAL_FAILED)

    def _hold_back(self, event: OctetsReceived, now: float) -> list[Command]:
        self._flight.add(event.octets)
        return self._pause_if_full()

    # --- In the channel ------------------------------------------------------------------------------

    def _channel_over(self) -> None:
        self.state = State.OVER

    def _channelled(self, commands: list[Command]) -> list[Command]:
        if self._channel is not None and self._channel.statements:
            commands += self._learn_ahead(self._channel.statements)
        return super()._channelled(commands)

    def _learn_ahead(self, statements: list[bytes]) -> list[Command]:
        """The identity that the peer will have next, so that it is no stranger then."""
        assert self._records is not None
        peer = self._records.peer()
        commands: list[Command] = []
        while self._statements_left and statements:
            self._statements_left -= 1
            statement = announcement(self._context.pin, peer.identity.octets, statements.pop(0))
            if statement is not None:
                commands += [NoteFact("next-identity-announced"), RememberPeer(peer, statement)]
        statements.clear()
        return commands

    # --- Ends, resets, pauses, and the way into clear --------------------------------------------------

    def _ended_early(self, event: EndReceived, now: float) -> list[Command]:
        """A half-close before the verb: nobody upgrades this; it passes as what it was."""
        released: list[Command] = []
        if self.state is State.OBSERVING:
            released = [
                SendOctets(Side.FAR if passed.to_receiver else Side.NEAR, passed.octets)
                for passed in self._observer.give_up()
            ]
        clear = Decision.in_clear(Reason.ENDED_BEFORE_DECISION)
        return [*released, SendEnd(event.side.other), *self._resume_near(), *self._relay(clear)]

    def _near_ends(self, event: EndReceived, now: float) -> list[Command]:
        """While the far side is not confirmed the end waits, like everything else of the sender."""
        self._near_ended = True
        return []

    def _reset_early(self, event: ResetReceived, now: float) -> list[Command]:
        reset_by = Reason.RESET_BY_SENDER if event.side is Side.NEAR else Reason.RESET_BY_RECEIVER
        self.state = State.OVER
        self.deadline = None
        return [
            NoteDecision(False, Reason.ENDED_BEFORE_DECISION, detail=f"cause={reset_by.value}"),
            SendReset(event.side.other),
        ]

    def _pause_if_full(self) -> list[Command]:
        if self._paused or not self._flight.is_full:
            return []
        self._paused = True
        return [PauseReading(Side.NEAR)]

    def _resume_near(self) -> list[Command]:
        if not self._paused:
            return []
        self._paused = False
        return [ResumeReading(Side.NEAR)]

    def _stay_clear(self, reply: bytes, decision: Decision, seen: Sighting | None = None) -> list[Command]:
        early = self._observer.held_from_sender
        commands: list[Command] = [SendOctets(Side.NEAR, reply)]
        if early:
            commands.append(SendOctets(Side.FAR, early))
        return [*commands, *self._resume_near(), *self._relay(decision, seen=seen)]

    def _relay(self, decision: Decision, detail: str = "", seen: Sighting | None = None) -> list[Command]:
        self.state = State.RELAYED
        self.deadline = None
        return [NoteDecision(False, decision.reason, decision.alarm, detail, seen), RelayInClear()]

    _TABLE: ClassVar[dict[Key, Callable[..., list[Command]]]] = {
        (State.OBSERVING, OctetsReceived, Side.NEAR): _observe_sender,
        (State.OBSERVING, OctetsReceived, Side.FAR): _observe_receiver,
        (State.OBSERVING, EndReceived, Side.NEAR): _ended_early,
        (State.OBSERVING, EndReceived, Side.FAR): _ended_early,
        (State.OBSERVING, ResetReceived, Side.NEAR): _reset_early,
        (State.OBSERVING, ResetReceived, Side.FAR): _reset_early,
        (State.READY, OctetsReceived, Side.NEAR): _first_command,
        (State.READY, OctetsReceived, Side.FAR): _receiver_spoke_unasked,
        (State.READY, EndReceived, Side.NEAR): _ended_early,
        (State.READY, EndReceived, Side.FAR): _receiver_ended,
        (State.READY, ResetReceived, Side.NEAR): _reset_early,
        (State.READY, ResetReceived, Side.FAR): _reset_early,
        (State.CONFIRMING, OctetsReceived, Side.NEAR): _more_first_flight,
        (State.CONFIRMING, OctetsReceived, Side.FAR): _confirm,
        (State.CONFIRMING, EndReceived, Side.NEAR): _near_ends,
        (State.CONFIRMING, EndReceived, Side.FAR): _far_gone,
        (State.CONFIRMING, ResetReceived, Side.NEAR): _reset_early,
        (State.CONFIRMING, ResetReceived, Side.FAR): _far_gone,
        (State.CONFIRMING, DeadlineReached, None): _confirm_late,
        (State.AWAITING_STATEMENT, OctetsReceived, Side.NEAR): _hold_back,
        (State.AWAITING_STATEMENT, OctetsReceived, Side.FAR): _await_statement,
        (State.AWAITING_STATEMENT, EndReceived, Side.NEAR): _near_ends,
        (State.AWAITING_STATEMENT, EndReceived, Side.FAR): _far_gone,
        (State.AWAITING_STATEMENT, ResetReceived, Side.NEAR): _reset_early,
        (State.AWAITING_STATEMENT, ResetReceived, Side.FAR): _far_gone,
        (State.AWAITING_STATEMENT, DeadlineReached, None): _confirm_late,
        (State.REDIALLING, OctetsReceived, Side.NEAR): _hold_back,
        (State.REDIALLING, EndReceived, Side.NEAR): _near_ends,
        (State.REDIALLING, ResetReceived, Side.NEAR): _reset_early,
        (State.REDIALLING, Redialled, None): _redialled,
        (State.REDIALLING, RedialFailed, None): _redial_failed,
        (State.REDIALLING, DeadlineReached, None): _redial_failed,
        (State.REOBSERVING, OctetsReceived, Side.NEAR): _hold_back,
        (State.REOBSERVING, OctetsReceived, Side.FAR): _look_again,
        (State.REOBSERVING, EndReceived, Side.NEAR): _near_ends,
        (State.REOBSERVING, EndReceived, Side.FAR): _redial_failed,
        (State.REOBSERVING, ResetReceived, Side.NEAR): _reset_early,
        (State.REOBSERVING, ResetReceived, Side.FAR): _redial_failed,
        (State.REOBSERVING, DeadlineReached, None): _redial_failed,
        (State.CHANNEL, OctetsReceived, Side.NEAR): InChannel._channel_near_octets,
        (State.CHANNEL, OctetsReceived, Side.FAR): InChannel._channel_far_octets,
        (State.CHANNEL, DeadlineReached, None): InChannel._channel_silent,
        (State.CHANNEL, EndReceived, Side.NEAR): InChannel._channel_ended,
        (State.CHANNEL, EndReceived, Side.FAR): InChannel._channel_ended,
        (State.CHANNEL, ResetReceived, Side.NEAR): InChannel._channel_reset,
        (State.CHANNEL, ResetReceived, Side.FAR): InChannel._channel_reset,
    }
    _NEXT: ClassVar[dict[Callable[..., list[Command]], set[State]]] = {
        _observe_sender: {State.OBSERVING, State.RELAYED},
        _observe_receiver: {
            State.OBSERVING,
            State.OVER,
            State.READY,
            State.CONFIRMING,
            State.AWAITING_STATEMENT,
            State.REDIALLING,
            State.RELAYED,
        },
        _first_command: {State.CONFIRMING, State.AWAITING_STATEMENT},
        _receiver_spoke_unasked: {State.RELAYED, State.OVER},
        _receiver_ended: {State.RELAYED},
        _confirm: {State.CONFIRMING, State.CHANNEL, State.REDIALLING, State.OVER},
        _await_statement: {State.AWAITING_STATEMENT, State.CHANNEL, State.REDIALLING, State.OVER},
        _far_gone: {State.REDIALLING},
        _confirm_late: {State.REDIALLING},
        _redialled: {State.REOBSERVING},
        _redial_failed: {State.OVER},
        _look_again: {
            State.REOBSERVING,
            State.READY,
            State.CONFIRMING,
            State.AWAITING_STATEMENT,
            State.REDIALLING,
            State.RELAYED,
            State.OVER,
        },
        InChannel._channel_far_octets: {State.CHANNEL, State.OVER},
        InChannel._channel_ended: {State.CHANNEL, State.OVER},
        InChannel._channel_reset: {State.OVER},
        _ended_early: {State.RELAYED},
        _reset_early: {State.OVER},
    }
    """Where each handler may lead; one that is not here stays. docs/protocol.md prints it, tests hold it."""
