"""A peer's identity is rolled over: what both machines do with statements (docs/protocol.md, "Rollover")."""

from __future__ import annotations

import pytest

from gateway.crypto.handshake import OfferForm
from gateway.crypto.messages import OfferFlags
from gateway.crypto.records import RecordType
from gateway.crypto.statement import make_statement
from gateway.errors import Reason
from gateway.peers.pins import Acceptance, Destination, MetPeer, MetStatement, Pin, stated, updated
from gateway.policy import limits
from gateway.session import commands as c
from tests.pair import Pair, Sender
from tests.playbook import (
    EHLO,
    GREETING,
    OTHER_KEYS,
    R_KEYS,
    REPLY,
    TODAY,
    FarReceivingGateway,
    FarSendingGateway,
    Playbook,
    flip,
    gateway_keys,
    receiving,
    sending,
)

HERE = Destination("192.0.2.25", 25)
NOW = 1_800_000_000
MAIL = b"MAIL FROM:<alice@a.example>\r\n"
THIRD_KEYS = gateway_keys("a third R")
OLD, NEW, THIRD = R_KEYS.key, OTHER_KEYS.key, THIRD_KEYS.key
GOOD = make_statement(OLD, NEW, 7)
FOLLOWS = OfferFlags.STATEMENT_FOLLOWS


def pinned(*, serial: int = 0, seen_new: bool = False) -> Pin:
    pin = updated(None, HERE, MetPeer(OLD.public.octets, TODAY, True), NOW)
    if seen_new:
        pin = updated(pin, HERE, MetPeer(NEW.public.octets, TODAY, True), NOW)
    if serial:
        pin = stated(pin, MetStatement(OLD.public.octets, THIRD.public.octets, serial), NOW)
    return pin


def answered(r: FarReceivingGateway, pin: Pin | None, flight: bytes = MAIL) -> Playbook:
    """Verb and answer are out, and R has taken them."""
    book = Playbook(sending(pin=pin))
    book.far(GREETING)
    book.near(EHLO)
    book.far(r.reply)
    book.near(flight)
    r.take(book.to_far)
    return book


def awaiting(r: FarReceivingGateway, pin: Pin | None = None, flight: bytes = MAIL) -> Playbook:
    """Verb and answer are out, on the offer of an identity that `pin` does not know as accepted."""
    book = answered(r, pin or pinned(), flight)
    assert book.state == "awaiting-statement"
    return book


def stranger(label: str = "dial 1", flags: int = FOLLOWS, **more: object) -> FarReceivingGateway:
    return FarReceivingGateway(label, keys=OTHER_KEYS, flags=flags, **more)  # type: ignore[arg-type]


def statement_record(r: FarReceivingGateway, content: bytes = GOOD) -> bytes:
    return r.layer.seal(RecordType.STATEMENT, content)


# --- S waits ------------------------------------------------------------------------------------------------


def test_nothing_of_the_sender_leaves_before_the_statement() -> None:
    r = stranger()
    book = awaiting(r)
    book.near(b"RCPT TO:<bob@b.example>\r\n")
    book.far(r.params())
    book.far(r.layer.seal_pad(50))
    book.far(r.layer.seal(RecordType.IGNORABLE))
    r.take(book.to_far)
    assert r.data == b""
    assert RecordType.DATA not in r.kinds
    assert book.to_near == GREETING + REPLY
    assert not book.all_of(c.RememberPeer)
    assert not book.all_of(c.NoteDecision)


def test_a_good_statement_upgrades_without_an_alarm_and_is_remembered() -> None:
    r = stranger()
    book = awaiting(r)
    book.near(b"RCPT TO:<bob@b.example>\r\n")
    book.far(r.params() + statement_record(r))
    r.take(book.to_far)
    assert r.data == MAIL + b"RCPT TO:<bob@b.example>\r\n"
    assert (book.decision.reason, book.decision.alarm) == (Reason.UPGRADED_BY_STATEMENT, False)
    (remembered,) = book.all_of(c.RememberPeer)
    assert remembered.peer.identity == NEW.public
    assert remembered.statement == MetStatement(OLD.public.octets, NEW.public.octets, 7)
    assert book.state == "channel"
    assert book.machine.deadline is None
    book.far(r.says(b"250 Ok\r\n"))
    assert book.to_near.endswith(b"250 Ok\r\n")


def test_statement_and_what_is_behind_it_may_come_octet_by_octet() -> None:
    r = stranger()
    book = awaiting(r)
    for octet in r.params() + statement_record(r) + r.says(b"250 Ok\r\n"):
        book.far(bytes((octet,)))
    assert book.decision.reason is Reason.UPGRADED_BY_STATEMENT
    assert book.to_near == GREETING + REPLY + b"250 Ok\r\n"


