from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import bars
from bench.load import Anyway, Round
from bench.rivals import comparison, report, run
from bench.rivals.variants import Rival

NOTHING = Anyway(0.0, 0.0)
RATES = {
    Rival.DIRECT: 4000.0,
    Rival.HAPROXY: 2000.0,
    Rival.CLEAR: 1000.0,
    Rival.STUNNEL: 100.0,
    Rival.POSTFIX: 150.0,
    Rival.CHANNEL: 300.0,
    Rival.DEAD_END: 4000.0,
}


def turn(parallel: int, slower: float = 1.0) -> dict[Rival, Round]:
    """A round of a second for each; both CPUs busy."""
    return {
        variant: Round(
            variant.value, parallel, int(rate / slower), 4096, 16, 1.0, 2.0 / slower, 0.0, 0.0, 0.0, 0.0
        )
        for variant, rate in RATES.items()
    }


def sessions() -> dict[str, Any]:
    return {
        str(parallel): comparison.session_figures([turn(parallel), turn(parallel, 2.0)], NOTHING)
        for parallel in (1, 20, 200)
    }


def results() -> dict[str, Any]:
    found: dict[str, Any] = {"sessions": sessions()}
    found["bulk"] = comparison.bulk_figures([turn(4)])
    found["ratios"] = comparison.ratios(found)
    found["cpu_ms_added"] = comparison.cpu_ms_added(found)
    return found


def test_ratios_have_the_names_and_shapes_that_others_read() -> None:
    found = results()["ratios"]
    assert found["sessions_channel_vs_stunnel"] == {"1": 3.0, "20": 3.0, "200": 3.0}
    assert found["sessions_channel_vs_postfix_tls"] == pytest.approx(2.0)
    assert found["cpu_channel_vs_stunnel"] == pytest.approx(1 / 3)
    assert found["cpu_clear_vs_haproxy"] == pytest.approx(2.0)
    assert found["bulk_channel_vs_stunnel"] == pytest.approx(3.0)
    assert found["bulk_channel_vs_direct"] == pytest.approx(300 / 4000)


def test_a_slow_turn_is_slow_for_all_and_moves_no_ratio() -> None:
    alone = comparison.session_figures([turn(20)], NOTHING)["ratios"]
    with_slow = comparison.session_figures([turn(20), turn(20, 2.0)], NOTHING)["ratios"]
    for name in alone:
        assert with_slow[name]["median"] == pytest.approx(alone[name]["median"])


def test_cpu_added_is_what_direct_does_not_use_shared_by_the_gateways() -> None:
    found = results()["cpu_ms_added"]
    assert found["clear"] == pytest.approx(2 / 1000 * 1000 - 2 / 4000 * 1000)
    assert found["channel_per_gateway"] == pytest.approx((2 / 300 * 1000 - 2 / 4000 * 1000) / 2, rel=1e-3)


def test_bars_are_of_what_was_measured_and_say_whether_they_hold() -> None:
    found = {bar.words: bar for bar in bars.beside_rivals(results())}
    assert found["CPU per session, channel to stunnel pair"].holds
    assert found["sessions/s at 200 parallel, channel to stunnel pair"].holds
    assert not found["sessions/s at 20 parallel, channel to stunnel pair"].holds
    assert not found["bulk, channel to direct"].holds
    assert not any("p99" in words for words in found)


def test_what_is_wanted_of_ourselves_is_wanted_beside_the_others() -> None:
    """Whichever of the two runs it was that measured."""
    kept = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in ("costs", "rivals")}
    own, beside = (
        {bar.words: (bar.at_most, bar.wanted, bar.unit) for bar in found}
        for found in (bars.of_our_own(kept["costs"]), bars.beside_rivals(kept["rivals"]))
    )
    both = own.keys() & beside.keys()
    assert len(both) == 4
    assert {words: own[words] for words in both} == {words: beside[words] for words in both}
    over_a_line = [one for words, one in own.items() if "over 80 ms" in words]
    assert set(over_a_line) == {beside["delivery over 80 ms, channel to direct"]}


def test_what_could_not_be_measured_does_not_hold() -> None:
    bar = bars.Bar("something", True, 1.0, None)
    assert not bar.holds
    assert bar.as_json() == {"what": "something", "wanted": "<= 1", "reached": None, "holds": False}


def test_times_of_sessions() -> None:
    found = comparison.time_figures([0.1] * 98 + [0.3, None])
    assert found["p50_ms"] == 100.0
    assert found["p99_ms"] == 300.0
    assert (found["sessions"], found["failed"]) == (100, 1)
    assert found["percentiles_ms"][-1] is None


def test_delivery_is_compared_pair_by_pair() -> None:
    found = comparison.delivery_figures({Rival.DIRECT: [1.0, 2.0], Rival.CHANNEL: [1.1, 2.2]})
    assert found["ratios"]["channel_vs_direct"]["median"] == pytest.approx(1.1)


