from __future__ import annotations

import pytest

from bench.load import Anyway, Round, shares


@pytest.mark.parametrize(("parallel", "sessions"), [(1, 10), (4, 16), (20, 1000), (200, 5000)])
def test_every_slot_and_session_is_given_out(parallel: int, sessions: int) -> None:
    plan = shares(parallel, sessions, 16)
    assert len(plan) == min(parallel, 16)
    assert sum(slots for slots, _ in plan) == parallel
    assert sum(count for _, count in plan) == pytest.approx(sessions, abs=len(plan))


def test_who_has_more_slots_has_more_sessions() -> None:
    # 20 on 16 pairs: otherwise the pairs with two slots would be ready long before the others.
    assert set(shares(20, 1000, 16)) == {(2, 100), (1, 50)}


def test_cpu_of_a_round_is_without_what_it_would_take_anyway() -> None:
    one = Round("direct", 20, 1000, 4096, 16, 2.0, 1.36, 0.0, 0.0, 0.0, 0.0)
    assert one.cpu_ms(Anyway(0.1, 0.01)) == pytest.approx(1.0)
    assert one.sessions_per_second == 500
