"""`scripts/bench rivals [--json] [--quick] [NAME...]`; `scripts/bench growth` is its last measurement alone.

Prints a page, or with --json one object; progress goes to standard error. A whole run leaves figures and
plots in `bench/results/`. Whatever happens (a signal, a failure, the time is over) the namespaces and every
process in them are gone at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Final

from bench import form
from bench.rivals import measures, run
from bench.rivals import report as pages
from gateway.errors import EnvironmentFailureError

LAST_RESORT_SECONDS: Final = 60


def main() -> int:
    asked = _asked()
    if os.geteuid() != 0:
        print("bench: it makes network namespaces and needs root", file=sys.stderr)
        return 1
    scale = measures.QUICK if asked.quick else measures.FULL
    form.product()  # before the clock runs
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, _break_off)
    signal.alarm(int(scale.total_seconds) + LAST_RESORT_SECONDS)
    began = time.monotonic()
    try:
        found = run.measure(asked.names or list(run.NAMES), scale, quick=asked.quick, results=asked.results)
    except EnvironmentFailureError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    found["seconds"] = round(time.monotonic() - began, 1)
    if asked.results is not None:
        run.keep(found, asked.results)
    found.pop("rows", None)
    print(json.dumps(found) if asked.json else pages.text(found))
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench rivals", description="Nightmail beside its rivals.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a page")
    parser.add_argument("--quick", action="store_true", help="a first look, under three minutes")
    parser.add_argument("--results", type=Path, help="where figures and plots go (default: bench/results)")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these of: {', '.join(run.NAMES)}")
    asked = parser.parse_args()
    unknown = set(asked.names) - set(run.NAMES)
    if unknown:
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    if asked.results is None and not asked.quick:
        asked.results = run.RESULTS
    return asked


def _break_off(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(f"bench: broken off ({signal.Signals(number).name})")


if __name__ == "__main__":
    sys.exit(main())
