"""Runs linters and tests in order and says at the end how many of which kind ran. Called by scripts/test.

A skipped test is not a pass: it is named, with its reason, and fails the run unless it may be skipped.
Kernel tests need root, and so do some others; these run by themselves.
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
from dataclasses import dataclass, field
from pathlib import Path

from tests.compiled_form import SOURCE_ALONE

BIN = Path(sys.executable).parent
MOST_TRIED_AGAIN = 5
"""More accidents than these are none."""
AT_ONCE = 2
"""Files of tests side by side."""
COMPILED_ROOMS = (
    "crypto",
    "fuzz",
    "intercept",
    "observe",
    "peers",
    "policy",
    "runtime/worker",
    "session",
    "smtp",
)
"""Of tests/unit: what a session meets on its way, which is what scripts/compiled.py compiles."""
COMPILED_LAB = (
    "test_identities.py",
    "test_tickets.py",
    "test_real_mail.py",
    "test_rollover.py",
    "test_damaged_library.py",
    "test_bridge_mail.py",
    "test_host.py",
    "test_round_trips.py",
    "test_darkness.py",
    "test_equality.py",
)
"""Of tests/lab: real mail through real daemons, of every kind that there is. The rest is the source's, unless
there is time for both."""
KERNEL_AT_ONCE = 4
"""On two processors: these tests mostly wait, each in namespaces of its own. What depends on how fast the
machine is has deadlines that allow for this; what loads it waits for its turn (tests/lab/turns.py)."""
LONGEST_SHOWN = 20
FUZZ_CASES = 1000
"""For each target, its corpus included."""
NO_FUZZER = 3
"""scripts/fuzz: there is no wheel of the fuzzer for this Python or machine; it has said so."""
MAY_BE_SKIPPED = {
    "tests.unit.runtime.test_hardening::test_no_core_is_left[False]":
        "the counter-test of another one; which machine leaves a core in the directory is not ours to say",
}  # fmt: skip
"""And why the run says enough without them."""
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
    seconds: float = 0.0
    skipped: dict[str, str] = field(default_factory=dict)
    """Tests, and why."""
    may_be_skipped: bool = False
    why: str = ""
    """What a failure that is none of a test's own has said."""
    accidents: int = 0
    """Failures, and files of tests whose set-up failed: what all tests of a file share fails once for all."""

    @property
    def unrun(self) -> dict[str, str]:
        """What must run and did not, and why."""
        if self.may_be_skipped:
            return {}
        if not (self.passed or self.failed):
            return {self.kind: "none passed", **self.skipped}
        return {test: why for test, why in self.skipped.items() if test not in MAY_BE_SKIPPED}


def main(everything: bool) -> int:
    # Who was started in the background of a script ignores it, and so would everything that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    beside = ThreadPoolExecutor(1)
    tree = beside.submit(compiled_tree)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ran = list(pool.map(run_linter, LINTERS, LINTERS.values()))
    ran.append(run_proof("proof", "tests.model"))
    ran.append(run_proof("mutants", "tests.mutants", *([] if everything else ["--sample"])))
    ran.append(run_pytest("unit", ["tests/unit", "tests/second"], "not long and not root", as_root=False))
    ran.append(run_pytest("root", ["tests/unit"], "root and not long", as_root=True, at_once=1))
    ran.append(run_fuzzers())
    ran.append(run_compiled(tree.result(), everything))
    ran.append(run_waiting("kernel", lab(everything), "kernel and not long", at_once=KERNEL_AT_ONCE))
    if everything:
        ran.append(run_waiting("long", ["tests"], "long"))
    return summed_up(ran)


def lab(everything: bool) -> list[str]:
    """On the sources. What runs on the form that is shipped does so only where there is time for both."""
    left_out = () if everything else COMPILED_LAB
    return ["tests/lab", *(f"--ignore=tests/lab/{name}" for name in left_out)]


