"""A site's identity over its life: announced, taken back, switched; there and back on lines."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.crypto.rotation import (
    SiteIdentity,
    announced,
    as_lines,
    from_lines,
    hastened,
    switched,
    withdrawn,
)
from gateway.crypto.statement import read_statement
from gateway.errors import LocalMisuseError
from gateway.policy import limits
from tests.unit.crypto.pairs import octets

NOW = 1_800_000_000
DAY = 86400
SITE = SiteIdentity(octets("site", 32), since=NOW - DAY)


def draw(count: int) -> bytes:
    return octets("next", count)


def test_announced_shows_a_statement_from_this_identity_to_the_next() -> None:
    site = announced(SITE, draw, NOW, 14)
    assert site.key.public == SITE.key.public
    (content,) = site.statements(NOW)
    said = read_statement(content)
    assert site.next_key is not None
    assert (said.old, said.new, said.serial) == (SITE.key.public, site.next_key.public, NOW)


def test_the_switch_comes_on_its_day_and_not_before() -> None:
    site = announced(SITE, draw, NOW, 14)
    assert switched(site, NOW + 14 * DAY - 1) is site
    after = switched(site, NOW + 14 * DAY)
    assert site.next_key is not None
    assert after.key.public == site.next_key.public
    assert after.next is None
    assert after.since == NOW + 14 * DAY
    assert after.statements(after.since) == site.statements(NOW)
    assert SITE.seed.hex() not in "".join(as_lines(after))


def test_the_statement_is_shown_for_so_long_and_no_longer() -> None:
    after = switched(announced(SITE, draw, NOW, 0), NOW)
    last = NOW + limits.STATEMENT_SHOWN_DAYS * DAY
    assert len(after.statements(last - 1)) == 1
    assert after.statements(last) == ()


def test_the_statement_that_led_here_is_shown_before_the_one_that_leads_on() -> None:
    after = switched(announced(SITE, draw, NOW, 0), NOW)
    again = announced(after, lambda count: octets("third", count), NOW + DAY, 14)
    said = [read_statement(content) for content in again.statements(NOW + DAY)]
    assert [one.new for one in said] == [after.key.public, again.next_key and again.next_key.public]
    assert len(said) == limits.STATEMENTS_SHOWN


def test_what_is_taken_back_is_gone_and_the_next_serial_is_higher() -> None:
    site = announced(SITE, draw, NOW, 14)
    back = withdrawn(site)
    assert back.statements(NOW) == ()
    assert octets("next", 32).hex() not in "".join(as_lines(back))
    again = announced(back, lambda count: octets("third", count), NOW - DAY, 14)  # a clock set back
    assert again.serial == site.serial + 1


def test_hastened_is_due_now() -> None:
    site = hastened(announced(SITE, draw, NOW, 14), NOW)
    assert switched(site, NOW).key.public != SITE.key.public
    assert hastened(SITE, NOW) is SITE


def test_one_rotation_at_a_time() -> None:
    with pytest.raises(LocalMisuseError):
        announced(announced(SITE, draw, NOW, 14), draw, NOW, 14)


def test_repr_shows_no_key() -> None:
    site = announced(SITE, draw, NOW, 14)
    for text in (repr(site), repr(site.next)):
        assert site.seed.hex() not in text
        assert octets("next", 32).hex() not in text
        assert str(site.seed) not in text


BAD = [
    [],
    ["seed"],
    ["seed 00", "since 0", "serial 0"],
    [f"seed {'0' * 64}", "since 0"],
    [f"seed {'0' * 64}", "since -1", "serial 0"],
    [f"seed {'0' * 64}", "since 0", "serial 4294967296"],
    [f"seed {'0' * 64}", "since 0", "serial 0", "shown 5 00"],
    [f"seed {'0' * 64}", "since 0", "serial 0", "more"],
    [f"seed {'0' * 64}", "since 0", "serial 0", ""],
    [f"seed {'G' * 64}", "since 0", "serial 0"],
    [f"seed {'0' * 64} ", "since 0", "serial 0"],
]


@pytest.mark.parametrize("lines", BAD)
def test_what_is_not_ours_is_not_read(lines: list[str]) -> None:
    assert from_lines(lines) is None


class Life(RuleBasedStateMachine):
    """Any order of commands and days: who has followed is always led from each identity to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.site = SITE
        self.drawn = 0
        self.serials: dict[bytes, int] = {}
        self.used = [SITE.key.public]

    @rule(days=st.integers(1, 90))
    @precondition(lambda self: self.site.next is None)
    def announce(self, days: int) -> None:
        self.drawn += 1
        self.site = announced(self.site, lambda count: octets(f"next {self.drawn}", count), self.now, days)
        assert self.site.serial > self.serials.get(self.site.key.public.octets, -1)
        self.serials[self.site.key.public.octets] = self.site.serial

    @rule()
    def undo(self) -> None:
        self.site = withdrawn(self.site)

    @rule()
    def at_once(self) -> None:
        self.site = hastened(self.site, self.now)

    @rule(seconds=st.integers(0, 120 * DAY))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        before = self.site
        self.site = switched(before, self.now)
        if self.site is not before:
            said = read_statement(self.site.statements(self.now)[0])
            assert (said.old, said.new) == (before.key.public, self.site.key.public)
            self.used.append(self.site.key.public)

    @invariant()
    def it_comes_back_from_the_disk(self) -> None:
        back = from_lines(as_lines(self.site))
        assert back is not None
        assert as_lines(back) == as_lines(self.site)

    @invariant()
    def statements_are_true_and_few(self) -> None:
        shown = [read_statement(content) for content in self.site.statements(self.now)]
        assert len(shown) <= limits.STATEMENTS_SHOWN
        assert all(self.site.key.public in (one.old, one.new) for one in shown)
        assert len(set(self.used)) == len(self.used)


TestLife = Life.TestCase
