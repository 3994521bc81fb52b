"""The handshake with a ticket (docs/protocol.md, 4.6), and what leaves one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from gateway.crypto.handshake import HandshakeResult, OfferForm, prologue
from gateway.crypto.keys import Ephemerals
from gateway.crypto.messages import (
    RESUMED_ANSWER_OCTETS,
    RESUMED_OFFER_OCTETS,
    AnswerFlags,
    DialledAddress,
    OfferFlags,
)
from gateway.crypto.records import RecordLayer, RecordType
from gateway.crypto.resumption import ReceivingResumption, SendingResumption, ticket_name
from gateway.crypto.tickets import Ticket
from gateway.errors import LocalMisuseError, PeerProtocolError, Reason
from tests.unit.crypto.pairs import (
    DIALLED,
    EHLO,
    GREETING,
    PROLOGUE,
    R_IDENTITY,
    REPLY,
    S_IDENTITY,
    TODAY,
    entropy_for_testing_only,
    receiving,
    sending,
)

KEEPS_R, KEEPS_S = OfferFlags.KEEPS_TICKET, AnswerFlags.KEEPS_TICKET
_numbers = itertools.count()


def full(
    r_flags: int = KEEPS_R, s_flags: int = KEEPS_S, form: OfferForm = OfferForm.FULL
) -> tuple[HandshakeResult, HandshakeResult]:
    """R's result, then S's."""
    one, other = receiving(), sending()
    other.read_offer(one.make_offer(form, r_flags))
    answer, at_sending = other.write_answer(DIALLED, s_flags)
    return one.read_answer(answer, TODAY), at_sending


def tickets() -> tuple[Ticket, Ticket]:
    at_receiving, at_sending = full()
    assert at_receiving.ticket is not None
    assert at_sending.ticket is not None
    return at_receiving.ticket, at_sending.ticket


def _e() -> Ephemerals:
    return Ephemerals.draw_for_answer(entropy_for_testing_only(f"e {next(_numbers)}"))


def r_with(ticket: Ticket, seen: bytes = PROLOGUE) -> ReceivingResumption:
    return ReceivingResumption(ticket, _e(), seen)


def s_with(ticket: Ticket, seen: bytes = PROLOGUE) -> SendingResumption:
    return SendingResumption(ticket, _e(), seen)


def resumed(r_ticket: Ticket, s_ticket: Ticket) -> tuple[HandshakeResult, HandshakeResult]:
    r, s = r_with(r_ticket), s_with(s_ticket)
    s.read_offer(r.offer(KEEPS_R))
    answer, at_sending = s.write_answer(DIALLED, KEEPS_S)
    return r.read_answer(answer, TODAY), at_sending


# --- Which handshakes leave a ticket ------------------------------------------------------------------------
def test_both_sides_have_the_same_ticket_and_know_the_other_by_it() -> None:
    of_r, of_s = tickets()
    assert (of_r.name, of_r.secret) == (of_s.name, of_s.secret)
    assert (of_r.identity, of_s.identity) == (S_IDENTITY.public, R_IDENTITY.public)
    assert (of_r.epoch, of_s.epoch) == (TODAY, TODAY)
    assert (of_r.root, of_s.root) == (None, None)


@pytest.mark.parametrize(
    ("r_flags", "s_flags", "form"),
    [
        (OfferFlags.NONE, KEEPS_S, OfferForm.FULL),
        (KEEPS_R, AnswerFlags.NONE, OfferForm.FULL),
        (OfferFlags.UNUSED, AnswerFlags.UNUSED, OfferForm.FULL),
        (KEEPS_R, KEEPS_S, OfferForm.SHORT),
    ],
)
def test_no_ticket_where_one_side_wants_none_or_the_offer_was_short(
    r_flags: int, s_flags: int, form: OfferForm
) -> None:
    for result in full(r_flags, s_flags, form):
        assert result.ticket is None
        assert not result.resumed


def test_a_ticket_is_none_of_the_channels_keys() -> None:
    at_receiving, _ = full()
    assert at_receiving.ticket is not None
    used = {at_receiving.ticket.secret, at_receiving.ticket.name, at_receiving.handshake_hash}
    one, other = at_receiving.ciphers.take()
    assert len(used) == 3
    assert one.encrypt_with_ad(b"", b"") != other.encrypt_with_ad(b"", b"")


# --- With a ticket ------------------------------------------------------------------------------------------
def test_a_resumed_handshake_gives_a_channel_between_the_same_two() -> None:
    at_receiving, at_sending = resumed(*tickets())
    assert (at_receiving.identity, at_sending.identity) == (S_IDENTITY.public, R_IDENTITY.public)
    assert at_receiving.dialled == DIALLED
    assert at_receiving.handshake_hash == at_sending.handshake_hash
    assert (at_receiving.form, at_sending.form) == (OfferForm.FULL, OfferForm.FULL)
    r, s = RecordLayer(at_receiving), RecordLayer(at_sending)
    frame = s.seal(RecordType.DATA, b"MAIL FROM:<>\r\n")
    assert r.open(frame[3:]).content == b"MAIL FROM:<>\r\n"
    assert r.peer().resumed
    assert r.peer().identity == S_IDENTITY.public


def test_each_leaves_another_ticket_that_remembers_the_full_handshake() -> None:
    of_r, of_s = (Ticket(one.name, one.secret, one.identity, one.epoch, 77.0) for one in tickets())
    seen = {of_r.name, of_r.secret}
    for _ in range(3):
        at_receiving, at_sending = resumed(of_r, of_s)
        assert at_receiving.ticket is not None
        assert at_sending.ticket is not None
        of_r, of_s = at_receiving.ticket, at_sending.ticket
        assert (of_r.name, of_r.secret) == (of_s.name, of_s.secret)
        assert (of_r.root, of_s.root) == (77.0, 77.0)
        assert (of_r.identity, of_s.identity) == (S_IDENTITY.public, R_IDENTITY.public)
        assert not seen & {of_r.name, of_r.secret}
        seen |= {of_r.name, of_r.secret}


def test_two_handshakes_with_one_ticket_share_no_key() -> None:
    """What `ee` is for: whoever learns the ticket later, reads neither."""
    first, second = resumed(*tickets()), resumed(*tickets())
    one, other = first[1].ciphers.take()[0], second[1].ciphers.take()[0]
    assert one.encrypt_with_ad(b"", bytes(32)) != other.encrypt_with_ad(b"", bytes(32))
    assert first[0].handshake_hash != second[0].handshake_hash


def test_sizes_and_name() -> None:
    of_r, of_s = tickets()
    r, s = r_with(of_r), s_with(of_s)
    offer = r.offer()
    assert len(offer) == RESUMED_OFFER_OCTETS == 66
    assert ticket_name(offer) == of_s.name
    s.read_offer(offer)
    answer, _ = s.write_answer(DIALLED)
    assert len(answer) == RESUMED_ANSWER_OCTETS == 68
    assert ticket_name(bytes(OfferForm.FULL.octets)) is None
    assert ticket_name(bytes(OfferForm.SHORT.octets)) is None


def test_what_r_says_in_its_flags_is_read() -> None:
    of_r, of_s = tickets()
    offered = s_with(of_s).read_offer(r_with(of_r).offer(OfferFlags.UNUSED | KEEPS_R))
    assert offered.flags == OfferFlags.UNUSED | KEEPS_R
    assert (offered.identity, offered.epoch, offered.form) == (R_IDENTITY.public, TODAY, OfferForm.FULL)


@pytest.mark.parametrize("of_r", [KEEPS_R, OfferFlags.NONE])
@pytest.mark.parametrize("of_s", [KEEPS_S, AnswerFlags.NONE])
def test_a_resumed_handshake_leaves_a_ticket_only_where_both_keep_one(of_r: int, of_s: int) -> None:
    one, other = tickets()
    r, s = r_with(one), s_with(other)
    s.read_offer(r.offer(of_r))
    answer, at_sending = s.write_answer(DialledAddress.from_text("2001:db8::1", 2525), of_s)
    at_receiving = r.read_answer(answer, TODAY)
    kept = bool(of_r and of_s)
    assert (at_receiving.ticket is not None, at_sending.ticket is not None) == (kept, kept)
    assert at_receiving.dialled == DialledAddress.from_text("2001:db8::1", 2525)


# --- Against it ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("at", range(RESUMED_OFFER_OCTETS))
def test_no_octet_of_an_offer_can_be_changed(at: int) -> None:
    of_r, of_s = tickets()
    offer = bytearray(r_with(of_r).offer())
    offer[at] ^= 0x40
    with pytest.raises(PeerProtocolError) as refused:
        s_with(of_s).read_offer(bytes(offer))
    assert refused.value.reason is Reason.BAD_OFFER


@pytest.mark.parametrize("at", range(RESUMED_ANSWER_OCTETS))
def test_no_octet_of_an_answer_can_be_changed(at: int) -> None:
    of_r, of_s = tickets()
    r, s = r_with(of_r), s_with(of_s)
    s.read_offer(r.offer())
    answer = bytearray(s.write_answer(DIALLED)[0])
    answer[at] ^= 0x40
    with pytest.raises(PeerProtocolError) as refused:
        r.read_answer(bytes(answer), TODAY)
    assert refused.value.reason is Reason.BAD_TAG
    with pytest.raises(LocalMisuseError):
        r.read_answer(bytes(answer), TODAY)


@pytest.mark.parametrize("length", [0, 1, 67, 69, 220, 1324])
def test_an_answer_of_another_length(length: int) -> None:
    of_r, of_s = tickets()
    r = r_with(of_r)
    s_with(of_s).read_offer(r.offer())
    with pytest.raises(PeerProtocolError) as refused:
        r.read_answer(bytes(length), TODAY)
    assert refused.value.reason is Reason.BAD_FRAME


@pytest.mark.parametrize(
    "seen",
    [
        prologue(GREETING + REPLY.replace(b"PIPELINING", b"PIPELINE"), EHLO),
        prologue(GREETING + REPLY, EHLO.replace(b"mail", b"male")),
        prologue(GREETING.replace(b"mx", b"my") + REPLY, EHLO),
    ],
)
def test_the_mail_servers_must_have_seen_the_same(seen: bytes) -> None:
    of_r, of_s = tickets()
    with pytest.raises(PeerProtocolError) as refused:
        s_with(of_s, seen).read_offer(r_with(of_r).offer())
    assert refused.value.reason is Reason.BAD_OFFER


def test_an_answer_made_with_another_ticket_of_the_same_name() -> None:
    of_r, of_s = tickets()
    other = Ticket(of_s.name, bytes(32), of_s.identity, of_s.epoch, None)
    r = r_with(of_r)
    with pytest.raises(PeerProtocolError):
        s_with(other).read_offer(r.offer())
    forged = s_with(other)
    forged.read_offer(r_with(other).offer())
    with pytest.raises(PeerProtocolError) as refused:
        r.read_answer(forged.write_answer(DIALLED)[0], TODAY)
    assert refused.value.reason is Reason.BAD_TAG


def test_an_answer_to_one_offer_is_none_to_another() -> None:
    """A replay: the ticket may be known to both once more, `e` is not."""
    of_r, of_s = tickets()
    first, s = r_with(of_r), s_with(of_s)
    s.read_offer(first.offer())
    answer, _ = s.write_answer(DIALLED)
    first.read_answer(answer, TODAY)
    second = r_with(of_r)
    second.offer()
    with pytest.raises(PeerProtocolError):
        second.read_answer(answer, TODAY)


@pytest.mark.parametrize("point", [bytes(32), b"\x01" + bytes(31)])
def test_an_ephemeral_of_small_order(point: bytes) -> None:
    """With a right tag: made by whoever has the ticket."""
    of_r, of_s = tickets()
    r = r_with(of_r)
    assert r._noise is not None
    r._noise._e.public = point
    with pytest.raises(PeerProtocolError) as refused:
        s_with(of_s).read_offer(r.offer())
    assert refused.value.reason is Reason.BAD_KEY


def test_each_serves_once() -> None:
    of_r, of_s = tickets()
    r, s = r_with(of_r), s_with(of_s)
    offer = r.offer()
    s.read_offer(offer)
    s.write_answer(DIALLED)
    with pytest.raises(LocalMisuseError):
        s.write_answer(DIALLED)
    with pytest.raises(LocalMisuseError):
        s.read_offer(offer)
    with pytest.raises(LocalMisuseError):
        s_with(of_s).write_answer(DIALLED)


def test_ephemerals_serve_once() -> None:
    of_r, _ = tickets()
    e = _e()
    ReceivingResumption(of_r, e, PROLOGUE)
    with pytest.raises(LocalMisuseError):
        ReceivingResumption(of_r, e, PROLOGUE)


# --- What a stolen ticket is good for -----------------------------------------------------------------------
def test_a_thief_in_the_middle_gets_the_next_ticket_too() -> None:
    """He stands in for either side, and shares another ticket with each then; but the hour goes on."""
    of_r, of_s = tickets()
    stolen = of_r
    r, thief_as_s = resumed(replace(of_r, root=1000.0), stolen)
    thief_as_r, s = resumed(stolen, replace(of_s, root=1000.0))
    for honest, his in ((r, thief_as_s), (s, thief_as_r)):
        assert honest.ticket is not None
        assert his.ticket is not None
        assert (honest.ticket.name, honest.ticket.secret) == (his.ticket.name, his.ticket.secret)
        assert honest.ticket.root == 1000.0
    assert r.identity == S_IDENTITY.public
    assert s.identity == R_IDENTITY.public
