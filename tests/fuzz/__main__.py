"""Coverage-guided fuzzing of every parser and both session machines; called by scripts/fuzz.

Each target starts from the committed corpus (and from what earlier runs found, kept in .fuzz/) and runs in a
process of its own. What leaves a target, hangs or grows is a finding: its octets are kept in .fuzz/TARGET/.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.fuzz.coverage import covered
from tests.fuzz.table import CORPUS, TARGETS
from tests.fuzz.target import Target

ROOT = Path(__file__).parents[2]
WORK = ROOT / ".fuzz"
CASE_SECONDS = 10
"""One case may take so long; the slowest ones need milliseconds."""
MEMORY_MIB = 1024
"""Resident memory of one process, the interpreter and the fuzzer's own included."""


@dataclass
class Ran:
    """What one target's run came to."""

    target: str
    runs: int
    seconds: float
    edges: int
    """Branches of the instrumented code that were seen, as the fuzzer counts them."""
    corpus: int
    lines: str
    """Lines of the target's modules that its corpus reaches, of all lines with code."""
    peak_mib: int
    slowest_seconds: int
    findings: list[str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("target", nargs="*", help=f"of: {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--runs", type=int, default=0, help="cases for each target")
    parser.add_argument("--seconds", type=int, default=0, help="time for each target (60 without --runs)")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the fuzzer's chance; 0: another one each time"
    )
    parser.add_argument("--fresh", action="store_true", help="from the committed corpus alone, keep nothing")
    parser.add_argument("--json", action="store_true")
    words = parser.parse_args()
    unknown = [name for name in words.target if name not in TARGETS]
    if unknown or words.runs < 0 or words.seconds < 0:
        parser.error(f"no such target: {', '.join(unknown)}" if unknown else "a number below 0")
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: atheris is not here; no wheel of it for this Python or machine?", file=sys.stderr)
        return 3
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        ran = list(pool.map(lambda name: fuzz(name, words), words.target or TARGETS))
    report(ran, as_json=words.json)
    return 1 if any(one.findings for one in ran) else 0


def fuzz(name: str, words: argparse.Namespace) -> Ran:
    target = TARGETS[name]
    work = WORK / name
    (work / "corpus").mkdir(parents=True, exist_ok=True)
    (work / "fresh").mkdir(exist_ok=True)
    for left in (work / "fresh").iterdir():
        left.unlink()
    into = work / ("fresh" if words.fresh else "corpus")
    before = set(work.glob("finding-*"))
    options = _options(target, work, words)
    command = [sys.executable, "-m", "tests.fuzz.one", name, *options, str(into), str(CORPUS / name)]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    seconds = time.monotonic() - began
    said = done.stderr.decode(errors="replace")
    findings = sorted(path.name for path in set(work.glob("finding-*")) - before)
    if done.returncode and not findings:
        findings = [f"ended with status {done.returncode}"]
    if findings:
        (work / "last-finding.txt").write_text(done.stdout.decode(errors="replace") + said)
        print(f"fuzz: {name}: {', '.join(findings)}; see {work}/last-finding.txt", file=sys.stderr)
    cases = [path for folder in (CORPUS / name, into) for path in folder.iterdir()]
    return Ran(
        target=name,
        runs=_last(r"stat::number_of_executed_units:\s+(\d+)", said),
        seconds=round(seconds, 1),
        edges=_last(r"cov: (\d+)", said),
        corpus=_last(r"corp: (\d+)", said),
        lines=covered(name, cases),
        peak_mib=_last(r"stat::peak_rss_mb:\s+(\d+)", said),
        slowest_seconds=_last(r"stat::slowest_unit_time_sec:\s+(\d+)", said),
        findings=findings,
    )


def _options(target: Target, work: Path, words: argparse.Namespace) -> list[str]:
    """libFuzzer's, with the words of the target's in a file."""
    options = [
        f"-artifact_prefix={work}/finding-",
        f"-max_len={target.most_octets}",
        f"-timeout={CASE_SECONDS}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-seed={words.seed}",
        "-print_final_stats=1",
        "-len_control=0",
    ]
    if target.words:
        dictionary = work / "words"
        dictionary.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
        options.append(f"-dict={dictionary}")
    if words.runs:
        options.append(f"-runs={words.runs}")
    if words.seconds or not words.runs:
        options.append(f"-max_total_time={words.seconds or 60}")
    return options


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{octet:02x}" for octet in word)


def _last(pattern: str, text: str) -> int:
    found = re.findall(pattern, text)
    return int(found[-1]) if found else 0


def report(ran: list[Ran], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"targets": [asdict(one) for one in ran]}, indent=1))
        return
    print(
        f"{'target':10} {'runs':>9} {'seconds':>8} {'edges':>6} {'cases':>6} {'lines':>9} {'MiB':>5} findings"
    )
    for one in ran:
        print(
            f"{one.target:10} {one.runs:9} {one.seconds:8.1f} {one.edges:6} {one.corpus:6} {one.lines:>9} "
            f"{one.peak_mib:5} {', '.join(one.findings) or 'none'}"
        )
    print(f"{sum(one.runs for one in ran)} cases, {sum(len(one.findings) for one in ran)} findings")


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
