"""The receiving gateway's session against a scripted far gateway, step by step (docs/protocol.md)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from gateway.crypto.frames import FrameKind, frame
from gateway.crypto.handshake import OfferForm
from gateway.crypto.keys import IdentityPublic, Label
from gateway.crypto.messages import OfferFlags
from gateway.crypto.padding import padme
from gateway.crypto.params import Params
from gateway.crypto.records import RecordType
from gateway.errors import LocalMisuseError, Reason
from gateway.policy import limits
from gateway.session import commands as c
from gateway.session.context import GatewayKeys
from gateway.session.events import (
    DeadlineReached,
    EndReceived,
    Event,
    OctetsReceived,
    OfferSigned,
    ResetReceived,
    Side,
)
from gateway.session.receiving import ReceivingSession, State
from gateway.smtp.capability import VERB_LINE, append_offer, split_offer
from tests.playbook import (
    BOTH,
    DIALLED,
    EHLO,
    ELSEWHERE,
    EVENTS,
    GREETING,
    LONG_REPLY,
    R_KEYS,
    REPLY,
    TODAY,
    FarSendingGateway,
    Playbook,
    always_ignorable,
    can_follow,
    flip,
    gateway_keys,
    receiving,
    table_of,
)

MAIL = b"MAIL FROM:<alice@a.example>\r\n"
REFUSAL = b"454 4.7.0 "


def greeted(**surroundings: object) -> Playbook:
    book = Playbook(receiving(**surroundings))  # type: ignore[arg-type]
    book.near(GREETING)
    book.far(EHLO)
    return book


def offered(reply: bytes = REPLY, **surroundings: object) -> Playbook:
    book = greeted(**surroundings)
    book.near(reply)
    return book


def signing(reply: bytes = REPLY, **surroundings: object) -> Playbook:
    """A session whose signer has not answered yet."""
    context = receiving(**surroundings)._context  # type: ignore[arg-type]
    book = Playbook(ReceivingSession(context))
    book.near(GREETING)
    book.far(EHLO)
    book.near(reply)
    assert book.state == "signing"
    return book


def signature_for(book: Playbook) -> bytes:
    (asked,) = book.all_of(c.SignOffer)
    return R_KEYS.key.sign(Label.OFFER, asked.to_sign)


def the_offer(book: Playbook) -> bytes:
    """The EHLO reply as it went out."""
    assert book.to_far.startswith(GREETING)
    return book.to_far[len(GREETING) :]


def far_s(book: Playbook, **how: object) -> FarSendingGateway:
    return FarSendingGateway(the_offer(book), **how)  # type: ignore[arg-type]


def behind_offer(book: Playbook, mark: int) -> bytes:
    return book.to_far[mark:]


class Channelled:
    """A playbook in its channel, and the scripted S at the other end."""

    def __init__(self, flight: bytes = MAIL, reply: bytes = REPLY, **surroundings: object) -> None:
        dialled = surroundings.pop("say_dialled", DIALLED)
        self.book = offered(reply, **surroundings)
        self.mark = len(self.book.to_far)
        self.s = far_s(self.book, dialled=dialled)
        self.book.far(self.s.answer + self.s.says(flight))

    @property
    def heard(self) -> FarSendingGateway:
        return self.s.take(self.book.to_far[self.mark :])


# --- The plain way ------------------------------------------------------------------------------------------


def test_the_offer_stands_in_the_last_lines_of_the_reply_and_the_receiver_sees_nothing() -> None:
    book = offered()
    assert book.to_near == EHLO
    split = split_offer(the_offer(book))
    assert split.stripped == REPLY
    assert split.offer is not None
    assert len(split.offer) == OfferForm.FULL.octets
    assert book.state == "offered"


def test_an_upgrade_gives_the_receiver_the_senders_own_octets() -> None:
    channel = Channelled()
    book = channel.book
    assert book.to_near == EHLO + MAIL
    assert (book.decision.upgraded, book.decision.reason) == (True, Reason.UPGRADED)
    book.near(b"250 2.1.0 Ok\r\n")
    assert channel.heard.data == b"250 2.1.0 Ok\r\n"
    assert channel.s.layer.peer().identity == R_KEYS.identity


def test_params_go_out_at_once_without_waiting_for_the_receiver() -> None:
    channel = Channelled(b"")
    assert channel.heard.kinds == [RecordType.PARAMS]
    assert Params.decode(channel.s.records[0].content).dialled_address_confirmed is True


def test_params_and_replies_look_alike() -> None:
    channel = Channelled(b"")
    begun = len(channel.book.to_far)
    assert begun - channel.mark == 512
    channel.book.far(channel.s.says(MAIL))
    channel.book.near(b"250 2.1.0 Ok\r\n")
    assert len(channel.book.to_far) - begun == 512
    channel.book.near_end()
    assert len(channel.book.to_far) - begun == 1024
    assert channel.heard.kinds == [RecordType.PARAMS, RecordType.DATA, RecordType.CLOSE]


@pytest.mark.parametrize("odd", [True, False])
def test_something_to_ignore_now_and_then(odd: bool) -> None:
    """A record of a type that nobody knows and a flag that means nothing, so that ignoring stays tested."""
    channel = Channelled(**({"entropy": always_ignorable("R")} if odd else {}))
    channel.book.near(b"250 2.1.0 Ok\r\n")
    assert (OfferFlags.UNUSED in channel.s.offered.flags) is odd
    assert (RecordType.IGNORABLE in channel.heard.kinds) is odd
    assert channel.heard.data == b"250 2.1.0 Ok\r\n"
    assert len(channel.book.to_far) - channel.mark == 1024


def test_a_large_reply_ends_padded_after_silence() -> None:
    channel = Channelled()
    reply = b"250-" + bytes(98) + b"\r\n"
    channel.book.near(reply * 400)
    while channel.book.machine.deadline is not None:
        channel.book.deadline()
    assert channel.heard.data == reply * 400
    size = len(channel.book.to_far) - channel.mark - 512
    assert size == padme(size)


def test_the_short_offer_where_the_size_rule_asks_for_it() -> None:
    channel = Channelled(reply=LONG_REPLY)
    assert channel.s.offered.form is OfferForm.SHORT
    assert channel.book.to_near == EHLO + MAIL


def test_the_verb_and_message_2_may_come_in_single_octets() -> None:
    book = offered()
    s = far_s(book)
    octets = s.answer + s.says(MAIL)
    for octet in octets[:-1]:
        book.far(bytes((octet,)))
        assert book.to_near == EHLO
    book.far(octets[-1:])
    assert book.to_near == EHLO + MAIL


def test_the_receiver_is_not_read_between_the_verb_and_message_2() -> None:
    """Its words could not be sealed yet."""
    book = offered()
    s = far_s(book)
    book.far(VERB_LINE)
    assert book.paused == {Side.NEAR}
    book.far(s.answer[len(VERB_LINE) :])
    assert not book.paused


def test_two_sessions_never_offer_the_same_ephemerals() -> None:
    one, other = offered(label="one"), offered(label="other")
    assert split_offer(the_offer(one)).offer != split_offer(the_offer(other)).offer


# --- No offer -----------------------------------------------------------------------------------------------


def test_never_offer() -> None:
    book = offered(may_offer=False)
    assert (book.to_far, book.relayed) == (GREETING + REPLY, True)
    assert book.decision.reason is Reason.NEVER_OFFER


def test_no_offer_beyond_the_budget() -> None:
    book = offered(overloaded=True)
    assert (book.to_far, book.relayed) == (GREETING + REPLY, True)
    assert book.decision.reason is Reason.OVERLOADED


def test_a_gateway_further_in_wins() -> None:
    inner = append_offer(REPLY, bytes(OfferForm.SHORT.octets))
    book = offered(inner)
    assert (book.to_far, book.relayed) == (GREETING + inner, True)
    assert book.decision.reason is Reason.OFFER_BY_INNER_GATEWAY


def test_no_room_no_offer() -> None:
    reply = b"250-mx.b.example\r\n" + b"250-X%b\r\n" % (b"A" * 400) * 5 + b"250 SIZE 1\r\n"
    book = offered(reply)
    assert (book.to_far, book.relayed) == (GREETING + reply, True)
    assert book.decision.reason is Reason.NO_ROOM_FOR_OFFER


@pytest.mark.parametrize(
    "reply", [b"502 5.5.1 No\r\n", b"250 x\n", b"250-x\r\n221 Bye\r\n", REPLY + b"250 2\r\n"]
)
def test_what_is_no_clean_reply_passes(reply: bytes) -> None:
    book = offered(reply)
    assert (book.to_far, book.relayed) == (GREETING + reply, True)
    assert not book.decision.alarm


@pytest.mark.parametrize(
    "first", [b"HELO a.example\r\n", b"LHLO a.example\r\n", b"MAIL FROM:<>\r\n", b"\x16\x03"]
)
def test_only_an_ehlo_gets_an_offer(first: bytes) -> None:
    book = Playbook(receiving())
    book.near(GREETING)
    book.far(first)
    assert (book.to_near, book.relayed) == (first, True)


def test_a_client_that_pipelines_behind_its_ehlo_gets_no_offer_and_no_delay() -> None:
    book = Playbook(receiving())
    book.near(GREETING)
    book.far(EHLO + MAIL)
    assert (book.to_near, book.relayed) == (EHLO + MAIL, True)
    assert book.decision.reason is Reason.PIPELINED_BEHIND_EHLO


def test_what_comes_behind_the_ehlo_while_the_reply_is_held_releases_it() -> None:
    book = greeted()
    book.near(REPLY[:-5])
    assert book.to_far == GREETING
    book.far(MAIL)
    assert (book.to_near, book.to_far) == (EHLO + MAIL, GREETING + REPLY[:-5])
    assert book.relayed


def test_a_client_that_does_not_wait_for_the_greeting_is_seen_by_the_receiver_as_such() -> None:
    book = Playbook(receiving())
    book.far(EHLO)
    assert book.to_near == EHLO
    book.near(GREETING + REPLY)
    assert book.state == "offered"
    s = far_s(book)
    book.far(s.answer + s.says(MAIL))
    assert book.to_near == EHLO + MAIL


# --- Not our verb -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        MAIL,
        b"STARTTLS\r\n",
        b"QUIT\r\n",
        b"XNIGHTMAIL 1\r\n",
        b"XNIGHTMAIL\n",
        b"xnightmail\r\n",
        b"XNIGHTMAILX\r\n",
        b" XNIGHTMAIL\r\n",
        b"\r\n",
        b"X",
    ],
)
def test_any_other_first_command_passes_whole(command: bytes) -> None:
    book = offered()
    for octet in command:
        book.far(bytes((octet,)))
    if command == b"X":
        assert book.state == "offered"
        book.far(b"CLIENT NAME=x\r\n")
        command += b"CLIENT NAME=x\r\n"
    whole = book.to_near[len(EHLO) :]
    assert book.relayed
    assert command.startswith(whole)
    assert book.decision == c.NoteDecision(False, Reason.NO_VERB)


def test_the_verb_never_reaches_the_receiver() -> None:
    book = offered()
    book.far(VERB_LINE[:-1])
    assert book.to_near == EHLO
    book.far(VERB_LINE[-1:])
    assert book.to_near == EHLO


# --- The receiver speaks unasked ----------------------------------------------------------------------------


def test_a_receiver_that_speaks_unasked_is_heard_and_voids_the_offer() -> None:
    book = offered()
    s, sent = far_s(book), len(book.to_far)
    book.near(b"421 4.4.2 Timeout\r\n")
    assert book.to_far[sent:] == b"421 4.4.2 Timeout\r\n"
    assert book.state == "offer-void"
    book.near(b"more")
    book.far(s.answer + s.says(MAIL))
    assert book.to_far[sent:].startswith(b"421 4.4.2 Timeout\r\nmore" + REFUSAL)
    assert book.closed
    assert book.to_near == EHLO


@pytest.mark.parametrize("split", [0, 5])
def test_a_void_offer_lets_the_client_go_on_in_clear(split: int) -> None:
    book = offered()
    if split:
        book.far(VERB_LINE[:split])
    book.near(b"421 4.4.2 Timeout\r\n")
    book.far(b"QUIT\r\n")
    assert book.relayed
    assert book.to_near == EHLO + VERB_LINE[:split] + b"QUIT\r\n"


# --- Message 2 that is none ---------------------------------------------------------------------------------


def _answer(change: Callable[[FarSendingGateway], bytes]) -> Callable[[Playbook], object]:
    return lambda book: book.far(change(far_s(book)))


OLD_S = gateway_keys("S", TODAY - 15)

ANSWERS: dict[str, tuple[Callable[[Playbook], object], Reason]] = {
    "clear behind the verb": (
        _answer(lambda s: VERB_LINE + b"MAIL FROM:<>\r\n"),
        Reason.CLEAR_OCTETS_IN_CHANNEL,
    ),
    "clear behind the verb, then message 2": (
        _answer(lambda s: VERB_LINE + b"RSET\r\n" + s.answer[len(VERB_LINE) :]),
        Reason.CLEAR_OCTETS_IN_CHANNEL,
    ),
    "clear behind message 2": (
        _answer(lambda s: s.answer + b"MAIL FROM:<evil@example>\r\n"),
        Reason.CLEAR_OCTETS_IN_CHANNEL,
    ),
    "a record for message 2": (_answer(lambda s: VERB_LINE + s.says(MAIL)), Reason.BAD_FRAME),
    "message 2 in a record's frame": (
        _answer(lambda s: VERB_LINE + frame(FrameKind.RECORD, s.message)),
        Reason.BAD_FRAME,
    ),
    "another frame": (_answer(lambda s: VERB_LINE + b"\x90\x00\x01x"), Reason.BAD_FRAME),
    "ephemeral tampered": (_answer(lambda s: flip(s.answer, len(VERB_LINE) + 3)), Reason.BAD_TAG),
    "tag tampered": (_answer(lambda s: flip(s.answer, -1)), Reason.BAD_TAG),
    "zeros": (
        _answer(lambda s: VERB_LINE + frame(FrameKind.ANSWER, bytes(len(s.message)))),
        Reason.BAD_KEY,
    ),
    "short form": (_answer(lambda s: VERB_LINE + frame(FrameKind.ANSWER, bytes(220))), Reason.BAD_FRAME),
    "the answer to another offer": (
        lambda book: book.far(far_s(offered(label="another")).answer),
        Reason.BAD_TAG,
    ),
    "our own identity": (lambda book: book.far(far_s(book, answer_as=R_KEYS).answer), Reason.OWN_IDENTITY),
    "another's endorsement": (
        lambda book: book.far(far_s(book, answer_as=gateway_keys("X")).answer),
        Reason.BAD_SIGNATURE,
    ),
    "endorsement expired": (
        lambda book: book.far(FarSendingGateway(the_offer(book), keys=OLD_S).answer),
        Reason.ENDORSEMENT_EXPIRED,
    ),
    "fin": (lambda book: (book.far(VERB_LINE + b"\x81"), book.far_end()), Reason.FAR_CLOSED_DURING_HANDSHAKE),
    "silence": (lambda book: (book.far(VERB_LINE), book.deadline()), Reason.HANDSHAKE_TIMEOUT),
    "cut and silence": (
        lambda book: (book.far(far_s(book).answer[:-1]), book.deadline()),
        Reason.HANDSHAKE_TIMEOUT,
    ),
}


@pytest.mark.parametrize("how", ANSWERS)
def test_what_is_no_answer_is_refused_and_the_receiver_hears_nothing(how: str) -> None:
    book = offered()
    sent = len(book.to_far)
    act, reason = ANSWERS[how]
    act(book)
    assert book.to_far[sent:].startswith(REFUSAL)
    assert book.to_far[sent:].endswith(b"\r\n")
    assert b"\r\n" not in book.to_far[sent:-2]
    assert book.closed
    assert book.to_near == EHLO
    assert (book.decision.upgraded, book.decision.reason) == (False, Reason.HANDSHAKE_FAILED)
    assert reason.value in book.decision.detail


def test_the_deadline_is_for_the_whole_of_message_2() -> None:
    book = offered()
    assert book.machine.deadline is None, "a client may idle behind the reply"
    book.far(VERB_LINE)
    deadline = book.machine.deadline
    assert deadline == book.now + limits.VERB_HANDSHAKE_SECONDS
    book.now += 15
    book.far(b"\x81")
    assert book.machine.deadline == deadline


def test_every_octet_of_message_2_counts() -> None:
    """Ends of its parts, and a sample of the rest: each costs a handshake."""
    length = len(far_s(offered()).answer)
    for at in (*range(len(VERB_LINE), length, 97), *range(length - 5, length)):
        book = offered()
        book.far(flip(far_s(book).answer, at))
        if book.state == "answering":  # a length that waits for more
            book.deadline()
        assert book.state == "over", at
        assert book.to_near == EHLO


@pytest.mark.parametrize("side", list(Side))
def test_a_reset_while_answering_passes(side: Side) -> None:
    book = offered()
    book.far(VERB_LINE)
    book.happens(ResetReceived(side))
    assert book.reset == {side.other}


# --- The dialled address ------------------------------------------------------------------------------------


def confirmed(channel: Channelled) -> bool | None:
    return Params.decode(channel.heard.records[0].content).dialled_address_confirmed


def test_an_address_that_is_not_ours_is_taken_and_noted() -> None:
    channel = Channelled(say_dialled=ELSEWHERE)
    assert channel.book.facts == [("dialled-address-not-confirmed", Reason.WRONG_DIALLED_ADDRESS)]
    assert channel.book.to_near == EHLO + MAIL
    assert confirmed(channel) is False


def test_an_address_listed_behind_nat_is_confirmed() -> None:
    channel = Channelled(say_dialled=ELSEWHERE, nat=(ELSEWHERE,))
    assert channel.book.facts == []
    assert confirmed(channel) is True


def test_our_own_address_is_confirmed() -> None:
    channel = Channelled()
    assert channel.book.facts == []
    assert confirmed(channel) is True


# --- Ends and resets before the channel ---------------------------------------------------------------------


def at(place: str) -> Playbook:
    if place == "start":
        return Playbook(receiving())
    if place == "reply begun":
        book = greeted()
        book.near(REPLY[:30])
        return book
    book = offered()
    if place in ("verb begun", "void, verb begun"):
        book.far(VERB_LINE[:4])
    if place.startswith("void"):
        book.near(b"421 Bye\r\n")
    return book


PLACES = ["start", "reply begun", "offered", "verb begun", "void", "void, verb begun"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("side", list(Side))
def test_a_half_close_before_the_decision_passes_as_what_it_was(place: str, side: Side) -> None:
    book = at(place)
    book.happens(EndReceived(side))
    assert book.relayed
    assert book.ended == {side.other}
    if place == "reply begun":
        assert book.to_far == GREETING + REPLY[:30]
    if "verb begun" in place:
        assert book.to_near == EHLO + VERB_LINE[:4], "it was no verb: the receiver gets it"


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("side", list(Side))
def test_a_reset_before_the_decision_passes_as_what_it_was(place: str, side: Side) -> None:
    book = at(place)
    book.happens(ResetReceived(side))
    assert book.reset == {side.other}
    assert book.decision.reason is Reason.ENDED_BEFORE_DECISION


# --- In the channel -----------------------------------------------------------------------------------------


def test_close_both_ways() -> None:
    channel = Channelled(b"QUIT\r\n")
    book = channel.book
    book.near(b"221 Bye\r\n")
    book.near_end()
    assert channel.heard.kinds[-1] is RecordType.CLOSE
    assert book.ended == {Side.FAR}
    book.far(channel.s.layer.seal(RecordType.CLOSE))
    assert book.ended == {Side.NEAR, Side.FAR}
    assert book.closed


def test_an_end_without_close_never_ends_the_data() -> None:
    """A truncated DATA must not look finished to the receiver."""
    channel = Channelled(MAIL + b"DATA\r\nSubject: cut\r\n")
    channel.book.far_end()
    assert channel.book.ended == set()
    assert channel.book.reset == {Side.NEAR, Side.FAR}
    assert channel.book.facts == [("channel-failed", Reason.END_WITHOUT_CLOSE)]


def test_a_truncated_record_gives_the_receiver_nothing_of_it() -> None:
    channel = Channelled()
    seen = channel.book.to_near
    channel.book.far(channel.s.says(b"RCPT TO:<bob@b.example>\r\n")[:-1])
    channel.book.far_end()
    assert channel.book.to_near == seen
    assert Side.NEAR in channel.book.reset


def test_a_reset_of_the_receiver_travels_authenticated() -> None:
    channel = Channelled()
    channel.book.near_reset()
    assert channel.heard.kinds[-1] is RecordType.RESET


def test_a_reset_of_a_receiver_that_had_ended() -> None:
    channel = Channelled()
    channel.book.near_end()
    channel.book.near_reset()
    assert channel.book.state == "over"
    assert channel.heard.kinds[-1] is RecordType.CLOSE


def test_a_reset_record_resets_the_receiver() -> None:
    channel = Channelled()
    channel.book.far(channel.s.layer.seal(RecordType.RESET))
    assert Side.NEAR in channel.book.reset
    assert Side.NEAR not in channel.book.ended


def test_octets_behind_a_reset_record_are_not_read() -> None:
    """It was the last one: what somebody puts behind it is no failure of the channel."""
    channel = Channelled()
    channel.book.far(channel.s.layer.seal(RecordType.RESET) + frame(FrameKind.RECORD, bytes(40)))
    assert Side.NEAR in channel.book.reset
    assert channel.book.facts == []


CHANNEL_FAILURES: dict[str, tuple[Callable[[FarSendingGateway], bytes], Reason]] = {
    "clear octets": (lambda s: b"RCPT TO:<evil@example>\r\n", Reason.CLEAR_OCTETS_IN_CHANNEL),
    "tampered": (lambda s: flip(s.says(MAIL), -1), Reason.BAD_TAG),
    "reordered": (lambda s: (s.says(b"1"), s.says(b"2"))[1], Reason.BAD_TAG),
    "message 2 again": (lambda s: s.answer[len(VERB_LINE) :], Reason.BAD_FRAME),
    "the verb again": (lambda s: s.answer, Reason.CLEAR_OCTETS_IN_CHANNEL),
    "behind CLOSE": (
        lambda s: s.layer.seal(RecordType.CLOSE) + frame(FrameKind.RECORD, bytes(40)),
        Reason.OCTETS_AFTER_CLOSE,
    ),
    "malformed PARAMS": (lambda s: s.layer.seal(RecordType.PARAMS, b"\x04\0\0"), Reason.BAD_PARAMS),
}


@pytest.mark.parametrize("how", CHANNEL_FAILURES)
def test_what_is_not_the_peers_resets_the_receiver(how: str) -> None:
    channel = Channelled()
    act, reason = CHANNEL_FAILURES[how]
    seen = channel.book.to_near
    channel.book.far(act(channel.s))
    assert channel.book.to_near == seen
    assert channel.book.reset == {Side.NEAR, Side.FAR}
    assert channel.book.facts == [("channel-failed", reason)]


def test_a_reflected_record_resets_the_receiver() -> None:
    channel = Channelled()
    channel.book.near(b"250 2.1.0 Ok\r\n")
    channel.book.far(channel.book.to_far[channel.mark :])
    assert channel.book.to_near == EHLO + MAIL
    assert channel.book.reset == {Side.NEAR, Side.FAR}


def test_a_replayed_first_flight_is_refused_by_another_connection() -> None:
    """Everything that S said, said again to a fresh offer: nothing of it reaches the receiver."""
    first = offered(label="first")
    s = far_s(first)
    flight = s.answer + s.says(MAIL)
    first.far(flight)
    assert first.to_near == EHLO + MAIL
    again = offered(label="second")
    again.far(flight)
    assert again.to_near == EHLO
    assert again.closed


def test_the_receiver_gets_what_came_before_a_bad_record_and_nothing_of_it() -> None:
    channel = Channelled()
    good, bad = channel.s.says(b"RSET\r\n"), flip(channel.s.says(b"QUIT\r\n"), -1)
    channel.book.far(good + bad)
    assert channel.book.to_near == EHLO + MAIL + b"RSET\r\n"
    assert Side.NEAR in channel.book.reset


# --- The table ----------------------------------------------------------------------------------------------

TIMER = {(DeadlineReached, None)}
LEGAL = {
    State.OBSERVING: BOTH,
    State.SIGNING: BOTH | TIMER | {(OfferSigned, None)},
    State.OFFERED: BOTH,
    State.OFFER_VOID: BOTH,
    State.ANSWERING: {(kind, side) for kind, side in BOTH if side is Side.FAR or kind is ResetReceived}
    | TIMER,
    State.CHANNEL: BOTH | TIMER,
}


# --- Signing ----------------------------------------------------------------------------------------------


def test_the_reply_waits_for_the_signature_and_then_carries_the_offer() -> None:
    book = signing()
    assert book.to_far == GREETING
    assert book.machine.deadline == book.now + limits.SIGN_SECONDS
    book.happens(OfferSigned(signature_for(book)))
    assert book.state == "offered"
    assert book.machine.deadline is None
    assert the_offer(book) == the_offer(offered())
    s = far_s(book)
    book.far(s.answer)
    assert book.state == "channel"


@pytest.mark.parametrize("how", ["refused", "late"])
def test_without_a_signature_the_reply_passes_as_it_came(how: str) -> None:
    book = signing()
    asked = signature_for(book)
    if how == "late":
        book.deadline()
    else:
        book.happens(OfferSigned(None))
    assert book.to_far == GREETING + REPLY
    assert book.relayed
    assert book.decision == c.NoteDecision(False, Reason.SIGNER_SILENT)
    assert book.machine.handle(OfferSigned(asked), book.now) == []


def test_a_client_that_does_not_wait_for_the_reply_gets_it_without_an_offer() -> None:
    book = signing()
    book.far(b"MAIL FROM:<a@a.example>\r\n")
    assert (book.to_far, book.to_near) == (GREETING + REPLY, EHLO + b"MAIL FROM:<a@a.example>\r\n")
    assert book.decision.reason is Reason.PIPELINED_BEHIND_EHLO


def test_what_the_receiver_says_behind_the_reply_passes_behind_it() -> None:
    book = signing()
    book.near(b"421 4.3.2 Bye\r\n")
    assert book.to_far == GREETING + REPLY + b"421 4.3.2 Bye\r\n"
    assert book.decision.reason is Reason.ODD_REPLY


@pytest.mark.parametrize("side", list(Side))
def test_an_end_while_the_offer_is_signed_passes_behind_the_reply(side: Side) -> None:
    book = signing()
    book.happens(EndReceived(side))
    assert book.to_far == GREETING + REPLY
    assert book.ended == {side.other}
    assert book.decision.reason is Reason.ENDED_BEFORE_DECISION
    assert book.all_of(c.NoteSource) == []


@pytest.mark.parametrize("side", list(Side))
def test_a_reset_while_the_offer_is_signed_passes(side: Side) -> None:
    book = signing()
    book.happens(ResetReceived(side))
    assert book.reset == {side.other}
    assert book.state == "over"
    assert book.machine.handle(OfferSigned(signature_for(book)), book.now) == []


def test_no_session_has_more_of_the_identity_than_its_public_key() -> None:
    keys = receiving()._context.keys
    assert type(GatewayKeys(keys.identity, keys.endorsed).identity) is IdentityPublic


def in_state(state: State) -> Playbook:
    if state is State.OBSERVING:
        return greeted()
    if state is State.SIGNING:
        return signing()
    if state is State.CHANNEL:
        return Channelled().book
    if state is State.RELAYED:
        return offered(may_offer=False)
    book = offered()
    if state is State.OFFER_VOID:
        book.near(b"421 Bye\r\n")
    elif state in (State.ANSWERING, State.OVER):
        book.far(VERB_LINE)
    if state is State.OVER:
        book.far_end()
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
    assert set(table_of(ReceivingSession)) == legal


def test_any_two_events_in_every_state_keep_what_always_holds() -> None:
    for state in LEGAL:
        for first, second in itertools.product(EVENTS, repeat=2):
            if not can_follow(first, second):
                continue
            book = in_state(state)
            for event in (first, second):
                side = getattr(event, "side", None)
                if (type(event), side) not in LEGAL.get(book.machine.state, set()):
                    break
                if side in book.paused and isinstance(event, OctetsReceived | EndReceived):
                    break
                book.happens(event)
