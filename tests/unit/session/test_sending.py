"""The sending gateway's session against scripted far gateways, step by step (docs/protocol.md)."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.crypto.handshake import OfferForm
from gateway.crypto.messages import AnswerFlags
from gateway.crypto.records import RecordType
from gateway.errors import Reason
from gateway.peers.pins import Pin, accepted
from gateway.policy import limits
from gateway.session import commands as c
from gateway.session.events import (
    Side,
)
from gateway.smtp.capability import VERB_LINE
from tests.playbook import (
    DIALLED,
    EHLO,
    GREETING,
    LONG_REPLY,
    OTHER_KEYS,
    R_KEYS,
    REPLY,
    S_KEYS,
    TODAY,
    FarReceivingGateway,
    Playbook,
    always_ignorable,
    flip,
    gateway_keys,
    sending,
)
from tests.unit.session.sending_steps import (
    CONTENT,
    MAIL,
    R_PIN,
    RCPT,
    channelled,
    confirming,
    pin_of,
    ready,
    started,
)

# --- The plain way ------------------------------------------------------------------------------------------


def test_an_upgrade_costs_the_sender_nothing_and_shows_it_nothing() -> None:
    r = FarReceivingGateway()
    book = ready(r)
    assert book.to_near == GREETING + REPLY
    assert book.to_far == EHLO
    assert book.state == "ready"
    book.near(MAIL)
    assert book.to_far.startswith(EHLO + VERB_LINE)
    assert b"alice" not in book.to_far
    r.take(book.to_far)
    assert (r.kinds, r.data) == ([RecordType.PARAMS, RecordType.DATA], MAIL)
    assert not book.all_of(c.NoteDecision), "nothing is decided before R has proven itself"
    book.far(r.params() + r.says(b"250 2.1.0 Ok\r\n"))
    assert book.to_near == GREETING + REPLY + b"250 2.1.0 Ok\r\n"
    assert (book.decision.upgraded, book.decision.reason) == (True, Reason.UPGRADED_NEW_PEER)
    assert [note.peer.identity for note in book.all_of(c.RememberPeer)] == [R_KEYS.identity]


def test_the_verb_the_answer_and_the_first_command_leave_in_one_write() -> None:
    r = FarReceivingGateway()
    book = ready(r)
    commands = book.near(MAIL)
    (write,) = commands
    assert isinstance(write, c.SendOctets)
    assert write.octets.startswith(VERB_LINE + b"\x81")
    assert r.take(book.to_far).data == MAIL


def test_what_r_verifies_is_the_dialled_address_and_the_identity_of_s() -> None:
    r = FarReceivingGateway()
    confirming(r)
    assert r.result is not None
    assert r.result.dialled == DIALLED
    assert r.result.identity == S_KEYS.identity


def test_a_short_offer_where_the_size_rule_asks_for_it() -> None:
    r = FarReceivingGateway(reply=LONG_REPLY, form=OfferForm.SHORT)
    book = channelled(r)
    assert book.to_near == GREETING + LONG_REPLY
    assert book.decision.reason is Reason.UPGRADED_NEW_PEER


def test_an_ignorable_record_now_and_then() -> None:
    r = FarReceivingGateway()
    confirming(r, entropy=always_ignorable("S"))
    assert RecordType.IGNORABLE in r.kinds
    assert r.data == MAIL


@pytest.mark.parametrize("odd", [True, False])
def test_an_unused_flag_now_and_then(odd: bool) -> None:
    r = FarReceivingGateway()
    given: dict[str, Any] = {"entropy": always_ignorable("S")} if odd else {}
    confirming(r, **given)
    assert r.result is not None
    assert bool(r.result.flags & AnswerFlags.UNUSED) is odd


def test_keys_of_another_day_still_serve() -> None:
    r = FarReceivingGateway(keys=gateway_keys("R", TODAY - 1))
    assert channelled(r).decision.upgraded


# --- No offer, no upgrade -----------------------------------------------------------------------------------


def test_no_offer_is_the_way_of_nearly_all_the_world() -> None:
    book = started()
    book.far(REPLY)
    assert (book.to_near, book.to_far, book.relayed) == (GREETING + REPLY, EHLO, True)
    assert book.decision == c.NoteDecision(False, Reason.NO_OFFER)


def test_never_passes_everything_as_it_came() -> None:
    r = FarReceivingGateway()
    book = ready(r, refusal=Reason.NEVER)
    assert book.relayed
    assert book.to_near == GREETING + r.reply
    assert book.decision == c.NoteDecision(False, Reason.NEVER)


def test_a_path_that_failed_lately_rests_and_the_sender_sees_no_offer() -> None:
    book = ready(FarReceivingGateway(), refusal=Reason.RECENTLY_FAILED)
    assert (book.to_near, book.to_far, book.relayed) == (GREETING + REPLY, EHLO, True)
    assert book.decision == c.NoteDecision(False, Reason.RECENTLY_FAILED)


@pytest.mark.parametrize(("pin", "alarm"), [(None, False), (R_PIN, True)], ids=["hairpin", "pinned"])
def test_our_own_identity_is_no_peer(pin: Pin | None, alarm: bool) -> None:
    """Where another peer is known, our own offer is somebody's way back to clear: it rings."""
    book = ready(FarReceivingGateway(keys=S_KEYS), pin=pin)
    assert book.relayed
    assert book.to_near == GREETING + REPLY
    assert (book.decision.reason, book.decision.alarm) == (Reason.OWN_IDENTITY, alarm)


