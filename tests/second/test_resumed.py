"""Tickets and the resumed form (docs/protocol.md, 4.6), both sides of the second implementation."""

from __future__ import annotations

import pytest

from gateway.session.events import ResetReceived, Side
from tests.playbook import GREETING, LONG_REPLY, REPLY, TODAY
from tests.second import lines
from tests.second.curve25519 import ed25519_public
from tests.second.dressed import (
    HERE,
    NEW_IDENTITY,
    R_IDENTITY,
    SEED_NEW,
    SEED_R,
    SEED_S,
    Dressed,
)
from tests.second.line import frames
from tests.second.memory import Seen
from tests.second.messages import write_statement
from tests.second.resuming import (
    FULL,
    RESUMED,
    SHORT,
    Pairing,
    crafted,
    is_protected,
    offer_of,
    r_of,
    s_of,
)
from tests.second.tickets import (
    KEEPS_TICKET,
)

# --- From session to session --------------------------------------------------------------------------------


def test_each_handshake_leaves_a_ticket_for_the_next_one() -> None:
    pairing, names = Pairing(), []
    for length in (FULL, RESUMED, RESUMED, RESUMED):
        line = pairing.line()
        offer = offer_of(line)
        assert len(offer) == length
        names.append(offer[:16])
        assert line.s.near == GREETING + REPLY
        line.s.from_near(b"MAIL\r\n")
        said = line.s.far[len(lines.VERB) :]
        assert frames(said)[0] == 3 + (1324 if length == FULL else 68)
        assert sum(frames(said)[1:]) == 512
        line.forth()
        line.back()
        assert is_protected(line)
        assert s_of(line).word == ("NEW" if length == FULL else "SAME")
        peer = r_of(line).peer
        assert peer is not None
        assert (peer.identity, peer.epoch) == (ed25519_public(SEED_S), TODAY)
        line.closed()
        assert pairing.count() == (1, 1)
    assert len(set(names)) == len(names)
    assert pairing.pin.identities[R_IDENTITY].accepted


def test_the_offer_is_one_line_of_111_octets() -> None:
    pairing = Pairing().met()
    line = pairing.line()
    assert len(line.replied) - len(REPLY) == 111
    assert line.replied.splitlines()[-1].startswith(b"250 XNIGHTMAIL 1 1/1 ")


def test_keys_and_tickets_are_the_same_at_both_ends_and_others_each_time() -> None:
    pairing, seen = Pairing(), set()
    for _ in range(3):
        line = pairing.line().opened()
        r, s = r_of(line).noise.state, s_of(line).noise.state
        assert r.h == s.h
        assert r.split() == s.split()
        assert r.ticket() == s.ticket()
        line.closed()
        for key in (*r.split(), r.ticket()[0]):
            assert len(key) == 32
            seen.add(key)
        assert len(r.ticket()[1]) == 16
    assert len(seen) == 9


def test_parallel_sessions_leave_a_ticket_each() -> None:
    pairing = Pairing()
    open_lines = [pairing.line().opened() for _ in range(3)]
    assert [len(offer_of(line)) for line in open_lines] == [FULL] * 3
    for line in open_lines:
        line.closed()
    assert pairing.count() == (3, 3)
    assert [len(offer_of(pairing.line().opened())) for _ in range(4)] == [RESUMED] * 3 + [FULL]


def test_r_knows_the_pair_of_addresses() -> None:
    pairing = Pairing().met()
    assert len(offer_of(pairing.line(r={"source": b"somebody else"}))) == FULL
    assert len(offer_of(pairing.line(r={"reached_as": (HERE[0], 26)}))) == FULL
    assert pairing.count() == (1, 1)
    assert len(offer_of(pairing.line())) == RESUMED


def test_the_dialled_address_is_compared() -> None:
    for elsewhere, said in ((HERE, b"\1"), ((HERE[0], 26), b"\0")):
        pairing = Pairing().met()
        line = pairing.line(s={"dialled": elsewhere}).opened()
        assert isinstance(line.r.machine, Dressed)
        assert (("notice", "dialled address is not ours") in line.r.machine.told) == (said == b"\0")
        assert r_of(line).form == "resumed"


# --- Who keeps one ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["s", "r"])
def test_both_must_keep_them(who: str) -> None:
    pairing = Pairing()
    for flags in (0, 0x8000):
        without = {"tickets": None, "flags": flags}
        pairing.met(s=without) if who == "s" else pairing.met(r=without)
    assert pairing.count() == (0, 0)
    assert len(offer_of(pairing.line())) == FULL


