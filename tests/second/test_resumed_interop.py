"""Tickets between the second implementation and the product, each as S and as R, and either with itself."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto.messages import DialledAddress
from gateway.crypto.tickets import HeldTickets
from gateway.errors import Reason
from gateway.peers.pins import MetPeer, Pin, updated
from gateway.session.events import ResetReceived, Side
from tests.pair import Pair, Receiver, Sender
from tests.playbook import EHLO, GREETING, LONG_REPLY, REPLY, TODAY
from tests.second import lines
from tests.second.crafted import AT, NOW, flip
from tests.second.dressed import NEW_IDENTITY, Dressed
from tests.second.line import Line, frames
from tests.second.meeting import ALL, FEW, FULL, RESUMED, SHORT, Meeting, an_r, an_s, meeting
from tests.second.memory import Pin as SecondPin
from tests.second.memory import Seen
from tests.second.resuming import is_protected, offer_of
from tests.second.tickets import TicketsOfS
from tests.spoken import MAIL, Steps, dialogues, directly, seen

# --- From session to session --------------------------------------------------------------------------------


@ALL
def test_each_handshake_leaves_a_ticket_for_the_next_one(way: tuple[str, str]) -> None:
    two, names = meeting(way), []
    for length in (FULL, RESUMED, RESUMED, RESUMED):
        line = two.line()
        names.append(offer_of(line)[:16])
        assert len(offer_of(line)) == length
        assert line.s.near == GREETING + REPLY
        line.s.from_near(b"MAIL\r\n")
        said = frames(line.s.far[len(lines.VERB) :])
        assert said[0] == 3 + (1324 if length == FULL else 68)
        line.forth()
        said_back = frames(line.back())
        assert (sum(said[1:]), sum(said_back)) == (512, 512)
        assert is_protected(line)
        line.closed()
        two.s.remembers(line.s)
        assert two.count() == (1, 1)
        assert not line.s.rings
    assert len(set(names)) == len(names)


@ALL
@FEW
@given(steps=dialogues(), seed=st.integers(0, 2**32))
def test_any_dialogue_is_the_direct_one(way: tuple[str, str], steps: Steps, seed: int) -> None:
    """In the session with a ticket, cut anywhere, in any order of arrival."""
    two = meeting(way)
    two.met()
    pair = pair_of(two, steps, seed=seed).run()
    assert seen(pair.sender, pair.receivers) == directly(steps)
    assert not (pair.sender.was_reset or pair.receiver.was_reset)
    assert pair.dials == 1
    assert pair.wire.startswith(EHLO + lines.VERB + b"\x81\0\x44")
    assert not any(word in pair.wire + pair.wire_back for word in (b"@a.example", b"queued", b"QUIT\r\n"))


def pair_of(two: Meeting, steps: Steps = MAIL, seed: int = 0, **more: Any) -> Pair:
    return Pair(
        Sender(steps),
        lambda: Receiver(reply=REPLY),
        random.Random(seed),
        make_s=two.s.s,  # type: ignore[arg-type]
        make_r=lambda dial: two.r.r(),  # type: ignore[arg-type, return-value]
        **more,
    )


@ALL
@settings(FEW, max_examples=30)
@given(seed=st.integers(0, 2**32), line=st.integers(0, 2**32))
def test_one_octet_of_the_wire_is_changed(way: tuple[str, str], seed: int, line: int) -> None:
    """Of a session with a ticket: never a lie, never a mail twice, and all of it protected."""
    place = random.Random(line)
    to_receiver, at = place.random() < 0.5, place.randrange(1500)
    mask = 1 << place.randrange(8)

    def changed(towards: bool, gone: int, octets: bytes) -> bytes:
        index = at - gone
        if towards is not to_receiver or not 0 <= index < len(octets):
            return octets
        return octets[:index] + bytes([octets[index] ^ mask]) + octets[index + 1 :]

    two = meeting(way)
    two.met()
    pair = pair_of(two, seed=seed, tamper=changed).run()
    assert pair.delivered in ([], [b"hello"])
    assert pair.sender.heard.count(b"queued") <= len(pair.delivered)
    assert all(b"hello" not in wire for wire in pair.wires)
    two.now += 601
    two.met()


@ALL
def test_the_short_form_goes_without(way: tuple[str, str]) -> None:
    two = meeting(way)
    two.met()
    line = two.line(LONG_REPLY)
    assert len(offer_of(line)) == SHORT
    line.opened().closed()
    assert two.count() == (1, 1)


@ALL
def test_parallel_sessions_leave_a_ticket_each(way: tuple[str, str]) -> None:
    two = meeting(way)
    for line in [two.line() for _ in range(3)]:
        line.opened().closed()
        two.s.remembers(line.s)
    assert two.count() == (3, 3)
    again = [two.line().opened() for _ in range(4)]
    assert [len(offer_of(line)) for line in again] == [RESUMED] * 3 + [FULL]
    assert all(is_protected(line) for line in again)


@ALL
def test_r_keeps_them_by_source(way: tuple[str, str]) -> None:
    two = meeting(way)
    two.met()
    assert len(offer_of(two.line(source="203.0.113.2"))) == FULL
    assert len(offer_of(two.line())) == RESUMED


@ALL
def test_the_dialled_address_is_compared(way: tuple[str, str]) -> None:
    """R tells it to S by PARAMS, and its operator by a notice."""
    two = meeting(way)
    two.met()
    elsewhere = DialledAddress.from_text("198.51.100.7", 25)
    s = two.s.s(dialled=(elsewhere.address16, 25) if way[0] == "second" else elsewhere)
    line = Line(s, two.r.r(), now=two.now).opened()
    assert len(offer_of(line)) == RESUMED
    assert is_protected(line)
    if isinstance(line.r.machine, Dressed):
        assert line.r.machine.told == [("notice", "dialled address is not ours")]
    else:
        assert Reason.WRONG_DIALLED_ADDRESS in [one.reason for one in line.r.facts]


# --- How long -----------------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize(("later", "length"), [(598, RESUMED), (600, FULL)])
def test_r_offers_it_for_600_s_and_s_takes_what_is_offered(
    way: tuple[str, str], later: int, length: int
) -> None:
    two = meeting(way)
    two.met()
    two.now += later
    line = two.line()
    assert len(offer_of(line)) == length
    line.s.now += 30  # the line is slow
    assert is_protected(line.opened())


@ALL
def test_a_slow_line_does_not_make_an_offer_too_late(way: tuple[str, str]) -> None:
    """R's clock for a ticket begins with the answer, and S's is no shorter."""
    two = meeting(way)
    two.met()
    two.now += 599
    r = two.r.r()
    line = Line(two.s.s(), r, now=two.now, later=20.0)
    assert len(offer_of(line)) == RESUMED
    assert line.s.dials == 1


@ALL
def test_it_does_not_live_longer_for_a_long_session(way: tuple[str, str]) -> None:
    two = meeting(way)
    line = two.line().opened()
    line.s.now = line.r.now = two.now = two.now + 599
    line.closed()
    two.s.remembers(line.s)
    two.now += 2
    assert len(offer_of(two.line())) == FULL


@ALL
def test_a_full_handshake_is_needed_each_hour(way: tuple[str, str]) -> None:
    two, lengths = meeting(way), []
    two.met()
    for _ in range(13):
        two.now += 300
        lengths.append(len(offer_of(two.met())))
    assert lengths == [RESUMED] * 11 + [FULL, RESUMED]


@ALL
def test_a_new_day_costs_no_dial(way: tuple[str, str]) -> None:
    """R's static key is a new one, and its full offers have a higher epoch than its tickets."""
    two = meeting(way)
    two.met()
    if way[0] == "second":
        [seen_by_s] = two.s.pin.identities.values()
        seen_by_s.epoch = TODAY + 1
    else:
        pin: Pin = two.s.pin
        [one] = pin.identities
        two.s.pin = replace(pin, identities=(replace(one, epoch=TODAY + 1),))
    line = two.line()
    assert len(offer_of(line)) == RESUMED
    assert is_protected(line.opened())
    assert (line.s.dials, line.s.rings) == (1, False)


