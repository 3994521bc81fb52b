"""The sending gateway's session before the verb: ends, resets and 421 pass as what they were. And silence."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.crypto.records import RecordType
from gateway.errors import Reason
from gateway.peers.pins import Pin
from gateway.session.commands import SendEnd, SendOctets
from gateway.session.events import (
    EndReceived,
    ResetReceived,
    Side,
)
from gateway.smtp.capability import VERB_LINE
from tests.playbook import (
    EHLO,
    GREETING,
    REPLY,
    FarReceivingGateway,
    Playbook,
    sending,
)
from tests.unit.session.sending_steps import (
    CONTENT,
    MAIL,
    R_PIN,
    RCPT,
    channelled,
    ready,
    started,
)


def at(place: str, pin: Pin | None = None) -> Playbook:
    if place == "start":
        return Playbook(sending(pin=pin))
    if place == "greeted":
        book = Playbook(sending(pin=pin))
        book.far(GREETING)
        return book
    if place == "reply begun":
        book = started(pin=pin)
        book.far(REPLY[:30])
        return book
    return ready(FarReceivingGateway(), pin=pin)


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


@pytest.mark.parametrize("heard", [b"", GREETING, GREETING + REPLY[:30]], ids=["nothing", "greeting", "part"])
def test_an_end_of_a_pinned_receiver_that_brings_out_what_was_held_rings(heard: bytes) -> None:
    """It passes as what it was, and so does what a sender has said without waiting: in clear."""
    book = Playbook(sending(pin=R_PIN))
    book.near(EHLO + MAIL)
    if heard:
        book.far(heard)
    book.far_end()
    assert (book.to_near, book.to_far) == (heard, EHLO + MAIL)
    assert (book.ended, book.relayed) == ({Side.NEAR}, True)
    assert (book.decision.reason, book.decision.alarm) == (Reason.ENDED_BEFORE_DECISION, True)


# Exim says all of a mail at once to a server that it knows (PIPECONNECT), and ends there.
ALL_AT_ONCE = MAIL + RCPT + CONTENT + b"QUIT\r\n"


def ended_behind(heard: bytes = b"", pin: Pin | None = None) -> Playbook:
    book = Playbook(sending(pin=pin))
    book.near(EHLO + ALL_AT_ONCE)
    if heard:
        book.far(heard)
    book.near_end()
    return book


@pytest.mark.parametrize("pin", [None, R_PIN])
@pytest.mark.parametrize("heard", [b"", GREETING, GREETING + REPLY[:30]], ids=["nothing", "greeting", "part"])
def test_an_end_of_the_sender_behind_what_is_held_is_held_too(heard: bytes, pin: Pin | None) -> None:
    """A reply that is kept back on the wire makes it give up, and brings out nothing."""
    book = ended_behind(heard, pin)
    assert (book.to_far, book.ended, book.relayed) == (EHLO, set(), False)


@pytest.mark.parametrize("pin", [None, R_PIN])
@pytest.mark.parametrize("heard", [b"", GREETING], ids=["before-greeting", "before-reply"])
def test_what_a_sender_says_before_its_end_and_any_reply_goes_into_the_channel(
    heard: bytes, pin: Pin | None
) -> None:
    r = FarReceivingGateway()
    book = ended_behind(heard, pin)
    book.far((GREETING + r.reply)[len(heard) :])
    book.far(r.take(book.to_far).params())
    r.take(book.to_far)
    assert (r.data, r.kinds[-1]) == (ALL_AT_ONCE, RecordType.CLOSE)
    assert (book.to_near, book.ended, book.decision.upgraded) == (GREETING + REPLY, {Side.FAR}, True)


@pytest.mark.parametrize("pin", [None, R_PIN])
@pytest.mark.parametrize(
    "reply",
    [REPLY, b"502 5.5.1 Command not implemented\r\n", REPLY + b"250 x\r\n", b"250-\n"],
    ids=["no-offer", "refused", "more", "odd"],
)
def test_such_an_end_goes_out_behind_what_was_held_where_there_is_no_offer(
    reply: bytes, pin: Pin | None
) -> None:
    book = ended_behind(GREETING, pin)
    book.far(reply)
    assert (book.to_near, book.to_far) == (GREETING + reply, EHLO + ALL_AT_ONCE)
    assert (book.ended, book.relayed) == ({Side.FAR}, True)
    assert book.commands.index(SendEnd(Side.FAR)) > book.commands.index(SendOctets(Side.FAR, ALL_AT_ONCE))
    assert (book.decision.upgraded, book.decision.alarm) == (False, pin is not None)


@pytest.mark.parametrize("pin", [None, R_PIN])
def test_such_an_end_goes_out_where_the_receiver_ends_as_well(pin: Pin | None) -> None:
    book = ended_behind(GREETING + REPLY[:30], pin)
    book.far_end()
    assert (book.to_near, book.to_far) == (GREETING + REPLY[:30], EHLO + ALL_AT_ONCE)
    assert (book.ended, book.relayed) == (set(Side), True)
    assert (book.decision.reason, book.decision.alarm) == (Reason.ENDED_BEFORE_DECISION, pin is not None)


def test_a_sender_that_has_gone_behind_its_end_takes_what_was_held_along() -> None:
    book = ended_behind(GREETING, R_PIN)
    book.near_reset()
    assert (book.to_far, book.reset, book.decision.alarm) == (EHLO, {Side.FAR}, False)


@pytest.mark.parametrize("place", ["start", "greeted", "reply begun", "ready"])
def test_an_end_of_the_sender_before_the_verb_rings_nowhere_else(place: str) -> None:
    book = at(place, R_PIN)
    book.near_end()
    assert (book.relayed, book.decision.alarm) == (True, False)


BEFORE_REPLY = pytest.mark.parametrize(
    "place", ["start", "greeted", "reply begun"], ids=lambda place: place.replace(" ", "-")
)


@BEFORE_REPLY
def test_what_a_sender_says_behind_such_an_end_rings(place: str) -> None:
    """A FIN that comes before the sender has said anything would else bring out all of it unheard."""
    book = at(place, R_PIN)
    book.far_end()
    assert not book.relayed, "nothing is known yet"
    heard, seen = book.to_far, book.to_near
    book.near(MAIL)
    assert (book.to_near, book.to_far) == (seen, heard + MAIL)
    assert (book.ended, book.relayed) == ({Side.NEAR}, True)
    assert (book.decision.reason, book.decision.alarm) == (Reason.ENDED_BEFORE_DECISION, True)


@BEFORE_REPLY
@pytest.mark.parametrize("then", [EndReceived(Side.NEAR), ResetReceived(Side.NEAR), ResetReceived(Side.FAR)])
def test_such_an_end_rings_no_bell_where_the_sender_says_no_more(
    place: str, then: EndReceived | ResetReceived
) -> None:
    """Servers that are overloaded end so all day."""
    book = at(place, R_PIN)
    book.far_end()
    book.happens(then)
    over = isinstance(then, ResetReceived)
    assert (book.relayed, book.reset) == (not over, {then.side.other} if over else set())
    assert book.ended == ({Side.NEAR} if over else set(Side))
    assert (book.decision.reason, book.decision.alarm) == (Reason.ENDED_BEFORE_DECISION, False)


def test_an_end_of_an_unknown_receiver_before_its_reply_rings_never() -> None:
    book = started()
    book.near(MAIL)
    book.far_end()
    assert (book.to_far, book.relayed, book.decision.alarm) == (EHLO + MAIL, True, False)


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


@pytest.mark.parametrize("place", ["greeting", "behind the greeting", "reply", "ready"])
def test_a_421_of_a_pinned_peer_ends_the_session(place: str) -> None:
    """It may be set in on the wire: a sender that talks on must not do so in clear."""
    book = Playbook(sending(pin=R_PIN)) if "greeting" in place else started(pin=R_PIN)
    if place == "behind the greeting":
        book.far(GREETING)
    if place == "ready":
        book = ready(FarReceivingGateway(), pin=R_PIN)
    before, sent = book.to_near, book.to_far
    book.far(b"421 4.3.2 Shutting down\r\n")
    assert book.to_near == before + b"421 4.3.2 Shutting down\r\n"
    assert (book.closed, book.relayed, book.decision.alarm) == (True, False, False)
    book.near(b"MAIL FROM:<someone@a.example>\r\n")
    assert book.to_far == sent


@pytest.mark.parametrize("place", ["greeting", "reply"])
@pytest.mark.parametrize(
    "said", [b"421 4.3.2 Shutting down\r\n", b"421-4.3.2 Come back\r\n421-\r\n421 4.3.2 later\r\n"]
)
def test_a_421_of_a_pinned_peer_reaches_the_sender_whole_however_it_is_cut(place: str, said: bytes) -> None:
    for at in range(1, len(said)):
        book = Playbook(sending(pin=R_PIN)) if place == "greeting" else started(pin=R_PIN)
        before = book.to_near
        book.far(said[:at])
        assert not book.closed, at
        book.far(said[at:])
        assert book.to_near == before + said, at
        assert (book.closed, book.relayed, book.decision.alarm) == (True, False, False)


@pytest.mark.parametrize("words", [EHLO, MAIL], ids=["ehlo", "mail"])
@pytest.mark.parametrize("cut", [3, 5, 25])
def test_a_421_of_a_pinned_peer_that_comes_in_pieces_gets_nothing_in_between(words: bytes, cut: int) -> None:
    """In the place of a greeting, which passes at once, as the sender's first words do."""
    said = b"421-4.3.2 Come back\r\n421 later\r\n"
    book = Playbook(sending(pin=R_PIN))
    book.far(said[:cut])
    book.near(words)
    book.far(said[cut:])
    assert (book.to_near, book.to_far) == (said, b"")
    assert (book.closed, book.decision.alarm) == (True, False)


