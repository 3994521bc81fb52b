"""Figures of large mails, this tree beside another."""

from __future__ import annotations

import pytest

from bench import against, transfers
from bench.load import Round


def a_round(variant: str, seconds: float, own: float) -> Round:
    return Round(variant, 4, 24, 10_000_000, 4, seconds, 1.2, 0.1, 0.0, 0.0, own)


def test_a_gateway_s_part_is_half_of_what_both_used() -> None:
    found = transfers.bulk_figures(
        {
            "direct": [a_round("direct", 0.8, 0.0)] * 3,
            "now": [a_round("channel", 1.0, 0.48)] * 3,
            "before": [a_round("channel", 1.2, 0.96)] * 3,
        }
    )
    own = found["gateway_process_ms_per_megabyte"]
    assert own["now"]["median"] == pytest.approx(1.0)
    assert own["before"]["median"] == pytest.approx(2.0)
    assert found["ratios"]["now_vs_direct"]["median"] == pytest.approx(0.8)
    assert found["ratios"]["now_vs_before"]["median"] == pytest.approx(1.2)
    assert found["megabytes_per_second"]["direct"]["median"] == pytest.approx(300)
    page = against.text({"against": "abc", "bulk": found})
    assert "one gateway's processes, before" in page
    assert "2.000 [2.000-2.000]" in page