def measured() -> dict[str, Any]:
    """A report with all parts, as small as it may be."""
    times = comparison.time_figures([0.1, 0.2, None])
    delivered = comparison.delivery_figures({variant: [0.1] for variant in RATES})
    level = {"cpu_ms_per_session": 3.0, "direct_cpu_ms_per_session": 0.2, "idle_cpu_per_second": 0.1}
    return results() | {
        "machine": {"cpus": 2, "cpu": "a CPU", "kernel": "6", "python": "3", "load_average_at_start": 0.1},
        "idle_bytes": {"channel": {"gw-a": 12_000, "gw-b": 11_000}, "stunnel": {"gw-a": 90_000}},
        "latency": {
            "rtt_ms": 20,
            "sessions_per_second": 90.0,
            "by_variant": {variant.value: times for variant in RATES},
        },
        # Large mails are timed over one of the lines only.
        "delivery": {"20": {"4KB": delivered}, "80": {"4KB": delivered, "1MB": delivered}},
        "growth": {
            "peers": {
                "curve": [
                    {"peers": n, "look_up_us": 15.0, "unknown_us": 5.0, "opening_ms": 1.0, "file_octets": n}
                    for n in (10, 1000)
                ],
                "look_up_most_vs_fewest": 1.0,
            },
            "workers": {
                "curve": [
                    {"workers": n, "sessions_per_second": 200.0, "cpu_ms_per_session": 3.0} for n in (1, 2)
                ],
                "cpu_2_vs_1": 1.0,
            },
            "sessions": {
                "octets_without": 1000,
                "curve": [{"sessions": n, "octets": 1000 + n, **level} for n in (10, 1000)],
                "cpu_exponent": 0.0,
                "memory_exponent": 1.0,
            },
        },
    }


def test_the_page_and_the_bars_are_of_everything_that_was_measured() -> None:
    found = measured()
    found["ratios"] = comparison.ratios(found)
    reached = bars.beside_rivals(found) + bars.of_growth(found["growth"])
    found["bars"] = [bar.as_json() for bar in reached]
    page = report.text(found)
    for words in ("20 parallel", "p99 never", "80 ms round trip, 1MB", "1000 peers", "1000 open", "MISSED"):
        assert words in page
    assert {"time_20ms_channel_vs_direct", "time_80ms_channel_vs_direct"} <= set(found["ratios"])
    assert len(found["bars"]) == 15


def test_pictures_are_whole_svg_with_the_machine_under_each() -> None:
    from bench.rivals import plots

    found = measured()
    drawn = plots.pictures(found)
    assert set(drawn) == {"sessions", "bulk", "latency", "delivery", "growth"}
    for picture in drawn.values():
        assert picture.rstrip().endswith("</svg>")
        assert "a CPU" in picture
    assert drawn == plots.pictures(found)


RESULTS = Path(__file__).parents[3] / "bench" / "results"
"""What docs/performance.md shows; `scripts/bench rivals` writes figures and pictures in one go."""


def _kept() -> list[dict[str, Any]]:
    """How cost grows may be of a later run, of that alone."""
    names = [name for name in ("rivals", "growth") if (RESULTS / f"{name}.json").exists()]
    return [json.loads((RESULTS / f"{name}.json").read_text()) for name in names]


def test_the_pictures_that_are_kept_are_drawn_from_the_figures_that_are_kept() -> None:
    from bench.rivals import plots

    drawn: dict[str, str] = {}
    for found in _kept():
        drawn |= plots.pictures(found)
    assert len(drawn) == 5
    assert {path.stem for path in RESULTS.glob("*.svg")} == drawn.keys()
    for name, text in drawn.items():
        assert (RESULTS / f"{name}.svg").read_text() == text, name


def test_a_picture_names_the_machine_and_the_load_of_its_own_run() -> None:
    from bench.rivals import plots

    for found in _kept():
        machine = found["machine"]
        words = f"Python {machine['python']}, load {machine['load_average_at_start']} at"
        pictures = plots.pictures(found)
        assert pictures
        assert not [name for name, text in pictures.items() if words not in text]


def test_a_whole_run_takes_the_place_of_one_of_growth_alone(tmp_path: Path) -> None:
    raced, *_ = _kept()
    (grown,) = [found["growth"] for found in _kept() if "growth" in found]
    raced = raced | {"rows": []}
    alone = {"machine": raced["machine"], "growth": grown}
    run.keep(alone, tmp_path)
    run.keep({name: one for name, one in raced.items() if name != "growth"}, tmp_path)
    assert {path.name for path in tmp_path.glob("*.json")} == {"growth.json", "rivals.json"}
    run.keep(raced | {"growth": grown}, tmp_path)
    assert {path.name for path in tmp_path.glob("*.json")} == {"rivals.json"}