@pytest.mark.parametrize("place", ["greeting", "reply"])
@pytest.mark.parametrize("early", [b"", EHLO + MAIL], ids=["waits", "does-not-wait"])
def test_a_pinned_peer_that_ends_within_its_421_gets_nothing_more(place: str, early: bytes) -> None:
    """What the sender says behind that would follow what was not passed on."""
    book = Playbook(sending(pin=R_PIN))
    if place == "reply":
        book.far(GREETING)
        book.near(early or EHLO)
    book.far(b"421 4.3")
    if place == "greeting":
        book.near(EHLO)
    seen, sent = book.to_near, book.to_far
    book.far_end()
    book.near(MAIL + CONTENT)
    assert (book.to_near, book.to_far) == (GREETING + b"421 4.3" if place == "reply" else seen, sent)
    assert (book.closed, book.relayed, book.decision.alarm) == (True, False, False)


def test_nor_does_one_that_was_spoken_to_before() -> None:
    book = Playbook(sending(pin=R_PIN))
    book.near(EHLO + MAIL)
    book.far(b"421 4.3")
    book.far_end()
    assert (book.to_near, book.to_far, book.closed) == (b"421 4.3", EHLO, True)


def test_where_no_pin_exists_what_the_sender_says_into_a_421_passes() -> None:
    book = Playbook(sending())
    book.far(b"421-4.3.2 Come back\r\n")
    book.near(MAIL)
    assert (book.to_far, book.relayed) == (MAIL, True)


@pytest.mark.parametrize(
    "rest",
    [b" x\n", b" x\rx", b" x\0", b" x\r\n250 y\r\n", b"-x\r\n421?\r\n", b"x\r\n", b"-" + b"x" * 20_000],
)
def test_what_begins_as_a_421_of_a_pinned_peer_is_never_a_way_into_clear(rest: bytes) -> None:
    book = started(pin=R_PIN)
    book.near(MAIL)
    book.far(b"421" + rest)
    assert (book.closed, book.relayed, book.to_far) == (True, False, EHLO)


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
    steps: list[tuple[str, Callable[[], object]]] = [
        ("greeting", lambda: book.far(GREETING)),
        ("", lambda: book.near(EHLO)),
        ("reply", lambda: book.far(r.reply)),
        ("first command", lambda: book.near(MAIL)),
    ]
    for name, step in steps:
        if name == stage:
            assert book.machine.deadline is None
            book.now += ALMOST_TEN_MINUTES
        step()
    assert book.state == "confirming"
