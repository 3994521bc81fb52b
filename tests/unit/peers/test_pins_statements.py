"""What statements make of a pin: announced, led to, taken back; and any life of one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.peers.comparison import Comparison, compare
from gateway.peers.pins import (
    Acceptance,
    MetStatement,
    Pin,
    accepted,
    stated,
    updated,
    without,
)
from gateway.policy import limits
from tests.unit.peers.pinned import (
    DAY,
    HERE,
    NOON,
    A,
    B,
    C,
    acceptance,
    history,
    met,
    offered,
)

D, E = b"D" * 32, b"E" * 32
THIEF = b"T" * 32
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


def test_what_a_thief_of_an_identity_led_to_outlives_it() -> None:
    """A limit that docs/security.md names: he was in the middle with A, and then with an identity of his own.

    The site's own rotation rings nowhere, and ends A; his stays, until the operator forgets it.
    """
    found = updated(history((0, A)), HERE, met(A), NOON + DAY, statement(A, THIEF, 5))
    found = updated(found, HERE, met(THIEF), NOON + 2 * DAY)
    found = updated(found, HERE, met(A), NOON + 3 * DAY, statement(A, B, 6))
    found = updated(found, HERE, met(B), NOON + 4 * DAY)
    found = updated(found, HERE, met(B), NOON + 5 * DAY + MONTH)
    assert found.find(A) is None
    assert [known.accepted for known in found.identities if known.identity in (B, THIEF)] == [True, True]
    alone = without(found, THIEF)
    assert alone is not None
    assert [known.identity for known in alone.identities] == [B]


def test_what_a_thief_of_an_identity_led_to_and_never_used_is_forgotten_with_the_next_rotation() -> None:
    found = updated(history((0, A)), HERE, met(A), NOON + DAY, statement(A, THIEF, 5))
    found = updated(found, HERE, met(A), NOON + 3 * DAY, statement(A, B, 6))
    assert found.find(THIEF) is None