def test_so_they_must_in_the_resumed_form() -> None:
    pairing = Pairing().met()
    pairing.of_s.room = 0
    line = pairing.line()
    assert len(offer_of(line)) == RESUMED
    line.opened().closed()
    assert pairing.count() == (0, 0)
    for flags, left in ((KEEPS_TICKET, True), (0, False)):
        line = crafted(Pairing().met(), flags=flags)
        assert (s_of(line)._ticket is not None) == left


def test_the_short_form_leaves_none_and_is_not_replaced() -> None:
    pairing = Pairing().met(reply=LONG_REPLY)
    assert pairing.count() == (0, 0)
    pairing.met()
    assert pairing.count() == (1, 1)
    assert len(offer_of(pairing.line(reply=LONG_REPLY))) == SHORT
    assert pairing.count() == (1, 1)


@pytest.mark.parametrize(
    ("pin", "word"),
    [
        ({NEW_IDENTITY: Seen(True, TODAY, True)}, "CHANGED"),
        ({NEW_IDENTITY: Seen(True), R_IDENTITY: Seen(False)}, "CHANGED"),
        ({R_IDENTITY: Seen(True, TODAY + 1, True)}, "OLD"),
    ],
)
def test_s_keeps_none_of_whom_it_does_not_take_for_the_same(pin: dict[bytes, Seen], word: str) -> None:
    pairing = Pairing()
    pairing.pin.identities.update(pin)
    line = pairing.line().opened()
    assert s_of(line).word == word
    line.closed()
    assert pairing.count() == (0, 0)


def test_s_keeps_none_where_it_waits_for_a_statement() -> None:
    pairing = Pairing()
    pairing.pin.identities[R_IDENTITY] = Seen(True, TODAY, True)
    shown = (write_statement(SEED_R, SEED_NEW, 7),)
    line = pairing.line(r={"seed": SEED_NEW, "statements": shown}).opened()
    assert is_protected(line)
    line.closed()
    assert pairing.pin.accepts(NEW_IDENTITY)
    assert pairing.count() == (0, 0)


def test_two_first_sessions_at_once_leave_none_of_the_one_who_is_not_accepted() -> None:
    """Both find no pin; who is confirmed second shows an identity of his own."""
    pairing = Pairing()
    honest, other = pairing.line(), pairing.line(r={"seed": SEED_NEW})
    honest.opened()
    other.opened()
    assert other.s.rings
    honest.closed()
    other.closed()
    assert [one.identity for one in pairing.of_s._kept.values()] == [R_IDENTITY]


def test_r_keeps_none_before_s_has_shown_that_it_has_confirmed_it() -> None:
    """A record of S may be older than R's first one; its end is not."""
    pairing = Pairing()
    line = pairing.line().opened()
    assert is_protected(line)
    assert pairing.count() == (1, 0)
    line.closed()
    assert pairing.count() == (1, 1)
    line = pairing.line().opened()
    line.s.happens(ResetReceived(Side.NEAR))
    line.forth()
    assert pairing.count() == (1, 1)


def test_s_forgets_none_to_make_room() -> None:
    """R would offer it in vain: S says that it keeps none, and R keeps none either."""
    pairing = Pairing()
    pairing.of_s.room = 1
    first, second = pairing.line().opened(), pairing.line().opened()
    first.closed()
    second.closed()
    assert pairing.count() == (1, 1)
    pairing.now += 660
    pairing.met()
    assert pairing.count() == (1, 1)
    assert len(offer_of(pairing.line().opened())) == RESUMED


# --- How long it lives --------------------------------------------------------------------------------------


def test_r_offers_it_for_600_s() -> None:
    for later, length in ((599.0, RESUMED), (600.0, FULL)):
        pairing = Pairing().met()
        pairing.now += later
        assert len(offer_of(pairing.line())) == length


def test_a_full_handshake_is_needed_each_hour() -> None:
    pairing, lengths = Pairing().met(), []
    for _ in range(13):
        pairing.now += 300
        line = pairing.line().opened().closed()
        assert line.s.dials == 1
        lengths.append(len(offer_of(line)))
    assert lengths == [RESUMED] * 11 + [FULL, RESUMED]


@pytest.mark.parametrize(
    ("made", "full_made", "lives"),
    [(659, 659, True), (660, 660, False), (1, 3659, True), (1, 3660, False), (601, 3601, True)],
)
def test_s_takes_it_a_minute_longer_than_r_offers_it(made: float, full_made: float, lives: bool) -> None:
    """What R has offered in its last second must not be too late."""
    pairing = Pairing().met()
    line = crafted(pairing, made=pairing.now - made, full_made=pairing.now - full_made)
    assert (line.s.dials == 1) == lives
    assert lives or s_of(line).failures == ["no ticket of this name"]