@pytest.mark.parametrize(
    ("reply", "reason", "alarm"),
    [
        (REPLY, Reason.OFFER_MISSING, True),
        (b"502 5.5.1 Command not implemented\r\n", Reason.OFFER_MISSING, True),
        (b"554 5.7.1 Go away\r\n", Reason.OFFER_MISSING, True),
        (b"250-mx.b.example\n250 SIZE 1\r\n", Reason.OFFER_MISSING, True),
    ],
)
def test_a_pinned_peer_without_an_offer_rings(reply: bytes, reason: Reason, alarm: bool) -> None:
    """Stripping is seen."""
    book = started(pin=R_PIN)
    book.far(reply)
    assert book.relayed
    assert book.to_near == GREETING + reply
    assert (book.decision.reason, book.decision.alarm) == (reason, alarm)


def test_a_sender_that_says_helo_unprompted_is_not_judged() -> None:
    book = Playbook(sending(pin=R_PIN))
    book.far(GREETING)
    book.near(b"HELO mail.a.example\r\n")
    assert (book.decision.reason, book.decision.alarm) == (Reason.HELO, False)


@pytest.mark.parametrize("pin", [None, R_PIN], ids=["unknown", "pinned"])
@pytest.mark.parametrize(
    "greeting",
    [b"220 ****************\r\n", b"220 mx.b.example SMTP\r\n", b"220 mx.b.example NoESMTP\r\n"],
    ids=["masked", "old", "almost"],
)
def test_a_greeting_that_leads_the_sender_to_helo_rings_where_it_is_pinned(
    greeting: bytes, pin: Pin | None
) -> None:
    """Postfix says HELO behind a masked greeting, others behind one without the word: whoever changes it
    would else have the mail in clear without a sound."""
    book = Playbook(sending(pin=pin))
    book.far(greeting)
    book.near(b"HELO mail.a.example\r\n")
    assert (book.relayed, book.to_near, book.to_far) == (True, greeting, b"HELO mail.a.example\r\n")
    expected = (Reason.HELO, False) if pin is None else (Reason.OFFER_MISSING, True)
    assert (book.decision.reason, book.decision.alarm) == expected


