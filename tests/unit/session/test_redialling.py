"""A handshake that fails at the sending gateway, and the dials that follow (docs/protocol.md, 7)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.crypto.frames import FrameKind, frame
from gateway.crypto.records import RecordType
from gateway.errors import Reason
from gateway.policy import limits
from gateway.session import commands as c
from gateway.session.events import (
    RedialFailed,
    Redialled,
    Side,
)
from gateway.session.sending import TRY_AGAIN
from gateway.smtp.capability import append_offer
from tests.playbook import (
    EHLO,
    GREETING,
    OTHER_KEYS,
    REPLY,
    FarReceivingGateway,
    Playbook,
    flip,
    sending,
)
from tests.unit.session.sending_steps import (
    CONTENT,
    MAIL,
    R_PIN,
    RCPT,
    confirming,
    ready,
    redialled,
    started,
)

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
