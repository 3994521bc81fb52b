"""What the sending gateway's session hands out so that a cause can be named: what there was to see."""

from __future__ import annotations

import re

import pytest

from gateway.errors import Reason
from gateway.peers.looks import Look
from gateway.policy.cause import Sighting
from gateway.session import commands as c
from gateway.smtp.capability import split_offer
from tests.playbook import GREETING, REPLY, FarReceivingGateway, Playbook
from tests.unit.session.sending_steps import R_PIN, channelled, confirming, redialled, started

HOST = GREETING.split()[1].upper()
LOOK = Look(HOST, tuple(re.findall(rb"(?m)^250[- ]([A-Z0-9]+)", REPLY)))


def seen(book: Playbook) -> Sighting | None:
    return book.decision.seen


def first_failure(book: Playbook) -> Sighting | None:
    return next(fact.seen for fact in book.all_of(c.NoteFact) if fact.event == "handshake-failed")


def test_a_good_session_tells_how_the_server_looked_and_nothing_else() -> None:
    book = channelled(FarReceivingGateway(), pin=R_PIN)
    (remembered,) = book.all_of(c.RememberPeer)
    assert remembered.look == LOOK
    assert seen(book) is None


def test_a_pinned_peer_without_its_offer() -> None:
    book = started(pin=R_PIN)
    book.far(REPLY)
    assert seen(book) == Sighting(Reason.OFFER_MISSING, LOOK)


def test_without_a_pin_there_is_nothing_to_tell() -> None:
    book = started()
    book.far(REPLY)
    assert seen(book) is None


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (b"500 5.5.1 Command unrecognized\r\n", Reason.EHLO_REFUSED),
        (b"250-mx\n250 SIZE\r\n", Reason.ODD_REPLY),
    ],
)
def test_a_reply_that_is_none(reply: bytes, failure: Reason) -> None:
    book = started(pin=R_PIN)
    book.far(reply)
    assert book.decision.reason is Reason.OFFER_MISSING
    assert seen(book) == Sighting(failure)


def test_a_refused_verb_is_told_with_what_was_said() -> None:
    book = confirming(FarReceivingGateway(), pin=R_PIN)
    book.far(b"502 5.5.2 no such command\r\n")
    failed = Sighting(Reason.CLEAR_OCTETS_IN_CHANNEL, LOOK, said=b"502 5.5.2 no such command\r\n")
    assert first_failure(book) == failed


@pytest.mark.parametrize("by_reset", [True, False])
def test_a_connection_that_ends_behind_the_verb(by_reset: bool) -> None:
    book = confirming(FarReceivingGateway(), pin=R_PIN)
    (book.far_reset if by_reset else book.far_end)()
    failed = Sighting(Reason.FAR_CLOSED_DURING_HANDSHAKE, LOOK, was_reset=by_reset)
    assert first_failure(book) == failed


def test_what_failed_last_goes_with_the_decision() -> None:
    book = confirming(FarReceivingGateway(), pin=R_PIN)
    book.far_reset()
    redialled(book, r := FarReceivingGateway("dial 2"))
    r.take(book.to_far)
    book.far(b"500 what?\r\n")
    redialled(book, FarReceivingGateway("dial 3"))
    assert book.decision.reason is Reason.HANDSHAKE_FAILED
    assert seen(book) == Sighting(Reason.CLEAR_OCTETS_IN_CHANNEL, LOOK, said=b"500 what?\r\n")


def test_an_offer_that_does_not_verify() -> None:
    r = FarReceivingGateway()
    assert split_offer(r.reply).offer is not None
    at = r.reply.index(b"1/4 ") + 20
    book = started(pin=R_PIN)
    changed = b"B" if r.reply[at : at + 1] != b"B" else b"C"
    book.far(r.reply[:at] + changed + r.reply[at + 1 :])
    told = first_failure(book)
    assert told is not None
    assert told.failure in (Reason.BAD_SIGNATURE, Reason.BAD_OFFER, Reason.BAD_KEY)
    assert told.look == LOOK
