"""S: takes the offer, answers, dials again (docs/protocol.md, 3.4, 3.5, 4, 5.3, 6, 7, 10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.second import lines
from tests.second.curve25519 import ed25519_public, x25519_public
from tests.second.gateway import Gateway, Phase
from tests.second.memory import Failures, Pin
from tests.second.messages import (
    STATEMENT_FOLLOWS,
    Answer,
    Offer,
    answer_payload,
    endorse,
    read_offer,
    read_statement,
    tlv,
    u16,
)
from tests.second.noise import Refused, Responder
from tests.second.records import (
    ANSWER,
    CLOSE,
    DATA,
    FULL_RECORD,
    PARAMS,
    REKEY_AFTER,
    RESET,
)
from tests.second.tickets import (
    KEEPS_TICKET,
    NAME,
    UNKNOWN_TICKET,
    ResumingResponder,
    Ticket,
    TicketsOfS,
    ticket_of,
)

CONFIRMED_WITHIN = 10.0
DIALS, TICKETS_FORGIVEN, FORGIVEN_WITHIN = 3, 6, 90.0
FIRST_FLIGHT = 65536
LONGEST_ENDORSEMENT = 14


@dataclass
class Sending(Gateway):
    draw: Callable[[int], bytes]
    seed: bytes
    static: bytes
    today: int
    dialled: tuple[bytes, int]
    pin: Pin = field(default_factory=Pin)
    path: Failures = field(default_factory=Failures)
    flags: int = 0
    extra: tuple[tuple[int, bytes], ...] = ()
    """Records to send behind PARAMS."""
    rekey_after: int = REKEY_AFTER
    full_record: int = FULL_RECORD
    tickets: TicketsOfS | None = None
    """None: it keeps none."""

    offer: Offer | None = field(default=None, init=False)
    word: str | None = field(default=None, init=False)
    failures: list[str] = field(default_factory=list, init=False)
    noise: Responder | ResumingResponder = field(init=False)
    _ticket: Ticket | None = field(default=None, init=False)
    """What this handshake leaves."""
    _ehlo: bytes = field(default=b"", init=False)
    _kept: bytes = field(default=b"", init=False)
    """All octets of the sender behind its EHLO line, while they may have to be sent again."""
    _flight: lines.FirstFlight = field(default_factory=lines.FirstFlight, init=False)
    _receiver: bytes = field(default=b"", init=False)
    """What it has said: the greeting, then its reply, then what it says behind that unasked."""
    _greeting: bytes = field(default=b"", init=False)
    _shown: tuple[bytes, bytes] = field(default=(b"", b""), init=False)
    """The greeting and the reply that the sender has seen."""
    _room: str | None = field(default=None, init=False)
    _answer: bytes = field(default=b"", init=False)
    _near_ended: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)
    """The near side is not read."""
    _asked: float = field(default=0.0, init=False)
    """When the sender's EHLO went out,"""
    _forgivable: int = field(default=0, init=False)
    """and how many offers had a ticket that is not there, not much later (4.6)."""
    _waits: bool = field(default=False, init=False)
    """For a statement (10.3)."""
    _unheard: bool = field(default=False, init=False)
    """The receiver has ended before its reply, and nothing of the sender's has gone out in clear (3.4)."""

    # The sender's side

    def from_near(self, octets: bytes) -> None:
        if self.phase is Phase.CHANNEL:
            self.near_in_channel(octets)
        elif self.phase is Phase.CLEAR:
            if self._unheard:
                self._unheard = False
                self._ring("ENDED")
            self.say("far", octets)
        elif self.phase is Phase.OPENING:
            self._sender_opens(octets)
        elif self.phase not in (Phase.PUT_OFF, Phase.DEAD):
            self._keep(octets)
            if self.phase is Phase.OFFERED and not self._receiver:
                self._send_verb()
            elif self.phase is Phase.ANSWERED and not self._waits:
                self._send_first(octets)

    def _keep(self, octets: bytes) -> None:
        self._kept += octets
        if len(self._kept) >= FIRST_FLIGHT and not self._stopped:
            self._stopped = True
            self.say("stop reading near")

    def _read_on(self) -> None:
        if self._stopped:
            self._stopped = False
            self.say("read near")

    def _sender_opens(self, octets: bytes) -> None:
        if lines.is_ehlo(self._ehlo):
            self._keep(octets)
            return
        end = octets.find(b"\n") + 1 or len(octets)
        self._ehlo += octets[:end]
        self._asked = self.now
        self.say("far", octets[:end])
        if lines.may_be_helo(self._ehlo):
            return
        if not lines.may_be_ehlo(self._ehlo):
            self._kept = octets[end:]
            led = self._greeting and lines.leads_to_helo(self._greeting)
            self._without() if led and lines.is_helo(self._ehlo) else self._stay_clear()
        elif octets[end:]:
            self._keep(octets[end:])

    def near_ended(self) -> None:
        if self.phase is Phase.CHANNEL:
            self.end_in_channel(CLOSE)
        elif self.phase in (Phase.ANSWERED, Phase.REDIAL) or (self.phase is Phase.OPENING and self._kept):
            self._near_ended = True
        elif self.phase not in (Phase.PUT_OFF, Phase.DEAD):
            if self.phase is Phase.OFFERED and self._receiver:
                self._ring("UNASKED")
            self._ended_early()
            self.say("end far")

    def near_was_reset(self) -> None:
        if self.phase is Phase.CHANNEL:
            self.end_in_channel(RESET)
        elif self.phase is not Phase.DEAD:
            self.say("reset far")
        self.phase = Phase.DEAD

    # The wire's side

    def from_far(self, octets: bytes) -> None:
        if self.phase in (Phase.ANSWERED, Phase.CHANNEL):
            self.far_in_channel(octets)
        elif self.phase is Phase.OFFERED:
            self._unasked(octets)
        elif self.phase is Phase.CLEAR:
            self.say("near", octets)
        elif self.phase is Phase.PUT_OFF:
            self._put_off(octets)
        elif self.phase is not Phase.DEAD:
            self._receiver += octets
            if self._is_421():
                self._put_off(octets if not self._greeting else self._receiver)
            elif not self._greeting:
                self._greet(octets)
            else:
                self._replied()

    def _unasked(self, octets: bytes) -> None:
        """Behind the stripped reply. What may still become a 421 where a pin exists waits for that."""
        self._receiver += octets
        if self._is_421():
            self._put_off(octets)
            return
        self.say("near", octets)
        if not self._may_be_421():
            self._ring("UNASKED")
            self._stay_clear()

    def _ring(self, word: str) -> None:
        """Where a pin exists."""
        if self.pin.identities:
            self.say("alarm", word)

    # A 421 where a pin exists

    def _is_421(self) -> bool:
        """Whether it is one, whatever follows its code."""
        pinned = bool(self.pin.identities) and self.phase is not Phase.REDIAL
        return pinned and self._receiver.startswith(b"421")

    def _may_be_421(self) -> bool:
        return bool(self.pin.identities) and b"421".startswith(self._receiver)

    def _put_off(self, octets: bytes) -> None:
        """Hands it on until its last line is whole, then ends both connections."""
        if self.phase is Phase.PUT_OFF:
            self._receiver += octets
        self.phase, self._kept = Phase.PUT_OFF, b""
        self.say("near", octets)
        if lines.is_ended(self._receiver):
            self._end_both()

    def _end_both(self) -> None:
        self.say("end near")
        self.say("end far")
        self.phase = Phase.DEAD

    def _greet(self, octets: bytes) -> None:
        greeting = lines.first_reply(self._receiver, b"220")
        again = self.phase is Phase.REDIAL
        if greeting == b"":
            self._differs() if again else self._odd(octets)
        elif greeting is None:
            self.say("near", b"" if again else octets)
        else:
            rest = self._receiver[len(greeting) :]
            self._greeting, self._receiver = greeting, b""
            if again:
                if lines.greeting_host(greeting) != lines.greeting_host(self._shown[0]):
                    self._differs()
                    return
                self.say("far", self._ehlo)
            else:
                self.say("near", octets[: len(octets) - len(rest)])
            if rest:
                self.from_far(rest)

    def _odd(self, octets: bytes) -> None:
        """A greeting or reply that cannot carry an offer."""
        self._without()
        self.say("near", octets)

    def _replied(self) -> None:
        again = self.phase is Phase.REDIAL
        if not lines.is_ehlo(self._ehlo) and self._may_be_421():
            return
        reply = lines.first_reply(self._receiver, b"250")
        if not lines.is_ehlo(self._ehlo) or reply == b"" or len(self._receiver) > lines.LONGEST_REPLY:
            self._differs() if again else self._odd(self._receiver)
            return
        if reply is None:
            return
        if len(self._receiver) > len(reply):
            self._differs() if again else self._spoken_behind()
            return
        taken = lines.take_offer(reply)
        stripped = taken[0] if taken else reply
        if again and stripped != self._shown[1]:
            self._differs()
            return
        if not again:
            self.say("near", stripped)
            self._shown = self._greeting, stripped
        forgiven = min(self._forgivable, TICKETS_FORGIVEN)
        if taken is None or len(self.failures) - forgiven == DIALS - 1:
            self._without()
        elif not self.pin.identities and self.path.rests(self.now):
            self._stay_clear()
        else:
            self._take(*taken)

    def _spoken_behind(self) -> None:
        """All of it passes, an offer included."""
        said = self._receiver
        self._without()
        self.say("near", said)

    def _without(self) -> None:
        """In clear: there is no offer, or none may be used any more."""
        if self.failures:
            self._count_failure()
        elif self.pin.identities:
            self.word = "MISSING"
            self.say("alarm", self.word)
        self._stay_clear()

    def _count_failure(self) -> None:
        self.word = "FAILED"
        self.say("alarm", self.word)
        if not self.pin.identities:
            self.path.count(self.now)

    def _take(self, stripped: bytes, message: bytes) -> None:
        said = lines.prologue(self._greeting + stripped, self._ehlo)
        self._room = lines.fits(len(stripped))
        try:
            if len(message) == lines.RESUMED_OCTETS:
                self._resume(said, message)
            else:
                self._answer_to(said, message)
        except Refused as error:
            self._failed(str(error))
            return
        assert self.offer is not None
        if self.offer.identity == ed25519_public(self.seed):
            self.say("alarm" if self.pin.identities else "notice", "OWN IDENTITY")
            self._stay_clear()
            return
        self.phase, self._receiver = Phase.OFFERED, b""
        if self._kept:
            self._send_verb()
        elif self._near_ended:
            self._stay_clear()

    def _answer_to(self, said: bytes, message: bytes) -> None:
        """A full or a short offer."""
        self.noise = Responder(said, self.static, self.draw(32), self.draw(32))
        self.offer = read_offer(self.noise, message)
        own, not_after = ed25519_public(self.seed), self.today + LONGEST_ENDORSEMENT
        if self.offer.identity == own:
            return
        self.word = self.pin.word(self.offer, self._room)
        flags = self.flags | (self._keeps(self.offer) if self.offer.full else 0)
        answer = Answer(own, self.today, not_after, flags, *self.dialled)
        endorsement = endorse(self.seed, x25519_public(self.static), self.today, not_after)
        self._answer = self.noise.answer(answer_payload(answer, endorsement))
        self._leave_ticket(flags, None)

    def _resume(self, said: bytes, message: bytes) -> None:
        if self.tickets is None:
            raise Refused(UNKNOWN_TICKET)
        used = self.tickets.use(message[:NAME], self.now)
        self.noise = ResumingResponder(said, used, self.draw(32))
        self.offer = Offer(used.identity, used.epoch, self.noise.read_offer(message), full=True)
        word = self.pin.word(self.offer, self._room)
        # The epoch was right when the ticket was made, and is not judged again.
        self.word = "SAME" if word == "OLD" else word
        if self.word not in ("NEW", "SAME"):
            raise Refused(f"a ticket of {self.word}")
        flags = self.flags | self._keeps(self.offer)
        self._answer = self.noise.answer(flags, self.dialled)
        self._leave_ticket(flags, used)

    def _keeps(self, offer: Offer) -> int:
        """KEEPS_TICKET, or nothing."""
        wants = self.tickets is not None and self.tickets.has_room(self.now)
        return KEEPS_TICKET if wants and self.word in ("NEW", "SAME") and offer.flags & KEEPS_TICKET else 0

    def _leave_ticket(self, flags: int, used: Ticket | None) -> None:
        assert self.offer is not None
        both = flags & self.offer.flags & KEEPS_TICKET and self.tickets is not None
        args = self.noise.state, self.now, self.offer.identity, self.offer.epoch, used
        self._ticket = ticket_of(*args) if both else None

    def _send_verb(self) -> None:
        assert self.offer is not None
        self.phase = Phase.ANSWERED
        self._deadline = self.now + CONFIRMED_WITHIN
        to_s, to_r = self.noise.state.split()
        self.begin_records(to_r, to_s, self.rekey_after, self.full_record)
        accepted = self.pin.accepts(self.offer.identity)
        self._waits = bool(self.pin.identities and not accepted and self.offer.flags & STATEMENT_FOLLOWS)
        self._flight = lines.FirstFlight()
        self.writer.wait((PARAMS, tlv(4, b"second")), *self.extra)
        now = b"" if self._waits else self._flight.passes(self._kept)
        records = self.writer.data(now, self.now, hold=False)
        self.say("far", lines.VERB + bytes([ANSWER]) + u16(len(self._answer)) + self._answer + records)

    def _send_first(self, octets: bytes) -> None:
        now = self._flight.passes(octets)
        if now:
            self.say("far", self.writer.data(now, self.now, hold=False))

    def take_record(self, type_: int, content: bytes) -> None:
        if self.phase is Phase.ANSWERED and (not self._waits or type_ in (DATA, CLOSE, RESET)):
            self._settle(False)
        super().take_record(type_, content)

    def take_statement(self, content: bytes) -> None:
        assert self.offer is not None
        statement = read_statement(content)
        counts = self.pin.counts(statement, self.offer.identity)
        if self._waits:
            self._settle(counts)
            if counts:
                assert statement is not None
                self.pin.lead(statement)
        elif statement is not None and self.pin.learns(statement, self.offer.identity):
            self.pin.lead(statement)

    def _settle(self, led: bool) -> None:
        """R is confirmed, and there is no statement to wait for any more: remember, and send what is kept."""
        assert self.offer is not None
        weak = not self.offer.full and self._room == "full"
        if led and self.word in ("CHANGED", "WEAKER"):
            self.word = "WEAKER" if weak else "SAME"
        if self.word == "NEW" and self.pin.identities:  # another session's pin, made since the offer came
            self.word = "SAME" if self.pin.accepts(self.offer.identity) else "CHANGED"
        known = self.offer.identity in self.pin.identities
        if self.word == "WEAKER" or (self.word == "CHANGED" and not known):
            self.say("alarm", self.word)
        elif self.word == "OLD":
            self.say("notice", self.word)
        if self.failures:
            self.say("notice", "HANDSHAKE FAILED")
        self.pin.remember(self.offer, accepted=led or self.word == "NEW")
        if self._ticket is not None and self.tickets is not None and self.word in ("NEW", "SAME") and not led:
            self.tickets.keep(self._ticket)
        self.path = Failures()
        rest = self._kept if self._waits else self._flight.rest()
        self.phase, self._waits, self._deadline, self._kept = Phase.CHANNEL, False, None, b""
        self._read_on()
        if rest:
            self.near_in_channel(rest)
        if self._near_ended:
            self.end_in_channel(CLOSE)

    # Failures

    def channel_failed(self) -> None:
        if self.phase is Phase.ANSWERED:
            self._failed(self.refused or "")
        else:
            super().channel_failed()

    def _failed(self, cause: str) -> None:
        self.refused, self._deadline = cause, None
        self.failures.append(cause)
        self._forgivable += cause == UNKNOWN_TICKET and self.now < self._asked + FORGIVEN_WITHIN
        self.say("dial")
        self.phase, self._waits = Phase.REDIAL, False
        self._receiver = self._greeting = b""
        self._read_ended = False

    def dial_failed(self) -> None:
        self._differs()

    def _differs(self) -> None:
        self._count_failure()
        self.say("near", b"421 4.7.0 Try again later\r\n")
        self.say("end near")
        self.say("reset far")
        self.phase = Phase.DEAD

    def _stay_clear(self) -> None:
        self.clear()
        self._deadline = None
        self.say("far", self._kept)
        self._kept = b""
        self._read_on()
        if self._near_ended:
            self.say("end far")

    def _ended_early(self) -> None:
        """An end before the verb: what is held passes."""
        if self.phase is Phase.OPENING and self._greeting:
            self.say("near", self._receiver)
        if self.phase is not Phase.CLEAR:
            self._stay_clear()

    def far_ended(self) -> None:
        if self.phase is Phase.ANSWERED:
            self._failed("the line ended")
        elif self.phase is Phase.CHANNEL:
            if not self._read_ended:
                self.refused = "the line ended"
                self.channel_failed()
        elif self.phase is Phase.REDIAL:
            self._differs()
        elif self.phase is Phase.PUT_OFF:
            self._end_both()
        elif self.phase is not Phase.DEAD:
            if self.phase is Phase.OFFERED or (self.phase is Phase.OPENING and self._kept):
                self._ring("ENDED")
            elif self.phase is Phase.OPENING:
                self._unheard = True
            self._ended_early()
            self.say("end near")

    def far_was_reset(self) -> None:
        if self.phase is Phase.ANSWERED:
            self._failed("the line was reset")
        elif self.phase is Phase.REDIAL:
            self._differs()
        else:
            if self.phase is not Phase.DEAD and not (self._read_ended and self._write_ended):
                self.say("reset near")
            self.phase = Phase.DEAD

    def clock(self, now: float) -> None:
        self.now = now
        if self._deadline is not None and now >= self._deadline:
            self._failed("not confirmed in time")
        self.silence()