def test_an_identity_that_was_seen_and_not_accepted_is_led_to_as_well() -> None:
    r = stranger()
    book = awaiting(r, pinned(seen_new=True))
    book.far(r.params() + statement_record(r))
    assert book.decision.reason is Reason.UPGRADED_BY_STATEMENT


def test_a_statement_does_not_silence_a_weaker_offer() -> None:
    r = stranger(form=OfferForm.SHORT)
    book = awaiting(r)
    book.far(r.params() + statement_record(r))
    assert (book.decision.reason, book.decision.alarm) == (Reason.UPGRADED_WEAKER_OFFER, True)
    assert book.all_of(c.RememberPeer)[0].statement is not None


BAD = {
    "another's signature": flip(GOOD, 100),
    "the new one's signature": flip(GOOD, 190),
    "leads elsewhere": make_statement(OLD, THIRD, 9),
    "from an identity that is not accepted": make_statement(THIRD, NEW, 9),
    "backwards": make_statement(NEW, OLD, 9),
    "too short": GOOD[:-1],
    "too long": GOOD + b"\0",
    "empty": b"",
    "zeros": bytes(196),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_statement_that_does_not_count_is_none(content: bytes) -> None:
    r = stranger()
    book = awaiting(r)
    book.far(r.params() + statement_record(r, content))
    r.take(book.to_far)
    assert (book.decision.reason, book.decision.alarm) == (Reason.UPGRADED_CHANGED_PEER, True)
    assert r.data == MAIL
    for remembered in book.all_of(c.RememberPeer):
        assert remembered.peer.identity == NEW.public
        after = updated(pinned(), HERE, MetPeer(NEW.public.octets, TODAY, True), NOW, remembered.statement)
        new = after.find(NEW.public.octets)
        assert new is not None
        assert new.acceptance is Acceptance.NOT_YET


@pytest.mark.parametrize(("seen", "counts"), [(6, True), (7, False), (8, False)])
def test_serials_rise(seen: int, counts: bool) -> None:
    r = stranger()
    book = awaiting(r, pinned(serial=seen))
    book.far(r.params() + statement_record(r))
    assert (book.decision.reason is Reason.UPGRADED_BY_STATEMENT) is counts
    assert book.decision.alarm is not counts


@pytest.mark.parametrize("kind", ["data", "close", "reset"])
def test_what_stands_behind_all_statements_ends_the_wait(kind: str) -> None:
    r = stranger()
    book = awaiting(r)
    params = r.params()
    said = {
        "data": lambda: r.says(b"421 busy\r\n"),
        "close": lambda: r.layer.seal(RecordType.CLOSE),
        "reset": lambda: r.layer.seal(RecordType.RESET),
    }[kind]()
    book.far(params + said)
    assert (book.decision.reason, book.decision.alarm) == (Reason.UPGRADED_CHANGED_PEER, True)
    assert book.to_near.endswith(b"421 busy\r\n") == (kind == "data")


def test_only_the_first_statement_ends_the_wait() -> None:
    r = stranger()
    book = awaiting(r)
    book.far(r.params() + statement_record(r, make_statement(OLD, THIRD, 9)) + statement_record(r))
    assert book.decision.reason is Reason.UPGRADED_CHANGED_PEER


@pytest.mark.parametrize("proven", [False, True], ids=["silent", "params only"])
def test_without_a_statement_in_time_the_handshake_has_failed(proven: bool) -> None:
    r = stranger()
    book = awaiting(r)
    began = book.now
    if proven:
        book.now += 5
        book.far(r.params())
    book.deadline()
    assert book.now == began + limits.HANDSHAKE_SECONDS
    assert book.state == "redialling"
    assert ("handshake-failed", Reason.HANDSHAKE_TIMEOUT) in book.facts
    assert not book.all_of(c.RememberPeer)


def test_clear_octets_never_reach_the_sender_while_it_waits() -> None:
    for said in (b"250 Ok\r\n", b"\x81\x00\x01x", b"\x82\x00\x20" + bytes(32)):
        book = awaiting(stranger())
        book.far(said)
        assert book.to_near == GREETING + REPLY
        assert book.state == "redialling"


def test_a_redial_waits_anew_and_sends_all_that_was_kept() -> None:
    book = awaiting(stranger())
    book.far_reset()
    book.redialled()
    again = stranger("dial 2")
    book.far(again.greeting)
    book.far(again.reply)
    again.take(book.to_far)
    assert book.state == "awaiting-statement"
    assert again.data == b""
    book.far(again.params() + statement_record(again))
    again.take(book.to_far)
    assert again.data == MAIL
    assert book.decision.reason is Reason.UPGRADED_BY_STATEMENT


def test_a_redial_that_meets_the_accepted_identity_does_not_wait() -> None:
    book = awaiting(stranger())
    book.far_reset()
    book.redialled()
    known = FarReceivingGateway("dial 2", flags=FOLLOWS)
    book.far(known.greeting)
    book.far(known.reply)
    known.take(book.to_far)
    assert book.state == "confirming"
    assert known.data == MAIL


def test_content_of_a_mail_goes_out_once_with_all_the_rest() -> None:
    r = stranger()
    flight = MAIL + b"BDAT 5 LAST\r\nhello"
    book = awaiting(r, flight=flight)
    book.near_end()
    book.far(r.params() + statement_record(r))
    r.take(book.to_far)
    assert r.data == flight
    assert r.kinds[-1] is RecordType.CLOSE


def test_the_sender_is_not_read_for_ever_while_it_waits() -> None:
    r = stranger()
    book = awaiting(r, flight=b"x" * limits.FIRST_FLIGHT_OCTETS)
    assert [one.side.value for one in book.all_of(c.PauseReading)] == ["near"]
    book.far(r.params() + statement_record(r))
    assert not book.paused


# --- Where S does not wait ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "pin", "flags"),
    [
        (OTHER_KEYS, None, FOLLOWS),
        (R_KEYS, pinned(), FOLLOWS),
        (OTHER_KEYS, pinned(), OfferFlags.NONE),
        (OTHER_KEYS, pinned(), OfferFlags.UNUSED),
    ],
    ids=["new", "same", "changed, no flag", "changed, another flag"],
)
def test_only_a_stranger_with_the_flag_is_waited_for(keys: object, pin: Pin | None, flags: int) -> None:
    r = FarReceivingGateway(keys=keys, flags=flags)  # type: ignore[arg-type]
    book = answered(r, pin)
    assert book.state == "confirming"
    assert r.data == MAIL


