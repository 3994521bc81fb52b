"""What comes in place of greeting, reply or verb, and failed handshakes: in both implementations."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Reason
from gateway.peers.store import PinStore
from gateway.session.events import ResetReceived, Side
from gateway.smtp.events import Role
from tests.playbook import EHLO, GREETING, REPLY
from tests.second.crafted import (
    AT,
    MAIL,
    NOW,
    WHO,
    FarR,
    OfferCase,
    confirming,
    crafted_offer,
    pinned,
    product_keys,
    s_of,
)
from tests.second.dressed import NEW_IDENTITY, R_IDENTITY, SEED_NEW, SEED_R, Alone, Dressed, second_s
from tests.second.lines import add_offer
from tests.second.memory import Failures, Pin
from tests.second.records import CLOSE, DATA, PARAMS
from tests.second.sending import Sending
from tests.unit.runtime.worker.without_sockets import Worker

PINNED = pytest.mark.parametrize("is_pinned", [True, False], ids=["pinned", "unknown"])
PLACES = ["greeting", "behind the greeting", "reply", "ready"]
BAD_REPLY = add_offer(REPLY, crafted_offer(OfferCase("", "", flipped=0), "full"))


def memory_of(who: str, is_pinned: bool) -> dict[str, Any]:
    return pinned(who) if is_pinned else {}


def at(place: str, who: str, is_pinned: bool = True, held: bytes = b"") -> Alone:
    """S where the receiver speaks next in that place; `held` is what the sender has said too early."""
    s = s_of(who, **memory_of(who, is_pinned))
    if place == "greeting":
        return s.from_near(EHLO + held) if held else s
    s.from_far(GREETING)
    if place == "behind the greeting":
        return s
    s.from_near(EHLO + held)
    return s.from_far(FarR().reply) if place == "ready" else s


# --- A 421 --------------------------------------------------------------------------------------------------

PUT_OFF = [
    b"421 4.3.2 Shutting down\r\n",
    b"421-4.3.2 Later\r\n421-\r\n421 bye\r\n",
    b"421\r\n",
    b"4210 x\r\n",
    b"421 x\n",
    b"421x\0y\r\n",
]


def is_put_off(s: Alone, near: bytes, far: bytes) -> bool:
    """Both connections have ended, quietly, and nothing more of the sender goes out."""
    s.from_near(MAIL)
    return (s.near, s.far, s.ended, s.rings) == (near, far, set(Side), False)


@WHO
@pytest.mark.parametrize("held", [b"", MAIL], ids=["nothing held", "held"])
@pytest.mark.parametrize("place", ["greeting", "reply"])
@pytest.mark.parametrize("said", PUT_OFF[:-1])
def test_a_421_of_a_pinned_peer_is_whole_and_the_end(who: str, place: str, said: bytes, held: bytes) -> None:
    """However it is cut, and whatever follows its code."""
    for cut in range(1, len(said)):
        s = at(place, who, held=held)
        near, far = s.near, s.far
        s.from_far(said[:cut])
        assert not s.ended, cut
        s.from_far(said[cut:])
        assert is_put_off(s, near + said, far), cut


@WHO
@pytest.mark.parametrize("words", [EHLO, MAIL])
def test_what_the_sender_says_into_one_stays_here(who: str, words: bytes) -> None:
    s = at("greeting", who).from_far(b"421-x\r\n").from_near(words).from_far(b"421 x\r\n")
    assert is_put_off(s, b"421-x\r\n421 x\r\n", b"")


@WHO
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("said", PUT_OFF[:-2])
def test_so_is_one_that_comes_unasked(who: str, place: str, said: bytes) -> None:
    s = at(place, who)
    near, far = s.near, s.far
    s.from_far(said)
    assert is_put_off(s, near + said, far)


@WHO
@pytest.mark.parametrize("place", ["behind the greeting", "ready"])
@pytest.mark.parametrize("said", PUT_OFF)
def test_one_that_is_cut_is_no_silent_way_into_clear(who: str, place: str, said: bytes) -> None:
    for cut in range(1, len(said)):
        s = at(place, who)
        near, far = s.near, s.far
        s.from_far(said[:cut])
        s.from_near(EHLO if place == "behind the greeting" else MAIL)
        s.from_far(said[cut:])
        if who == "second":
            assert s.near == near + said
            assert s.ended == set(Side)
            assert not s.rings
        s.from_near(MAIL)
        assert s.rings or MAIL not in s.far[len(far) :], cut


@WHO
@pytest.mark.parametrize("place", ["greeting", "reply"])
def test_one_that_never_gets_whole_lets_nothing_out_unheard(who: str, place: str) -> None:
    s = at(place, who, held=MAIL)
    far = s.far
    s.from_far(b"421 x").far_ends()
    assert s.rings or s.far == far
    if who == "second":
        assert is_put_off(s, s.near, far)


@WHO
@pytest.mark.parametrize("side", list(Side))
def test_the_beginning_of_one_rings_with_an_end_behind_it(who: str, side: Side) -> None:
    """What is less than a code is no 421, but has come unasked."""
    s = at("ready", who).from_far(b"42")
    (s.near_ends if side is Side.NEAR else s.far_ends)()
    assert (s.near, s.far, s.rings) == (GREETING + REPLY + b"42", EHLO, True)


@WHO
@pytest.mark.parametrize("place", PLACES)
def test_where_no_pin_exists_it_passes(who: str, place: str) -> None:
    s = at(place, who, is_pinned=False)
    near, far = s.near, s.far
    s.from_far(b"421 bye\r\n").from_near(MAIL)
    assert (s.near, s.far, s.ended, s.rings) == (near + b"421 bye\r\n", far + MAIL, set(), False)


@WHO
@PINNED
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("greeting", b"420 x\r\n"),
        ("greeting", b"220-x\r\n421 x\r\n"),
        ("behind the greeting", b"250 x\r\n"),
        ("reply", b"502 x\r\n"),
        ("reply", b"250-x\r\n421 x\r\n"),
        ("reply", REPLY),
        ("reply", FarR().reply + b"250 x\r\n"),
        ("ready", b"250 x\r\n"),
        ("ready", b"\r\n"),
        ("ready", b"420 x\r\n"),
    ],
)
def test_anything_else_passes_and_rings_where_a_pin_exists(
    who: str, is_pinned: bool, place: str, said: bytes
) -> None:
    s = at(place, who, is_pinned)
    near, far = s.near, s.far
    s.from_far(said).from_near(MAIL)
    assert (s.near, s.far, s.ended, s.rings) == (near + said, far + MAIL, set(), is_pinned)


# --- HELO ---------------------------------------------------------------------------------------------------


@WHO
@PINNED
@pytest.mark.parametrize(
    ("greeting", "leads"),
    [
        (b"220 ****************\r\n", True),
        (b"220 mx.b.example SMTP\r\n", True),
        (b"220 mx.b.example NoESMTP\r\n", True),
        (b"220 mx.b.example ESMTP, ready\r\n", True),
        (b"220-ESMTP\r\n220 mx\r\n", True),
        (b"220 mx.b.example ESMTP\r\n", False),
        (b"220 esmtp\r\n", False),
        (b"220 mx\tEsmtp\tx\r\n", False),
        (b"220-mx\r\n220 ESMTP\r\n", False),
        (b"220-mx\r\n", False),
        (b"", False),
    ],
)
@pytest.mark.parametrize("step", [1, 100])
def test_a_greeting_that_leads_to_helo_is_missing(
    who: str, is_pinned: bool, greeting: bytes, leads: bool, step: int
) -> None:
    """Where it is complete, and a pin exists. It passes in any case."""
    said = b"hELO mail.a.example\r\n"
    s = s_of(who, **memory_of(who, is_pinned))
    if greeting:
        s.from_far(greeting)
    for begin in range(0, len(said), step):
        s.from_near(said[begin : begin + step])
    s.from_near(MAIL)
    assert (s.near, s.far, s.ended) == (greeting, said + MAIL, set())
    assert s.rings == (leads and is_pinned)


@WHO
@pytest.mark.parametrize("said", [b"HELP\r\n", b"QUIT\r\n", b"LHLO a\r\n", b"H\r\n", b"HEL"])
def test_only_helo_is_judged(who: str, said: bytes) -> None:
    s = s_of(who, **pinned(who))
    s.from_far(b"220 mx\r\n").from_near(said)
    assert (s.near, s.far, s.rings) == (b"220 mx\r\n", said, False)


# --- Ends ---------------------------------------------------------------------------------------------------


BEFORE_REPLY = pytest.mark.parametrize("place", ["greeting", "reply", "reply begun"])


@WHO
@PINNED
@BEFORE_REPLY
@pytest.mark.parametrize(
    ("side", "held"),
    [(Side.NEAR, b""), (Side.FAR, b""), (Side.FAR, MAIL)],
    ids=["near", "far", "far, with something held"],
)
def test_an_end_before_the_reply_passes_with_what_is_held(
    who: str, is_pinned: bool, side: Side, held: bytes, place: str
) -> None:
    """It rings where it lets out what the sender has said early, and a pin exists."""
    s = at(place.removesuffix(" begun"), who, is_pinned, held)
    begun = b"250-mx.b" if place == "reply begun" else b""
    near, said = s.near, EHLO if place != "greeting" or held else b""
    if begun:
        s.from_far(begun)
    (s.near_ends if side is Side.NEAR else s.far_ends)()
    assert (s.near, s.far, s.ended) == (near + begun, said + held, {side.other})
    assert not s.was_reset
    assert s.rings == (is_pinned and bool(held))


def ended_behind_held(place: str, who: str, is_pinned: bool) -> Alone:
    s = at(place.removesuffix(" begun"), who, is_pinned, MAIL)
    if place == "reply begun":
        s.from_far(REPLY[:8])
    return s.near_ends()


@WHO
@PINNED
@BEFORE_REPLY
def test_an_end_of_the_sender_behind_what_is_held_waits_with_it(
    who: str, is_pinned: bool, place: str
) -> None:
    s = ended_behind_held(place, who, is_pinned)
    assert (s.far, s.ended, s.rings) == (EHLO, set(), False)
    rest = {"greeting": GREETING + REPLY, "reply": REPLY, "reply begun": REPLY[8:]}[place]
    s.from_far(rest)
    assert (s.near, s.far, s.ended) == (GREETING + REPLY, EHLO + MAIL, {Side.FAR})
    assert (s.was_reset, s.rings) == (set(), is_pinned)


@WHO
@PINNED
@BEFORE_REPLY
def test_so_it_does_up_to_the_receivers_own(who: str, is_pinned: bool, place: str) -> None:
    s = ended_behind_held(place, who, is_pinned)
    near = s.near
    s.far_ends()
    begun = REPLY[:8] if place == "reply begun" else b""
    assert (s.near, s.far, s.ended) == (near + begun, EHLO + MAIL, set(Side))
    assert (s.was_reset, s.rings) == (set(), is_pinned)


@WHO
@PINNED
def test_where_there_is_an_offer_it_is_the_channels(who: str, is_pinned: bool) -> None:
    s = ended_behind_held("reply", who, is_pinned)
    r = FarR()
    s.from_far(r.reply)
    records = r.takes(s.far[len(EHLO) :])
    said = len(s.far)
    s.from_far(r.writer.seal(PARAMS, b"", 0))
    assert (DATA, MAIL) in records
    assert r.hears(s.far[said:]) == [(CLOSE, b"")]
    assert (s.near, s.ended, s.rings) == (GREETING + REPLY, {Side.FAR}, False)


@WHO
@PINNED
@pytest.mark.parametrize("place", PLACES[:3])
def test_what_the_sender_says_behind_the_receivers_end_rings_where_a_pin_exists(
    who: str, is_pinned: bool, place: str
) -> None:
    s = at(place, who, is_pinned).far_ends()
    near, far = s.near, s.far
    s.from_near(MAIL)
    assert (s.near, s.far, s.ended, s.rings) == (near, far + MAIL, {Side.NEAR}, is_pinned)


@WHO
@PINNED
@pytest.mark.parametrize("side", list(Side))
def test_an_end_before_the_verb_passes(who: str, is_pinned: bool, side: Side) -> None:
    """The receiver's rings where a pin exists; what the sender says behind it is in clear."""
    s = at("ready", who, is_pinned)
    (s.near_ends if side is Side.NEAR else s.far_ends)()
    if side is Side.FAR:
        s.from_near(MAIL)
    assert (s.near, s.far) == (GREETING + REPLY, EHLO + (MAIL if side is Side.FAR else b""))
    assert (s.ended, s.rings) == ({side.other}, is_pinned and side is Side.FAR)


