"""Medians, spreads and pairs. Pure: numbers in, numbers out.

On a machine that others use too, one figure means little: every comparison is made of pairs that were taken
one right after the other, and the median of the pairs is what counts.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """A median, the middle half around it, and of how many."""

    median: float
    low: float
    high: float
    count: int

    def as_json(self) -> dict[str, float]:
        return {
            "median": round(self.median, 6),
            "quartile_low": round(self.low, 6),
            "quartile_high": round(self.high, 6),
            "count": self.count,
        }


def summary(values: Sequence[float]) -> Summary:
    """Raises ValueError for no values. Quartiles of fewer than three values are the extremes."""
    if not values:
        raise ValueError("no values")
    if len(values) < 3:
        return Summary(statistics.median(values), min(values), max(values), len(values))
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Summary(middle, low, high, len(values))


def ratios(upper: Sequence[float], lower: Sequence[float]) -> Summary:
    """Of the pairs' quotients."""
    return summary([a / b for a, b in zip(upper, lower, strict=True)])


def differences(more: Sequence[float], less: Sequence[float], *, share: float = 1.0) -> Summary:
    """Of the pairs' differences, each times `share`."""
    return summary([(a - b) * share for a, b in zip(more, less, strict=True)])