def summed_up(ran: list[Ran]) -> int:
    """The last lines, and the exit status."""
    print()
    for one in ran:
        print(
            f"{one.kind:8} {one.passed:5} passed {one.failed:3} failed {len(one.skipped):3} skipped "
            f"{one.seconds:7.1f} s"
        )
    for test, why in [skipped for one in ran for skipped in one.skipped.items()]:
        print(f"skipped: {test}: {why}")
    for one in ran:
        if one.why:
            print(f"{one.kind} said: {one.why.strip()}")
    unrun = [test for one in ran for test in one.unrun]
    if unrun:
        print(f"did not run, and must: {', '.join(unrun)}")
    failed = sum(one.failed for one in ran) + len(unrun)
    print(f"{sum(one.passed for one in ran)} passed, {failed} failed")
    return 1 if failed else 0


def run_linter(kind: str, command: list[str | Path]) -> Ran:
    """Beside another one: what it says is shown in one piece."""
    began = time.monotonic()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    print(f"== {kind}\n{done.stdout}", end="", flush=True)
    passed = done.returncode == 0
    return Ran(kind, int(passed), int(not passed), time.monotonic() - began)


def run_proof(kind: str, module: str, *words: str) -> Ran:
    """The prover's claims, or checks taken out of the code: each row is one that passed or failed.

    What has judged nothing at all is asked once more; what it said stands in the summary if it fails again.
    """
    print(f"== {kind}", flush=True)
    began = time.monotonic()
    command = [sys.executable, "-m", module, "--json", *words]
    for again in (" (once more)", ""):
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        print(done.stderr, end="", flush=True)
        rows = json.loads(done.stdout)["rows"] if done.stdout else []
        if rows:
            break
        print(f"{kind}: ended with {done.returncode} and judged nothing{again}", flush=True)
    wrong = [row for row in rows if row["expected"] != row["got"]]
    for row in wrong:
        print(f"{row['claim']}: expected {row['expected']}, got {row['got']}")
    failed = len(wrong) or int(done.returncode != 0 or not rows)
    why = "" if rows else done.stderr
    return Ran(kind, len(rows) - len(wrong), failed, time.monotonic() - began, why=why)


def run_fuzzers() -> Ran:
    """A short, fixed run of each from the committed corpus, which the unit tests replay."""
    print("== fuzz", flush=True)
    began = time.monotonic()
    command = ["scripts/fuzz", "--runs", str(FUZZ_CASES), "--fresh", "--json"]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
    if done.returncode == NO_FUZZER:
        skipped = {"fuzz": "no fuzzer for this Python or machine"}
        return Ran("fuzz", 0, 0, time.monotonic() - began, skipped, may_be_skipped=True)
    targets = json.loads(done.stdout or "{}").get("targets", [])
    failed = sum(bool(one["findings"]) for one in targets) or int(done.returncode != 0)
    return Ran("fuzz", len(targets) - failed, failed, time.monotonic() - began)


def run_pytest(kind: str, paths: list[str], marks: str, *, as_root: bool, at_once: int = AT_ONCE) -> Ran:
    print(f"== {kind}", flush=True)
    began = time.monotonic()
    ran = _pytest(kind, [*paths, "-m", marks, *_spread(at_once)], as_root=as_root)
    ran.seconds = time.monotonic() - began
    return ran


def run_waiting(
    kind: str, paths: list[str], marks: str, *, at_once: int = AT_ONCE, compiled: Path | None = None
) -> Ran:
    """Tests that wait for real kernels and real mail servers with deadlines, as root."""
    print(f"== {kind}", flush=True)
    began = time.monotonic()
    # As tests/lab/conftest.py has them: else files with few tests come last, however long they are.
    spread = [*_spread(at_once), "--no-loadscope-reorder"]
    ran = _pytest(kind, [*paths, "-m", marks, *spread], as_root=True, compiled=compiled)
    if ran.failed and ran.accidents <= MOST_TRIED_AGAIN:
        # A machine that stood still for a moment is no fault of the product. What fails twice is.
        print(f"== {kind}, {ran.failed} failed: once more, alone", flush=True)
        words = [*paths, "-m", marks, "--last-failed"]
        again = _pytest(f"{kind}-again", words, as_root=True, compiled=compiled)
        if again.passed + again.failed >= ran.failed:
            print(f"{again.passed} of these passed the second time (named above): unsteady, please report")
            ran.passed, ran.failed = ran.passed + again.passed, again.failed
    ran.seconds = time.monotonic() - began
    return ran


