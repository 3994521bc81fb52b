"""One object of two runs: nothing of our own figures is lost, and the rivals' ratios stand beside them."""

from __future__ import annotations

from bench import report


def test_the_ratios_of_both_runs_stand_in_one_table_and_our_own_run_wins() -> None:
    own = {
        "ratios": {"bulk_channel_vs_direct": 0.7, "sessions_clear_vs_direct": 0.3},
        "cpu_ms_added": {"clear": 1},
    }
    beside = {
        "ratios": {"bulk_channel_vs_direct": 0.6, "cpu_channel_vs_stunnel": 1.1},
        "growth": {"peers": []},
        "cpu_ms_added": {"clear": 2},
    }
    found = report.joined(own, beside)
    assert found["ratios"] == {
        "bulk_channel_vs_direct": 0.7,
        "sessions_clear_vs_direct": 0.3,
        "cpu_channel_vs_stunnel": 1.1,
    }
    assert found["growth"] == {"peers": []}
    assert found["cpu_ms_added"] == {"clear": 1}
    assert found["rivals"] == beside