def test_a_stranger_without_the_flag_is_not_believed_its_statement() -> None:
    r = stranger(flags=OfferFlags.NONE)
    book = answered(r, pinned())
    book.far(r.params() + statement_record(r))
    assert (book.decision.reason, book.decision.alarm) == (Reason.UPGRADED_CHANGED_PEER, True)
    (remembered,) = book.all_of(c.RememberPeer)
    assert remembered.statement is None


# --- Learning ahead -----------------------------------------------------------------------------------------


def shown(pin: Pin | None, *contents: bytes) -> Playbook:
    """A channel with the old identity, which shows these statements."""
    r = FarReceivingGateway(flags=FOLLOWS)
    book = answered(r, pin)
    book.far(r.params() + b"".join(statement_record(r, content) for content in contents))
    assert book.state == "channel"
    return book


@pytest.mark.parametrize(
    "pin", [None, pinned(), pinned(serial=6)], ids=["first use", "known", "led on before"]
)
def test_an_announcement_is_remembered_and_holds_nothing_up(pin: Pin | None) -> None:
    book = shown(pin, GOOD)
    peer, ahead = book.all_of(c.RememberPeer)
    assert (peer.peer.identity, peer.statement) == (OLD.public, None)
    assert ahead.peer.identity == OLD.public
    assert ahead.statement == MetStatement(OLD.public.octets, NEW.public.octets, 7)
    assert ("next-identity-announced", None) in book.facts


@pytest.mark.parametrize(
    ("pin", "content"),
    [
        (pinned(serial=7), GOOD),
        (pinned(), make_statement(THIRD, OLD, 9)),
        (pinned(), make_statement(THIRD, NEW, 9)),
        (pinned(), flip(GOOD, 100)),
        (pinned(), flip(GOOD, 10)),
        (pinned(), GOOD[:50]),
        (None, flip(GOOD, 190)),
    ],
    ids=["known", "leads to it", "another's", "signature", "identity", "short", "new peer, signature"],
)
def test_what_is_no_news_or_no_statement_changes_nothing(pin: Pin | None, content: bytes) -> None:
    book = shown(pin, content)
    assert [one.statement for one in book.all_of(c.RememberPeer)] == [None]
    assert book.state == "channel"
    assert not book.decision.alarm


