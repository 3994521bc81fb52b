"""The sending gateway's session against scripted far gateways, step by step (docs/protocol.md)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from gateway.crypto.frames import FrameKind, frame
from gateway.crypto.handshake import OfferForm
from gateway.crypto.messages import AnswerFlags, OfferFlags
from gateway.crypto.padding import padme
from gateway.crypto.records import RecordType
from gateway.errors import LocalMisuseError, Reason
from gateway.peers.pins import Destination, MetPeer, Pin, accepted, updated
from gateway.policy import limits
from gateway.session import commands as c
from gateway.session.events import (
    DeadlineReached,
    EndReceived,
    Event,
    OctetsReceived,
    RedialFailed,
    Redialled,
    ResetReceived,
    Side,
    WriteDrained,
)
from gateway.session.sending import TRY_AGAIN, SendingSession, State
from gateway.smtp.capability import VERB_LINE, append_offer
from tests.playbook import (
    BOTH,
    DIALLED,
    EHLO,
    EVENTS,
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
    can_follow,
    flip,
    gateway_keys,
    octets,
    sending,
    table_of,
)

MAIL = b"MAIL FROM:<alice@a.example>\r\n"
RCPT = b"RCPT TO:<bob@b.example>\r\n"
CONTENT = b"BDAT 11 LAST\r\nhello world"
DESTINATION = Destination("192.0.2.25", 25)
LATER = 1_800_000_000


def pin_of(*keys_and_epochs: tuple[object, int], full: bool = True) -> Pin:
    pin: Pin | None = None
    for keys, epoch in keys_and_epochs:
        octets = keys.identity.octets  # type: ignore[attr-defined]
        pin = updated(pin, DESTINATION, MetPeer(octets, epoch, full), LATER)
    assert pin is not None
    return pin


R_PIN = pin_of((R_KEYS, TODAY))


def started(**surroundings: object) -> Playbook:
    """Greeting and EHLO have passed."""
    book = Playbook(sending(**surroundings))  # type: ignore[arg-type]
    book.far(GREETING)
    book.near(EHLO)
    return book


def ready(r: FarReceivingGateway, **surroundings: object) -> Playbook:
    """The sender has its EHLO reply, and has not said its first command."""
    book = started(**surroundings)
    book.far(r.reply)
    return book


def confirming(r: FarReceivingGateway, flight: bytes = MAIL, **surroundings: object) -> Playbook:
    book = ready(r, **surroundings)
    book.near(flight)
    r.take(book.to_far)
    return book


def channelled(r: FarReceivingGateway, flight: bytes = MAIL, **surroundings: object) -> Playbook:
    book = confirming(r, flight, **surroundings)
    book.far(r.params())
    return book


def redialled(book: Playbook, r: FarReceivingGateway) -> Playbook:
    """A redial up to and with the EHLO reply of the new connection."""
    assert book.state == "redialling"
    assert book.commands[-1] == c.Redial() or c.Redial() in book.commands
    book.redialled()
    book.far(r.greeting)
    assert book.to_far == EHLO
    book.far(r.reply)
    return book


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
    confirming(r, **({"entropy": always_ignorable("S")} if odd else {}))
    assert r.result is not None
    assert (AnswerFlags.UNUSED in AnswerFlags(r.result.flags)) is odd


# --- Padding ------------------------------------------------------------------------------------------------


def writes(commands: list[c.Command]) -> list[int]:
    return [len(x.octets) for x in commands if isinstance(x, c.SendOctets) and x.side is Side.FAR]


@pytest.mark.parametrize("flight", [b"RSET\r\n", MAIL, b"MAIL FROM:<a@a.example>\r\n" * 15])
def test_the_first_flight_looks_alike_whatever_it_says(flight: bytes) -> None:
    """Verb and answer are of a known length; the records behind them are padded by themselves."""
    r = FarReceivingGateway()
    book = ready(r)
    assert writes(book.near(flight)) == [len(VERB_LINE) + 3 + OfferForm.FULL.answer_octets + 512]
    assert r.take(book.to_far).data == flight


def test_more_of_the_first_flight_is_padded_too() -> None:
    book = confirming(FarReceivingGateway())
    assert writes(book.near(b"RCPT TO:<b@b.example>\r\n")) == [512]


def test_commands_look_alike() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    for command in (b"DATA\r\n", b"RCPT TO:<somebody.with.a.long.name@b.example>\r\n", b"QUIT\r\n"):
        assert writes(book.near(command)) == [512]
        book.far(r.says(b"250 Ok\r\n"))
    assert writes(book.near_end()) == [512]


def test_the_end_of_a_large_mail_is_held_for_five_milliseconds_and_then_leaves_padded() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    book.near(b"DATA\r\n")
    book.far(r.says(b"354 go on\r\n"))
    mail = octets("mail", 50_000)
    first = writes(book.near(mail))
    assert first == [2 * (16_384 + 22)], "50,000 octets are 50,088 on the wire; steps there are of 2,048"
    assert book.machine.deadline is not None
    begun = book.now
    end: list[int] = []
    while not end:
        end = writes(book.deadline())
    assert book.now - begun == pytest.approx(0.005)
    assert sum(first + end) == padme(sum(first + end))
    assert r.take(book.to_far).data.endswith(mail)
    assert book.machine.deadline is None


def test_the_receivers_word_releases_what_is_held() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    book.near(octets("mail", 50_000))
    book.far(r.says(b"552 too large\r\n"))
    assert r.take(book.to_far).data.endswith(octets("mail", 50_000))
    assert book.machine.deadline is None


def test_a_channel_that_breaks_takes_its_deadline_along() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    book.near(octets("mail", 50_000))
    book.far(flip(r.says(b"250 Ok\r\n"), 20))
    assert (book.state, book.machine.deadline) == ("over", None)


def test_content_that_was_held_leaves_when_r_is_confirmed_and_ends_padded() -> None:
    r = FarReceivingGateway()
    content = octets("pipelined", 30_000)
    book = confirming(r, MAIL + b"BDAT 30000 LAST\r\n" + content)
    assert b"BDAT" not in r.data
    book.far(r.params())
    book.deadline()
    book.deadline()
    assert r.take(book.to_far).data.endswith(content)
    records = len(book.to_far) - len(EHLO) - len(VERB_LINE) - 3 - OfferForm.FULL.answer_octets
    assert records == padme(records)


def test_native_starttls_travels_in_the_channel() -> None:
    """Octets are octets: from the first record on nothing is read for its meaning."""
    r = FarReceivingGateway()
    book = channelled(r, b"STARTTLS\r\n")
    book.far(r.says(b"220 2.0.0 Ready\r\n"))
    hello = b"\x16\x03\x01BDAT\x82\x00" + bytes(range(256))
    book.near(hello)
    book.far(r.says(hello[::-1]))
    assert r.take(book.to_far).data == b"STARTTLS\r\n" + hello
    assert book.to_near.endswith(b"220 2.0.0 Ready\r\n" + hello[::-1])


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
    assert len(book.all_of(c.RememberPeer)) == 1


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


@pytest.mark.parametrize("unasked", [b"\x16\x03\x01\x00", b"GET / HTTP/1.0\r\n\r\n", b"\n"])
def test_early_octets_that_are_no_ehlo_pass_at_once(unasked: bytes) -> None:
    book = Playbook(sending())
    book.near(unasked)
    assert (book.relayed, book.to_far) == (True, unasked)
    assert book.decision.reason is Reason.EARLY_TALKER


# --- Each way in which a handshake fails --------------------------------------------------------------------

CLEAR_ANSWERS = [
    b"454 4.7.0 Encrypted channel could not be set up, please try again\r\n",
    b"250 2.0.0 Ok\r\n",
    b"421 4.3.2 Shutting down\r\n",
    b"500 5.5.2 Error: command not recognized\r\n",
    b"\x00",
    b"\x7f",
]


def _clear(answer: bytes) -> Callable[[Playbook, FarReceivingGateway], object]:
    return lambda book, r: book.far(answer)


FAILURES: dict[str, tuple[Callable[[Playbook, FarReceivingGateway], object], Reason]] = {
    **{f"clear {answer[:4]!r}": (_clear(answer), Reason.CLEAR_OCTETS_IN_CHANNEL) for answer in CLEAR_ANSWERS},
    "tampered tag": (lambda book, r: book.far(flip(r.params(), -1)), Reason.BAD_TAG),
    "tampered body": (lambda book, r: book.far(flip(r.params(), 3)), Reason.BAD_TAG),
    "garbage record": (lambda book, r: book.far(frame(FrameKind.RECORD, bytes(50))), Reason.BAD_TAG),
    "second record first": (lambda book, r: book.far((r.params(), r.says(b"x"))[1]), Reason.BAD_TAG),
    "message 2 back": (lambda book, r: book.far(frame(FrameKind.ANSWER, bytes(1324))), Reason.BAD_FRAME),
    "other frame": (lambda book, r: book.far(b"\x83\x00\x20" + bytes(32)), Reason.BAD_FRAME),
    "short frame": (lambda book, r: book.far(b"\x82\x00\x05" + bytes(5)), Reason.BAD_FRAME),
    "reflected": (lambda book, r: book.far(book.to_far[-50:]), Reason.CLEAR_OCTETS_IN_CHANNEL),
    "fin": (lambda book, r: book.far_end(), Reason.FAR_CLOSED_DURING_HANDSHAKE),
    "truncated": (
        lambda book, r: (book.far(r.params()[:-1]), book.far_end()),
        Reason.FAR_CLOSED_DURING_HANDSHAKE,
    ),
    "rst": (lambda book, r: book.far_reset(), Reason.FAR_CLOSED_DURING_HANDSHAKE),
    "silence": (lambda book, r: book.deadline(), Reason.HANDSHAKE_TIMEOUT),
    "half a record, then silence": (
        lambda book, r: (book.far(r.params()[:-1]), book.deadline()),
        Reason.HANDSHAKE_TIMEOUT,
    ),
}
del FAILURES["reflected"]


def failed(how: str, flight: bytes = MAIL, **surroundings: object) -> Playbook:
    r = FarReceivingGateway("first dial")
    book = confirming(r, flight, **surroundings)
    FAILURES[how][0](book, r)
    return book


@pytest.mark.parametrize("how", FAILURES)
def test_a_failed_handshake_dials_again_and_tells_the_sender_nothing(how: str) -> None:
    book = failed(how)
    assert book.state == "redialling"
    assert book.redials == 1
    assert book.to_near == GREETING + REPLY
    assert book.facts == [("handshake-failed", FAILURES[how][1])]
    assert not book.reset, "the far reset is the redial's"
    assert not book.all_of(c.NoteDecision)


@pytest.mark.parametrize("how", FAILURES)
def test_a_redial_upgrades_again_and_delivers_once(how: str) -> None:
    flight = MAIL + RCPT + CONTENT
    book = failed(how, flight)
    second = FarReceivingGateway("second dial", greeting=GREETING.replace(b"4711", b"4712"))
    redialled(book, second)
    assert book.to_near == GREETING + REPLY
    assert second.take(book.to_far).data == MAIL + RCPT
    book.far(second.params() + second.says(b"250 2.1.0 Ok\r\n"))
    assert second.take(book.to_far).data == flight
    assert book.to_near == GREETING + REPLY + b"250 2.1.0 Ok\r\n"
    assert (book.decision.upgraded, book.decision.reason) == (True, Reason.UPGRADED_NEW_PEER)


@pytest.mark.parametrize("how", FAILURES)
def test_after_a_second_failure_the_third_dial_goes_on_in_clear_and_rings(how: str) -> None:
    flight = MAIL + RCPT + CONTENT
    book = failed(how, flight)
    second = FarReceivingGateway("second dial")
    redialled(book, second)
    second.take(book.to_far)
    FAILURES[how][0](book, second)
    assert (book.state, book.redials) == ("redialling", 2)
    redialled(book, FarReceivingGateway("third dial"))
    assert book.relayed
    assert book.to_far == EHLO + flight, "in clear, whole, on a connection that never saw a verb"
    assert book.to_near == GREETING + REPLY
    assert (book.decision.upgraded, book.decision.reason) == (False, Reason.HANDSHAKE_FAILED)
    assert book.decision.alarm


def test_the_first_record_may_come_in_single_octets() -> None:
    r = FarReceivingGateway()
    book = confirming(r)
    record = r.params()
    for octet in record[:-1]:
        book.far(bytes((octet,)))
        assert book.state == "confirming"
    book.far(record[-1:])
    assert book.state == "channel"


def test_every_octet_of_the_first_record_counts() -> None:
    length = len(confirmed_record())
    for at in range(length):
        r = FarReceivingGateway()
        book = confirming(r)
        book.far(flip(r.params(), at))
        if book.state == "confirming":  # a length that waits for more: silence ends it
            book.deadline()
        assert book.state == "redialling", at
        assert book.to_near == GREETING + REPLY


def confirmed_record() -> bytes:
    r = FarReceivingGateway()
    confirming(r)
    return r.params()


def test_a_record_and_clear_octets_behind_it_in_one_read_are_a_failure_or_a_reset() -> None:
    r = FarReceivingGateway()
    book = confirming(r)
    book.far(r.params() + b"250 2.0.0 Ok\r\n")
    assert book.to_near == GREETING + REPLY
    assert book.state in ("redialling", "over")


def test_the_deadline_is_that_of_the_first_record_and_no_other() -> None:
    r = FarReceivingGateway()
    book = ready(r)
    assert book.machine.deadline is None, "the sender may take its time"
    book.near(MAIL)
    assert book.machine.deadline == book.now + limits.HANDSHAKE_SECONDS
    book.now += 9
    book.near(RCPT)
    assert book.machine.deadline == book.now - 9 + limits.HANDSHAKE_SECONDS
    book.far(r.take(book.to_far).params())
    assert book.machine.deadline is None


# --- Tampered offers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "reason"), [(0, Reason.BAD_SIGNATURE), (700, Reason.BAD_SIGNATURE), (-1, Reason.BAD_SIGNATURE)]
)
def test_a_tampered_offer_dials_again_before_any_verb(at: int, reason: Reason) -> None:
    r = FarReceivingGateway()
    book = started()
    book.far(append_offer(REPLY, flip(r.offer, at)))
    assert book.to_near == GREETING + REPLY
    assert book.fars[0] == EHLO
    assert book.facts[0][0] == "handshake-failed"
    assert book.state == "redialling"
    second = FarReceivingGateway("second dial")
    redialled(book, second)
    assert book.state == "ready"
    book.near(MAIL)
    book.far(second.take(book.to_far).params())
    assert book.decision.upgraded
    assert second.data == MAIL


@pytest.mark.parametrize(
    "tampered",
    [
        GREETING.replace(b"4711", b"4712"),
        GREETING.replace(b"ESMTP", b"SMTP"),
    ],
)
def test_a_greeting_that_r_did_not_give_breaks_the_offer(tampered: bytes) -> None:
    book = Playbook(sending())
    book.far(tampered)
    book.near(EHLO)
    book.far(FarReceivingGateway().reply)
    assert book.facts == [("handshake-failed", Reason.BAD_SIGNATURE)]


def test_a_stripped_keyword_breaks_the_offer_and_then_the_session() -> None:
    """STARTTLS taken out of the reply: the redial shows the true one, and the mail waits."""
    r = FarReceivingGateway()
    book = started()
    book.far(r.reply.replace(b"250-STARTTLS\r\n", b""))
    assert book.facts == [("handshake-failed", Reason.BAD_SIGNATURE)]
    redialled(book, FarReceivingGateway("second dial"))
    assert book.to_near.endswith(TRY_AGAIN)
    assert book.decision.reason is Reason.REDIAL_DIFFERS


def test_another_ehlo_than_the_sender_said_breaks_the_offer() -> None:
    book = ready(FarReceivingGateway(ehlo=b"EHLO other.example\r\n"))
    assert book.facts == [("handshake-failed", Reason.BAD_SIGNATURE)]


def test_two_tampered_offers_then_clear_with_an_alarm() -> None:
    book = started()
    book.far(append_offer(REPLY, flip(FarReceivingGateway().offer, 5)))
    book.near(MAIL)
    for _ in range(2):
        assert book.state == "redialling"
        book.redialled()
        book.far(GREETING)
        book.far(append_offer(REPLY, flip(FarReceivingGateway("x").offer, 5)))
    assert book.relayed
    assert book.to_far == EHLO + MAIL
    assert (book.decision.reason, book.decision.alarm) == (Reason.HANDSHAKE_FAILED, True)


def test_a_replayed_offer_of_an_earlier_connection_is_useless() -> None:
    """Its signature holds (same greeting, same reply); the answer meets nobody who can read it."""
    replayed, r = FarReceivingGateway("yesterday"), FarReceivingGateway("today")
    book = started()
    book.far(replayed.reply)
    book.near(MAIL)
    with pytest.raises(Exception, match="tag"):
        r.take(book.to_far)


# --- Redials that differ or fail ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("greeting", "reply"),
    [
        (b"421 4.3.2 Too busy\r\n", None),
        (b"554 5.7.1 No\r\n", None),
        (b"220 other.b.example ESMTP\r\n", None),
        (b"hello\n", None),
        (GREETING, b"250-mx.b.example\r\n250 SIZE 10240000\r\n"),
        (GREETING, REPLY.replace(b"10240000", b"10240001")),
        (GREETING, b"500 5.5.1 What\r\n"),
        (GREETING, b"421 4.3.2 Bye\r\n"),
        (GREETING, b"250-mx.b.example\n"),
    ],
)
def test_a_redial_that_differs_defers(greeting: bytes, reply: bytes | None) -> None:
    book = failed("rst", MAIL + CONTENT)
    book.redialled()
    book.far(greeting)
    if book.state != "over":
        book.far(FarReceivingGateway("2", reply=REPLY).reply if reply is None else reply)
    assert book.to_near == GREETING + REPLY + TRY_AGAIN
    assert TRY_AGAIN.startswith(b"421 4.7.0 ")
    assert book.closed
    assert book.reset == {Side.FAR}
    assert book.fars[1] in (b"", EHLO), "nothing of the mail went out"
    assert (book.decision.reason, book.decision.alarm) == (Reason.REDIAL_DIFFERS, True)
    assert not book.decision.upgraded


@pytest.mark.parametrize("dials", [1, 2])
@pytest.mark.parametrize("how", ["refused", "silent", "end", "reset", "slow greeting", "slow reply"])
def test_a_redial_that_fails_defers(how: str, dials: int) -> None:
    book = failed("rst", MAIL + CONTENT)
    if dials == 2:
        redialled(book, FarReceivingGateway("second"))
        book.far_reset()
    if how == "refused":
        book.redial_failed()
    elif how == "silent":
        book.deadline()
    else:
        book.redialled()
        if how != "slow greeting":
            book.far(GREETING)
        {"end": book.far_end, "reset": book.far_reset}.get(how, book.deadline)()
    assert book.to_near == GREETING + REPLY + TRY_AGAIN
    assert book.closed
    assert (book.decision.reason, book.decision.alarm) == (Reason.REDIAL_FAILED, True)


def test_the_redial_has_one_deadline_for_all_of_it() -> None:
    book = failed("rst")
    begun = book.now
    book.now += 30
    book.redialled()
    book.far(GREETING)
    assert book.machine.deadline == begun + limits.REDIAL_SECONDS


def test_a_late_redial_finds_the_session_over() -> None:
    """The machine gave up; the new connection must not hear a word."""
    book = failed("rst")
    book.deadline()
    assert book.state == "over"
    assert book.machine.handle(Redialled(), book.now) == []
    assert book.machine.handle(RedialFailed(), book.now) == []


def test_a_redial_without_an_offer_goes_on_in_clear_and_rings() -> None:
    flight = MAIL + CONTENT
    book = failed("rst", flight)
    book.redialled()
    book.far(GREETING)
    book.far(REPLY)
    assert book.relayed
    assert book.to_far == EHLO + flight
    assert (book.decision.reason, book.decision.alarm) == (Reason.OFFER_MISSING, True)


def test_nothing_is_said_to_a_redial_before_its_greeting_is_complete() -> None:
    book = failed("rst")
    book.redialled()
    for octet in GREETING[:-1]:
        book.far(bytes((octet,)))
        assert book.to_far == b""
    book.far(GREETING[-1:])
    assert book.to_far == EHLO


def test_no_octet_of_a_redial_before_its_channel_reaches_the_sender() -> None:
    book = failed("rst")
    second = FarReceivingGateway("second")
    book.redialled()
    for octet in GREETING + second.reply:
        book.far(bytes((octet,)))
        assert book.to_near == GREETING + REPLY
    assert second.take(book.to_far).data == MAIL


def test_what_the_sender_says_during_a_redial_waits_bounded() -> None:
    book = failed("rst")
    sent = MAIL
    while not book.paused:
        book.near(RCPT * 100)
        sent += RCPT * 100
        assert len(sent) < 3 * limits.FIRST_FLIGHT_OCTETS
    second = FarReceivingGateway("second")
    redialled(book, second)
    assert book.paused
    book.far(second.take(book.to_far).params())
    assert not book.paused
    assert second.take(book.to_far).data == sent


def test_a_changed_identity_on_the_redial_rings_like_any_other() -> None:
    book = failed("rst", pin=R_PIN)
    second = FarReceivingGateway("second", keys=OTHER_KEYS)
    redialled(book, second)
    book.far(second.take(book.to_far).params())
    assert (book.decision.reason, book.decision.alarm) == (Reason.UPGRADED_CHANGED_PEER, True)


def test_the_sender_that_ends_while_the_handshake_fails_is_still_served() -> None:
    flight = MAIL + RCPT
    book = confirming(FarReceivingGateway(), flight)
    book.near_end()
    book.far_reset()
    second = FarReceivingGateway("second")
    redialled(book, second)
    book.far(second.take(book.to_far).params())
    assert second.take(book.to_far).data == flight
    assert second.kinds[-1] is RecordType.CLOSE
    assert book.ended == {Side.FAR}


def test_the_end_of_the_sender_follows_its_octets_into_clear() -> None:
    book = failed("rst")
    book.near_end()
    book.redialled()
    book.far(GREETING)
    book.far(REPLY)
    assert book.relayed
    assert book.to_far == EHLO + MAIL
    assert book.ended == {Side.FAR}


def test_the_end_of_a_sender_that_said_nothing_during_the_redial() -> None:
    book = started()
    book.far(append_offer(REPLY, flip(FarReceivingGateway().offer, 5)))
    book.near_end()
    redialled(book, FarReceivingGateway("second"))
    assert book.relayed
    assert book.ended == {Side.FAR}
    assert book.to_far == EHLO


@pytest.mark.parametrize("when", ["redialling", "reobserving", "confirming"])
def test_the_sender_that_resets_ends_it(when: str) -> None:
    book = confirming(FarReceivingGateway())
    if when != "confirming":
        book.far_reset()
    if when == "reobserving":
        book.redialled()
    book.near_reset()
    assert book.state == "over"
    assert not book.decision.upgraded


# --- Ends and resets before the decision, and in READY ------------------------------------------------------


def at(place: str) -> Playbook:
    if place == "start":
        return Playbook(sending())
    if place == "greeted":
        book = Playbook(sending())
        book.far(GREETING)
        return book
    if place == "reply begun":
        book = started()
        book.far(REPLY[:30])
        return book
    return ready(FarReceivingGateway())


@pytest.mark.parametrize("place", ["start", "greeted", "reply begun", "ready"])
@pytest.mark.parametrize("side", list(Side))
def test_a_half_close_before_the_verb_passes_as_what_it_was(place: str, side: Side) -> None:
    book = at(place)
    book.happens(EndReceived(side))
    assert book.relayed
    assert book.ended == {side.other}
    assert book.decision.reason is Reason.ENDED_BEFORE_DECISION
    if place == "reply begun":
        assert book.to_near == GREETING + REPLY[:30], "what was held goes first"


@pytest.mark.parametrize("place", ["start", "greeted", "reply begun", "ready"])
@pytest.mark.parametrize("side", list(Side))
def test_a_reset_before_the_verb_passes_as_what_it_was(place: str, side: Side) -> None:
    book = at(place)
    book.happens(ResetReceived(side))
    assert book.reset == {side.other}
    assert book.decision.reason is Reason.ENDED_BEFORE_DECISION


@pytest.mark.parametrize(
    ("pin", "said", "alarm"),
    [
        (None, b"421 4.4.2 Timeout\r\n", False),
        (R_PIN, b"421 4.4.2 Time", True),
        (R_PIN, b"250 2.1.0 Ok\r\n", True),
        (R_PIN, b"\r\n", True),
    ],
)
def test_a_receiver_that_speaks_before_the_verb_passes(pin: Pin | None, said: bytes, alarm: bool) -> None:
    """In clear it came, in clear it goes. Where a peer is pinned and the session is not refused, it rings:
    an octet set in between must not be a silent way around the channel."""
    book = ready(FarReceivingGateway(), pin=pin)
    book.far(said)
    assert book.relayed
    assert book.to_near == GREETING + REPLY + said
    assert VERB_LINE not in book.to_far
    assert (book.decision.upgraded, book.decision.alarm) == (False, alarm)


@pytest.mark.parametrize("place", ["greeting", "reply", "ready"])
def test_a_421_of_a_pinned_peer_ends_the_session(place: str) -> None:
    """It may be set in on the wire: a sender that talks on must not do so in clear."""
    book = Playbook(sending(pin=R_PIN)) if place == "greeting" else started(pin=R_PIN)
    if place == "ready":
        book = ready(FarReceivingGateway(), pin=R_PIN)
    before, sent = book.to_near, book.to_far
    book.far(b"421 4.3.2 Shutting down\r\n")
    assert book.to_near == before + b"421 4.3.2 Shutting down\r\n"
    assert (book.closed, book.relayed, book.decision.alarm) == (True, False, False)
    book.near(b"MAIL FROM:<someone@a.example>\r\n")
    assert book.to_far == sent


def test_a_421_of_a_pinned_peer_gets_nothing_of_what_was_held() -> None:
    """Nor does a sender change that by talking on before the reply has come."""
    book = started(pin=R_PIN)
    book.near(b"MAIL FROM:<someone@a.example>\r\n")
    sent = book.to_far
    assert sent == EHLO
    book.far(b"421 4.3.2 Shutting down\r\n")
    assert book.closed
    assert book.to_far == sent


@pytest.mark.parametrize("pin", [None, R_PIN])
def test_an_end_of_the_receiver_before_the_verb_passes_and_rings_where_it_is_pinned(pin: Pin | None) -> None:
    book = ready(FarReceivingGateway(), pin=pin)
    book.far_end()
    assert book.ended == {Side.NEAR}
    assert (book.relayed, book.decision.alarm) == (True, pin is not None)


# --- In the channel -----------------------------------------------------------------------------------------


def test_close_both_ways() -> None:
    r = FarReceivingGateway()
    book = channelled(r, b"QUIT\r\n")
    book.near_end()
    assert r.take(book.to_far).kinds[-1] is RecordType.CLOSE
    assert book.ended == {Side.FAR}
    book.far(r.says(b"221 Bye\r\n") + r.layer.seal(RecordType.CLOSE))
    assert book.to_near.endswith(b"221 Bye\r\n")
    assert book.ended == {Side.NEAR, Side.FAR}
    assert book.closed


def test_a_close_of_the_far_side_lets_the_near_side_go_on() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    book.far(r.layer.seal(RecordType.CLOSE))
    assert book.ended == {Side.NEAR}
    book.far_end()
    book.near(RCPT)
    assert r.take(book.to_far).data == MAIL + RCPT
    book.near_end()
    assert r.take(book.to_far).kinds[-1] is RecordType.CLOSE
    assert book.closed


@pytest.mark.parametrize("behind", [b"", b"\x82", b"\x82\x00\x40abc"])
def test_an_end_without_close_is_a_reset(behind: bytes) -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    if behind:
        book.far(behind)
    book.far_end()
    assert Side.NEAR in book.reset
    assert Side.NEAR not in book.ended
    assert ("channel-failed", Reason.END_WITHOUT_CLOSE) in book.facts


def test_a_reset_of_the_far_side_is_a_reset() -> None:
    book = channelled(FarReceivingGateway())
    book.far_reset()
    assert Side.NEAR in book.reset


def test_a_reset_of_the_sender_travels_authenticated() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    book.near_reset()
    assert r.take(book.to_far).kinds[-1] is RecordType.RESET


def test_a_reset_of_a_sender_that_had_ended() -> None:
    """It sent QUIT, closed, and the receiver's 221 met nobody. CLOSE was the last record: no RESET now."""
    r = FarReceivingGateway()
    book = channelled(r, b"QUIT\r\n")
    book.near_end()
    book.far(r.says(b"221 Bye\r\n"))
    book.near_reset()
    assert book.state == "over"
    assert r.take(book.to_far).kinds[-1] is RecordType.CLOSE
    assert book.closed or Side.FAR in book.reset