@WHO
@pytest.mark.parametrize("side", list(Side))
@pytest.mark.parametrize("place", PLACES)
def test_a_reset_before_the_verb_passes_as_one(who: str, side: Side, place: str) -> None:
    s = at(place, who).happens(ResetReceived(side))
    assert (s.was_reset, s.ended, s.rings) == ({side.other}, set(), False)


# --- S's own offer ------------------------------------------------------------------------------------------


@WHO
@PINNED
@pytest.mark.parametrize("held", [b"", MAIL], ids=["nothing held", "held"])
def test_its_own_offer_rings_where_a_pin_exists(who: str, is_pinned: bool, held: bytes) -> None:
    own: dict[str, Any] = {"keys": product_keys(SEED_NEW)} if who == "product" else {"seed": SEED_NEW}
    s = s_of(who, **own, **memory_of(who, is_pinned))
    s.from_far(GREETING).from_near(EHLO + held).from_far(FarR(SEED_NEW).reply).from_near(MAIL)
    assert (s.near, s.far, s.dials) == (GREETING + REPLY, EHLO + held + MAIL, 1)
    assert s.rings == is_pinned


# --- Failed handshakes --------------------------------------------------------------------------------------


def failed(who: str, is_pinned: bool, **more: Any) -> Alone:
    """S has been shown an offer that does not verify, and has dialled again."""
    s = s_of(who, **memory_of(who, is_pinned), **more)
    s.from_far(GREETING).from_near(EHLO).from_far(BAD_REPLY)
    return s.redialled()


