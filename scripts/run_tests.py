"""Runs linters and tests in order and says at the end how many of which kind ran. Called by scripts/test.

Kernel tests need root. Where they cannot run, that is a failure: a skipped kernel test is not a pass.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
LINTERS = {
    "format": [BIN / "ruff", "format", "--check", "--quiet", "."],
    "lint": [BIN / "ruff", "check", "--quiet", "."],
    "types": [BIN / "mypy"],
    "layers": [BIN / "lint-imports"],
}


@dataclass
class Ran:
    """One kind of check: how many ran, and whether all of them passed."""

    kind: str
    passed: int
    failed: int
    skipped: int
    seconds: float


def main(everything: bool) -> int:
    ran = [run_linter(kind, command) for kind, command in LINTERS.items()]
    ran.append(run_pytest("unit", ["tests/unit"], "not long", as_root=False))
    ran.append(run_pytest("kernel", ["tests/lab"], "kernel and not long", as_root=True))
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
    unrun = [one.kind for one in ran if not one.passed or (one.kind in ("kernel", "long") and one.skipped)]
    if unrun:
        print(f"did not run, or skipped what must run: {', '.join(unrun)}")
    print(f"{passed} passed, {failed + len(unrun)} failed")
    return 1 if failed or unrun else 0


def run_linter(kind: str, command: list[str | Path]) -> Ran:
    print(f"== {kind}", flush=True)
    began = time.monotonic()
    status = subprocess.run(command, check=False).returncode
    return Ran(kind, int(status == 0), int(status != 0), 0, time.monotonic() - began)


def run_pytest(kind: str, paths: list[str], marks: str, *, as_root: bool) -> Ran:
    print(f"== {kind}", flush=True)
    report = Path(".pytest_cache") / f"report-{kind}.xml"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-m", marks, f"--junit-xml={report}", *paths]
    if as_root and os.geteuid() != 0:
        command = ["sudo", "--", *command]
    began = time.monotonic()
    status = subprocess.run(command, check=False).returncode
    counts = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    if report.exists():
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):  # noqa: S314 - pytest wrote it
            for key in counts:
                counts[key] += int(suite.get(key, "0"))
    failed = counts["failures"] + counts["errors"]
    if status != 0 and not failed:
        failed = 1  # collection failed, or nothing was collected
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    return Ran(kind, passed, failed, counts["skipped"], time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] == "yes"))
