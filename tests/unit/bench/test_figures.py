from __future__ import annotations

import pytest

from bench import figures


def test_the_median_of_pairs_is_not_the_quotient_of_medians() -> None:
    # The second pair was taken while the machine was slow for both.
    found = figures.ratios([90.0, 40.0, 95.0], [100.0, 50.0, 100.0])
    assert found.median == pytest.approx(0.9)
    assert found.count == 3


def test_quartiles_enclose_the_median() -> None:
    found = figures.summary([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)


@pytest.mark.parametrize(
    ("values", "low", "median", "high"), [([7.0], 7.0, 7.0, 7.0), ([2.0, 4.0], 2.0, 3.0, 4.0)]
)
def test_too_few_values_for_quartiles(values: list[float], low: float, median: float, high: float) -> None:
    found = figures.summary(values)
    assert (found.low, found.median, found.high) == (low, median, high)


def test_differences_are_shared_between_gateways() -> None:
    assert figures.differences([5.0, 7.0, 9.0], [1.0, 1.0, 1.0], share=0.5).median == pytest.approx(3.0)


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="zip"):
        figures.ratios([1.0, 2.0], [1.0])


def test_no_values_are_no_figure() -> None:
    with pytest.raises(ValueError, match="no values"):
        figures.summary([])