@pytest.mark.parametrize("behind", ["bad params", "a reset"])
def test_an_announcement_is_told_before_the_end_that_came_in_the_same_read(behind: str) -> None:
    """`Playbook` refuses a word behind the end: the worker would have forgotten the session by then."""
    r = FarReceivingGateway(flags=FOLLOWS)
    book = answered(r, pinned())
    book.far(r.params())
    statement = statement_record(r)
    kind, content = (RecordType.RESET, b"") if behind == "a reset" else (RecordType.PARAMS, b"x")
    book.far(statement + r.layer.seal(kind, content))
    assert book.state == "over"
    assert ("next-identity-announced", None) in book.facts


@pytest.mark.parametrize("at_once", [True, False])
def test_so_many_statements_are_read_and_no_more(at_once: bool) -> None:
    """Each would cost S two verifications, for as long as a peer likes."""
    r = FarReceivingGateway(flags=FOLLOWS)
    book = answered(r, pinned())
    records = [
        r.params(),
        *(statement_record(r, make_statement(OLD, NEW, serial)) for serial in range(11, 16)),
    ]
    for octets in [b"".join(records)] if at_once else records:
        book.far(octets)
    serials = [one.statement.serial for one in book.all_of(c.RememberPeer) if one.statement]
    assert serials == [11, 12]
    assert book.state == "channel"


# --- R shows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("statements", [(), (GOOD,), (GOOD, make_statement(NEW, THIRD, 8))])
def test_r_sets_the_flag_and_shows_its_statements_behind_params_in_one_write(
    statements: tuple[bytes, ...],
) -> None:
    book = Playbook(receiving(keys=OTHER_KEYS, statements=statements))
    book.near(GREETING)
    book.far(EHLO)
    book.near(REPLY)
    before = len(book.to_far)
    s = FarSendingGateway(book.to_far[len(GREETING) :])
    assert bool(s.offered.flags & FOLLOWS) is bool(statements)
    commands = book.far(s.answer)
    writes = [one for one in commands if isinstance(one, c.SendOctets)]
    assert len(writes) == 1
    s._taken = before
    s.take(book.to_far)
    told = [record for record in s.records if record.kind is not RecordType.PAD]
    assert [record.kind for record in told] == [RecordType.PARAMS, *[RecordType.STATEMENT] * len(statements)]
    assert tuple(record.content for record in told[1:]) == statements


def test_r_ignores_a_statement_of_s() -> None:
    book = Playbook(receiving())
    book.near(GREETING)
    book.far(EHLO)
    book.near(REPLY)
    s = FarSendingGateway(book.to_far[len(GREETING) :])
    book.far(s.answer + b"".join(s.layer.seal(RecordType.STATEMENT, b"?") for _ in range(9)) + s.says(MAIL))
    assert book.state == "channel"
    assert book.to_near == EHLO + MAIL


# --- Both ---------------------------------------------------------------------------------------------------

DIALOGUE = [
    (1, EHLO),
    (2, MAIL + b"RCPT TO:<bob@b.example>\r\nDATA\r\n"),
    (5, b"Subject: x\r\n\r\nhello\r\n.\r\n"),
    (6, b"QUIT\r\n"),
]


@pytest.mark.parametrize("chance", range(10))
def test_a_mail_before_during_and_after_a_rollover(chance: int) -> None:
    """With the memory of S as the store would keep it: no alarm, and no mail in clear."""
    import random

    announcement = make_statement(OLD, NEW, 7)
    pin: Pin | None = None
    reasons: list[list[Reason]] = []
    for keys, statements in ((R_KEYS, ()), (OTHER_KEYS, (announcement,)), (OTHER_KEYS, (announcement,))):
        pair = Pair(
            Sender(DIALOGUE),
            chance=random.Random(chance),
            make_s=lambda pin=pin: sending(pin=pin),
            make_r=lambda dial, keys=keys, shows=statements: receiving(keys=keys, statements=shows),
        ).run()
        assert pair.receiver.delivered == [b"Subject: x\r\n\r\nhello\r\n"]
        decisions = [one for one in pair.commands if isinstance(one, c.NoteDecision)]
        assert all(one.upgraded and not one.alarm for one in decisions)
        reasons.append(
            [one.reason for one in decisions if one.reason is not Reason.UPGRADED] or [Reason.UPGRADED]
        )
        for one in pair.commands:
            if isinstance(one, c.RememberPeer):
                met = MetPeer(one.peer.identity.octets, one.peer.epoch, True)
                pin = updated(pin, HERE, met, NOW, one.statement)
    assert reasons == [[Reason.UPGRADED_NEW_PEER], [Reason.UPGRADED_BY_STATEMENT], [Reason.UPGRADED]]
