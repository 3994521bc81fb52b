"""When channels that break off are worth an alarm: many in a row, for a while, and none that went well."""

from __future__ import annotations

from gateway.policy import limits
from gateway.policy.broken import BrokenRuns

HERE = ("192.0.2.1", 25)
THERE = ("192.0.2.2", 25)
MANY = limits.BROKEN_CHANNELS
LONG = limits.BROKEN_CHANNELS_SECONDS


def test_it_takes_a_run_that_lasts() -> None:
    """As Postfix comes again: after five minutes, and after ten more."""
    runs = BrokenRuns()
    assert [runs.broke(HERE, now) for now in (0.0, 300.0, 900.0, 1800.0)] == [0, 0, MANY, MANY + 1]


def test_many_at_once_are_a_gateway_that_stopped() -> None:
    runs = BrokenRuns()
    assert not any(runs.broke(HERE, LONG / 1000 * number) for number in range(1000))


def test_two_are_no_run_however_far_apart() -> None:
    runs = BrokenRuns()
    assert [runs.broke(HERE, now) for now in (0.0, LONG * 2)] == [0, 0]


def test_one_that_went_well_ends_a_run() -> None:
    runs = BrokenRuns()
    runs.broke(HERE, 0.0)
    runs.broke(HERE, 300.0)
    runs.went_well(HERE)
    assert runs.broke(HERE, 900.0) == 0


def test_a_run_of_yesterday_is_none() -> None:
    runs = BrokenRuns()
    runs.broke(HERE, 0.0)
    runs.broke(HERE, 300.0)
    assert runs.broke(HERE, limits.DAY_SECONDS + 1.0) == 0


def test_each_destination_has_a_run_of_its_own_and_no_more_than_so_many_are_kept() -> None:
    runs = BrokenRuns()
    for now in (0.0, 300.0):
        runs.broke(HERE, now)
    assert runs.broke(THERE, 900.0) == 0
    for number in range(limits.BROKEN_CHANNELS_COUNTED):
        runs.broke(number, 900.0)
    assert len(runs._runs) == limits.BROKEN_CHANNELS_COUNTED
    assert runs.broke(HERE, 901.0) == 0
