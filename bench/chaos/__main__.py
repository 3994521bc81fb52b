"""`scripts/chaos [--json] [--quick] [--placement P] [--list] [NAME...]`: each fault, with and without
gateways, under one load.

Prints a table, or with --json one object; progress goes to standard error. Whatever happens (a signal, a
failure) the labs and every process in them are gone at the end. Exit status 1 where a fault misses the bar.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, Final

from bench import form, report
from bench.chaos import ground
from bench.chaos.faults import FAULTS
from bench.chaos.faults.fault import Fault
from bench.chaos.ground import World
from bench.chaos.judge import Seen, Window, figures, judge
from gateway.config import Placement
from gateway.errors import EnvironmentFailureError

STEADY_SECONDS: Final = 1.0
"""Load before a fault, and after it."""
AFTER_SECONDS: Final = 2.0
ENDED_SECONDS: Final = 60.0
MOST_GAP_SECONDS: Final = 1.0
SETTLED_SECONDS: Final = 30.0


def main() -> int:
    asked = _asked()
    if asked.list:
        for each in FAULTS.values():
            print(f"{each.name:26} {each.what}; {each.undone}")
        return 0
    if os.geteuid() != 0:
        print("chaos: it makes network namespaces and needs root", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _break_off)
    placement = Placement(asked.placement)
    possible = [each for each in FAULTS.values() if placement in each.placements]
    chosen = [each for each in possible if each.name in asked.names]
    if not asked.names:
        chosen = [each for each in possible if each.quick or not asked.quick]
    began = time.monotonic()
    try:
        rows = measure(chosen, placement)
    except EnvironmentFailureError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    met = {row["name"] for row in rows if meets_the_bar(row)}
    missed = [each.name for each in chosen if each.name not in met]
    found = {
        "machine": report.machine() | {"form": form.running().value},
        "placement": placement.value,
        "seconds": round(time.monotonic() - began, 1),
        "faults": rows,
        "missed": missed,
    }
    print(json.dumps(found) if asked.json else text(found))
    return 1 if missed else 0


def measure(chosen: list[Fault], placement: Placement, progress: Any = sys.stderr) -> list[dict[str, Any]]:
    """One row of figures for each fault, in order."""
    rows = []
    with ground.standing(placement) as worlds:
        for each in chosen:
            try:
                row = strike(each, worlds)
            except (EnvironmentFailureError, OSError, subprocess.SubprocessError) as error:
                # The others are worth their figures; this one is told, and counts as missed.
                print(f"chaos: {each.name}: {error}", file=progress, flush=True)
                for service in worlds[0].services.values():
                    service.switch_off()
                    service.switch_on()
                continue
            rows.append(row)
            print(f"chaos: {line(row)}", file=progress, flush=True)
    return rows


def meets_the_bar(row: dict[str, Any]) -> bool:
    """A gap of a second at most, no mail lost, doubled or altered; sessions break only where the fault does
    it."""
    whole = not (row["lost"] or row["doubled"] or row["altered"])
    breaks = bool(FAULTS[row["name"]].breaks(Placement(row.get("placement", Placement.ROUTER))))
    return whole and row["gap_s"] <= MOST_GAP_SECONDS and (breaks or not row["broken"])


def strike(fault: Fault, worlds: tuple[World, World]) -> dict[str, Any]:
    """One fault, in both worlds at the same moment; its row."""
    barrier = threading.Barrier(len(worlds))
    with_gateways, _ = worlds
    before = _alarms(with_gateways)
    with ThreadPoolExecutor(max_workers=len(worlds)) as pool:
        windows = list(pool.map(lambda world: _strike(fault, world, barrier), worlds))
        seen = list(pool.map(_judge, worlds, windows))
    rings = _alarms(with_gateways)
    rang = sorted(cause for cause in rings if rings[cause] != before.get(cause, 0))
    for service in with_gateways.services.values():
        service.wait_ready()
    where = {"placement": with_gateways.placement.value}
    return figures(fault.name, *seen, alarmed=bool(rang)) | where | {"rang": rang}


def _strike(fault: Fault, world: World, barrier: threading.Barrier) -> Window:
    world.notes, world.clear_from = {}, 0.0
    world.renew()
    barrier.wait(SETTLED_SECONDS + ENDED_SECONDS)
    time.sleep(STEADY_SECONDS)  # load of a steady kind is what is measured
    begin = time.monotonic()
    world.clear_from = begin
    with contextlib.contextmanager(fault.act)(world):
        time.sleep(fault.seconds)
    for service in world.services.values():
        service.wait_ready()
    time.sleep(AFTER_SECONDS)
    return Window(begin - STEADY_SECONDS / 2, time.monotonic())


def _judge(world: World, window: Window) -> Seen:
    world.wait_ended(window.end, ENDED_SECONDS)
    posted = world.posted(window.begin, window.end)
    world.read()
    seen = judge(world.facts, window, posted, world.died_with(), world.clear_from)
    seen.notes = world.notes
    world.forget_before(window.begin - ENDED_SECONDS)
    return seen


def _alarms(world: World) -> dict[str, int]:
    """How often each cause has rung, heard or not, and what the logs say loudly."""
    found: dict[str, int] = {}
    for letter, service in world.services.items():
        log = service.gateway.log.read_text(errors="replace")
        for reason in re.findall(r" (?:alarm|error) .* reason=([a-z-]+)", log):
            found[f"{letter} {reason}"] = found.get(f"{letter} {reason}", 0) + 1
        for alarm in service.status()["alarms"]:
            found[f"{letter} {alarm['reason']}"] = (
                found.get(f"{letter} {alarm['reason']}", 0) + alarm["unheard"]
            )
    return found


def line(row: dict[str, Any]) -> str:
    """One row in words."""
    more = f" put back {row['put_back_s']:.2f} s" if "put_back_s" in row else ""
    return (
        f"{row['name']:26} gap {row['gap_s']:5.2f} s (without {row['gap_without_s']:.2f}) "
        f"slowest {row['slowest_s']:5.2f} failed {row['failed']:3} broken {row['broken']:2} "
        f"(without {row['broken_without']}) mails {row['mails']:3} lost {row['lost']} "
        f"doubled {row['doubled']} altered {row['altered']} in doubt {row['in_doubt']} "
        f"clear {row['clear']:3} "
        f"{'alarm: ' + ', '.join(row['rang']) if row['alarmed'] else 'quiet'}"
        f"{more}{'' if meets_the_bar(row) else '  MISSED'}"
    )


def text(found: dict[str, Any]) -> str:
    """The page."""
    missed = found["missed"]
    verdict = f"missed: {', '.join(missed)}" if missed else "every one met the bar"
    return "\n".join(
        [
            *(line(row) for row in found["faults"]),
            "",
            f"{len(found['faults'])} faults in {found['seconds']:.0f} s; {verdict}",
        ]
    )


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/chaos", description="What mail notices when things break.")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--quick", action="store_true", help="the most telling ones, in under three minutes")
    parser.add_argument(
        "--placement",
        choices=[each.value for each in Placement],
        default=Placement.ROUTER.value,
        help="where the gateways stand; a router, if nothing is said",
    )
    parser.add_argument("--list", action="store_true", help="what there is, and nothing more")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these; --list shows all")
    asked = parser.parse_args()
    unknown = set(asked.names) - set(FAULTS)
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    return asked


def _break_off(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(f"chaos: broken off ({signal.Signals(number).name})")


if __name__ == "__main__":
    sys.exit(main())
