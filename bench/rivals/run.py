"""A run beside the rivals, from their start to the bars: the race, then how cost grows.

Counterparts: `measures`, each of which is one of the race's; `growth`; `comparison`, which compares;
`bars`, which judges.
"""

from __future__ import annotations

import ctypes
import json
from pathlib import Path
from typing import Any, Final

from bench import bars, load, planes, report
from bench.clock import Budget
from bench.rivals import comparison, growth
from bench.rivals.measures import MEASURES, Race, Scale
from bench.rivals.variants import Rival, configured, stand_all
from gateway.lab import gateways

RESULTS: Final = Path(__file__).parent.parent / "results"
NAMES: Final = (*MEASURES, "growth")
RACED: Final = ("idle_bytes", "sessions", "bulk", "latency", "delivery")
PR_SET_CHILD_SUBREAPER: Final = 36


def measure(names: list[str], scale: Scale, *, quick: bool, results: Path | None) -> dict[str, Any]:
    """Keeps the race's figures in `results` before the growth is measured, which may fail by itself."""
    # What a rival's daemon leaves to init stays ours: counted as ours, and ended by us.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    found: dict[str, Any] = {"machine": report.machine(), "quick": quick}
    budget = Budget(scale.total_seconds)
    kept = scale.parts["growth"] if "growth" in names else 0.0
    if set(names) & set(MEASURES):
        found |= _raced(names, scale, budget.part(budget.left - kept))
        _compare(found)
        if results is not None:
            keep(found, results)
    if "growth" in names:
        found["growth"] = growth.growth(scale, budget)
    _compare(found)
    return found


def _compare(found: dict[str, Any]) -> None:
    found["ratios"] = comparison.ratios(found)
    if "sessions" in found:
        found["cpu_ms_added"] = comparison.cpu_ms_added(found)
    reached = bars.beside_rivals(found) + bars.of_growth(found.get("growth", {}))
    found["bars"] = [bar.as_json() for bar in reached]


def _raced(names: list[str], scale: Scale, budget: Budget) -> dict[str, Any]:
    with planes.standing("rivals", list(Rival), change=configured) as standing:
        stand_all(standing)
        race = Race(standing, scale, budget, load.esmtp_source(standing[Rival.DIRECT].folder))
        with load.sinks(race.planes.values()):
            for name, take in MEASURES.items():
                if name in names:
                    take(race)
        return race.results | {"sealed": _sealed(standing), "rows": race.rows}


def _sealed(standing: dict[Rival, planes.Plane]) -> dict[str, int]:
    """Sessions that were encrypted, each by its own account: without any, its figures are worth nothing."""
    found = {
        variant.value: variant.made.sealed(plane)
        for variant, plane in standing.items()
        if variant.made.sealed is not None
    }
    status = gateways.ask(standing[Rival.CHANNEL].gateways[0])
    assert status is not None
    found["channel"] = sum(status["counters"]["decided"]["out"]["upgraded"].values())
    for name, count in found.items():
        if not count:
            raise SystemExit(f"bench: {name}: not one session was encrypted")
    return found


def keep(found: dict[str, Any], folder: Path) -> None:
    """The figures first: whatever happens to the pictures, what was measured is there."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "rivals" if set(found) & set(RACED) else "growth"
    rows = found.get("rows", [])
    if name == "rivals" and "growth" in found:
        (folder / "growth.json").unlink(missing_ok=True)  # of a run of that alone, before this one
    (folder / f"{name}.json").write_text(json.dumps(found | {"rows": len(rows)}, indent=1) + "\n")
    if rows:
        (folder / f"{name}-rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Only who has the bench's own extra has what draws.
    from bench.rivals import plots

    for picture, text in plots.pictures(found).items():
        (folder / f"{picture}.svg").write_text(text)