def test_a_sender_that_says_helo_before_the_greeting_is_led_by_nobody() -> None:
    book = Playbook(sending(pin=R_PIN))
    book.near(b"HELO mail.a.example\r\n")
    book.far(b"220 ****************\r\n")
    assert (book.decision.reason, book.decision.alarm) == (Reason.HELO, False)


# --- Pins ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pin", "reason", "alarm"),
    [
        (None, Reason.UPGRADED_NEW_PEER, False),
        (R_PIN, Reason.UPGRADED, False),
        (pin_of((OTHER_KEYS, TODAY)), Reason.UPGRADED_CHANGED_PEER, True),
        (pin_of((OTHER_KEYS, TODAY), (R_KEYS, TODAY)), Reason.UPGRADED_CHANGED_PEER, False),
        (pin_of((R_KEYS, TODAY + 1)), Reason.UPGRADED_OLD_EPOCH, False),
        (
            accepted(pin_of((OTHER_KEYS, TODAY), (R_KEYS, TODAY)), R_KEYS.identity.octets),
            Reason.UPGRADED,
            False,
        ),
    ],
    ids=["new", "same", "changed", "changed-again", "old", "accepted"],
)
def test_what_a_pin_makes_of_an_offer(pin: Pin | None, reason: Reason, alarm: bool) -> None:
    book = channelled(FarReceivingGateway(), pin=pin)
    assert (book.decision.upgraded, book.decision.reason, book.decision.alarm) == (True, reason, alarm)
    (remembered,) = book.all_of(c.RememberPeer)
    assert remembered.rang is alarm


def test_a_short_offer_where_a_full_one_had_room_is_weaker() -> None:
    book = channelled(FarReceivingGateway(form=OfferForm.SHORT), pin=R_PIN)
    assert (book.decision.reason, book.decision.alarm) == (Reason.UPGRADED_WEAKER_OFFER, True)


def test_a_rightly_short_offer_is_not_weaker() -> None:
    r = FarReceivingGateway(reply=LONG_REPLY, form=OfferForm.SHORT)
    assert channelled(r, pin=R_PIN).decision.reason is Reason.UPGRADED


def test_nothing_is_remembered_before_the_first_record() -> None:
    r = FarReceivingGateway()
    book = confirming(r)
    assert not book.all_of(c.RememberPeer)
    book.far(flip(r.params(), -1))
    assert not book.all_of(c.RememberPeer)
    assert not book.all_of(c.NoteDecision)


# --- Content waits for R's first record ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flight", "leaves"),
    [
        (MAIL + RCPT + CONTENT, MAIL + RCPT),
        (MAIL + RCPT + b"bdat 11 LAST\r\nhello world", MAIL + RCPT),
        (MAIL + RCPT + b"DATA\r\nSubject: early\r\n", MAIL + RCPT + b"DATA\r\n"),
        (MAIL + RCPT + b"data\r\nSubject: early\r\n.\r\n", MAIL + RCPT + b"data\r\n"),
        (b"BDAT 3\r\nabc", b""),
        (MAIL + RCPT + b"BURL imap://a.example/1 LAST\r\n", MAIL + RCPT),
    ],
)
def test_content_never_leaves_before_the_first_record(flight: bytes, leaves: bytes) -> None:
    r = FarReceivingGateway()
    book = confirming(r, flight)
    assert r.data == leaves
    book.far(r.params())
    assert r.take(book.to_far).data == flight, "exactly once"


def test_content_cut_anywhere_never_leaves_before_the_first_record() -> None:
    flight = MAIL + RCPT + CONTENT
    for at in range(1, len(flight)):
        r = FarReceivingGateway()
        book = ready(r)
        book.near(flight[:at])
        book.near(flight[at:])
        assert r.take(book.to_far).data == MAIL + RCPT, at
        book.far(r.params())
        assert r.take(book.to_far).data == flight, at


def test_after_the_first_record_content_flows_at_once() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    book.near(CONTENT)
    assert r.take(book.to_far).data == MAIL + CONTENT


