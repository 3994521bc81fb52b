"""The receiving gateway's session against a scripted far gateway, up to message 2 (docs/protocol.md)."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.crypto.handshake import OfferForm
from gateway.crypto.keys import IdentityPublic
from gateway.crypto.messages import OfferFlags
from gateway.crypto.padding import padme
from gateway.crypto.params import Params
from gateway.crypto.records import RecordType
from gateway.errors import Reason
from gateway.policy import limits
from gateway.session import commands as c
from gateway.session.context import GatewayKeys
from gateway.session.events import (
    EndReceived,
    OfferSigned,
    ResetReceived,
    Side,
)
from gateway.smtp.capability import VERB_LINE, append_offer, split_offer
from tests.playbook import EHLO, GREETING, LONG_REPLY, R_KEYS, REPLY, Playbook, always_ignorable, receiving
from tests.unit.session.receiving_steps import (
    MAIL,
    REFUSAL,
    Channelled,
    far_s,
    greeted,
    offered,
    signature_for,
    signing,
    the_offer,
)

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
    given: dict[str, Any] = {"entropy": always_ignorable("R")} if odd else {}
    channel = Channelled(**given)
    channel.book.near(b"250 2.1.0 Ok\r\n")
    assert bool(channel.s.offered.flags & OfferFlags.UNUSED) is odd
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


@pytest.mark.parametrize("said", [b"", b"421 4.4.2 Timeout\r\n"], ids=["silent", "421"])
@pytest.mark.parametrize("split", [0, 5])
def test_the_verb_never_reaches_a_receiver_that_has_ended(said: bytes, split: int) -> None:
    """It was on its way: the receiver, which may still read, learns nothing of gateways by ending."""
    book = offered()
    s, sent = far_s(book), len(book.to_far)
    book.far((s.answer + s.says(MAIL))[:split]) if split else None
    if said:
        book.near(said)
    book.near_end()
    assert (book.relayed, book.ended) == (False, {Side.FAR})
    book.far((s.answer + s.says(MAIL))[split:])
    assert (book.to_near, book.to_far[sent:]) == (EHLO, said)
    assert book.closed
    assert book.decision.reason is Reason.HANDSHAKE_FAILED


@pytest.mark.parametrize("split", [0, 5])
def test_a_client_goes_on_in_clear_towards_a_receiver_that_has_ended(split: int) -> None:
    book = offered()
    if split:
        book.far(VERB_LINE[:split])
    book.near_end()
    book.far(b"QUIT\r\n")
    assert book.relayed
    assert book.to_near == EHLO + VERB_LINE[:split] + b"QUIT\r\n"
    assert book.decision.reason is Reason.NO_VERB


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
    assert book.ended == {side.other}
    if side is Side.NEAR and place not in ("start", "reply begun"):
        assert book.state == "offer-void", "until the client has shown what it is"
        book.far_end()
        assert book.ended == set(Side)
    assert book.relayed
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
