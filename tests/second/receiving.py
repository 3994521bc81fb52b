"""R: makes the offer, reads the answer (docs/protocol.md, 3.1 to 3.3, 4, 5.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.second import lines
from tests.second.curve25519 import ed25519_public
from tests.second.gateway import Gateway, Phase
from tests.second.messages import ANSWER_OCTETS, STATEMENT_FOLLOWS, Answer, read_answer, tlv, write_offer
from tests.second.noise import Initiator, Refused
from tests.second.records import ANSWER, CLOSE, FULL_RECORD, PARAMS, REKEY_AFTER, RESET, STATEMENT, Frames
from tests.second.tickets import KEEPS_TICKET, ResumingInitiator, Ticket, TicketsOfR, ticket_of

ANSWER_WITHIN = 20.0


@dataclass
class Receiving(Gateway):
    draw: Callable[[int], bytes]
    seed: bytes
    static: bytes
    today: int
    reached_as: tuple[bytes, int]
    """The original destination of the connection: 16 octets and the port."""
    statements: tuple[bytes, ...] = ()
    flags: int = 0
    extra: tuple[tuple[int, bytes], ...] = ()
    """Records to send behind PARAMS."""
    rekey_after: int = REKEY_AFTER
    full_record: int = FULL_RECORD
    source: bytes = b""
    tickets: TicketsOfR | None = None
    """None: it keeps none."""

    peer: Answer | None = field(default=None, init=False)
    form: str | None = field(default=None, init=False)
    """Of the offer."""
    noise: Initiator | ResumingInitiator = field(init=False)
    _ticket: Ticket | None = field(default=None, init=False)
    """What this handshake leaves."""
    _receiver: bytes = field(default=b"", init=False)
    """What the receiver has said: the greeting, then what is held of the reply."""
    _greeting: bytes = field(default=b"", init=False)
    _ehlo: bytes = field(default=b"", init=False)
    _verb: bytes = field(default=b"", init=False)
    _spoke: bool = field(default=False, init=False)
    """The receiver, behind the reply that carried the offer."""
    _waiting: bytes = field(default=b"", init=False)
    """The receiver's octets behind the verb, before the channel."""
    _near_ended: bool = field(default=False, init=False)

    def from_near(self, octets: bytes) -> None:
        if self.phase is Phase.CHANNEL:
            self.near_in_channel(octets)
        elif self.phase is Phase.ANSWERED:
            self._waiting += octets
        elif self.phase is Phase.OPENING:
            self._opening(octets)
        elif self.phase is not Phase.DEAD:
            self._spoke = True
            self.say("far", octets)

    def _opening(self, octets: bytes) -> None:
        if not self._greeting:
            self._receiver += octets
            greeting = lines.first_reply(self._receiver, b"220")
            if greeting == b"":
                self._give_up(passing=octets)
            elif greeting is None:
                self.say("far", octets)
            else:
                rest = self._receiver[len(greeting) :]
                self._greeting, self._receiver = greeting, b""
                self.say("far", octets[: len(octets) - len(rest)])
                if rest:
                    self._opening(rest)
            return
        self._receiver += octets
        reply = lines.first_reply(self._receiver, b"250")
        if not lines.is_ehlo(self._ehlo) or reply == b"" or len(self._receiver) >= lines.LAST_LINE_BEFORE:
            self._give_up(passing=self._receiver)
        elif reply is not None:
            self._offer(reply, self._receiver[len(reply) :])

    def _offer(self, reply: bytes, behind: bytes) -> None:
        form = lines.fits(len(reply))
        if behind or lines.has_our_keyword(reply) or form is None:
            self._give_up(passing=reply + behind)
            return
        said = lines.prologue(self._greeting + reply, self._ehlo)
        message = self._resumed_offer(said) if form == "full" else None
        if message is None:
            self.form = form
            kem_seed = self.draw(64) if form == "full" else None
            self.noise = Initiator(said, self.static, self.draw(32), kem_seed)
            message = write_offer(self.noise, self.seed, self.today, self._flags(form))
        self.say("far", lines.add_offer(reply, message))
        self.phase = Phase.OFFERED

    def _flags(self, form: str) -> int:
        follows = STATEMENT_FOLLOWS if self.statements and form != "resumed" else 0
        return self.flags | follows | (KEEPS_TICKET if self.tickets is not None and form != "short" else 0)

    def _resumed_offer(self, said: bytes) -> bytes | None:
        pair = self.source, self.reached_as
        used = self.tickets.use(pair, self.now) if self.tickets is not None else None
        if used is None:
            return None
        self.form = "resumed"
        self.noise = ResumingInitiator(said, used, self.draw(32))
        return self.noise.offer(self._flags("resumed"))

    def _not_taken(self) -> None:
        """The client has gone on in clear or is gone, or its answer is refused."""
        void = self.phase is Phase.OFFERED and (self._spoke or self._near_ended)
        if self.form == "resumed" and not void and self.tickets is not None:
            self.tickets.not_taken(self.source, self.now)

    def _give_up(self, passing: bytes) -> None:
        self.say("far", passing)
        self.clear()

    def from_far(self, octets: bytes) -> None:
        if self.phase is Phase.CHANNEL:
            self.far_in_channel(octets)
        elif self.phase is Phase.ANSWERED:
            self._answer(octets)
        elif self.phase is Phase.OFFERED:
            self._verb_or_not(octets)
        elif self.phase is not Phase.DEAD:
            if self.phase is Phase.OPENING:
                self._ehlo += octets
                if not lines.may_be_ehlo(self._ehlo):
                    self._give_up(passing=self._receiver if self._greeting else b"")
            self.say("near", octets)

    def _verb_or_not(self, octets: bytes) -> None:
        self._verb += octets
        if self._verb.startswith(lines.VERB):
            if self._spoke or self._near_ended:
                self.refused = "the receiver has spoken" if self._spoke else "the receiver has ended"
                self._refuse()
                return
            self.phase, self._deadline = Phase.ANSWERED, self.now + ANSWER_WITHIN
            assert self.form is not None
            length = ANSWER_OCTETS[self.form]
            self.frames = Frames({ANSWER: range(length, length + 1)})
            self._answer(self._verb[len(lines.VERB) :])
        elif not lines.VERB.startswith(self._verb):
            self.say("near", self._verb)
            self._not_taken()
            self.clear()

    def _answer(self, octets: bytes) -> None:
        try:
            self.frames.feed(octets)
            frame = self.frames.next()
            if frame is None:
                return
            self.peer = self._read_answer(frame[1])
        except Refused as error:
            self.refused = str(error)
            self._refuse()
            return
        behind = self.frames.pending()
        to_s, to_r = self.noise.state.split()
        self.begin_records(to_s, to_r, self.rekey_after, self.full_record)
        self.phase, self._deadline = Phase.CHANNEL, None
        confirmed = (self.peer.address, self.peer.port) == self.reached_as
        if not confirmed:
            self.say("notice", "dialled address is not ours")
        statements = self.statements if self.form != "resumed" else ()
        shown = [(STATEMENT, statement) for statement in statements]
        self.say("far", self.writer.small((PARAMS, tlv(2, bytes([confirmed]))), *shown, *self.extra))
        if self._waiting:
            self.near_in_channel(self._waiting)
        if self._near_ended:
            self.end_in_channel(CLOSE)
        self.far_in_channel(behind)

    def _read_answer(self, message: bytes) -> Answer:
        before = None
        if isinstance(self.noise, Initiator):
            peer = read_answer(self.noise, message, ed25519_public(self.seed), self.today)
        else:
            before = self.noise.ticket
            flags, address, port = self.noise.read_answer(message)
            peer = Answer(before.identity, before.epoch, before.epoch, flags, address, port)
        if self.tickets is not None and self.form != "short" and peer.flags & KEEPS_TICKET:
            self._ticket = ticket_of(self.noise.state, self.now, peer.identity, peer.epoch, before)
        return peer

    def take_record(self, type_: int, content: bytes) -> None:
        # S sends no end in a record before it has confirmed R: now it has the ticket, too.
        if type_ in (CLOSE, RESET) and self._ticket is not None and self.tickets is not None:
            self.tickets.keep((self.source, self.reached_as), self._ticket)
            self._ticket = None
        super().take_record(type_, content)

    def _refuse(self) -> None:
        self._not_taken()
        # Behind the receiver's end, which has passed, there is nothing to say any more.
        if self.phase is not Phase.OFFERED or not self._near_ended:
            self.say("far", b"454 4.7.0 No mail this way now\r\n")
            self.say("end far")
        self.say("end near")
        self.phase = Phase.DEAD

    def near_ended(self) -> None:
        if self.phase is Phase.CHANNEL:
            self.end_in_channel(CLOSE)
        elif self.phase is Phase.ANSWERED:
            self._near_ended = True
        elif self.phase is Phase.OFFERED:
            self._near_ended = True
            self.say("end far")
        elif self.phase is not Phase.DEAD:
            self._ended_early()
            self.say("end far")

    def near_was_reset(self) -> None:
        if self.phase is Phase.CHANNEL:
            self.end_in_channel(RESET)
        elif self.phase is not Phase.DEAD:
            self.say("reset far")
            self.phase = Phase.DEAD

    def far_ended(self) -> None:
        if self.phase is Phase.ANSWERED:
            self.refused = "the line ended"
            self._refuse()
        elif self.phase is Phase.CHANNEL:
            if not self._read_ended:
                self.refused = "the line ended"
                self.channel_failed()
        elif self.phase is not Phase.DEAD:
            self._ended_early()
            self.say("end near")

    def _ended_early(self) -> None:
        """An end before the verb: what is held passes."""
        if self.phase is Phase.OFFERED:
            self._not_taken()
            self.say("near", self._verb)
        elif self.phase is Phase.OPENING and self._greeting:
            self.say("far", self._receiver)
        self.clear()

    def far_was_reset(self) -> None:
        if self.phase in (Phase.OFFERED, Phase.ANSWERED):
            self._not_taken()
        if self.phase is not Phase.DEAD and not (self._read_ended and self._write_ended):
            self.say("reset near")
        self.phase = Phase.DEAD

    def clock(self, now: float) -> None:
        self.now = now
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            self.refused = "no answer in time"
            self._refuse()
        self.silence()