def compiled_tree() -> Path | None:
    """What scripts/compiled.py makes. It takes two minutes of one processor, beside other stages."""
    command = [sys.executable, "-m", "scripts.compiled"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


def run_compiled(tree: Path | None, everything: bool) -> Ran:
    """The form that the package has: what its sources pass in one stage or another, it passes too.

    tests/compiled_form.py sees to it that all that should be compiled is, and says what is not run, and why.
    """
    print("== compiled", flush=True)
    if tree is None:
        return Ran("compiled", 0, 1)
    print(f"not run, for they are about the source form: {len(SOURCE_ALONE)} tests", flush=True)
    began = time.monotonic()
    rooms = ["tests/second", *(f"tests/unit/{room}" for room in COMPILED_ROOMS)]
    words = [*rooms, "-m", "not long and not root", *_spread(AT_ONCE)]
    ran = [_pytest("compiled", words, as_root=False, compiled=tree)]
    labs = ["tests/lab"] if everything else [f"tests/lab/{name}" for name in COMPILED_LAB]
    ran.append(run_waiting("compiled-lab", labs, "not long", at_once=KERNEL_AT_ONCE, compiled=tree))
    passed, failed = sum(one.passed for one in ran), sum(one.failed for one in ran)
    skipped = {test: why for one in ran for test, why in one.skipped.items()}
    return Ran("compiled", passed, failed, time.monotonic() - began, skipped)


def _spread(at_once: int) -> list[str]:
    return ["-n", str(at_once), "--dist", "loadfile"]


def _pytest(kind: str, words: list[str], *, as_root: bool, compiled: Path | None = None) -> Ran:
    """`compiled`: a tree of scripts/compiled.py, to be tested in place of the checkout."""
    report = Path(".pytest_cache") / f"report-{kind}.xml"
    report.parent.mkdir(exist_ok=True)
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", f"--junit-xml={report}", *words]
    if compiled is not None:
        # Also for what tests start; and safe, or else the working directory comes first.
        command = ["env", f"PYTHONPATH={compiled}", "PYTHONSAFEPATH=1", *command, "--compiled"]
    if as_root and os.geteuid() != 0:
        command = ["sudo", "--", *command]
    status = subprocess.run(command, check=False).returncode
    ran = Ran(kind, 0, 0)
    if report.exists():
        suites = ElementTree.parse(report).getroot()  # noqa: S314 - pytest wrote it
        ran = counted(kind, suites)
        print(f"longest: {longest_files(suites)}", flush=True)
    if status != 0 and not ran.failed:
        ran.failed = 1  # collection failed, or nothing was collected
    return ran


def counted(kind: str, suites: ElementTree.Element) -> Ran:
    """An error beside a failure is one more: a test that failed and could not be taken down."""
    totals = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in suites.iter("testsuite"):
        for key in totals:
            totals[key] += int(suite.get(key, "0"))
    failed = totals["failures"] + totals["errors"]
    skipped = {
        "::".join(filter(None, (case.get("classname"), case.get("name")))): _why(reason)
        for case in suites.iter("testcase")
        for reason in case.iter("skipped")
    }
    broken = {case.get("classname") for case in suites.iter("testcase") for _ in case.iter("error")}
    accidents = totals["failures"] + len(broken)
    passed = totals["tests"] - failed - totals["skipped"]
    return Ran(kind, passed, failed, skipped=skipped, accidents=accidents)


def _why(skipped: ElementTree.Element) -> str:
    """Of a whole file, which could not be read in, the reason is beside the words of that."""
    message = skipped.get("message", "")
    return (skipped.text or message) if message == "collection skipped" else message


def longest_files(suites: ElementTree.Element) -> str:
    """What tests/lab/conftest.py has in its order."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for case in suites.iter("testcase"):
        seconds[case.get("classname", "").rpartition(".")[2]] += float(case.get("time", "0"))
    longest = sorted(seconds.items(), key=lambda one: one[1], reverse=True)[:LONGEST_SHOWN]
    return ", ".join(f"{name} {took:.0f} s" for name, took in longest)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] == "yes"))
