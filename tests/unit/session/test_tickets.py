"""Sessions that make tickets and use them, both gateways' machines together (docs/protocol.md, 4.6)."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field
from types import FunctionType, ModuleType

import pytest

from gateway.crypto.frames import FrameKind, frame
from gateway.crypto.tickets import HeldTickets, OfferedTickets, Ticket, TicketsOfPair
from gateway.errors import Reason
from gateway.peers.pins import Pin
from gateway.peers.sources import Sender as KnownSender
from gateway.policy import limits
from gateway.session import commands as c
from gateway.session.events import DeadlineReached, ResetReceived, Side
from gateway.session.receiving import ReceivingSession
from gateway.smtp.capability import KEYWORD, VERB_LINE, split_offer
from tests.holding import HeldKeys
from tests.pair import Pair, Receiver, Sender, Tamperer
from tests.playbook import (
    EHLO,
    GREETING,
    LONG_REPLY,
    OTHER_KEYS,
    R_KEYS,
    REPLY,
    S_KEYS,
    FarReceivingGateway,
    Playbook,
    flip,
    receiving,
    sending,
)
from tests.unit.session.sending_steps import MAIL, R_PIN, pin_of, redialled

SOURCE, HERE = "192.0.2.1", "198.51.100.1"
MAIL_STEPS = [
    (1, EHLO),
    (2, MAIL + b"RCPT TO:<bob@b.example>\r\nDATA\r\n"),
    (5, b"Subject: x\r\n\r\nhello\r\n.\r\n"),
    (6, b"QUIT\r\n"),
]
RESUMED_OFFER_LINES = 1
UNKNOWN = b"250-mx.b.example\r\n250 XNIGHTMAIL 1 1/1 " + b"A" * 88 + b"\r\n"
"""A reply whose offer names a ticket that nobody has."""


@dataclass
class Site:
    """Two gateways that meet several times: what each of them keeps between the sessions."""

    held: HeldTickets | None = field(default_factory=HeldTickets)
    offered: OfferedTickets | None = field(default_factory=OfferedTickets)
    pin: Pin | None = R_PIN
    r_keys: HeldKeys = R_KEYS
    reply: bytes = REPLY
    statements: tuple[bytes, ...] = ()
    sender_epoch: int = 0
    sessions: int = 0

    def meet(self, tamper: Tamperer | None = None, **of_s: object) -> Pair:
        self.sessions += 1
        meeting = self.sessions
        of_pair = None if self.offered is None else TicketsOfPair(self.offered, SOURCE, HERE)
        before: list[ReceivingSession] = []

        def make_r(dial: int) -> ReceivingSession:
            if before:
                before[-1].handle(
                    ResetReceived(Side.FAR), 1000.0
                )  # of the dial before; nobody looks any more
            label = f"R {meeting} {dial}"
            before.append(
                receiving(
                    label=label,
                    keys=self.r_keys,
                    tickets=of_pair,
                    statements=self.statements,
                    sender_of=lambda identity: KnownSender(identity, self.sender_epoch),
                )
            )
            return before[-1]

        pair = Pair(
            Sender(MAIL_STEPS),
            lambda: Receiver(reply=self.reply),
            make_s=lambda: sending(tickets=self.held, pin=self.pin, **of_s),  # type: ignore[arg-type]
            make_r=make_r,
            tamper=tamper,
        )
        return pair.run()


def forms(pair: Pair) -> list[str]:
    """Of the channels that were made, as R tells it and as S does."""
    return [
        next(word for word in decision.detail.split() if word.startswith("form="))
        for decision in pair.decisions
        if decision.upgraded
    ]


RESUMED, FULL = ["form=resumed"] * 2, ["form=full"] * 2


def delivered_once(pair: Pair) -> bool:
    return pair.delivered == [b"Subject: x\r\n\r\nhello\r\n"] and pair.sender.replies[-1].startswith(b"221")


# --- The plain way --------------------------------------------------------------------------------------


def test_the_first_session_is_whole_and_the_next_ones_are_resumed() -> None:
    site = Site()
    pairs = [site.meet() for _ in range(4)]
    assert [forms(pair) for pair in pairs] == [FULL, RESUMED, RESUMED, RESUMED]
    assert all(delivered_once(pair) and pair.dials == 1 for pair in pairs)
    assert not any(decision.alarm for pair in pairs for decision in pair.decisions)
    assert [decision.reason for decision in pairs[1].decisions] == [Reason.UPGRADED] * 2


def test_the_mail_servers_see_the_same_in_a_resumed_session() -> None:
    site = Site()
    first, second = site.meet(), site.meet()
    assert forms(second) == RESUMED
    assert second.sender.heard == first.sender.heard
    assert second.receiver.heard == first.receiver.heard
    assert KEYWORD not in second.sender.heard


def test_nothing_of_the_mail_is_on_the_wire_of_a_resumed_session() -> None:
    site = Site()
    site.meet()
    pair = site.meet()
    assert forms(pair) == RESUMED
    for word in (b"alice", b"bob", b"Subject", b"hello", b"MAIL FROM", b"QUIT"):
        assert word not in pair.wire + pair.wire_back


def test_the_offer_of_a_resumed_session_is_one_short_line() -> None:
    site = Site()
    site.meet()
    wire = site.meet().wire_back
    reply = wire[len(GREETING) : wire.index(b"\r\n", wire.index(KEYWORD)) + 2]
    split = split_offer(reply)
    assert (split.stripped, len(split.offer or b"")) == (REPLY, 66)
    assert reply.count(KEYWORD) == RESUMED_OFFER_LINES


def test_each_ticket_is_used_once() -> None:
    site = Site()
    site.meet()
    assert (len(site.held or ()), len(site.offered or ())) == (1, 1)
    names = set()
    for _ in range(3):
        assert site.held is not None
        names |= set(site.held._of)
        assert forms(site.meet()) == RESUMED
        assert (len(site.held), len(site.offered or ())) == (1, 1)
    assert len(names) == 3


def test_sessions_at_once_have_a_ticket_each_or_a_whole_handshake() -> None:
    offered, held = OfferedTickets(), HeldTickets()
    of_pair = TicketsOfPair(offered, SOURCE, HERE)
    for _ in range(2):
        Pair(
            Sender(MAIL_STEPS),
            make_s=lambda: sending(tickets=held, pin=R_PIN),
            make_r=lambda dial: receiving(tickets=of_pair),
        ).run()
    books = [Playbook(receiving(tickets=of_pair, label=f"R {n}")) for n in range(2)]
    for book in books:
        book.far(EHLO)
        book.near(GREETING)
        book.near(REPLY)
    sizes = [len(split_offer(book.to_far[len(GREETING) :]).offer or b"") for book in books]
    assert sizes == [66, 1350]


# --- Who wants none ---------------------------------------------------------------------------------------


def test_no_ticket_where_one_gateway_keeps_none() -> None:
    for site in (Site(held=None), Site(offered=None)):
        assert [forms(site.meet()) for _ in range(2)] == [FULL, FULL]
        assert not site.held
        assert not site.offered


def test_r_keeps_no_ticket_that_s_has_no_room_for() -> None:
    """It would offer it in vain."""
    site = Site(held=HeldTickets(capacity=1))
    site.meet()
    assert site.held is not None
    site.held.keep(_another_ticket(), 1000.0)
    assert len(site.held) == 1
    site.offered = OfferedTickets()
    assert [forms(site.meet()) for _ in range(2)] == [FULL, FULL]
    assert len(site.offered) == 0


def test_no_ticket_of_a_short_offer() -> None:
    site = Site(reply=LONG_REPLY)
    pairs = [site.meet(), site.meet()]
    assert [forms(pair) for pair in pairs] == [["form=short"] * 2] * 2
    assert not site.held
    assert not site.offered


def test_where_the_size_rule_asks_for_a_short_offer_no_ticket_is_used() -> None:
    site = Site()
    site.meet()
    site.reply = LONG_REPLY
    assert forms(site.meet()) == ["form=short"] * 2
    assert len(site.offered or ()) == 1


def test_no_ticket_of_a_peer_that_rings() -> None:
    """An identity that nobody has accepted must show itself each time."""
    site = Site(pin=pin_of((OTHER_KEYS, 1)))
    assert [forms(site.meet()) for _ in range(2)] == [FULL, FULL]
    assert not site.held


def test_a_new_peer_leaves_a_ticket() -> None:
    site = Site(pin=None)
    site.meet()
    site.pin = R_PIN
    assert forms(site.meet()) == RESUMED


# --- A ticket that S cannot take ----------------------------------------------------------------------------


def test_a_sending_gateway_that_was_started_anew_dials_twice_once() -> None:
    site = Site()
    site.meet()
    site.meet()
    site.held = HeldTickets()
    pair = site.meet()
    assert (forms(pair), pair.dials) == (FULL, 2)
    assert delivered_once(pair)
    assert not any(decision.alarm for decision in pair.decisions)
    facts = [command for command in pair.commands if isinstance(command, c.NoteFact)]
    assert [(fact.event, fact.reason, fact.seen) for fact in facts] == [
        ("handshake-failed", Reason.TICKET_UNKNOWN, None)
    ]
    assert (forms(site.meet()), forms(site.meet())) == (FULL, FULL)  # it rests


def test_a_pin_that_has_changed_meanwhile_is_asked_again() -> None:
    """What the ticket says is held against the memory of peers, as an offer is."""
    site = Site()
    site.meet()
    site.pin = pin_of((OTHER_KEYS, 1))
    pair = site.meet()
    assert (forms(pair), pair.dials) == (FULL, 2)
    assert [decision.reason for decision in pair.decisions if decision.alarm] == [
        Reason.UPGRADED_CHANGED_PEER
    ]


def test_a_ticket_is_good_on_the_next_day() -> None:
    """Whole offers and answers have a higher epoch by then: that is no reason to dial, or to tell anybody."""
    site = Site()
    site.meet()
    site.pin = pin_of((R_KEYS, R_KEYS.endorsed.static.epoch + 1))
    site.sender_epoch = S_KEYS.endorsed.static.epoch + 1
    pair = site.meet()
    assert (forms(pair), pair.dials) == (RESUMED, 1)
    assert [decision.reason for decision in pair.decisions] == [Reason.UPGRADED] * 2


@pytest.mark.parametrize("at", [0, 40, -3])
def test_an_offer_that_was_changed_on_the_way_is_a_failed_handshake(at: int) -> None:
    site = Site()
    site.meet()

    def tamper(to_receiver: bool, passed: int, octets: bytes) -> bytes:
        nonlocal seen
        if to_receiver:
            return octets
        seen += octets
        target = len(GREETING) + len(REPLY) + len(b"250 XNIGHTMAIL 1 1/1 ") + (at if at >= 0 else 88 + at)
        where = target - passed
        if not 0 <= where < len(octets):
            return octets
        # Another letter of the offer's alphabet: with one that is not, it would be no offer.
        other = b"B" if octets[where : where + 1] == b"A" else b"A"
        return octets[:where] + other + octets[where + 1 :]

    seen = b""
    pair = site.meet(tamper)
    assert (forms(pair), pair.dials) == (FULL, 2)
    assert delivered_once(pair)


def test_unknown_tickets_again_and_again_end_in_clear_with_the_alarm() -> None:
    """One in the middle who answers for R, with tickets that he has made up."""
    book = _meets_an_unknown_ticket()
    for _ in range(limits.TICKETS_FORGIVEN + limits.DIALS_PER_SESSION - 1):
        assert not book.relayed
        book.redialled()
        book.far(GREETING)
        book.far(UNKNOWN)
    assert book.relayed
    assert (book.decision.reason, book.decision.alarm) == (Reason.HANDSHAKE_FAILED, True)
    assert book.to_near == GREETING + b"250 mx.b.example\r\n"
    assert book.to_far == EHLO


def _meets_an_unknown_ticket(pin: Pin | None = R_PIN) -> Playbook:
    book = Playbook(sending(tickets=HeldTickets(), pin=pin))
    book.far(GREETING)
    book.near(EHLO)
    book.far(UNKNOWN)
    assert book.to_near == GREETING
    return book


def test_the_second_dial_may_meet_another_machine_of_a_farm() -> None:
    """The sender is shown one reply, that of the machine which it goes on with."""
    book = _meets_an_unknown_ticket()
    other = FarReceivingGateway(
        greeting=b"220 mx2.b.example ESMTP\r\n", reply=b"250-mx2.b.example\r\n250 SIZE 99\r\n"
    )
    redialled(book, other)
    assert book.to_near == GREETING + b"250-mx2.b.example\r\n250 SIZE 99\r\n"
    assert book.state == "ready"
    book.near(MAIL)
    other.take(book.to_far)
    book.far(other.params())
    assert (book.state, other.data) == ("channel", MAIL)
    assert not book.decision.alarm


def test_behind_that_the_sender_is_shown_no_other_reply() -> None:
    book = _meets_an_unknown_ticket()
    second, third = FarReceivingGateway("dial 2"), FarReceivingGateway("dial 3", reply=b"250 else\r\n")
    redialled(book, second)
    book.near(MAIL)
    book.far(b"454 4.7.0 no\r\n")
    redialled(book, third)
    assert book.decision.reason is Reason.REDIAL_DIFFERS
    assert book.to_near.startswith(GREETING + REPLY + b"421 ")


@pytest.mark.parametrize("pin", [R_PIN, None])
def test_a_second_dial_without_an_offer_goes_on_in_clear_with_the_alarm(pin: Pin | None) -> None:
    book = _meets_an_unknown_ticket(pin)
    book.redialled()
    book.far(GREETING)
    book.far(REPLY)
    assert book.relayed
    assert (book.decision.reason, book.decision.alarm) == (Reason.OFFER_MISSING, True)
    assert book.to_near == GREETING + REPLY


def test_a_second_dial_with_a_spoilt_offer_shows_its_reply_and_dials_again() -> None:
    book = _meets_an_unknown_ticket()
    spoilt = FarReceivingGateway("dial 2", ehlo=b"EHLO another.example\r\n")
    redialled(book, spoilt)
    assert (book.state, book.to_near) == ("redialling", GREETING + REPLY)
    redialled(book, FarReceivingGateway("dial 3"))
    assert (book.state, book.to_near) == ("ready", GREETING + REPLY)


def test_what_the_sender_says_early_waits_for_the_second_dial() -> None:
    book = Playbook(sending(tickets=HeldTickets(), pin=R_PIN))
    book.far(GREETING)
    book.near(EHLO + MAIL)
    book.far(UNKNOWN)
    r = FarReceivingGateway()
    redialled(book, r)
    r.take(book.to_far)
    book.far(r.params())
    assert (book.state, r.data) == ("channel", MAIL)
    assert book.to_near == GREETING + REPLY


def test_a_sender_that_goes_meanwhile() -> None:
    book = _meets_an_unknown_ticket()
    book.near_end()
    redialled(book, FarReceivingGateway())
    assert book.relayed
    assert book.to_near == GREETING + REPLY
    assert Side.FAR in book.ended


def test_several_gateways_behind_one_address_may_have_a_ticket_that_s_has_lost() -> None:
    """Each dial finds another of them."""
    book = Playbook(sending(tickets=HeldTickets(), pin=R_PIN))
    r = FarReceivingGateway("one of them", reply=b"250 mx.b.example\r\n")
    book.far(r.greeting)
    book.near(EHLO)
    bogus = b"250-mx.b.example\r\n250 XNIGHTMAIL 1 1/1 " + b"A" * 88 + b"\r\n"
    book.far(bogus)
    book.near(MAIL)
    for _ in range(limits.TICKETS_FORGIVEN):
        book.redialled()
        book.far(r.greeting)
        book.far(bogus)
    redialled(book, r)
    assert book.state == "confirming"
    r.take(book.to_far)
    book.far(r.params())
    assert (book.decision.upgraded, book.decision.alarm) == (True, False)


def test_a_gateway_that_was_started_anew_is_as_stubborn_as_any() -> None:
    """Its first dial meets a ticket that it has lost; one octet changed in the second buys no clear text."""
    book = Playbook(sending(tickets=HeldTickets(), pin=R_PIN))
    lost = FarReceivingGateway("lost")
    book.far(lost.greeting)
    book.near(EHLO)
    book.far(b"250-mx.b.example\r\n250 XNIGHTMAIL 1 1/1 " + b"A" * 88 + b"\r\n")
    book.near(MAIL)
    reply = b"250 mx.b.example\r\n"
    second, third = (FarReceivingGateway(f"dial {n}", reply=reply) for n in (2, 3))
    book.redialled()
    book.far(second.greeting)
    at = second.reply.index(b"1/4 ") + 30
    other = b"B" if second.reply[at : at + 1] == b"A" else b"A"
    book.far(second.reply[:at] + other + second.reply[at + 1 :])
    redialled(book, third)
    assert book.state == "confirming"
    third.take(book.to_far)
    book.far(third.params())
    assert book.state == "channel"
    assert (book.decision.upgraded, book.decision.alarm) == (True, False)


def test_a_gateway_without_tickets_takes_no_offer_with_one() -> None:
    r = FarReceivingGateway()
    bogus = b"250-mx.b.example\r\n250 XNIGHTMAIL 1 1/1 " + b"A" * 88 + b"\r\n"
    book = Playbook(sending(tickets=None, pin=R_PIN))
    book.far(r.greeting)
    book.near(EHLO)
    book.far(bogus)
    assert book.state == "redialling"


def test_a_failed_handshake_with_a_ticket_is_mended_by_a_whole_one() -> None:
    """R answers nothing: S has used its ticket up, and R has, too."""
    site = Site()
    site.meet()
    assert site.held is not None
    assert site.offered is not None
    ticket = TicketsOfPair(site.offered, SOURCE, HERE)
    r = Playbook(receiving(tickets=ticket, label="R again"))
    r.far(EHLO)
    r.near(GREETING)
    r.near(REPLY)
    book = Playbook(sending(tickets=site.held, pin=R_PIN))
    book.far(GREETING)
    book.near(EHLO)
    book.far(r.to_far[len(GREETING) :])
    book.near(MAIL)
    assert book.state == "confirming"
    book.now += limits.HANDSHAKE_SECONDS
    book.happens(DeadlineReached())
    redialled(book, FarReceivingGateway("dial 2"))
    assert book.state == "confirming"
    assert len(site.held) == 0


# --- R: offers with a ticket that are not taken ---------------------------------------------------------


def _offered_with_a_ticket() -> tuple[Playbook, OfferedTickets]:
    site = Site()
    site.meet()
    assert site.offered is not None
    book = Playbook(receiving(tickets=TicketsOfPair(site.offered, SOURCE, HERE), label="R now"))
    book.far(EHLO)
    book.near(GREETING)
    book.near(REPLY)
    assert book.state == "offered"
    # A second one, which is to go with the first.
    site.offered.keep(SOURCE, HERE, _another_ticket(), book.now)
    return book, site.offered


def _next_offer(offered: OfferedTickets, now: float) -> int:
    book = Playbook(receiving(tickets=TicketsOfPair(offered, SOURCE, HERE), label="R next"), now)
    book.far(EHLO)
    book.near(GREETING)
    book.near(REPLY)
    return len(split_offer(book.to_far[len(GREETING) :]).offer or b"")


@pytest.mark.parametrize("how", ["goes on in clear", "ends", "is reset"])
def test_a_client_that_does_not_take_it_gets_whole_offers_for_a_while(how: str) -> None:
    book, offered = _offered_with_a_ticket()
    if how == "goes on in clear":
        book.far(MAIL)
    elif how == "ends":
        book.far_end()
    else:
        book.far_reset()
    assert len(offered) == 0
    offered.keep(SOURCE, HERE, _another_ticket(), book.now)
    assert _next_offer(offered, book.now + 1) == 1350
    offered.keep(SOURCE, HERE, _another_ticket(), book.now + limits.TICKETS_REST_SECONDS)
    assert _next_offer(offered, book.now + limits.TICKETS_REST_SECONDS) == 66


@pytest.mark.parametrize("how", ["refused", "late", "cut off"])
def test_an_answer_with_a_ticket_that_is_none_is_followed_by_whole_offers(how: str) -> None:
    book, offered = _offered_with_a_ticket()
    book.far(VERB_LINE + (frame(FrameKind.ANSWER, bytes(68)) if how == "refused" else b""))
    if how == "late":
        book.now += limits.VERB_HANDSHAKE_SECONDS
        book.happens(DeadlineReached())
    elif how == "cut off":
        book.far_end()
    assert book.state == "over"
    assert len(offered) == 0
    offered.keep(SOURCE, HERE, _another_ticket(), book.now)
    assert _next_offer(offered, book.now) == 1350


def test_a_receiver_that_speaks_unasked_says_nothing_of_the_tickets() -> None:
    book, offered = _offered_with_a_ticket()
    book.near(b"421 4.4.2 Timeout\r\n")
    book.far(b"QUIT\r\n")
    assert _next_offer(offered, book.now) == 66


@pytest.mark.parametrize("resumed", [False, True])
def test_no_ticket_of_a_handshake_that_s_has_not_confirmed(resumed: bool) -> None:
    """R's first record is damaged on the way: R has accepted the answer, and S knows of no ticket."""
    site = Site()
    if resumed:
        site.meet()
    first_record = len(GREETING) + len(REPLY) + (111 if resumed else 1892)

    def tamper(to_receiver: bool, passed: int, octets: bytes) -> bytes:
        where = first_record + 20 - passed
        return flip(octets, where) if not to_receiver and 0 <= where < len(octets) else octets

    pair = site.meet(tamper)
    assert pair.dials == 2
    assert delivered_once(pair)
    assert forms(pair)[1:] == FULL
    assert not any(decision.alarm for decision in pair.decisions)
    assert b"alice" not in pair.wire