def test_a_reset_record_resets_the_sender() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    book.far(r.says(b"4") + r.layer.seal(RecordType.RESET))
    assert Side.NEAR in book.reset
    assert Side.NEAR not in book.ended


def test_a_reset_as_the_first_record() -> None:
    r = FarReceivingGateway()
    book = confirming(r)
    book.far(r.layer.seal(RecordType.RESET))
    assert Side.NEAR in book.reset
    assert book.state == "over"


CHANNEL_FAILURES: dict[str, Callable[[FarReceivingGateway], bytes]] = {
    "clear octets": lambda r: b"250 2.0.0 Ok: queued\r\n",
    "clear behind a record": lambda r: r.layer.seal(RecordType.PAD) + b"250 Ok\r\n",
    "tampered": lambda r: flip(r.says(b"250 2.0.0 Ok: queued\r\n"), -3),
    "tampered header": lambda r: flip(r.says(b"250 2.0.0 Ok: queued\r\n" * 20), 2, 0x40) + bytes(100),
    "reordered": lambda r: (r.says(b"1"), r.says(b"2"))[1],
    "message 2": lambda r: frame(FrameKind.ANSWER, bytes(1324)),
    "octets behind CLOSE": lambda r: r.layer.seal(RecordType.CLOSE) + frame(FrameKind.RECORD, bytes(40)),
}


