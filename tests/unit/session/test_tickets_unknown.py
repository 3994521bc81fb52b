"""Offers with a ticket that S cannot take: it dials again (docs/protocol.md, 4.6 and 7)."""

from __future__ import annotations

import pytest

from gateway.crypto.tickets import HeldTickets, TicketsOfPair
from gateway.errors import Reason
from gateway.peers.pins import Pin
from gateway.policy import limits
from gateway.session import commands as c
from gateway.session.events import DeadlineReached, Side
from tests.playbook import (
    EHLO,
    GREETING,
    OTHER_KEYS,
    R_KEYS,
    REPLY,
    S_KEYS,
    FarReceivingGateway,
    Playbook,
    receiving,
    sending,
)
from tests.unit.session.sending_steps import MAIL, R_PIN, pin_of, redialled
from tests.unit.session.ticket_steps import (
    FULL,
    HERE,
    RESUMED,
    SOURCE,
    UNKNOWN,
    Site,
    delivered_once,
    forms,
)

RFC_5321_SECONDS = 300
"""4.5.3.2: so long a sender waits for a reply."""

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


def _dials_until_clear(book: Playbook, seconds_each: float) -> int:
    """Each next one answers with an unknown ticket, too, and takes so long."""
    count = 0
    while not book.relayed:
        book.now += seconds_each
        book.redialled()
        book.far(GREETING)
        book.far(UNKNOWN)
        count += 1
    assert (book.decision.reason, book.decision.alarm) == (Reason.HANDSHAKE_FAILED, True)
    return count


def test_unknown_tickets_are_not_forgiven_longer_than_the_sender_waits() -> None:
    """Each dial takes nearly as long as one may."""
    book = _meets_an_unknown_ticket()
    asked = book.now
    assert _dials_until_clear(book, limits.REDIAL_SECONDS - 1) == 1 + limits.DIALS_PER_SESSION
    longest = limits.TICKETS_FORGIVEN_SECONDS + limits.DIALS_PER_SESSION * limits.REDIAL_SECONDS
    assert book.now - asked <= longest < RFC_5321_SECONDS


@pytest.mark.parametrize(
    ("before", "within", "behind", "forgiven"),
    [
        (0, 0, 0, limits.TICKETS_FORGIVEN),
        (600, 600, limits.TICKETS_FORGIVEN_SECONDS - 1, limits.TICKETS_FORGIVEN),
        (0, 0, limits.TICKETS_FORGIVEN_SECONDS, 0),
    ],
)
def test_the_sender_waits_from_the_end_of_its_ehlo_on(
    before: float, within: float, behind: float, forgiven: int
) -> None:
    """Seconds before it, within it, and until the sender says more behind it; the reply comes then."""
    book = Playbook(sending(tickets=HeldTickets(), pin=R_PIN))
    book.far(GREETING)
    book.now += before
    book.near(EHLO[:7])
    book.now += within
    book.near(EHLO[7:])
    book.now += behind
    book.near(MAIL)
    book.far(UNKNOWN)
    assert _dials_until_clear(book, 0) == forgiven + limits.DIALS_PER_SESSION - 1


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
