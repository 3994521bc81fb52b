"""ICMP errors to a client are told as long as the kernel sends them; behind that a refusal is."""

from __future__ import annotations

import pytest

from gateway.intercept.icmp_budget import IcmpBudget
from gateway.intercept.outcomes import DialOutcome
from gateway.policy import limits

HOST, REFUSED = DialOutcome.HOST_UNREACHABLE, DialOutcome.REFUSED
AT_ONCE = limits.ICMP_ERRORS_AT_ONCE
CLIENT, OTHER = "192.0.2.1", "192.0.2.2"


def told(budget: IcmpBudget, count: int, now: float, client: str = CLIENT) -> list[DialOutcome]:
    return [budget.tellable(HOST, client, now) for _ in range(count)]


def test_some_at_once_then_one_after_each_pause() -> None:
    budget = IcmpBudget({4: 1.0}, 1)
    assert told(budget, AT_ONCE + 2, 100.0) == [HOST] * AT_ONCE + [REFUSED] * 2
    assert told(budget, 1, 100.5) == [REFUSED]
    assert told(budget, 2, 101.0) == [HOST, REFUSED]
    assert told(budget, AT_ONCE + 1, 200.0) == [HOST] * AT_ONCE + [REFUSED]


def test_each_client_by_itself() -> None:
    budget = IcmpBudget({4: 1.0}, 1)
    told(budget, AT_ONCE + 1, 0.0)
    assert told(budget, 1, 0.0, OTHER) == [HOST]


def test_workers_share_what_there_is() -> None:
    """Their clients are the same, and the kernel counts them together."""
    budgets = [IcmpBudget({4: 1.0}, 4) for _ in range(4)]
    assert [told(one, 3, 0.0).count(HOST) for one in budgets] == [1] * 4
    assert [told(one, 1, 1.5) for one in budgets] == [[REFUSED]] * 4
    assert [told(one, 1, 4.0) for one in budgets] == [[HOST]] * 4


@pytest.mark.parametrize("apart", [{}, {4: 0.0, 6: 1.0}])
def test_where_the_kernel_has_no_limit_nothing_is_changed(apart: dict[int, float]) -> None:
    assert told(IcmpBudget(apart, 2), 1000, 0.0) == [HOST] * 1000


def test_families_have_limits_of_their_own() -> None:
    budget = IcmpBudget({4: 0.0, 6: 1.0}, 1)
    assert told(budget, AT_ONCE + 1, 0.0, "2001:db8::1")[-1] is REFUSED


def test_what_takes_no_icmp_error_takes_none_of_them() -> None:
    budget = IcmpBudget({4: 1.0}, 1)
    others = [one for one in DialOutcome if "unreachable" not in one.value and "prohibited" not in one.value]
    assert [budget.tellable(one, CLIENT, 0.0) for one in others * 10] == others * 10
    assert told(budget, AT_ONCE, 0.0) == [HOST] * AT_ONCE


def test_clients_are_forgotten_before_they_are_too_many() -> None:
    budget = IcmpBudget({4: 1.0}, 1)
    for number in range(limits.ICMP_CLIENTS + 100):
        budget.tellable(HOST, str(number), 0.0)
    assert len(budget._due) == limits.ICMP_CLIENTS
