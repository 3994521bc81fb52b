"""Ephemerals drawn before they are needed: each is handed out once, the oldest first, and few are kept."""

from __future__ import annotations

from gateway.crypto.keys import Ephemerals
from gateway.policy import limits
from gateway.runtime.worker.ahead import Ahead
from tests.playbook import entropy_for_testing_only


class _Drawn:
    def __init__(self) -> None:
        self.made: list[Ephemerals] = []
        self._entropy = entropy_for_testing_only("ahead")

    def __call__(self) -> Ephemerals:
        self.made.append(Ephemerals.draw_for_answer(self._entropy))
        return self.made[-1]


def test_each_is_handed_out_once_and_in_order() -> None:
    drawn = _Drawn()
    ahead = Ahead(drawn)
    for _ in range(3):
        ahead.draw_one()
    taken = [ahead.take() for _ in range(40)]
    assert taken == drawn.made[:40]
    assert len({id(one) for one in taken}) == 40


def test_where_none_is_left_several_are_drawn() -> None:
    drawn = _Drawn()
    ahead = Ahead(drawn)
    ahead.take()
    assert len(drawn.made) == limits.EPHEMERALS_AT_ONCE
    for _ in range(limits.EPHEMERALS_AT_ONCE - 1):
        ahead.take()
    assert len(drawn.made) == limits.EPHEMERALS_AT_ONCE
    assert len(ahead) == 0


def test_idle_time_fills_it_to_a_bound() -> None:
    drawn = _Drawn()
    ahead = Ahead(drawn)
    for _ in range(limits.EPHEMERALS_AHEAD + 5):
        ahead.draw_one()
    assert len(ahead) == len(drawn.made) == limits.EPHEMERALS_AHEAD
