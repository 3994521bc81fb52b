"""`scripts/bench [--json] [--quick] [NAME...]`: all measurements in one run, within bounds of time.
Where none is named, what would be used instead of us is measured behind them (`bench.rivals`).
`scripts/bench [--json] [--quick] --against REV [NAME...]`: this tree and another revision, side by side.

Prints a page, or with --json one object; progress goes to standard error. Whatever happens (a signal, a
failure, the time is over) the namespaces and every process in them are gone at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from types import FrameType
from typing import Any

from bench import against, form, load, planes, report, scenarios
from bench.clock import Budget
from bench.planes import Variant
from bench.rivals import measures
from bench.rivals import report as rivals_pages
from bench.rivals import run as rivals
from gateway.errors import EnvironmentFailureError
from gateway.lab import gateways

LAST_RESORT_SECONDS = 15
"""So long after the whole budget the run is broken off."""


def main() -> int:
    asked = _asked()
    if os.geteuid() != 0:
        print("bench: it makes network namespaces and needs root", file=sys.stderr)
        return 1
    scale = scenarios.QUICK if asked.quick else scenarios.FULL
    rivals_scale = measures.QUICK if asked.quick else measures.FULL
    everything = not (asked.against or asked.names)
    form.product()  # before the clock runs
    signal.signal(signal.SIGTERM, _break_off)
    signal.signal(signal.SIGHUP, _break_off)
    signal.signal(signal.SIGALRM, _break_off)
    seconds = scale.total_seconds + (rivals_scale.total_seconds if everything else 0)
    signal.alarm(int(seconds) + LAST_RESORT_SECONDS)
    began = time.monotonic()
    try:
        if asked.against:
            found = against.measure(asked.against, asked.names, quick=asked.quick)
        else:
            found = _measure(asked.names, scale, quick=asked.quick)
            if everything:
                if not asked.quick:
                    _keep(found)
                found = report.joined(found, _beside_rivals(rivals_scale, quick=asked.quick))
    except EnvironmentFailureError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    found["seconds"] = round(time.monotonic() - began, 1)
    in_words = against.text if asked.against else _page
    print(json.dumps(found) if asked.json else in_words(found))
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="What Nightmail costs, measured.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a page")
    parser.add_argument(
        "--quick", action="store_true", help="a first look: under five minutes, with names under two"
    )
    parser.add_argument("--against", metavar="REV", help="compare with that git revision")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"only these of: {', '.join(scenarios.SCENARIOS)}"
    )
    asked = parser.parse_args()
    unknown = set(asked.names) - set(against.MEASURES if asked.against else scenarios.SCENARIOS)
    if unknown:
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    return asked


def _break_off(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(f"bench: broken off ({signal.Signals(number).name})")


def _measure(names: list[str], scale: scenarios.Scale, *, quick: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": report.machine(), "quick": quick}
    with planes.standing("bench", list(Variant)) as standing:
        bench = scenarios.Bench(
            standing, scale, Budget(scale.total_seconds), load.esmtp_source(standing[Variant.DIRECT].folder)
        )
        for name, scenario in scenarios.SCENARIOS.items():
            if not names or name in names:
                scenario(bench)
        found |= bench.results
        found["upgraded"] = _upgraded(standing[Variant.CHANNEL])
    found["rows"] = bench.rows
    return found


def _beside_rivals(scale: measures.Scale, *, quick: bool) -> dict[str, Any]:
    results = None if quick else rivals.RESULTS
    found = rivals.measure(list(rivals.NAMES), scale, quick=quick, results=results)
    if results is not None:
        rivals.keep(found, results)
    found.pop("rows", None)
    return found


def _keep(found: dict[str, Any]) -> None:
    """What docs/performance.md is made of, beside the rivals' figures."""
    kept = {name: one for name, one in found.items() if name != "rows"}
    (rivals.RESULTS / "costs.json").write_text(json.dumps(kept, indent=1) + "\n")


def _page(found: dict[str, Any]) -> str:
    pages = [report.text(found)]
    if "rivals" in found:
        pages += ["beside what a site would use instead:", rivals_pages.text(found["rivals"])]
    return "\n\n".join(pages)


def _upgraded(plane: planes.Plane) -> dict[str, Any]:
    """How many of the channel's sessions were upgraded: where none was, the figures are worth nothing."""
    status = gateways.ask(plane.gateways[0])
    assert status is not None
    decided = status["counters"]["decided"]["out"]
    upgraded, clear = sum(decided["upgraded"].values()), sum(decided["clear"].values())
    resumed = status["counters"]["tallies"].get("resumed", 0)
    return {
        "upgraded": upgraded,
        "clear": clear,
        "share": upgraded / max(1, upgraded + clear),
        "resumed_share": resumed / max(1, upgraded),
    }


if __name__ == "__main__":
    sys.exit(main())