@pytest.mark.parametrize("how", CHANNEL_FAILURES)
def test_what_is_not_the_peers_resets_the_sender(how: str) -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    seen = book.to_near
    book.far(CHANNEL_FAILURES[how](r))
    assert book.to_near == seen, "not an octet of it"
    assert book.reset == {Side.NEAR, Side.FAR}
    assert [event for event, _ in book.facts] == ["channel-failed"]


def test_a_replayed_record_resets_the_sender() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    record = r.says(b"250 Ok\r\n")
    book.far(record)
    seen = book.to_near
    book.far(record)
    assert (book.to_near, book.reset) == (seen, {Side.NEAR, Side.FAR})


def test_records_without_content_show_nothing() -> None:
    r = FarReceivingGateway()
    book = channelled(r)
    seen = book.to_near
    book.far(r.layer.seal(RecordType.PAD, inner_pad=300) + r.layer._seal(0x7E, b"future", 0) + r.params())
    book.far(r.layer.seal(RecordType.DATA))
    assert book.to_near == seen
    assert book.state == "channel"


# --- The table ----------------------------------------------------------------------------------------------

NEAR_ONLY = {(kind, side) for kind, side in BOTH if side is Side.NEAR}
TIMER = {(DeadlineReached, None)}
LEGAL = {
    State.OBSERVING: BOTH,
    State.READY: BOTH,
    State.CONFIRMING: BOTH | TIMER,
    State.AWAITING_STATEMENT: BOTH | TIMER,
    State.REDIALLING: NEAR_ONLY | TIMER | {(Redialled, None), (RedialFailed, None)},
    State.REOBSERVING: BOTH | TIMER,
    State.CHANNEL: BOTH | TIMER,
}


