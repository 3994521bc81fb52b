"""What a pin becomes, over random histories. Counterpart: `test_comparison`."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.peers.comparison import Comparison, Observed, compare
from gateway.peers.pins import (
    Acceptance,
    Destination,
    MetPeer,
    MetStatement,
    PathFailures,
    Pin,
    PinnedIdentity,
    accepted,
    stated,
    updated,
    without,
)
from gateway.policy import limits

HERE = Destination("192.0.2.7", 25)
A, B, C = b"A" * 32, b"B" * 32, b"C" * 32
DAY = 86400
NOON = 20_000 * DAY + DAY // 2
EPOCH = 20_000


def known(
    identity: bytes, acceptance: Acceptance = Acceptance.FIRST_USE, epoch: int = EPOCH
) -> PinnedIdentity:
    return PinnedIdentity(identity, epoch, NOON, NOON, 1, acceptance, True)


def pin(*identities: PinnedIdentity) -> Pin:
    return Pin(HERE, identities)


def met(identity: bytes = A, epoch: int = EPOCH, full: bool = True) -> MetPeer:
    return MetPeer(identity, epoch, full)


# --- updated -----------------------------------------------------------------------------------------


def offered(identity: bytes) -> Observed:
    return Observed.offered(identity, EPOCH, full=True)


def history(*sights: tuple[int, bytes]) -> Pin:
    """A pin after these sights: (seconds since NOON, identity)."""
    found: Pin | None = None
    for after, identity in sights:
        found = updated(found, HERE, met(identity), NOON + after)
    assert found is not None
    return found


def acceptance(of: Pin, identity: bytes) -> Acceptance | None:
    one = of.find(identity)
    return one.acceptance if one is not None else None


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
def test_what_is_written_when_seen_again(peer: MetPeer, after: int, changed: dict[str, int]) -> None:
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


# --- Statements ---------------------------------------------------------------------------------------

D, E = b"D" * 32, b"E" * 32
MONTH = limits.OLD_IDENTITY_DAYS * DAY


def statement(old: bytes, new: bytes, serial: int = 1) -> MetStatement:
    return MetStatement(old, new, serial)


def test_announced_is_accepted_ahead_and_not_seen() -> None:
    found = updated(history((0, A)), HERE, met(A), NOON + 60, statement(A, B))
    ahead, old = found.find(B), found.find(A)
    assert ahead is not None
    assert old is not None
    assert (ahead.acceptance, ahead.announced, ahead.stated_by) == (Acceptance.STATEMENT, True, A)
    assert (old.serial, old.acceptance) == (1, Acceptance.FIRST_USE)
    assert compare(found, offered(B)) is Comparison.SAME
    seen = updated(found, HERE, met(B), NOON + 5 * DAY).find(B)
    assert seen is not None
    assert (seen.first_seen, seen.days_seen, seen.announced) == (NOON + 5 * DAY, 1, False)


def test_announced_in_the_very_first_session() -> None:
    found = updated(updated(None, HERE, met(A), NOON), HERE, met(A), NOON, statement(A, B))
    assert updated(None, HERE, met(A), NOON, statement(A, B)) == found
    assert [one.identity for one in found.identities] == [A, B]


def test_a_successor_that_comes_with_its_statement_is_accepted() -> None:
    for before in (history((0, A)), history((0, A), (10, B))):
        found = updated(before, HERE, met(B), NOON + 60, statement(A, B))
        assert acceptance(found, B) is Acceptance.STATEMENT
        assert compare(found, offered(B)) is Comparison.SAME
        assert compare(found, offered(A)) is Comparison.SAME


def test_the_same_statement_again_changes_nothing() -> None:
    found = updated(history((0, A)), HERE, met(A), NOON + 60, statement(A, B))
    assert updated(found, HERE, met(A), NOON + 61, statement(A, B)) is found
    assert stated(found, statement(A, B), NOON + 61) is found


@pytest.mark.parametrize(
    "bad", [statement(C, B), statement(B, C), statement(A, C, 0), statement(A, C, 1)], ids=str
)
def test_a_statement_that_leads_nowhere_from_here_changes_nothing(bad: MetStatement) -> None:
    before = updated(history((0, A)), HERE, met(A), NOON, statement(A, D))
    unaccepted = updated(before, HERE, met(B), NOON)
    assert stated(unaccepted, bad, NOON) is unaccepted
    assert acceptance(updated(unaccepted, HERE, met(B), NOON, bad), B) is Acceptance.NOT_YET


def test_an_announcement_taken_back_is_forgotten_at_the_next() -> None:
    found = updated(history((0, A)), HERE, met(A), NOON, statement(A, B, 1))
    found = updated(found, HERE, met(A), NOON, statement(A, C, 2))
    assert (acceptance(found, B), acceptance(found, C)) == (None, Acceptance.STATEMENT)
    assert stated(found, statement(A, B, 1), NOON) is found


def test_what_another_announced_or_has_been_seen_stays() -> None:
    two = accepted(history((0, A), (1, D)), D)
    found = stated(stated(two, statement(A, B), NOON), statement(D, E), NOON)
    assert {one.identity for one in found.identities} == {A, B, D, E}
    found = updated(found, HERE, met(B), NOON)
    again = stated(found, statement(A, C, 2), NOON)
    assert (
        again is found
    )  # no room: four accepted ones, none of which has been replaced but the old one itself


@pytest.mark.parametrize("after", [MONTH - 1, MONTH])
def test_the_old_identity_ends_a_month_after_the_new_one_was_first_seen(after: int) -> None:
    found = updated(history((0, A)), HERE, met(B), NOON, statement(A, B))
    found = updated(found, HERE, met(A), NOON + after)
    found = updated(found, HERE, met(B), NOON + after)
    assert (found.find(A) is None) is (after >= MONTH)
    if after >= MONTH:
        assert compare(found, offered(A)) is Comparison.CHANGED


def test_an_announced_identity_ends_nothing_before_it_is_seen() -> None:
    found = updated(history((0, A)), HERE, met(A), NOON, statement(A, B))
    found = updated(found, HERE, met(A), NOON + 2 * MONTH)
    assert updated(found, HERE, met(B), NOON + 2 * MONTH).find(A) is not None


def test_rotations_for_ever_keep_the_pin_small_and_need_nobody() -> None:
    """One each half a year, for as long as anybody runs it."""
    found = history((0, A))
    names = [bytes([number]) * 32 for number in range(1, 41)]
    old, at = A, NOON
    for number, new in enumerate(names):
        at += 182 * DAY
        assert compare(found, offered(new), statement(old, new)) is Comparison.ROLLED
        found = updated(found, HERE, met(new), at, statement(old, new, number + 1))
        found = updated(found, HERE, met(new), at + 2 * MONTH)
        assert len(found.identities) <= 2
        old = new


def test_hasty_rotations_take_the_place_of_those_that_led_on() -> None:
    found, old = history((0, A)), A
    for number in range(1, 20):
        new = bytes([number]) * 32
        found = updated(found, HERE, met(new), NOON + number, statement(old, new, number))
        assert acceptance(found, new) is Acceptance.STATEMENT
        assert len(found.identities) <= limits.IDENTITIES_PER_PIN
        old = new


def test_trouble_makes_good_news_worth_writing() -> None:
    found = replace(history((0, A)), in_trouble=True)
    assert updated(found, HERE, met(A), NOON + 1) == history((0, A))


class PinOverTime(RuleBasedStateMachine):
    """Sights, statements, the operator, time; against what must hold of any pin, and a model of trust.

    The model: an identity may be accepted only if it was the first, a statement by an accepted one led to it,
    the operator said so, or it came alone for a week.
    """

    names = st.sampled_from([A, B, C, D, E, b"F" * 32])

    def __init__(self) -> None:
        super().__init__()
        self.pin: Pin | None = None
        self.now = NOON
        self.serial = 0
        self.rightful: set[bytes] = set()

    def good(self) -> set[bytes]:
        return {one.identity for one in self.pin.identities if one.accepted} if self.pin else set()

    @rule(seconds=st.sampled_from([1, 3600, DAY, 3 * DAY, 8 * DAY, MONTH]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(identity=names)
    def seen(self, identity: bytes) -> None:
        before = self.good()
        self.pin = updated(self.pin, HERE, met(identity), self.now)
        new = self.good() - before
        if not before:
            self.rightful |= {identity}
        elif new:
            assert new == {identity}
            known = self.pin.find(identity)
            assert known is not None
            assert known.acceptance is Acceptance.TIME
            self.rightful |= new

    @rule(old=names, new=names, peer=names, risen=st.booleans())
    def shown(self, old: bytes, new: bytes, peer: bytes, risen: bool) -> None:
        if self.pin is None or old == new or peer not in (old, new):
            return
        self.serial += risen
        said = statement(old, new, self.serial)
        good = self.good()
        known = self.pin.find(old)
        if old in good and known is not None and self.serial > known.serial:
            self.rightful |= {new}
        self.pin = updated(self.pin, HERE, met(peer), self.now, said)
        assert self.good() - good <= self.rightful

    @rule(identity=names)
    def operator_accepts(self, identity: bytes) -> None:
        if self.pin is not None and self.pin.find(identity) is not None:
            self.pin = accepted(self.pin, identity)
            self.rightful |= {identity}

    @rule(identity=names)
    def operator_forgets(self, identity: bytes) -> None:
        if self.pin is not None:
            self.pin = without(self.pin, identity) or self.pin

    @invariant()
    def it_is_small_and_always_accepts_somebody(self) -> None:
        if self.pin is None:
            return
        assert 1 <= len(self.pin.identities) <= limits.IDENTITIES_PER_PIN
        assert len({one.identity for one in self.pin.identities}) == len(self.pin.identities)
        assert self.good()
        assert self.pin.site in self.good()

    @invariant()
    def nobody_is_accepted_without_a_right_to_it(self) -> None:
        assert self.good() <= self.rightful

    @invariant()
    def an_unaccepted_identity_is_never_same(self) -> None:
        for identity in (A, B, C, D, E):
            word = compare(self.pin, offered(identity))
            assert (word is Comparison.SAME) == (identity in self.good())


TestPinOverTime = PinOverTime.TestCase


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