def in_clear_without_an_offer(s: Alone) -> Alone:
    return s.from_far(GREETING).from_far(REPLY).from_near(MAIL)


def in_clear_behind_the_third(s: Alone) -> Alone:
    s.from_far(GREETING).from_far(BAD_REPLY).redialled()
    return s.from_far(GREETING).from_far(BAD_REPLY).from_near(MAIL)


def put_off_by_another_server(s: Alone) -> Alone:
    return s.from_far(b"220 other.example ESMTP\r\n").from_far(REPLY)


def put_off_by_a_421(s: Alone) -> Alone:
    return s.from_far(b"421 bye\r\n")


def put_off_by_an_end(s: Alone) -> Alone:
    return s.far_ends()


IN_CLEAR = [in_clear_without_an_offer, in_clear_behind_the_third]
PUT_OFFS = [put_off_by_another_server, put_off_by_a_421, put_off_by_an_end]


@WHO
@pytest.mark.parametrize("then", [*IN_CLEAR, *PUT_OFFS])
def test_a_session_that_fails_rings_where_a_pin_exists(who: str, then: Any) -> None:
    s = then(failed(who, True))
    assert s.rings
    assert s.far.endswith(MAIL) == (then in IN_CLEAR)
    assert (b"421 4.7.0" in s.near, Side.NEAR in s.ended) == (then in PUT_OFFS,) * 2