# --- Where it is not taken ----------------------------------------------------------------------------------


@ALL
def test_an_s_without_tickets_has_a_full_handshake_on_its_second_connection(way: tuple[str, str]) -> None:
    two = meeting(way)
    for line in [two.line().opened() for _ in range(3)]:
        line.closed()
        two.s.remembers(line.s)
    two.s.tickets = an_s(way[0]).tickets
    line = two.line()
    assert len(offer_of(line)) == RESUMED
    assert line.s.dials == 2
    line.s.from_near(b"MAIL\r\n")
    line.dialled_again(two.r.r())
    assert len(offer_of(line)) == FULL
    line.forth()
    line.back()
    assert is_protected(line)
    assert (line.s.dials, line.s.rings) == (2, False)
    line.closed()
    two.now += 599
    assert len(offer_of(two.met())) == FULL
    two.now += 1
    assert len(offer_of(two.met())) == RESUMED


@ALL
def test_several_rs_behind_one_address_may_have_a_ticket_each(way: tuple[str, str]) -> None:
    """And S was started anew: each dial finds another R."""
    two = meeting(way)
    others = [an_r(way[1]) for _ in range(5)]
    for two.r in others:
        two.met()
    two.s.tickets = an_s(way[0]).tickets
    line = two.line()
    line.s.from_near(b"MAIL\r\n")
    for other in [*others[:-1], two.r]:
        line.dialled_again(other.r())
    assert (len(offer_of(line)), line.s.dials) == (FULL, 6)
    line.forth()
    line.back()
    assert is_protected(line)
    assert not line.s.rings


