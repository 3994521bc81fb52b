"""So many new ones of one network in a day; another network, and another day, have theirs."""

from __future__ import annotations

from gateway.policy import limits
from gateway.policy.newcomers import Newcomers

HERE, THERE = ("192.0.2.",), ("2001:db8:0:", "2001:db8::")


def test_one_network_has_so_many_and_others_have_theirs() -> None:
    newcomers = Newcomers(3)
    assert [newcomers.has_room(HERE, 1) for _ in range(5)] == [True] * 3 + [False] * 2
    assert newcomers.has_room(THERE, 1)
    assert not newcomers.has_room(HERE, 1)


def test_another_day_begins_anew_also_where_the_clock_goes_back() -> None:
    newcomers = Newcomers(1)
    for day in (20, 21, 3):
        assert newcomers.has_room(HERE, day)
        assert not newcomers.has_room(HERE, day)


def test_so_many_networks_are_counted() -> None:
    newcomers = Newcomers(1)
    for number in range(limits.NEWCOMER_NETWORKS + 10):
        assert newcomers.has_room((str(number),), 1)
    assert len(newcomers._of) == limits.NEWCOMER_NETWORKS
    assert not newcomers.has_room(("10",), 1)
    assert newcomers.has_room(("9",), 1)