@WHO
def test_a_failure_that_the_next_offer_mends_does_not(who: str) -> None:
    far_r = FarR()
    s = failed(who, True).from_far(GREETING).from_far(far_r.reply)
    s.far = b""
    s.from_near(MAIL)
    far_r.takes(s.far)
    s.from_far(far_r.writer.seal(PARAMS, b"", 0))
    assert (s.dials, s.rings) == (2, False)


def counts(s: Alone, tmp_path: Path) -> bool:
    """Whether the session that is over is remembered against its path."""
    if isinstance(s.machine, Dressed):
        assert isinstance(s.machine.gateway, Sending)
        return s.machine.gateway.path.in_a_row > 0
    assert s.reason is not None
    with closing(Worker(tmp_path)) as worker:
        worker.decided(s.reason, role=Role.SENDING)
        return any("failure" in said for said in worker.said)


@WHO
@pytest.mark.parametrize("then", [IN_CLEAR[1], *PUT_OFFS])
def test_what_counts_against_a_path_that_never_upgraded(who: str, then: Any, tmp_path: Path) -> None:
    """Where a pin exists nothing does: the product's store does not take it, see `test_store`."""
    assert counts(then(failed(who, False)), tmp_path)
    if who == "second":
        assert not counts(then(failed(who, True)), tmp_path)


