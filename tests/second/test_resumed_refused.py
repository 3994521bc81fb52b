"""Resumed offers and answers that are refused or not taken (docs/protocol.md, 4.6)."""

from __future__ import annotations

import pytest

from gateway.session.events import ResetReceived, Side
from tests.playbook import EHLO, GREETING, LONG_REPLY, REPLY, TODAY
from tests.second import lines
from tests.second.crafted import ORDER_8, ZEROS, flip
from tests.second.dressed import (
    HERE,
    NEW_IDENTITY,
    R_IDENTITY,
    SEED_NEW,
    SEED_R,
    Dressed,
)
from tests.second.memory import Pin, Seen
from tests.second.messages import STATEMENT_FOLLOWS, write_statement
from tests.second.noise import Refused
from tests.second.records import DATA, PARAMS, Key
from tests.second.resuming import (
    FULL,
    RESUMED,
    Pairing,
    crafted,
    honest_offer,
    is_protected,
    is_refused,
    offer_of,
    r_of,
    restarted,
    s_of,
)
from tests.second.tickets import (
    KEEPS_TICKET,
    ResumingInitiator,
    ResumingResponder,
    TicketsOfS,
)

# --- What S refuses -----------------------------------------------------------------------------------------


def test_what_is_refused_below_is_taken_unspoilt() -> None:
    line = crafted(Pairing().met())
    line.s.from_near(b"MAIL\r\n")
    assert line.s.dials == 1
    assert line.s.far.startswith(lines.VERB + bytes([0x81, 0, 68]))


def test_s_refuses_an_offer_with_any_octet_changed() -> None:
    for at in range(RESUMED):
        pairing = Pairing().met()
        line = crafted(pairing, flip(honest_offer(pairing), at))
        assert is_refused(line, "no ticket of this name" if at < 16 else "tag of the handshake")


def test_a_ticket_is_gone_with_its_first_use_whatever_follows() -> None:
    pairing = Pairing().met()
    good = honest_offer(pairing)
    (ticket,) = pairing.of_s._kept.values()
    crafted(pairing, flip(good, 65))
    assert pairing.count()[0] == 0
    line = pairing.line(r={"tickets": None}, changed=lambda reply: lines.add_offer(REPLY, good))
    assert is_refused(line, "no ticket of this name")
    pairing.of_s.keep(ticket)
    for taken in (True, False):
        line = pairing.line(r={"tickets": None}, changed=lambda reply: lines.add_offer(REPLY, good))
        assert is_refused(line, "no ticket of this name") != taken


@pytest.mark.parametrize("said", [flip(GREETING, 8) + REPLY, GREETING + b"250-X\r\n" + REPLY])
def test_what_the_mail_servers_saw_must_be_the_same(said: bytes) -> None:
    assert is_refused(crafted(Pairing().met(), said=said), "tag of the handshake")