def test_at_most_64_kib_are_read_before_the_first_record() -> None:
    r = FarReceivingGateway()
    book = confirming(r)
    sent = MAIL
    while Side.NEAR not in book.paused:
        book.near(bytes(8192))
        sent += bytes(8192)
        assert len(sent) < 128 * 1024
    assert len(sent) >= limits.FIRST_FLIGHT_OCTETS
    book.far(r.params())
    assert not book.paused
    assert r.take(book.to_far).data == sent


# --- Early talkers ------------------------------------------------------------------------------------------


def test_what_stands_behind_the_ehlo_waits_and_goes_into_the_channel() -> None:
    r = FarReceivingGateway()
    book = Playbook(sending())
    book.far(GREETING)
    book.near(EHLO + MAIL + CONTENT)
    assert book.to_far == EHLO
    book.far(r.reply)
    assert book.to_near == GREETING + REPLY
    assert r.take(book.to_far).data == MAIL
    book.far(r.params())
    assert r.take(book.to_far).data == MAIL + CONTENT


def test_what_stands_behind_the_ehlo_goes_on_in_clear_where_there_is_no_offer() -> None:
    book = Playbook(sending())
    book.near(EHLO + MAIL)
    book.near(CONTENT)
    assert book.to_far == EHLO
    book.far(GREETING + REPLY)
    assert (book.to_far, book.to_near) == (EHLO + MAIL + CONTENT, GREETING + REPLY)


@pytest.mark.parametrize("answer", ["offer", "no offer", "refused", "odd"])
def test_a_sender_that_fills_the_flight_early_is_read_again(answer: str) -> None:
    """Paused while the reply is on its way; whatever the reply is, nobody stays paused for ever."""
    r = FarReceivingGateway()
    book = Playbook(sending())
    book.far(GREETING)
    early = MAIL * (limits.FIRST_FLIGHT_OCTETS // len(MAIL) + 1)
    book.near(EHLO + early)
    assert book.paused == {Side.NEAR}
    replies = {"offer": r.reply, "no offer": REPLY, "refused": b"500 What\r\n", "odd": b"hello\n"}
    book.far(replies[answer])
    if answer == "offer":
        assert book.paused == {Side.NEAR}, "the flight is as full as it was"
        book.far(r.take(book.to_far).params())
        assert r.take(book.to_far).data == early
    else:
        assert book.to_far == EHLO + early
    assert not book.paused


def test_no_octet_more_is_read_where_the_early_flight_is_full() -> None:
    """64 KiB and what one read brought in: then nothing until R's first record."""
    r = FarReceivingGateway()
    book = Playbook(sending())
    book.far(GREETING)
    book.near(EHLO + MAIL * 3000)
    book.far(r.reply)
    assert book.paused == {Side.NEAR}


@pytest.mark.parametrize("offers", [False, True], ids=["in-clear", "channel"])
def test_what_stood_behind_the_ehlo_is_not_kept_once_the_reply_has_come(offers: bool) -> None:
    """Thousands of such sessions may be open for hours, each with the 64 KiB and one read."""
    r = FarReceivingGateway()
    book = Playbook(sending())
    book.far(GREETING)
    book.near(EHLO + MAIL * 3000)
    book.far(r.reply if offers else REPLY)
    assert book.relayed is not offers
    assert book.machine._observer.held_from_sender == b""
    if not offers:
        assert book.to_far == EHLO + MAIL * 3000


@pytest.mark.parametrize("unasked", [b"\x16\x03\x01\x00", b"GET / HTTP/1.0\r\n\r\n", b"\n"])
def test_early_octets_that_are_no_ehlo_pass_at_once(unasked: bytes) -> None:
    book = Playbook(sending())
    book.near(unasked)
    assert (book.relayed, book.to_far) == (True, unasked)
    assert book.decision.reason is Reason.EARLY_TALKER