def test_a_receiver_that_goes_away_says_nothing_of_the_tickets() -> None:
    book, offered = _offered_with_a_ticket()
    book.near_reset()
    assert _next_offer(offered, book.now) == 66


def test_a_client_that_leaves_a_whole_offer_keeps_its_tickets() -> None:
    offered = OfferedTickets()
    book = Playbook(receiving(tickets=TicketsOfPair(offered, SOURCE, HERE)))
    book.far(EHLO)
    book.near(GREETING)
    book.near(REPLY)
    offered.keep(SOURCE, HERE, _another_ticket(), book.now)
    book.far_reset()
    assert len(offered) == 1


def _another_ticket() -> Ticket:
    site = Site()
    site.meet()
    assert site.offered is not None
    ticket = site.offered.take(SOURCE, HERE, 1000.0)
    assert ticket is not None
    return ticket


def test_who_drops_an_offer_with_a_ticket_has_read_offers_before() -> None:
    """A gateway that was started anew drops several at once: it must not rest for a day because of that."""
    book, _ = _offered_with_a_ticket()
    book.far_reset()
    assert not [command for command in book.commands if isinstance(command, c.NoteSource)]


def test_a_session_with_its_channel_holds_no_ticket_that_has_served() -> None:
    """It may last for hours."""
    site = Site()
    site.meet()
    assert site.held is not None
    assert site.offered is not None
    (held,), ((offered,),) = site.held._of.values(), site.offered._of[SOURCE].values()
    pair = site.meet()
    assert forms(pair) == RESUMED
    assert not _reaches(pair.s, held.ticket)
    assert not _reaches(pair.r, offered.ticket)


def _reaches(start: object, wanted: object) -> bool:
    seen, left = set[int](), [start]
    while left:
        one = left.pop()
        if one is wanted:
            return True
        if id(one) not in seen and not isinstance(one, type | ModuleType | FunctionType):
            seen.add(id(one))
            left += gc.get_referents(one)
    return False