def in_state(state: State) -> Playbook:
    r = FarReceivingGateway()
    if state is State.OBSERVING:
        return started()
    if state is State.READY:
        return ready(r)
    if state is State.CONFIRMING:
        return confirming(r)
    if state is State.AWAITING_STATEMENT:
        stranger = FarReceivingGateway(keys=OTHER_KEYS, flags=OfferFlags.STATEMENT_FOLLOWS)
        return confirming(stranger, pin=R_PIN)
    if state is State.CHANNEL:
        return channelled(r)
    if state is State.RELAYED:
        book = started()
        book.far(REPLY)
        return book
    book = failed("rst")
    if state is State.REOBSERVING:
        book.redialled()
    elif state is State.OVER:
        book.redial_failed()
    return book


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("event", EVENTS, ids=lambda e: f"{type(e).__name__}-{getattr(e, 'side', None)}")
def test_every_event_in_every_state(state: State, event: Event) -> None:
    book = in_state(state)
    assert book.machine.state is state
    side = getattr(event, "side", None)
    if state in (State.OVER, State.RELAYED):
        assert book.machine.handle(event, book.now) == []
        assert book.machine.state is state
    elif (type(event), side) in LEGAL[state]:
        book.happens(event)
    else:
        with pytest.raises(LocalMisuseError):
            book.happens(event)


