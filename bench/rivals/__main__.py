"""`scripts/bench rivals [--json] [--quick] [NAME...]`; `scripts/bench growth` is its last measurement alone.

Prints a page, or with --json one object; progress goes to standard error. A whole run leaves figures and
plots in `bench/results/`. Whatever happens (a signal, a failure, the time is over) the namespaces and every
process in them are gone at the end.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, Final

from bench import load, planes, report
from bench.clock import Budget
from bench.rivals import comparison, growth, measures
from bench.rivals import report as pages
from bench.rivals.measures import MEASURES, Race, Scale
from bench.rivals.variants import Rival, configured, stand_all
from gateway.errors import EnvironmentFailureError
from gateway.lab import gateways

RESULTS: Final = Path(__file__).parent.parent / "results"
NAMES: Final = (*MEASURES, "growth")
RACED: Final = ("idle_bytes", "sessions", "bulk", "latency", "delivery")
LAST_RESORT_SECONDS: Final = 60
PR_SET_CHILD_SUBREAPER: Final = 36


def main() -> int:
    asked = _asked()
    if os.geteuid() != 0:
        print("bench: it makes network namespaces and needs root", file=sys.stderr)
        return 1
    scale = measures.QUICK if asked.quick else measures.FULL
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, _break_off)
    signal.alarm(int(scale.total_seconds) + LAST_RESORT_SECONDS)
    # What a rival's daemon leaves to init stays ours: counted as ours, and ended by us.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began = time.monotonic()
    try:
        found = measure(asked.names or list(NAMES), scale, quick=asked.quick, results=asked.results)
    except EnvironmentFailureError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    found["seconds"] = round(time.monotonic() - began, 1)
    if asked.results is not None:
        _keep(found, asked.results)
    found.pop("rows", None)
    print(json.dumps(found) if asked.json else pages.text(found))
    return 0


def measure(names: list[str], scale: Scale, *, quick: bool, results: Path | None) -> dict[str, Any]:
    """Keeps the race's figures in `results` before the growth is measured, which may fail by itself."""
    found: dict[str, Any] = {"machine": report.machine(), "quick": quick}
    budget = Budget(scale.total_seconds)
    kept = scale.parts["growth"] if "growth" in names else 0.0
    if set(names) & set(MEASURES):
        found |= _raced(names, scale, budget.part(budget.left - kept))
        _compare(found)
        if results is not None:
            _keep(found, results)
    if "growth" in names:
        found["growth"] = growth.growth(scale, budget)
    _compare(found)
    return found


def _compare(found: dict[str, Any]) -> None:
    found["ratios"] = comparison.ratios(found)
    if "sessions" in found:
        found["cpu_ms_added"] = comparison.cpu_ms_added(found)
    found["bars"] = [bar.as_json() for bar in comparison.bars(found)]


def _raced(names: list[str], scale: Scale, budget: Budget) -> dict[str, Any]:
    with planes.standing("rivals", list(Rival), change=configured) as standing:
        stand_all(standing)
        race = Race(standing, scale, budget, load.esmtp_source(standing[Rival.DIRECT].folder))
        with race.sinks():
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


def _keep(found: dict[str, Any], folder: Path) -> None:
    """The figures first: whatever happens to the pictures, what was measured is there."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "rivals" if set(found) & set(RACED) else "growth"
    rows = found.get("rows", [])
    (folder / f"{name}.json").write_text(json.dumps(found | {"rows": len(rows)}, indent=1) + "\n")
    if rows:
        (folder / f"{name}-rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    # Only who has the bench's own extra has what draws.
    from bench.rivals import plots

    for picture, text in plots.pictures(found).items():
        (folder / f"{picture}.svg").write_text(text)


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench rivals", description="Nightmail beside its rivals.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a page")
    parser.add_argument("--quick", action="store_true", help="a first look, under three minutes")
    parser.add_argument("--results", type=Path, help="where figures and plots go (default: bench/results)")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of: {', '.join(NAMES)}")
    asked = parser.parse_args()
    unknown = set(asked.names) - set(NAMES)
    if unknown:
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    if asked.results is None and not asked.quick:
        asked.results = RESULTS
    return asked


def _break_off(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(f"bench: broken off ({signal.Signals(number).name})")


if __name__ == "__main__":
    sys.exit(main())