def test_how_long_such_a_path_rests(tmp_path: Path) -> None:
    """Both for as long as the other, after each further failure."""
    rests, ours = [], Failures()
    with PinStore(tmp_path / "peers.db", clock=lambda: NOW) as store:
        for _ in range(10):
            product = store.note_failure(AT, NOW)
            ours.count(NOW)
            rests.append(ours.until - NOW if ours.rests(NOW) else 0)
            assert (product.rest_until or 0) - (NOW if product.rest_until else 0) == rests[-1]
    assert rests == [0, 0, *(3600 * hours for hours in (1, 2, 4, 8, 16, 24, 24, 24))]


@WHO
def test_a_path_that_rests_is_left_in_clear_without_its_offer(who: str) -> None:
    rests = {"refusal": Reason.RECENTLY_FAILED} if who == "product" else {"path": Failures(3, 5000.0)}
    s = s_of(who, **rests)
    s.from_far(GREETING).from_near(EHLO).from_far(FarR().reply).from_near(MAIL)
    assert (s.near, s.far, s.rings) == (GREETING + REPLY, EHLO + MAIL, False)


# --- What is remembered meanwhile ---------------------------------------------------------------------------


def test_two_first_sessions_at_once_ring_for_the_second_identity() -> None:
    """The product does this where it remembers; see `tests/unit/peers`."""
    pin = Pin()
    sessions = []
    for seed in (SEED_R, SEED_NEW):
        far_r, s = FarR(seed), Alone(second_s(pin=pin))
        s.from_far(GREETING).from_near(EHLO).from_far(far_r.reply).from_near(MAIL)
        far_r.takes(s.far[len(EHLO) :])
        sessions.append((s, far_r))
    for s, far_r in sessions:
        s.from_far(far_r.writer.seal(PARAMS, b"", 0))
    assert [s.rings for s, _ in sessions] == [False, True]
    assert (pin.accepts(R_IDENTITY), pin.accepts(NEW_IDENTITY)) == (True, False)


def test_a_changed_identity_rings_once() -> None:
    pin = pinned("second")
    rung = []
    for _ in range(2):
        s, far_r = confirming("second", FarR(SEED_NEW), **pin)
        s.from_far(far_r.writer.seal(PARAMS, b"", 0))
        rung.append(s.rings)
    assert rung == [True, False]
    assert not pin["pin"].accepts(NEW_IDENTITY)