def test_the_table_holds_what_is_legal_and_no_more() -> None:
    legal = {(state, kind, side) for state, pairs in LEGAL.items() for kind, side in pairs}
    assert set(table_of(SendingSession)) == legal


def test_no_machine_asks_to_be_told_of_drained_writes() -> None:
    with pytest.raises(LocalMisuseError):
        started().happens(WriteDrained(Side.FAR))


def test_any_two_events_in_every_state_keep_what_always_holds() -> None:
    """`Playbook` checks it; a legal event may bring about any state, never a contradiction."""
    for state in LEGAL:
        for first, second in itertools.product(EVENTS, repeat=2):
            if not can_follow(first, second):
                continue
            book = in_state(state)
            for event in (first, second):
                side = getattr(event, "side", None)
                current = book.machine.state
                if (type(event), side) not in LEGAL.get(current, set()):
                    break
                if side in book.paused and isinstance(event, OctetsReceived | EndReceived):
                    break
                if isinstance(event, Redialled):
                    book.redialled()
                elif isinstance(event, RedialFailed):
                    book.redial_failed()
                else:
                    book.happens(event)


def test_keys_of_another_day_still_serve() -> None:
    r = FarReceivingGateway(keys=gateway_keys("R", TODAY - 1))
    assert channelled(r).decision.upgraded


