"""When a server that offers nothing is left alone: after a run of sessions, and never after anything else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import limits
from gateway.policy.dead_end import ClearRuns

HERE = ("192.0.2.1", 25)
THERE = ("192.0.2.2", 25)


def test_it_takes_a_run_of_sessions_and_then_each_one_says_so() -> None:
    runs = ClearRuns()
    said = [runs.offered_nothing(HERE) for _ in range(limits.DEAD_END_AFTER_SESSIONS + 3)]
    assert said == [False] * (limits.DEAD_END_AFTER_SESSIONS - 1) + [True] * 4


def test_what_another_worker_has_found_takes_one_session() -> None:
    runs = ClearRuns()
    runs.was_dead_end(HERE)
    assert runs.offered_nothing(HERE)
    assert not runs.offered_nothing(THERE)


def test_what_another_worker_has_found_is_forgotten_as_one_s_own() -> None:
    runs = ClearRuns()
    runs.was_dead_end(HERE)
    runs.anything_else(HERE)
    assert not runs.offered_nothing(HERE)


@given(st.lists(st.booleans(), max_size=60))
def test_anything_else_begins_the_count_anew(offered: list[bool]) -> None:
    runs = ClearRuns()
    run = 0
    for one in offered:
        if one:
            runs.anything_else(HERE)
            run = 0
        else:
            run += 1
            assert runs.offered_nothing(HERE) is (run >= limits.DEAD_END_AFTER_SESSIONS)


def test_servers_are_counted_apart() -> None:
    runs = ClearRuns()
    for _ in range(limits.DEAD_END_AFTER_SESSIONS - 1):
        assert not runs.offered_nothing(HERE)
        assert not runs.offered_nothing(THERE)
    assert runs.offered_nothing(HERE)


def test_what_is_counted_is_bounded_and_the_oldest_is_forgotten() -> None:
    runs = ClearRuns()
    for number in range(limits.DEAD_ENDS_COUNTED + 10):
        runs.offered_nothing(number)
    assert len(runs._runs) == limits.DEAD_ENDS_COUNTED
    assert 9 not in runs._runs
    assert 10 in runs._runs
