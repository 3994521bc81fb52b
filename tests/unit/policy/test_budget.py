"""Handshakes a second: in total, to one source, and what strangers leave."""

from __future__ import annotations

from gateway.policy import limits
from gateway.policy.budget import HandshakeBudget

BURST = limits.HANDSHAKE_BURST_SECONDS


def granted(budget: HandshakeBudget, source: str, count: int, *, known: bool = True, now: float = 0.0) -> int:
    return sum(budget.grants(source, is_known=known, now=now) for _ in range(count))


def test_one_source_gets_so_many_and_others_get_theirs() -> None:
    budget = HandshakeBudget(1000, 10, 0.0)
    assert granted(budget, "192.0.2.1", 100) == 10 * BURST
    assert granted(budget, "192.0.2.2", 100) == 10 * BURST
    assert granted(budget, "192.0.2.1", 100, now=1.0) == 10
    assert granted(budget, "192.0.2.1", 100, now=100.0) == 10 * BURST


def test_all_sources_together_get_so_many() -> None:
    budget = HandshakeBudget(20, 10, 0.0)
    assert sum(granted(budget, f"192.0.2.{n}", 100) for n in range(10)) == 20 * BURST


def test_strangers_leave_a_quarter_to_those_that_have_upgraded() -> None:
    budget = HandshakeBudget(20, 10, 0.0)
    strangers = sum(granted(budget, f"192.0.2.{n}", 100, known=False) for n in range(10))
    assert strangers == 20 * BURST * limits.STRANGERS_SHARE
    assert granted(budget, "198.51.100.1", 100) == 20 * BURST - strangers


def test_a_clock_that_goes_back_gives_nothing() -> None:
    budget = HandshakeBudget(1000, 10, 100.0)
    granted(budget, "192.0.2.1", 100, now=100.0)
    assert granted(budget, "192.0.2.1", 100, now=50.0) == 0


def test_sources_are_forgotten_before_they_are_too_many() -> None:
    budget = HandshakeBudget(1e9, 1, 0.0)
    for number in range(limits.HANDSHAKE_SOURCES + 100):
        budget.grants(str(number), is_known=True, now=0.0)
    assert len(budget._sources) == limits.HANDSHAKE_SOURCES


def test_whoever_comes_again_and_again_is_not_forgotten_for_others() -> None:
    """Or else a source with nothing left had all of it again behind some thousand others."""
    budget = HandshakeBudget(1e9, 1, 0.0)
    assert granted(budget, "192.0.2.1", 10) == BURST
    for number in range(2 * limits.HANDSHAKE_SOURCES):
        budget.grants(str(number), is_known=True, now=0.0)
        assert not budget.grants("192.0.2.1", is_known=True, now=0.0)
