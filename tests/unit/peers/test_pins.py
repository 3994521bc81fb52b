"""What a pin becomes by what is seen, over random histories. Counterpart: `test_comparison`."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.peers.comparison import Comparison, compare
from gateway.peers.pins import (
    Acceptance,
    Destination,
    MetPeer,
    PathFailures,
    Pin,
    PinnedIdentity,
    accepted,
    updated,
    without,
)
from gateway.policy import limits
from tests.unit.peers.pinned import (
    DAY,
    EPOCH,
    HERE,
    NOON,
    A,
    B,
    C,
    acceptance,
    history,
    known,
    met,
    offered,
    pin,
)


def test_first_use_is_accepted_and_remembers_what_was_seen() -> None:
    first = updated(None, HERE, met(A, 5, False), NOON)
    assert first == pin(PinnedIdentity(A, 5, NOON, NOON, 1, Acceptance.FIRST_USE, False))
    assert (first.epoch, first.had_full_offer, first.first_seen, first.last_seen) == (5, False, NOON, NOON)


def test_seen_again_within_the_hour_is_the_very_same_object() -> None:
    first = history((0, A))
    assert updated(first, HERE, met(A), NOON + 3599) is first


@pytest.mark.parametrize(
    ("peer", "after", "changed"),
    [
        (met(A), 3600, {"last_seen": NOON + 3600}),
        (met(A, EPOCH + 1), 1, {"epoch": EPOCH + 1}),
        (met(A, EPOCH - 1), 1, {}),
        (met(A, full=False), 1, {}),
        (met(A), DAY, {"last_seen": NOON + DAY, "days_seen": 2}),
        (met(A), -DAY, {}),
    ],
)
def test_what_is_written_when_seen_again(peer: MetPeer, after: int, changed: dict[str, Any]) -> None:
    first = history((0, A))
    assert updated(first, HERE, peer, NOON + after).identities == (replace(first.identities[0], **changed),)


def test_a_day_counts_also_within_the_hour() -> None:
    before_midnight = DAY // 2 - 60
    assert history((before_midnight, A), (before_midnight + 120, A)).identities[0].days_seen == 2


def test_a_full_offer_is_remembered_for_ever() -> None:
    found = updated(None, HERE, met(full=False), NOON)
    found = updated(found, HERE, met(full=True), NOON + 1)
    assert updated(found, HERE, met(full=False), NOON + 9000).had_full_offer


def test_newcomer_is_seen_not_accepted_and_leaves_the_accepted_one_alone() -> None:
    found = history((0, A), (10, B))
    assert (acceptance(found, A), acceptance(found, B)) == (Acceptance.FIRST_USE, Acceptance.NOT_YET)
    assert found.epoch == EPOCH


def test_unaccepted_epoch_is_not_the_pins() -> None:
    found = updated(history((0, A)), HERE, met(B, EPOCH + 1000), NOON)
    assert found.epoch == EPOCH


@pytest.mark.parametrize(
    ("days", "in_the_end"),
    [
        ([0, 1, 2], Acceptance.NOT_YET),
        ([0, 7], Acceptance.NOT_YET),
        ([0, 3, 6], Acceptance.NOT_YET),
        ([0, 3, 7], Acceptance.TIME),
        ([0, 6, 7], Acceptance.TIME),
        ([0, 1, 2, 7], Acceptance.TIME),
        ([0, 100, 200], Acceptance.TIME),
    ],
)
def test_accepted_by_time(days: list[int], in_the_end: Acceptance) -> None:
    found = history((0, A), *((60 + day * DAY, B) for day in days))
    assert acceptance(found, B) is in_the_end
    assert acceptance(found, A) is Acceptance.FIRST_USE


def test_old_one_in_between_starts_the_count_anew_even_within_the_hour() -> None:
    sights = [(0, A), (60, B), (120, A), (3 * DAY, B), (7 * DAY, B)]
    assert acceptance(history(*sights), B) is Acceptance.NOT_YET
    assert acceptance(history(*sights, (10 * DAY, B)), B) is Acceptance.TIME


def test_many_sights_on_one_day_are_one_day() -> None:
    sights = [(60 + n, B) for n in range(100)] + [(7 * DAY, B)]
    assert acceptance(history((0, A), *sights), B) is Acceptance.NOT_YET


def test_operator_accepts_once_and_only_what_is_there() -> None:
    found = accepted(history((0, A), (60, B)), B)
    assert acceptance(found, B) is Acceptance.OPERATOR
    assert compare(found, offered(B)) is Comparison.SAME
    assert accepted(found, A) == found
    assert accepted(found, C) == found


def test_newcomer_takes_the_place_of_the_unaccepted_seen_longest_ago() -> None:
    found = history((0, A), (1, B), (2, C), (3, b"D" * 32), (4000, B), (4001, b"E" * 32))
    assert [known.identity[:1] for known in found.identities] == [b"A", b"B", b"D", b"E"]


def test_four_accepted_ones_are_never_evicted() -> None:
    full = pin(*(known(bytes([n]) * 32) for n in range(limits.IDENTITIES_PER_PIN)))
    assert updated(full, HERE, met(A), NOON) is full
    assert compare(full, offered(A)) is Comparison.CHANGED


def test_without_leaves_an_accepted_one_or_nothing() -> None:
    found = history((0, A), (1, B))
    assert without(found, B) == history((0, A))
    assert without(found, A) is None


sights = st.lists(
    st.tuples(st.integers(0, 30 * DAY), st.sampled_from([A, B, C, b"D" * 32, b"E" * 32, b"F" * 32])),
    min_size=1,
)


@given(sights, st.booleans())
def test_any_history(steps: list[tuple[int, bytes]], in_order: bool) -> None:
    """Bounded; accepted ones stay; same is idempotent; what is remembered is never NEW or CHANGED again."""
    found: Pin | None = None
    for after, identity in sorted(steps) if in_order else steps:
        before = found
        found = updated(before, HERE, met(identity), NOON + after)
        assert updated(found, HERE, met(identity), NOON + after) == found
        assert 1 <= len(found.identities) <= limits.IDENTITIES_PER_PIN
        assert len({one.identity for one in found.identities}) == len(found.identities)
        if before is not None:
            assert {one.identity for one in before.identities if one.accepted} <= {
                one.identity for one in found.identities if one.accepted
            }
        kept = found.find(identity)
        if kept is not None:
            word = Comparison.SAME if kept.accepted else Comparison.CHANGED_AGAIN
            assert compare(found, offered(identity)) is word
        else:
            assert all(one.accepted for one in found.identities)
    assert found is not None
    assert found.identities[0].accepted


@given(sights)
def test_nothing_is_accepted_by_time_that_was_not_alone_for_a_week(steps: list[tuple[int, bytes]]) -> None:
    """Against a slow model that keeps every sight."""
    found: Pin | None = None
    log: list[tuple[int, bytes]] = []
    for after, identity in sorted(steps):
        good = {one.identity for one in found.identities if one.accepted} if found else set()
        found = updated(found, HERE, met(identity), NOON + after)
        log.append((NOON + after, identity))
        one = found.find(identity)
        if one is None or one.acceptance is not Acceptance.TIME or identity in good:
            continue
        last_old = max(index for index, (_, seen) in enumerate(log) if seen in good)
        days = sorted({at // DAY for at, seen in log[last_old + 1 :] if seen == identity})
        assert len(days) >= 3
        assert days[-1] - days[0] >= 7


# --- Failures of a path that never upgraded ----------------------------------------------------------


def test_three_in_a_row_rest_an_hour_then_double_up_to_a_day() -> None:
    failures, rests = PathFailures(), []
    for _ in range(10):
        failures = failures.one_more(NOON)
        rests.append(max(0, failures.rest_until - NOON) // 3600)
    assert rests == [0, 0, 1, 2, 4, 8, 16, 24, 24, 24]


def test_resting_ends() -> None:
    failures = PathFailures(3, NOON + 3600)
    assert failures.resting(NOON)
    assert failures.resting(NOON + 3599)
    assert not failures.resting(NOON + 3600)
    assert not PathFailures(2, 0).resting(NOON)


def test_a_clock_set_back_does_not_prolong_the_rest() -> None:
    assert not PathFailures(3, NOON + 3600).resting(NOON - 30 * DAY)


@given(st.integers(0, 2**62))
def test_any_counter_gives_a_bounded_rest(in_a_row: int) -> None:
    rest = PathFailures(in_a_row).one_more(NOON).rest_until
    assert rest == 0 or NOON < rest <= NOON + DAY


def test_destination_in_words() -> None:
    assert str(Destination("192.0.2.7", 25)) == "192.0.2.7:25"
    assert str(Destination("2001:db8::7", 25)) == "[2001:db8::7]:25"
