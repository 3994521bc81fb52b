"""What is told of a pin, and that it stays short and costs few writes, whatever a peer does."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.peers.history import Happening, History, PeerEvent, appended, changes, in_trouble
from gateway.peers.pins import Acceptance, Destination, MetPeer, MetStatement, Pin, accepted, updated, without
from gateway.peers.store import PinStore
from gateway.policy import limits

HERE = Destination("192.0.2.7", 25)
A, B = b"A" * 32, b"B" * 32
NOW, DAY, HOUR = 1_800_000_000, 86400, 3600


def met(identity: bytes) -> MetPeer:
    return MetPeer(identity, 20_000, True)


def told(before: Pin | None, after: Pin | None) -> list[tuple[Happening, bytes]]:
    assert after is not None
    return [(event.happening, event.identity) for event in changes(before, after, NOW)]


FIRST = updated(None, HERE, met(A), NOW)
AHEAD = updated(FIRST, HERE, met(A), NOW, MetStatement(A, B, 1))
CHANGED = updated(FIRST, HERE, met(B), NOW)
TROUBLED = replace(FIRST, in_trouble=True)


@pytest.mark.parametrize(
    ("before", "after", "events"),
    [
        (None, FIRST, [(Happening.FIRST_SEEN, A)]),
        (FIRST, FIRST, []),
        (FIRST, updated(FIRST, HERE, met(A), NOW + DAY), []),
        (FIRST, CHANGED, [(Happening.CHANGED, B)]),
        (CHANGED, accepted(CHANGED, B), [(Happening.ACCEPTED, B)]),
        (CHANGED, without(CHANGED, B), [(Happening.FORGOTTEN, B)]),
        (FIRST, AHEAD, [(Happening.ANNOUNCED, B)]),
        (None, AHEAD, [(Happening.FIRST_SEEN, A), (Happening.ANNOUNCED, B)]),
        (AHEAD, updated(AHEAD, HERE, met(B), NOW), [(Happening.ROLLED_OVER, B)]),
        (FIRST, updated(FIRST, HERE, met(B), NOW, MetStatement(A, B, 1)), [(Happening.ROLLED_OVER, B)]),
        (CHANGED, updated(CHANGED, HERE, met(B), NOW, MetStatement(A, B, 1)), [(Happening.ROLLED_OVER, B)]),
        (TROUBLED, updated(TROUBLED, HERE, met(A), NOW), [(Happening.BACK, b"")]),
        (TROUBLED, updated(TROUBLED, HERE, met(B), NOW), [(Happening.CHANGED, B), (Happening.BACK, b"")]),
    ],
)
def test_what_is_told(before: Pin | None, after: Pin, events: list[tuple[Happening, bytes]]) -> None:
    assert told(before, after) == events


def test_accepted_by_time_is_told() -> None:
    pin = CHANGED
    for day in (3, 7):
        before, pin = pin, updated(pin, HERE, met(B), NOW + day * DAY)
    known = pin.find(B)
    assert known is not None
    assert known.acceptance is Acceptance.TIME
    assert told(before, pin) == [(Happening.ACCEPTED, B)]


def missing(at: int) -> PeerEvent:
    return PeerEvent.now(Happening.MISSING, NOW + at)


def failed(at: int) -> PeerEvent:
    return PeerEvent.now(Happening.FAILED, NOW + at)


def back(at: int) -> PeerEvent:
    return PeerEvent.now(Happening.BACK, NOW + at)


def told_in_turn(*events: PeerEvent) -> History:
    history: History = (PeerEvent.now(Happening.FIRST_SEEN, NOW - DAY, A),)
    for event in events:
        history = appended(history, event)
    return history


@pytest.mark.parametrize(
    ("events", "what"),
    [
        ([missing(0), missing(1)], [(Happening.MISSING, 1)]),
        ([missing(0), missing(HOUR), missing(2 * HOUR)], [(Happening.MISSING, 3)]),
        ([missing(0), missing(DAY)], [(Happening.MISSING, 1), (Happening.MISSING, 1)]),
        ([missing(0), back(60)], [(Happening.MISSING, 1), (Happening.BACK, 1)]),
        ([missing(0), back(60), missing(120)], [(Happening.MISSING, 1), (Happening.BACK, 1)]),
        ([missing(0), back(60), missing(HOUR)], [(Happening.MISSING, 2)]),
        ([missing(0), back(60), missing(HOUR), back(HOUR)], [(Happening.MISSING, 2), (Happening.BACK, 1)]),
        ([missing(0), failed(1), missing(2)], [(Happening.MISSING, 1), (Happening.FAILED, 1)]),
    ],
)
def test_trouble_is_counted_in_one_line(events: list[PeerEvent], what: list[tuple[Happening, int]]) -> None:
    assert [(event.happening, event.times) for event in told_in_turn(*events)[1:]] == what


def test_a_flapping_peer_is_one_line_and_a_write_an_hour() -> None:
    """Every other session without its offer, one a minute, for four weeks."""
    history = told_in_turn()
    writes = 0
    for minute in range(28 * 24 * 60):
        before = history
        if minute % 2:
            history = appended(history, missing(60 * minute))
        elif in_trouble(history):
            history = appended(history, back(60 * minute))
        writes += history is not before
    assert len(history) <= 4
    assert writes <= 2 * 28 * 24


def test_the_first_event_stays() -> None:
    history = told_in_turn(*(PeerEvent.now(Happening.CHANGED, NOW + n, bytes([n]) * 32) for n in range(200)))
    assert len(history) == limits.HISTORY_PER_PIN
    assert history[0].happening is Happening.FIRST_SEEN
    assert history[-1].identity == bytes([199]) * 32


events = st.builds(
    PeerEvent.now,
    st.sampled_from(Happening),
    st.integers(NOW - 40 * DAY, NOW + 40 * DAY),
    st.sampled_from([b"", A]),
)


@given(st.lists(events, max_size=200))
def test_any_events_in_any_order_keep_it_bounded(several: list[PeerEvent]) -> None:
    history: History = ()
    for event in several:
        history = appended(history, event)
        assert 1 <= len(history) <= limits.HISTORY_PER_PIN
        assert all(one.times >= 1 for one in history)


# --- On disk --------------------------------------------------------------------------------------------


def test_a_life_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "peers.db"
    with PinStore(path, clock=lambda: NOW + 5 * DAY) as store:
        assert store.history(HERE) == ()
        store.note_trouble(HERE, Happening.MISSING, NOW)  # nothing without a pin
        store.remember(HERE, met(A), NOW)
        store.note_trouble(HERE, Happening.MISSING, NOW + HOUR)
        pin = store.lookup(HERE)
        assert pin is not None
        assert pin.in_trouble
        assert store.pins() == [pin]
        assert not store.remember(HERE, met(A), NOW + HOUR + 1).in_trouble
        store.remember(HERE, met(A), NOW + HOUR + 2, MetStatement(A, B, 7))
        store.remember(HERE, met(B), NOW + DAY)
        store.forget_identity(HERE, A)
    with PinStore.read_only(path) as store:
        told = [(event.happening.value, event.at - NOW) for event in store.history(HERE)]
        pin = store.lookup(HERE)
    assert told == [
        ("first-seen", 0),
        ("missing", HOUR),
        ("back", HOUR + 1),
        ("announced", HOUR + 2),
        ("rolled-over", DAY),
        ("forgotten", 5 * DAY),
    ]
    assert pin is not None
    (known,) = pin.identities
    assert (known.identity, known.acceptance, known.stated_by) == (B, Acceptance.STATEMENT, A)


def test_serials_and_origins_come_back_from_the_disk(tmp_path: Path) -> None:
    with PinStore(tmp_path / "peers.db") as store:
        store.remember(HERE, met(A), NOW)
        after = store.remember(HERE, met(A), NOW, MetStatement(A, B, (1 << 32) - 1))
        found = store.lookup(HERE)
        assert found is not None
        assert {one.identity: one for one in found.identities} == {
            one.identity: one for one in after.identities
        }
        assert {one.serial for one in found.identities} == {0, (1 << 32) - 1}


def test_forgetting_a_peer_forgets_its_history(tmp_path: Path) -> None:
    with PinStore(tmp_path / "peers.db") as store:
        store.remember(HERE, met(A), NOW)
        store.forget(HERE)
        assert store.history(HERE) == ()