@ALL
def test_a_reset_that_r_does_not_hear_of_buys_nobody_clear_text(way: tuple[str, str]) -> None:
    """S was started anew, and the second offer is made with a ticket, too."""
    two = meeting(way)
    for line in [two.line() for _ in range(3)]:
        line.opened().closed()
        two.s.remembers(line.s)
    two.s.tickets = an_s(way[0]).tickets
    line = two.line()
    line.s.from_near(b"MAIL\r\n")
    line.dialled_again(two.r.r(), reset_is_lost=True)
    assert len(offer_of(line)) == RESUMED
    line.dialled_again(two.r.r())
    assert len(offer_of(line)) == FULL
    line.forth()
    line.back()
    assert is_protected(line)
    assert (line.s.dials, line.s.rings) == (3, False)


@ALL
@pytest.mark.parametrize(
    "how", ["in clear", "ends", "is reset", "the answer is late", "ends behind the verb", "a bad answer"]
)
def test_r_forgets_all_of_that_source(way: tuple[str, str], how: str) -> None:
    two = meeting(way)
    for line in [two.line().opened() for _ in range(3)]:
        line.closed()
    two.met(source="203.0.113.2")
    line = two.line()
    assert len(offer_of(line)) == RESUMED
    if how == "in clear":
        line.r.from_far(b"MAIL\r\n")
    elif how == "ends":
        line.r.far_ends()
    elif how == "is reset":
        line.r.happens(ResetReceived(Side.FAR))
    elif how == "a bad answer":
        line.r.from_far(lines.VERB + b"\x81\0\x44" + bytes(68))
    else:
        line.r.from_far(lines.VERB)
        line.r.time_passes() if how == "the answer is late" else line.r.far_ends()
    assert two.count()[1] == 1
    assert len(offer_of(two.line())) == FULL
    assert len(offer_of(two.line(source="203.0.113.2"))) == RESUMED


@ALL
@pytest.mark.parametrize("length", [FULL, RESUMED])
def test_a_changed_first_record_of_r_buys_nobody_clear_text(way: tuple[str, str], length: int) -> None:
    """R has accepted the answer, S has not confirmed R, and has no ticket of that handshake."""
    two = meeting(way)
    if length == RESUMED:
        two.met()
    line = two.line()
    assert len(offer_of(line)) == length
    line.s.from_near(b"MAIL\r\n")
    line.forth()
    line.r.far = flip(line.r.far, 20)
    line.back()
    assert line.s.dials == 2
    line.dialled_again(two.r.r())
    line.forth()
    line.back()
    assert is_protected(line)
    assert (line.s.dials, line.s.rings) == (2, False)


