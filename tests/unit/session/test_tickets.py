"""Sessions that make tickets and use them, both gateways' machines together (docs/protocol.md, 4.6)."""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType

import pytest

from gateway.crypto.frames import FrameKind, frame
from gateway.crypto.tickets import HeldTickets, OfferedTickets, Ticket, TicketsOfPair
from gateway.errors import Reason
from gateway.policy import limits
from gateway.session import commands as c
from gateway.session.events import DeadlineReached
from gateway.smtp.capability import KEYWORD, VERB_LINE, split_offer
from tests.pair import Pair, Sender
from tests.playbook import (
    EHLO,
    GREETING,
    LONG_REPLY,
    OTHER_KEYS,
    REPLY,
    Playbook,
    flip,
    receiving,
    sending,
)
from tests.unit.session.sending_steps import MAIL, R_PIN, pin_of
from tests.unit.session.ticket_steps import (
    FULL,
    HERE,
    MAIL_STEPS,
    RESUMED,
    RESUMED_OFFER_LINES,
    SOURCE,
    Site,
    delivered_once,
    forms,
)

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
    # Long ones: three letters stand by chance in one of a thousand such sessions.
    for word in (b"alice", b"bob@b.example", b"Subject", b"hello", b"MAIL FROM", b"QUIT\r\n"):
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