@pytest.mark.parametrize("e", [ZEROS, ORDER_8])
def test_s_tries_all_tokens_before_its_verb(e: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    pairing = Pairing().met()
    monkeypatch.setattr("tests.second.tickets.x25519_public", lambda private: e)
    offer = honest_offer(pairing)
    monkeypatch.undo()
    assert offer[16:48] == e
    assert is_refused(crafted(pairing, offer), "X25519 result of zeros")


@pytest.mark.parametrize(
    ("pin", "check"),
    [
        ({NEW_IDENTITY: Seen(True, TODAY, True)}, "a ticket of CHANGED"),
        (
            {NEW_IDENTITY: Seen(True, TODAY, True), R_IDENTITY: Seen(False, TODAY, True)},
            "a ticket of CHANGED",
        ),
        ({}, None),
        ({R_IDENTITY: Seen(True, TODAY + 1, True)}, None),
    ],
)
def test_the_memory_is_asked_again(pin: dict[bytes, Seen], check: str | None) -> None:
    """As it is by now: somebody may have taken the identity out. The epoch is not judged again."""
    pairing = Pairing().met()
    pairing.pin.identities.clear()
    pairing.pin.identities.update(pin)
    line = pairing.line()
    assert len(offer_of(line)) == RESUMED
    if check is None:
        assert line.s.dials == 1
        assert is_protected(line.opened())
        assert not line.s.rings
    else:
        assert is_refused(line, check)


@pytest.mark.parametrize("flags", [0, STATEMENT_FOLLOWS, 0xFFFF])
def test_flags_that_mean_nothing_here_are_ignored(flags: int) -> None:
    line = crafted(Pairing().met(), flags=flags)
    line.s.from_near(b"MAIL\r\n")
    assert line.s.far.startswith(lines.VERB)
    assert not s_of(line)._waits


@pytest.mark.parametrize("length", [64, 65, 67, 68])
def test_another_length_is_no_offer(length: int) -> None:
    pairing = Pairing().met()
    (ticket,) = pairing.of_s._kept.values()
    offered = lines.add_offer(REPLY, bytes(RESUMED))
    text = offered[offered.rindex(b" ") + 1 : -2]
    odd = offered[: -2 - len(text)] + (text + b"AAA")[: -(-length * 4 // 3)] + b"\r\n"
    line = pairing.line(r={"tickets": None}, changed=lambda reply: odd)
    assert line.s.near == GREETING + odd
    assert line.s.rings
    assert pairing.of_s.use(ticket.name, pairing.now)


# --- What R refuses -----------------------------------------------------------------------------------------


def test_r_refuses_an_answer_with_any_octet_changed() -> None:
    """And offers the full form then, at once and for ten minutes."""
    for at in range(68):
        pairing = Pairing().met()
        line = pairing.line()
        line.s.from_near(b"MAIL\r\n")
        line.s.far = flip(line.s.far, len(lines.VERB) + 3 + at)
        line.forth()
        assert (line.r.near, r_of(line).refused) == (EHLO, "tag of the handshake")
        assert line.r.far.startswith(b"454 4.7.0 ")
        line.back()
        assert line.s.dials == 2
        line.dialled_again(pairing.r())
        assert len(offer_of(line)) == FULL
        line.forth()
        line.back()
        assert is_protected(line)
        assert not line.s.rings


@pytest.mark.parametrize("length", [0, 52, 67, 69, 220, 1324])
def test_r_refuses_an_answer_of_another_length(length: int) -> None:
    line = Pairing().met().line()
    line.s.from_near(b"MAIL\r\n")
    answer = line.s.far[len(lines.VERB) + 3 :].ljust(2000, b"\0")[:length]
    line.s.far = lines.VERB + b"\x81" + length.to_bytes(2, "big") + answer
    line.forth()
    assert line.r.far.startswith(b"454 4.7.0 ")
    assert line.r.near == EHLO


def test_r_refuses_an_e_of_which_everything_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    line = Pairing().met().line()
    monkeypatch.setattr("tests.second.tickets.x25519_public", lambda private: ORDER_8)
    monkeypatch.setattr("tests.second.tickets.dh", lambda private, public: ZEROS)
    noise = s_of(line).noise
    assert isinstance(noise, ResumingResponder)
    used = r_of(line).noise
    assert isinstance(used, ResumingInitiator)
    again = ResumingResponder(noise.prologue, used.ticket, b"crafted S e".ljust(32))
    again.read_offer(offer_of(line))
    answer = again.answer(KEEPS_TICKET, HERE)
    monkeypatch.undo()
    line.r.from_far(lines.VERB + b"\x81\0\x44" + answer)
    assert line.r.far.startswith(b"454 4.7.0 ")
    assert r_of(line).refused == "X25519 result of zeros"


def test_an_answer_cannot_be_used_again() -> None:
    pairing = Pairing().met()
    first = pairing.line()
    first.s.from_near(b"MAIL\r\n")
    said = first.s.far
    first.opened().closed()
    again = pairing.line()
    assert len(offer_of(again)) == RESUMED
    again.r.from_far(said)
    assert again.r.far.startswith(b"454 4.7.0 ")
    assert again.r.near == EHLO


# --- Where it is not taken ----------------------------------------------------------------------------------


def test_an_s_without_tickets_has_a_full_handshake_on_its_second_connection() -> None:
    """However many tickets R has of it."""
    pairing = Pairing()
    for line in [pairing.line().opened() for _ in range(4)]:
        line.closed()
    restarted(pairing)
    line = pairing.line()
    assert len(offer_of(line)) == RESUMED
    assert s_of(line).failures == ["no ticket of this name"]
    line.s.from_near(b"MAIL\r\n")
    line.dialled_again(pairing.r())
    assert len(offer_of(line)) == FULL
    line.forth()
    line.back()
    assert is_protected(line)
    assert (line.s.dials, line.s.rings) == (2, False)
    line.closed()
    for later, length in ((0, FULL), (599, FULL), (600, RESUMED)):
        pairing.now = 1000.0 + later
        line = pairing.line().opened().closed()
        assert (len(offer_of(line)), line.s.dials) == (length, 1)


@pytest.mark.parametrize(
    "how", ["in clear", "ends", "is reset", "the answer is late", "ends behind the verb"]
)
def test_r_forgets_all_of_that_source(how: str) -> None:
    pairing = Pairing()
    for reached in (HERE, (HERE[0], 587)):
        pairing.met(r={"reached_as": reached})
    pairing.met(r={"source": b"somebody else"})
    line = pairing.line()
    assert (len(offer_of(line)), pairing.count()[1]) == (RESUMED, 2)
    if how == "in clear":
        line.r.from_far(b"MAIL\r\n")
    elif how == "ends":
        line.r.far_ends()
    elif how == "is reset":
        line.r.happens(ResetReceived(Side.FAR))
    else:
        line.r.from_far(lines.VERB)
        line.r.time_passes() if how == "the answer is late" else line.r.far_ends()
    assert pairing.count()[1] == 1
    assert len(offer_of(pairing.line())) == FULL
    assert len(offer_of(pairing.line(r={"source": b"somebody else"}))) == RESUMED


def test_a_full_offer_that_is_not_taken_costs_no_ticket() -> None:
    pairing = Pairing().met()
    line = pairing.line(reply=LONG_REPLY)
    line.r.happens(ResetReceived(Side.FAR))
    assert len(offer_of(pairing.line())) == RESUMED


@pytest.mark.parametrize("form", [FULL, RESUMED])
def test_a_changed_first_record_of_r_buys_nobody_clear_text(form: int) -> None:
    """R has accepted the answer, S has not confirmed R: only S knows that there is no ticket."""
    pairing = Pairing()
    if form == RESUMED:
        pairing.met()
    line = pairing.line()
    assert len(offer_of(line)) == form
    line.s.from_near(b"MAIL\r\n")
    line.forth()
    line.r.far = flip(line.r.far, 20)
    line.back()
    assert line.s.dials == 2
    line.dialled_again(pairing.r())
    line.forth()
    line.back()
    assert is_protected(line)
    assert (line.s.dials, line.s.rings) == (2, False)


def test_resumed_offers_that_are_changed_each_time_ring() -> None:
    pairing = Pairing()
    for line in [pairing.line().opened() for _ in range(2)]:
        line.closed()
    line = pairing.line(changed=lambda reply: flip(reply, len(reply) - 20))
    line.s.from_near(b"MAIL\r\n")
    line.dialled_again(pairing.r(), changed=lambda reply: flip(reply, len(reply) - 20))
    line.dialled_again(pairing.r())
    assert line.s.rings
    assert line.s.dials == 3
    assert line.forth() == b"MAIL\r\n"


def test_so_do_names_that_nobody_has_where_the_second_handshake_fails_too() -> None:
    """An attacker puts such lines in the place of R's."""
    pairing = Pairing().met()
    odd = lines.add_offer(REPLY, bytes(RESUMED))
    line = pairing.line(changed=lambda reply: odd)
    line.s.from_near(b"MAIL\r\n")
    for _ in range(7):
        assert not line.s.rings
        line.dialled_again(pairing.r(), changed=lambda reply: odd)
    line.dialled_again(pairing.r())
    assert line.s.rings
    assert line.s.dials == 9


def test_some_of_them_are_forgiven() -> None:
    """R has not heard of the first connection's reset; or an octet of the second offer is changed."""
    pairing = Pairing().met()
    odd = lines.add_offer(REPLY, bytes(RESUMED))
    for changed in (lambda reply: odd, lambda reply: flip(reply, len(reply) - 20)):
        line = pairing.line(changed=lambda reply: odd)
        line.s.from_near(b"MAIL\r\n")
        line.dialled_again(pairing.r(), changed=changed)
        line.dialled_again(pairing.r())
        line.forth()
        line.back()
        assert is_protected(line)
        assert (line.s.dials, line.s.rings) == (3, False)


# --- Statements ---------------------------------------------------------------------------------------------


def test_statements_are_shown_in_full_handshakes_only() -> None:
    shown = (write_statement(SEED_R, SEED_NEW, 7),)
    pairing = Pairing().met(r={"statements": shown})
    assert pairing.pin.accepts(NEW_IDENTITY)
    line = pairing.line(r={"statements": shown})
    assert len(offer_of(line)) == RESUMED
    line.opened()
    assert r_of(line).form == "resumed"
    assert isinstance(line.s.machine, Dressed)
    assert is_protected(line)


# --- The roles ----------------------------------------------------------------------------------------------


def test_a_ticket_serves_in_its_role_only() -> None:
    """A site's own R and S have a table each: an offer that is led back finds nothing."""
    pairing = Pairing().met()
    own_s = TicketsOfS()
    line = pairing.line(s={"seed": SEED_R, "tickets": own_s, "pin": Pin()})
    assert s_of(line).failures == ["no ticket of this name"]


def test_records_of_the_two_directions_have_keys_of_their_own() -> None:
    line = Pairing().met().line().opened()
    to_s, to_r = r_of(line).noise.state.split()
    sealed = Key(to_s).seal(PARAMS, b"", 0)
    assert to_s != to_r
    with pytest.raises(Refused):
        Key(to_r).open(sealed[3:])
    assert Key(to_s).open(sealed[3:]) != (DATA, b"")
