"""Whole session machines: any order of events that sockets can produce, true peers and false ones.

What must hold for every session is checked by `playbook.Playbook` at each step. The far gateway is a script
that holds keys of its own, so the fuzzer also gets into the channel.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.crypto.handshake import OfferForm
from gateway.crypto.messages import RESUMED_OFFER_OCTETS, AnswerFlags, OfferFlags
from gateway.crypto.records import Direction, RecordType
from gateway.crypto.statement import make_statement
from gateway.crypto.tickets import HeldTickets, OfferedTickets, Ticket, TicketsOfPair
from gateway.errors import PeerProtocolError
from gateway.peers.pins import Acceptance, Destination, Pin, PinnedIdentity
from gateway.session.commands import NoteDecision
from gateway.session.events import (
    EndReceived,
    OctetsReceived,
    ResetReceived,
    Side,
)
from gateway.session.receiving import CANNOT_GO_ON
from gateway.session.sending import TRY_AGAIN
from gateway.smtp.capability import VERB_LINE, split_offer
from tests.fuzz.smtp_targets import content_may_not_follow
from tests.fuzz.target import Cursor, Target, pieces
from tests.playbook import (
    EHLO,
    GREETING,
    LONG_REPLY,
    OTHER_KEYS,
    R_KEYS,
    REPLY,
    S_KEYS,
    TODAY,
    FarReceivingGateway,
    FarSendingGateway,
    Playbook,
    flip,
    octets,
    receiving,
    sending,
)

_COMMANDS = (
    b"MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n",
    b"BDAT 5 LAST\r\nhello",
    b"DATA\r\n",
    b"text\r\n.\r\n",
    b"QUIT\r\n",
    b"da",
    b"ta\r\nbehind it",
    b"NOOP\r\n",
)


class _Session:
    """One machine, and what its sockets may still do."""

    def __init__(self, book: Playbook, at: Cursor) -> None:
        self.book = book
        self.at = at
        self.ended: set[Side] = set()
        self.near_said = b""

    @property
    def over(self) -> bool:
        book = self.book
        return book.relayed or book.closed or Side.NEAR in book.reset | book.gone

    def may(self, side: Side) -> bool:
        """Whether anything can come from this side: it is there, it is read, it has not said its end."""
        book = self.book
        if self.over or side in self.ended or side in book.gone | book.paused:
            return False
        return side is Side.NEAR or not (book._redialling or Side.FAR in book.reset)

    def octets(self, side: Side, said: bytes, size: int) -> None:
        for piece in pieces(said, size):
            if not self.may(side):
                return
            if side is Side.NEAR:
                self.near_said += piece
            self.book.happens(OctetsReceived(side, piece))
            self.check()

    def end(self, side: Side) -> None:
        if self.may(side):
            self.ended.add(side)
            self.book.happens(EndReceived(side))
            self.check()

    def reset(self, side: Side) -> None:
        """Comes through also where nothing is read, or behind an end."""
        book = self.book
        there = side is Side.NEAR or not (book._redialling or Side.FAR in book.reset)
        if there and side not in book.gone and not self.over:
            book.happens(ResetReceived(side))
            self.check()

    def time_passes(self) -> None:
        if self.book.machine.deadline is not None and not self.over:
            self.book.deadline()
            self.check()

    def redial(self, well: bool) -> None:
        if self.book._redialling and not self.over:
            self.ended.discard(Side.FAR)
            self.book.gone.discard(Side.FAR)
            if well:
                self.book.redialled()
            else:
                self.book.redial_failed()
            self.check()

    def check(self) -> None:
        raise NotImplementedError


def _pin(identity: bytes) -> Pin:
    known = PinnedIdentity(identity, TODAY - 3, 1, 2, 1, Acceptance.FIRST_USE, True)
    return Pin(Destination("192.0.2.25", 25), (known,))


_PINS = (None, _pin(R_KEYS.identity.octets), _pin(OTHER_KEYS.identity.octets))
_STATEMENT = make_statement(OTHER_KEYS.key, R_KEYS.key, 7)


_NAME, _SECRET = octets("name of a ticket", 16), octets("secret of a ticket", 32)
_OF_R = Ticket(_NAME, _SECRET, S_KEYS.identity, TODAY, None)
"""R's, which names S; and S's, which names R."""
_OF_S = Ticket(_NAME, _SECRET, R_KEYS.identity, TODAY, None)


def _upgraded(book: Playbook) -> bool:
    return any(decision.upgraded for decision in book.all_of(NoteDecision))


class _Sending(_Session):
    """S under test; the script is R, whose first offer may be with a ticket, which S may not have."""

    def __init__(self, at: Cursor, choice: int) -> None:
        self.held = HeldTickets() if choice & 16 else None
        super().__init__(Playbook(sending(pin=_PINS[(choice >> 1) % 3], tickets=self.held)), at)
        if self.held is not None and choice & 64:
            self.held.keep(_OF_S, self.book.now)
        self.tickets = 0 if self.held is None else len(self.held)
        self.ticket: Ticket | None = _OF_R if choice & 32 else None
        self.flags: int = OfferFlags.STATEMENT_FOLLOWS if choice & 8 else OfferFlags.NONE
        self.flags |= OfferFlags.KEEPS_TICKET if choice & 128 else OfferFlags.NONE
        self.form = OfferForm.SHORT if choice & 1 else OfferForm.FULL
        self.reply = LONG_REPLY if choice & 1 else REPLY
        self.dial()

    def dial(self) -> None:
        self.far = FarReceivingGateway(
            f"dial {self.book.redials}",
            reply=self.reply,
            form=self.form,
            flags=self.flags,
            ticket=self.ticket,
        )
        self.ticket = None
        self.broken = False
        self.sealed = b""
        self.base: int | None = None

    def redial(self, well: bool) -> None:
        before = self.book.redials, self.book._redialling
        super().redial(well)
        if well and before[1]:
            self.dial()

    @property
    def verb_said(self) -> bool:
        return self.book.to_far.startswith(EHLO + VERB_LINE) and not self.book.relayed

    def from_record(self, make: Callable[[], bytes]) -> bytes:
        """What a true R would say now; nothing where it cannot have a layer yet, or has said its last."""
        if not self.verb_said or self.broken:
            return b""
        self.far.take(self.book.to_far)
        if self.far.result is None or self.far.layer.sends is not Direction.RUNNING:
            return b""
        return make()

    def says(self, data: bytes) -> bytes:
        said = self.from_record(lambda: self.far.says(data))
        if said:
            self.sealed += data
        return said

    def step(self) -> None:
        at = self.at
        choice, size = at.u8(), at.u8()
        far, near = Side.FAR, Side.NEAR
        steps: dict[int, Callable[[], None]] = {
            0: lambda: self.octets(near, EHLO, size),
            1: lambda: self.octets(far, self.far.greeting, size),
            2: lambda: self.octets(far, self.far.reply, size),
            3: lambda: self.octets(near, _COMMANDS[at.u8() % len(_COMMANDS)], size),
            4: lambda: self.octets(far, self.from_record(self.far.params), size),
            5: lambda: self.octets(far, self.says(at.take(at.u8())), size),
            6: lambda: self.octets(near, at.take(at.u8()), size),
            7: lambda: self.false(at.take(at.u8()), size),
            8: lambda: self.end(near),
            9: lambda: self.end(far),
            10: lambda: self.reset(near),
            11: lambda: self.reset(far),
            12: self.time_passes,
            13: lambda: self.redial(True),
            14: lambda: self.redial(False),
            15: lambda: self.octets(
                far, self.from_record(lambda: self.far.layer.seal(RecordType.CLOSE)), size
            ),
            16: lambda: self.octets(
                far, self.from_record(lambda: self.far.layer.seal(RecordType.RESET)), size
            ),
            17: lambda: self.octets(
                far, self.from_record(lambda: self.far.layer._seal(64 + size % 192, b"", 0)), 0
            ),
            18: lambda: self.false(flip(self.far.reply, at.u16(), 1 << size % 8), 0),
            19: lambda: self.false(self.tampered(at.u16(), size), 0),
            20: lambda: self.octets(far, self.from_record(lambda: self.far.layer.seal_pad(size)), 0),
            21: lambda: self.octets(far, self.statement(at.u8()), size),
        }
        steps[choice % len(steps)]()

    def statement(self, spoilt: int) -> bytes:
        content = flip(_STATEMENT, spoilt) if spoilt & 1 else _STATEMENT
        return self.from_record(lambda: self.far.layer.seal(RecordType.STATEMENT, content))

    def tampered(self, place: int, mask: int) -> bytes:
        record = self.from_record(lambda: self.far.says(b"250 2.0.0 Ok: queued\r\n"))
        return flip(record, place, 1 << mask % 8) if record else b""

    def false(self, said: bytes, size: int) -> None:
        """From the wire, and not from R: behind the verb nothing of it may come through."""
        self.broken = self.broken or bool(said and self.verb_said and self.may(Side.FAR))
        self.octets(Side.FAR, said, size)

    def check(self) -> None:
        book = self.book
        if self.held is not None:
            assert _upgraded(book) or len(self.held) <= self.tickets, "a ticket of a peer that is not proven"
            resumed = self.verb_said and len(self.far.offer) == RESUMED_OFFER_OCTETS
            assert not resumed or self.held.take(_NAME, 0.0) is None, "a ticket that was used is there still"
        if self.verb_said and self.base is None:
            self.base = len(book.to_near)
        if self.base is not None:
            through = book.to_near[self.base :].removesuffix(TRY_AGAIN)
            assert self.sealed.startswith(through), "the sender heard what no record said"
        if self.verb_said:
            self.far.take(book.to_far)
            said = self.near_said.removeprefix(EHLO)
            assert said.startswith(self.far.data), "octets lost, doubled or altered on the way to R"
            if book.state == "confirming":
                content_may_not_follow(self.far.data)
            elif book.state == "awaiting-statement":
                assert not self.far.data, "octets for a stranger"
            elif book.state == "channel" and book.machine.deadline is None:
                assert self.far.data == said, "octets kept back in the channel"


class _Receiving(_Session):
    """R under test; the script is S, who may not have the ticket that R has."""

    def __init__(self, at: Cursor, choice: int) -> None:
        self.offered = OfferedTickets()
        pair = TicketsOfPair(self.offered, "192.0.2.1", "192.0.2.25") if choice & 4 else None
        super().__init__(Playbook(receiving(may_offer=not choice & 2, tickets=pair)), at)
        if pair is not None and choice & 8:
            pair.keep(_OF_R, self.book.now)
        self.tickets = len(self.offered)
        self.ticket = _OF_S if choice & 16 else None
        self.flags = AnswerFlags.KEEPS_TICKET if choice & 32 else AnswerFlags.NONE
        self.reply = LONG_REPLY if choice & 1 else REPLY
        self.far: FarSendingGateway | None = None
        self.sealed = b""
        self.far_said = b""
        self.true = False
        self.broken = False
        self.wire_base = 0

    @property
    def spoke_unasked(self) -> bool:
        """The receiver said more behind its reply than the answer's writer has seen."""
        return self.far is None or not self.near_said.startswith(GREETING + self.reply)

    def answer(self) -> bytes:
        """Verb and message 2 of a true S, where there is an offer to answer."""
        seen = self.book.to_far
        if self.far is not None or not seen.startswith(GREETING) or self.far_said != EHLO:
            return b""
        offer = split_offer(seen[len(GREETING) :]).offer
        if offer is None:
            return b""
        if len(offer) == RESUMED_OFFER_OCTETS:
            self.tickets = 0
        try:
            reply = seen[len(GREETING) :]
            self.far = FarSendingGateway(reply, flags=self.flags, ticket=self.ticket)
        except PeerProtocolError:
            return b""
        self.true = True
        self.wire_base = len(seen)
        return self.far.answer

    def flipped_answer(self, place: int, mask: int) -> bytes:
        answer = self.answer()
        return flip(answer, place, 1 << mask % 8) if answer else b""

    def from_record(self, make: Callable[[FarSendingGateway], bytes]) -> bytes:
        if self.far is None or self.broken or self.far.layer.sends is not Direction.RUNNING:
            return b""
        return make(self.far)

    def says(self, data: bytes) -> bytes:
        said = self.from_record(lambda far: far.says(data))
        if said:
            self.sealed += data
        return said

    def far_octets(self, said: bytes, size: int, *, true: bool = True) -> None:
        if said and not true:
            self.broken = True
        for piece in pieces(said, size):
            if self.may(Side.FAR):
                self.far_said += piece
            self.octets(Side.FAR, piece, 0)

    def step(self) -> None:
        at = self.at
        choice, size = at.u8(), at.u8()
        near = Side.NEAR
        steps: dict[int, Callable[[], None]] = {
            0: lambda: self.far_octets(EHLO, size),
            1: lambda: self.octets(near, GREETING, size),
            2: lambda: self.octets(near, self.reply, size),
            3: lambda: self.far_octets(self.answer(), size),
            4: lambda: self.far_octets(self.says(at.take(at.u8())), size),
            5: lambda: self.octets(near, at.take(at.u8()), size),
            6: lambda: self.far_octets(at.take(at.u8()), size, true=False),
            7: lambda: self.far_octets(self.flipped_answer(at.u16(), size), 0, true=False),
            8: lambda: self.end(near),
            9: lambda: self.end(Side.FAR),
            10: lambda: self.reset(near),
            11: lambda: self.reset(Side.FAR),
            12: self.time_passes,
            13: lambda: self.far_octets(self.from_record(lambda far: far.layer.seal(RecordType.CLOSE)), size),
            14: lambda: self.far_octets(self.from_record(lambda far: far.layer.seal(RecordType.RESET)), size),
            15: lambda: self.far_octets(
                self.from_record(lambda far: far.layer.seal(RecordType.PARAMS)), size
            ),
            16: lambda: self.far_octets(
                self.from_record(lambda far: far.layer.seal(RecordType.PARAMS, at.take(9))), 0
            ),
            17: lambda: self.far_octets(VERB_LINE[: size % 13], 0, true=False),
            18: lambda: self.far_octets(self.tampered(at.u16(), size), 0, true=False),
            19: lambda: self.octets(near, b"250 2.1.0 Ok\r\n", size),
        }
        steps[choice % len(steps)]()

    def tampered(self, place: int, mask: int) -> bytes:
        record = self.from_record(lambda far: far.says(b"RCPT TO:<eve@e.example>\r\n"))
        return flip(record, place, 1 << mask % 8) if record else b""

    def check(self) -> None:
        book = self.book
        ended = self.far is not None and self.far.layer.sends is not Direction.RUNNING
        assert ended or len(self.offered) <= self.tickets, "a ticket before S has shown that it goes on"
        if self.true and b"XNIGHTMAIL" not in book.to_near and not book.relayed:
            through = book.to_near.removeprefix(EHLO)
            assert self.sealed.startswith(through), "the receiver heard what no record said"
        wire = book.to_far[self.wire_base :]
        if self.true and not book.relayed and wire and self.far is not None and not self.spoke_unasked:
            told = wire.removesuffix(CANNOT_GO_ON)
            assert not told or book.state in ("channel", "over")
            self.far.take(told)
            said = self.near_said.removeprefix(GREETING + self.reply)
            assert said.startswith(self.far.data), "octets lost, doubled or altered on the way to S"
            assert said == self.far.data or book.state == "over" or book.machine.deadline is not None


def _run(session: _Sending | _Receiving) -> None:
    for _ in range(64):
        if not session.at.more or session.over:
            break
        session.step()


def sending_session(octets: bytes) -> None:
    at = Cursor(octets)
    _run(_Sending(at, at.u8()))


def receiving_session(octets: bytes) -> None:
    at = Cursor(octets)
    _run(_Receiving(at, at.u8()))


TARGETS = (
    Target(
        "sending",
        sending_session,
        (
            "gateway.session.sending",
            "gateway.session.attempt",
            "gateway.session.unoffered",
            "gateway.session.channel",
            "gateway.session.second_look",
            "gateway.session.rollover",
        ),
        most_octets=512,
    ),
    Target(
        "receiving",
        receiving_session,
        ("gateway.session.receiving", "gateway.session.channel"),
        most_octets=512,
    ),
)