# --- Silence -----------------------------------------------------------------------------------------------

ALMOST_TEN_MINUTES = 590.0


def test_almost_ten_minutes_of_silence_behind_the_final_dot() -> None:
    """RFC 5321 4.5.3.2.6: a gateway that gave up earlier would have the message sent twice."""
    r = FarReceivingGateway()
    book = channelled(r)
    book.near(b"DATA\r\n")
    book.far(r.says(b"354 go on\r\n"))
    book.near(b"words\r\n.\r\n")
    assert book.machine.deadline is None
    book.now += ALMOST_TEN_MINUTES
    book.far(r.says(b"250 queued\r\n"))
    assert book.to_near.endswith(b"354 go on\r\n250 queued\r\n")
    assert r.take(book.to_far).data.endswith(b"words\r\n.\r\n")


@pytest.mark.parametrize("stage", ["greeting", "reply", "first command"])
def test_almost_ten_minutes_of_silence_before_the_verb(stage: str) -> None:
    """Mail servers wait five minutes for a greeting, and as long for a command; we never end it earlier."""
    r = FarReceivingGateway()
    book = Playbook(sending())
    for name, step in (
        ("greeting", lambda: book.far(GREETING)),
        ("", lambda: book.near(EHLO)),
        ("reply", lambda: book.far(r.reply)),
        ("first command", lambda: book.near(MAIL)),
    ):
        if name == stage:
            assert book.machine.deadline is None
            book.now += ALMOST_TEN_MINUTES
        step()
    assert book.state == "confirming"
