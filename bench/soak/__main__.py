"""`scripts/soak [--minutes N] [--seed N] [--json] [--record FILE] [--judge FILE] [NAME...]`: hours of faults.

Progress goes to standard error, a line for each fault; the record is written as it goes. One signal ends the
load, waits half a minute for what is under way and prints the result so far; the second one breaks off at
once. Whatever happens the lab and every process in it are gone at the end. Exit status 0 only if the run
came to its end, no mail was lost, doubled or altered, every fault could be undone, and all that is measured
is flat.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from bench import form, report
from bench.chaos.faults import FAULTS
from bench.chaos.faults.fault import Fault
from bench.soak import ending, measures, verdict
from bench.soak.field import Field
from bench.soak.plan import Plan, Strike
from gateway.config import Placement
from gateway.errors import EnvironmentFailureError
from gateway.lab import processes

STANDING: Final = [name for name, one in FAULTS.items() if Placement.ROUTER in one.placements]
"""The faults of the lab that stands here, whose gateways are routers."""
SAMPLE_SECONDS: Final = 30.0
SETTLED_SECONDS: Final = 15.0
"""After a fault was undone, until a sample counts as calm."""
ACCOUNT_SECONDS: Final = 60.0
DRAIN_SECONDS: Final = 600.0
"""Postfix waits as long before it tries again by itself; here it is asked to."""
BROKEN_OFF_SECONDS: Final = 30.0
ENDED_SECONDS: Final = 60.0
"""What has no session left, and was told to end, has ended by then."""


class Run:
    """One soak, from its first sample to its last."""

    def __init__(self, field: Field, names: list[str], seed: int, minutes: float, record: Path) -> None:
        self._field, self._seed = field, seed
        self._minutes, self._seconds = minutes, minutes * 60
        self._record = record
        self._plan = Plan(names, seed, self._seconds)
        self._ended = threading.Event()
        self._began = self._undone = time.monotonic()
        self._last_fault = ""

    def break_off(self, number: int, _frame: FrameType | None) -> None:
        if self._ended.is_set():
            raise SystemExit(f"soak: broken off ({signal.Signals(number).name})")
        self._ended.set()

    @property
    def _at(self) -> float:
        return time.monotonic() - self._began

    def go(self) -> None:
        machine = report.machine() | {"form": form.running().value}
        self._tell("begin", seed=self._seed, minutes=self._minutes, machine=machine)
        self._began = self._undone = time.monotonic()
        sample_due, account_due = SAMPLE_SECONDS, ACCOUNT_SECONDS
        strike = self._plan.next(0.0)
        strike_due = strike.rest
        while self._at < self._seconds and not self._ended.is_set():
            due = min(sample_due, account_due, strike_due, self._seconds)
            if self._ended.wait(max(0.0, due - self._at)):
                break
            if self._at >= sample_due:
                self._sample()
                sample_due = max(sample_due + SAMPLE_SECONDS, self._at)
            if self._at >= account_due:
                self._account()
                account_due = self._at + ACCOUNT_SECONDS
            if strike_due <= self._at < self._seconds:
                self._strike(strike)
                strike = self._plan.next(self._at)
                strike_due = self._at + strike.rest
        self._end()

    def _end(self) -> None:
        broken_off = self._ended.is_set()
        print(f"soak: {self._at:6.0f} s  the load ends; mail comes to its end", file=sys.stderr, flush=True)
        self._field.stop_load()
        queued = self._field.drain(BROKEN_OFF_SECONDS if broken_off else DRAIN_SECONDS)
        self._account(queued=queued)
        self._tell("last", gateways=self._look_without_ending())
        self._tell("end", broken_off=broken_off, cpu_seconds=_cpu_seconds(self._field))

    # --- Faults ----------------------------------------------------------------------------------------

    def _strike(self, strike: Strike) -> None:
        began, field = self._at, self._field
        broken, error = len(field.broken), ""
        try:
            self._do(FAULTS[strike.name])
        except Exception as why:
            # The run goes on and says it: what follows is worth its figures.
            error = f"{type(why).__name__}: {why}"
            for service in field.services.values():
                with contextlib.suppress(EnvironmentFailureError):
                    service.switch_off()
                    service.switch_on()
        self._undone, self._last_fault = time.monotonic(), strike.name
        field.take_in()
        self._tell(
            "fault", name=strike.name, began=round(began, 1), broken=len(field.broken) - broken, error=error
        )
        raw = sum(fact["kind"] == "mail" for fact in field.facts)
        print(
            f"soak: {began:6.0f} s  {strike.name:26} {self._at - began:4.1f} s  "
            f"broken {len(field.broken) - broken:2}  so far: {raw} raw mails, "
            f"{len(field.account.expected)} deliveries by Postfix, {len(field.account.missing)} open"
            f"{'  ' + error if error else ''}",
            file=sys.stderr,
            flush=True,
        )

    def _do(self, fault: Fault) -> None:
        field = self._field
        field.notes, field.clear_from = {}, 0.0
        with contextlib.contextmanager(fault.act)(field):
            time.sleep(fault.seconds)  # the fault itself: so long it lasts
        for service in field.services.values():
            service.wait_ready()

    # --- The record ------------------------------------------------------------------------------------

    def _look(self) -> dict[str, Any]:
        return {letter: measures.look(service) for letter, service in self._field.services.items()}

    def _look_without_ending(self) -> dict[str, Any]:
        """Once those that were told to end have ended: no session is left for them to carry."""
        until = time.monotonic() + ENDED_SECONDS
        while True:
            gateways = self._look()
            left = [one for each in gateways.values() for one in each["processes"] if ending.is_told(one)]
            if not left or time.monotonic() >= until:
                return gateways
            time.sleep(1)

    def _sample(self) -> None:
        calm = time.monotonic() - self._undone >= SETTLED_SECONDS
        try:
            self._tell(
                "sample",
                calm=calm,
                after=self._last_fault,
                gateways=self._look(),
                cpu=_cpu_seconds(self._field),
            )
        except (EnvironmentFailureError, OSError) as error:
            print(f"soak: {self._at:6.0f} s  no sample: {error}", file=sys.stderr, flush=True)

    def _account(self, **more: int) -> None:
        self._field.take_in()
        self._tell("account", **self._field.result(), **more)

    def _tell(self, kind: str, **fields: Any) -> None:
        with self._record.open("a") as file:
            file.write(json.dumps({"kind": kind, "at": round(self._at, 1), **fields}) + "\n")


def _cpu_seconds(field: Field) -> float:
    """Of this command, of every process in the lab, and of those that either of them waited for."""
    ours = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    total = sum(one.ru_utime + one.ru_stime for one in ours)
    for process in processes.living_in(field.lab.namespaces):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{process.pid}/stat").read_text()
            words = text[text.rindex(")") + 2 :].split()
            total += sum(int(word) for word in words[11:15]) / measures.TICKS
    return round(total, 1)


@contextlib.contextmanager
def standing(seed: int, name: str) -> Iterator[Field]:
    """The lab with its load; taken down again whatever happens."""
    field = Field(seed, name)
    with contextlib.ExitStack() as stack:
        stack.enter_context(field.lab.locked())
        stack.callback(field.down)
        field.up()
        yield field


def main() -> int:
    asked = _asked()
    if asked.judge:
        return show(asked.judge, as_json=asked.json)
    if os.geteuid() != 0:
        print("soak: it makes network namespaces and needs root", file=sys.stderr)
        return 1
    seed = asked.seed if asked.seed is not None else random.SystemRandom().randrange(10**6)
    record = asked.record or Path(f"/var/tmp/nightmail-soak-{seed}.jsonl")
    record.unlink(missing_ok=True)
    print(f"soak: seed {seed}, {asked.minutes:g} minutes, record {record}", file=sys.stderr, flush=True)
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in signals:
        signal.signal(number, lambda number, _: sys.exit(f"soak: broken off ({signal.Signals(number).name})"))
    try:
        with standing(seed, asked.lab) as field:
            run = Run(field, asked.names or STANDING, seed, asked.minutes, record)
            for number in signals:
                signal.signal(number, run.break_off)
            run.go()
    except EnvironmentFailureError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    return show(record, as_json=asked.json)


def show(record: Path, *, as_json: bool) -> int:
    """Print the result of a record, and say as an exit status whether it holds."""
    # The last line of a run that was killed may be cut.
    records = [json.loads(line) for line in record.read_text().splitlines(keepends=True) if line[-1] == "\n"]
    found = verdict.result(records)
    print(json.dumps(found) if as_json else text(found))
    return 0 if found["holds"] else 1


def text(found: dict[str, Any]) -> str:
    """The page."""
    mails = {name: value for name, value in found["mails"].items() if name != "missing"}
    told = found["ending"]
    rows = [
        f"{row['gateway']} {row['measure']:18} {row['pairs']:5} {row['first']:12} {row['median']:12} "
        f"{row['last']:12} {row['per_hour']:14} {row['allowed']:12} {row['verdict']}"
        for row in found["slopes"]
    ]
    ended = "" if found["finished"] else " (did not come to its end)"
    return "\n".join(
        [
            f"seed {found['seed']}, {found['minutes']} of {found['minutes_wanted']:g} minutes{ended}",
            f"mail: {json.dumps(mails)}",
            f"faults: {sum(found['faults'].values())} of {len(found['faults'])} kinds; "
            f"not undone: {'; '.join(found['faults_failed']) or 'none'}",
            f"{'measure':20} {'pairs':>5} {'first round':>12} {'median':>12} {'second':>12} "
            f"{'per hour':>14} {'allowed':>12}",
            *rows,
            f"told to end, and no part of these: at most {told['most']} processes at once, for at most "
            f"{told['longest_seconds']} s; {'; '.join(told['endless']) or 'all have ended'}",
            "holds" if found["holds"] else f"DOES NOT HOLD: {', '.join(found['harm']) or 'see above'}",
        ]
    )


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/soak", description="Hours of mixed mail with faults at random."
    )
    parser.add_argument("--minutes", type=float, default=120.0, help="how long; 120 if not given")
    parser.add_argument("--seed", type=int, help="of the faults and the mails; at random if not given")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a page")
    parser.add_argument("--record", type=Path, help="the file of JSON lines that is written as it goes")
    parser.add_argument("--lab", default="soak", metavar="NAME", help="of its namespaces: two can run beside")
    parser.add_argument("--judge", type=Path, metavar="FILE", help="run nothing: the result of such a file")
    parser.add_argument("names", nargs="*", metavar="NAME", help="faults, if not all: scripts/chaos --list")
    asked = parser.parse_args()
    unknown = set(asked.names) - set(FAULTS)
    if unknown:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    return asked


if __name__ == "__main__":
    sys.exit(main())
