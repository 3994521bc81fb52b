"""Runs linters and tests in order and says at the end how many of which kind ran. Called by scripts/test.

Kernel tests need root. Where they cannot run, that is a failure: a skipped kernel test is not a pass.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
MOST_TRIED_AGAIN = 5
"""More failures than these are no accident."""
AT_ONCE = 2
"""Files of tests side by side."""
KERNEL_AT_ONCE = 4
"""On two processors: these tests mostly wait, each in namespaces of its own. What depends on how fast the
machine is has deadlines that allow for this; what loads it waits for its turn (tests/lab/turns.py)."""
LONGEST_SHOWN = 20
FUZZ_CASES = 1000
"""For each target, its corpus included."""
NO_FUZZER = 3
"""scripts/fuzz: there is no wheel of the fuzzer for this Python or machine; it has said so."""
LINTERS = {
    "format": [BIN / "ruff", "format", "--check", "--quiet", "."],
    "lint": [BIN / "ruff", "check", "--quiet", "."],
    "types": [BIN / "mypy"],
    "layers": [BIN / "lint-imports"],
    "docs": [sys.executable, "-m", "scripts.docs", "--check"],
}


@dataclass
class Ran:
    """One kind of check: how many ran, and whether all of them passed."""

    kind: str
    passed: int
    failed: int
    skipped: int
    seconds: float
    may_be_skipped: bool = False


def main(everything: bool) -> int:
    # Who was started in the background of a script ignores it, and so would everything that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ran = list(pool.map(run_linter, LINTERS, LINTERS.values()))
    ran.append(run_proof("proof", []))
    ran.append(run_proof("mutants", ["--mutants"] if everything else ["--mutants", "--sample"]))
    ran.append(run_pytest("unit", ["tests/unit", "tests/second"], "not long", as_root=False))
    ran.append(run_fuzzers())
    ran.append(
        run_pytest("kernel", ["tests/lab"], "kernel and not long", as_root=True, at_once=KERNEL_AT_ONCE)
    )
    if everything:
        ran.append(run_pytest("long", ["tests"], "long", as_root=True))
    print()
    for one in ran:
        print(
            f"{one.kind:8} {one.passed:5} passed {one.failed:3} failed {one.skipped:3} skipped "
            f"{one.seconds:7.1f} s"
        )
    failed = sum(one.failed for one in ran)
    passed = sum(one.passed for one in ran)
    unrun = [
        one.kind
        for one in ran
        if not (one.passed or one.may_be_skipped) or (one.kind in ("kernel", "long") and one.skipped)
    ]
    if unrun:
        print(f"did not run, or skipped what must run: {', '.join(unrun)}")
    print(f"{passed} passed, {failed + len(unrun)} failed")
    return 1 if failed or unrun else 0


def run_linter(kind: str, command: list[str | Path]) -> Ran:
    """Beside another one: what it says is shown in one piece."""
    began = time.monotonic()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    print(f"== {kind}\n{done.stdout}", end="", flush=True)
    passed = done.returncode == 0
    return Ran(kind, int(passed), int(not passed), 0, time.monotonic() - began)


def run_proof(kind: str, words: list[str]) -> Ran:
    """The prover's claims, or checks taken out of the code: each row is one that passed or failed."""
    print(f"== {kind}", flush=True)
    began = time.monotonic()
    done = subprocess.run(["scripts/prove", "--json", *words], stdout=subprocess.PIPE, text=True, check=False)
    rows = json.loads(done.stdout)["rows"] if done.stdout else []
    wrong = [row for row in rows if row["expected"] != row["got"]]
    for row in wrong:
        print(f"{row['claim']}: expected {row['expected']}, got {row['got']}")
    failed = len(wrong) or int(done.returncode != 0)
    return Ran(kind, len(rows) - len(wrong), failed, 0, time.monotonic() - began)


def run_fuzzers() -> Ran:
    """A short, fixed run of each from the committed corpus, which the unit tests replay."""
    print("== fuzz", flush=True)
    began = time.monotonic()
    command = ["scripts/fuzz", "--runs", str(FUZZ_CASES), "--fresh", "--json"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
    if done.returncode == NO_FUZZER:
        return Ran("fuzz", 0, 0, 1, time.monotonic() - began, may_be_skipped=True)
    targets = json.loads(done.stdout or "{}").get("targets", [])
    failed = sum(bool(one["findings"]) for one in targets) or int(done.returncode != 0)
    return Ran("fuzz", len(targets) - failed, failed, 0, time.monotonic() - began)


def run_pytest(kind: str, paths: list[str], marks: str, *, as_root: bool, at_once: int = AT_ONCE) -> Ran:
    print(f"== {kind}", flush=True)
    began = time.monotonic()
    spread = ["-n", str(at_once), "--dist", "loadfile"]
    if as_root:
        # As tests/lab/conftest.py has them: else files with few tests come last, however long they are.
        spread += ["--no-loadscope-reorder"]
    ran = _pytest(kind, [*paths, "-m", marks, *spread], as_root=as_root)
    if ran.failed and as_root and ran.failed <= MOST_TRIED_AGAIN:
        # These tests wait for real kernels and real mail servers with deadlines; a machine that stood still
        # for a moment is no fault of the product. What fails twice is.
        print(f"== {kind}, {ran.failed} failed: once more, alone", flush=True)
        again = _pytest(f"{kind}-again", [*paths, "-m", marks, "--last-failed"], as_root=as_root)
        if again.passed + again.failed >= ran.failed:
            print(f"{again.passed} of these passed the second time (named above): unsteady, please report")
            ran.passed, ran.failed = ran.passed + again.passed, again.failed
    ran.seconds = time.monotonic() - began
    return ran


def _pytest(kind: str, words: list[str], *, as_root: bool) -> Ran:
    report = Path(".pytest_cache") / f"report-{kind}.xml"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *words]
    if as_root and os.geteuid() != 0:
        command = ["sudo", "--", *command]
    status = subprocess.run(command, check=False).returncode
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    if report.exists():
        suites = ElementTree.parse(report).getroot()  # noqa: S314 - pytest wrote it
        for suite in suites.iter("testsuite"):
            for key in counts:
                counts[key] += int(suite.get(key, "0"))
        print(f"longest: {longest_files(suites)}", flush=True)
    failed = counts["failures"] + counts["errors"]
    if status != 0 and not failed:
        failed = 1  # collection failed, or nothing was collected
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    return Ran(kind, passed, failed, counts["skipped"], 0.0)


def longest_files(suites: ElementTree.Element) -> str:
    """What tests/lab/conftest.py has in its order."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for case in suites.iter("testcase"):
        seconds[case.get("classname", "").rpartition(".")[2]] += float(case.get("time", "0"))
    longest = sorted(seconds.items(), key=lambda one: one[1], reverse=True)[:LONGEST_SHOWN]
    return ", ".join(f"{name} {took:.0f} s" for name, took in longest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] == "yes"))