@ALL
def test_an_answer_that_r_refuses_is_followed_by_a_full_offer(way: tuple[str, str]) -> None:
    for at in (0, 31, 32, 67):
        two = meeting(way)
        for line in [two.line().opened() for _ in range(2)]:
            line.closed()
            two.s.remembers(line.s)
        line = two.line()
        line.s.from_near(b"MAIL\r\n")
        line.s.far = flip(line.s.far, len(lines.VERB) + 3 + at)
        line.forth()
        assert line.r.far.startswith(b"454 4.7.0 ")
        assert line.r.near == EHLO
        line.back()
        assert line.s.dials == 2
        line.dialled_again(two.r.r())
        assert len(offer_of(line)) == FULL
        line.forth()
        line.back()
        assert is_protected(line)
        assert not line.s.rings


@ALL
@pytest.mark.parametrize("at", [0, 15, 16, 47, 48, 49, 50, 65])
def test_s_refuses_a_changed_offer_before_its_verb(way: tuple[str, str], at: int) -> None:
    two = meeting(way)
    two.met()

    def changed(reply: bytes) -> bytes:
        taken = lines.take_offer(reply)
        assert taken is not None
        return lines.add_offer(REPLY, flip(taken[1], at))

    line = two.line(changed=changed)
    # Another name is that of a ticket which S does not have: it may keep that reply from the sender.
    shown = (GREETING, GREETING + REPLY) if at < 16 else (GREETING + REPLY,)
    assert line.s.near in shown
    line.s.from_near(b"MAIL\r\n")
    assert (line.s.dials, line.s.far) == (2, b"")


@ALL
def test_an_offer_is_taken_once(way: tuple[str, str]) -> None:
    two = meeting(way)
    two.met()
    line = two.line()
    offered = line.replied
    line.opened()
    again = two.line(changed=lambda reply: offered)
    again.s.from_near(b"MAIL\r\n")
    assert (again.s.dials, again.s.far) == (2, b"")


@ALL
def test_s_says_that_it_keeps_none_where_it_has_no_place(way: tuple[str, str]) -> None:
    """What S has forgotten, R would offer in vain."""
    two = meeting(way)
    two.s.tickets = TicketsOfS(room=1) if way[0] == "second" else HeldTickets(1)
    first, second = two.line().opened(), two.line().opened()
    for line in (first, second):
        line.closed()
        two.s.remembers(line.s)
    for _ in range(3):
        two.met()
    assert two.count() == (1, 1)


@ALL
def test_an_identity_that_nobody_accepts_any_more_has_no_use_of_its_ticket(way: tuple[str, str]) -> None:
    two = meeting(way)
    two.met()
    two.s.pin = _somebody_elses(way[0])
    line = two.line()
    assert len(offer_of(line)) == RESUMED
    assert line.s.dials == 2
    line.s.from_near(b"MAIL\r\n")
    line.dialled_again(two.r.r())
    assert len(offer_of(line)) == FULL
    line.forth()
    line.back()
    assert is_protected(line)
    assert line.s.rings


def _somebody_elses(who: str) -> Any:
    if who == "second":
        return SecondPin({NEW_IDENTITY: Seen(True, TODAY, True)})
    return updated(None, AT, MetPeer(NEW_IDENTITY, TODAY, True), NOW)


@ALL
def test_a_receiver_that_speaks_unasked_says_nothing_of_the_tickets(way: tuple[str, str]) -> None:
    """S goes on in clear then, whatever it has."""
    two = meeting(way)
    for line in [two.line() for _ in range(2)]:
        line.opened().closed()
        two.s.remembers(line.s)
    line = two.line()
    assert len(offer_of(line)) == RESUMED
    line.r.from_near(b"421 4.4.2 Timeout\r\n").from_far(b"QUIT\r\n")
    assert line.r.near == EHLO + b"QUIT\r\n"
    assert len(offer_of(two.line())) == RESUMED
