"""Figures of clients that rest, from rounds that were taken."""

from __future__ import annotations

import pytest

from bench import resting
from bench.load import Anyway, Round
from bench.resting import Site


def taken(site: Site, cpu_seconds: float) -> Round:
    return Round(site.value, 20, 1000, 4096, 16, 1.0, cpu_seconds, 0.0, 0.0, 0.0, 0.0)


def test_what_is_added_is_of_pairs_of_one_turn_each() -> None:
    """The machine was slower in the second one."""
    turns = [
        {site: taken(site, slow * seconds) for site, seconds in zip(Site, (1.0, 1.6, 1.2), strict=True)}
        for slow in (1.0, 2.0, 1.0)
    ]
    found = resting.compared(turns, Anyway(0.0, 0.0))["cpu_ms_added"]
    assert found["offers"]["median"] == pytest.approx(0.6)
    assert found["resting"]["median"] == pytest.approx(0.2)
    page = resting.text({"cpu_ms_added": found, "seen_share": 0.25})
    assert "25.0% of the sessions" in page
    assert "resting  adds 0.200 ms" in page
