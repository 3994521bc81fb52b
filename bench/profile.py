"""Where a gateway's time goes: `python -m bench.profile [--sampler py-spy|cprofile] [clear] [channel]`.

Puts load on one plane and watches the workers of each gateway meanwhile, with py-spy from outside (nothing is
added to the daemon) or with cProfile, which sees every call and makes them dearer. Prints the functions by
their own time and by their time with what they call; keeps the raw files. It needs py-spy in the same virtual
environment; without it, it uses cProfile. Counterpart: `load`, which makes the load.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pstats
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import gateway as product
from bench import load, planes
from bench.planes import Plane, Variant
from gateway.lab import gateways, processes
from scripts import compiled

SAMPLER: Final = Path(sys.executable).with_name("py-spy")
PER_SECOND: Final = 250
WARM_SESSIONS: Final = 300
ROOT: Final = Path(product.__file__).parent.parent

SUBJECTS: Final = {
    "passing octets: send() and what the kernel does in it": ("Endpoint.write ",),
    "connections: queue, verdict, dial, accept, close": (
        *(
            "intercept/",
            "runtime/worker/intake.py",
            "runtime/worker/dials.py",
            "socket.py",
            "Endpoint._close_now",
            "Endpoint.reset",
            "Endpoint._shut",
        ),
    ),
    "cryptography": ("gateway/crypto/", "nacl/", "cryptography/", "hmac.py"),
    "log and counters": ("gateway/observe/",),
    "memory of peers": ("gateway/peers/", "runtime/link.py", "runtime/worker/memory.py"),
    "SMTP and the session": ("gateway/smtp/", "gateway/session/", "gateway/policy/"),
    "moving events and octets": ("gateway/runtime/",),
}
"""Where a stack belongs, by words in its frames."""

WORKER_UNDER_CPROFILE: Final = """\
#!/bin/sh
case "$*" in
*gateway.runtime.worker*) shift 3; exec "{python}" -P -c '{program}' "{folder}/worker-$$.prof" "$@" ;;
esac
exec "{python}" "$@"
"""
WORKER_UNCONFINED: Final = """\
import cProfile, sys
from gateway.runtime import hardening, system_calls
from gateway.runtime.worker import worker
hardening.STEPS.clear()
system_calls.install = lambda rules: False
file = sys.argv.pop(1)
profile = cProfile.Profile()
try:
    profile.runcall(worker.main)
finally:
    profile.dump_stats(file)
"""
"""A confined worker could not write its profile."""
DAEMON_UNDER_CPROFILE: Final = """\
import sys
sys.executable = {wrapper!r}
sys.argv = ["nightmail", "--config", {configuration!r}, "run"]
from gateway.cli import main
main()
"""


def main() -> int:
    asked = _asked()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    keep = Path(tempfile.mkdtemp(prefix="nightmail-profile-"))
    for variant in asked.variants:
        # The samplers see Python's frames alone.
        with planes.standing(
            "profile", [variant], start=asked.sampler == "py-spy", source=compiled.ROOT
        ) as standing:
            _profile(standing[variant], asked, keep)
    print(f"raw files: {keep}")
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.profile", description="Where a gateway's time goes.")
    names = ", ".join(variant.value for variant in Variant if variant is not Variant.DIRECT)
    parser.add_argument(
        "variants",
        nargs="*",
        type=Variant,
        default=[Variant.CLEAR, Variant.CHANNEL],
        help=f"only these of: {names}",
    )
    parser.add_argument("--sampler", choices=["py-spy", "cprofile"])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--parallel", type=int, default=200)
    parser.add_argument("--octets", type=int, default=4096, help="size of each mail")
    parser.add_argument("--top", type=int, default=40)
    asked = parser.parse_args()
    asked.variants = [variant for variant in asked.variants if variant is not Variant.DIRECT]
    if asked.sampler is None:
        asked.sampler = "py-spy" if SAMPLER.exists() else "cprofile"
    return asked


def _profile(plane: Plane, asked: argparse.Namespace, keep: Path) -> None:
    program = load.esmtp_source(plane.folder)
    if asked.sampler == "cprofile":
        _start_under_cprofile(plane)
    with load.sink(plane):
        warm = WARM_SESSIONS if asked.octets < 100_000 else 20
        first = _drive(plane, program, asked, warm)
        sessions = max(16, int(first.sessions_per_second * asked.seconds))
        if asked.sampler == "py-spy":
            with _sampled(plane, keep, asked.seconds):
                done = _drive(plane, program, asked, sessions)
        else:
            done = _drive(plane, program, asked, sessions)
    print(
        f"\n{plane.variant.value}: {done.sessions} sessions, {done.sessions_per_second:.0f}/s while watched"
    )
    for one in plane.gateways:
        label = f"{plane.variant.value} {one.node.name}"
        if asked.sampler == "py-spy":
            _print_samples(
                sorted(keep.glob(f"{plane.variant.value}-{one.node.name}-*.raw")), label, asked.top
            )
        else:
            gateways.stop(one)
            _print_calls(one.folder, label, asked.top, done.sessions + first.sessions, keep)


def _drive(plane: Plane, program: Path, asked: argparse.Namespace, sessions: int) -> load.Round:
    return load.drive(plane, program, parallel=asked.parallel, sessions=sessions, octets=asked.octets)


# --- Sampled from outside --------------------------------------------------------------------------------


@contextlib.contextmanager
def _sampled(plane: Plane, keep: Path, seconds: float) -> Iterator[None]:
    watching = []
    for one in plane.gateways:
        status = gateways.ask(one)
        assert status is not None
        for worker in status["workers"]:
            raw = keep / f"{plane.variant.value}-{one.node.name}-{worker['slot']}.raw"
            command = [str(SAMPLER), "record", "--pid", str(worker["pid"]), "--output", str(raw)]
            command += [
                "--format",
                "raw",
                "--rate",
                str(PER_SECOND),
                "--duration",
                str(max(1, int(seconds) - 1)),
            ]
            command += ["--nonblocking", "--function"]
            quiet = subprocess.DEVNULL
            watching.append(subprocess.Popen(command, stdout=quiet, stderr=quiet, stdin=quiet))
    try:
        yield
        for process in watching:
            process.wait(timeout=seconds + 30)
    finally:
        for process in watching:
            if process.poll() is None:
                process.kill()
                process.wait()


def _print_samples(files: list[Path], label: str, top: int) -> None:
    """Collapsed stacks: frames from the outermost in, then how often that stack was seen."""
    own: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    subjects: Counter[str] = Counter()
    for path in files:
        for line in path.read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            frames = stack.split(";")
            own[_short(frames[-1])] += int(count)
            subjects[_subject(frames)] += int(count)
            for frame in {_short(frame) for frame in frames}:
                inclusive[frame] += int(count)
    total = sum(own.values()) or 1
    print(f"\n== {label}: {total} samples of {len(files)} workers")
    for subject, seen in subjects.most_common():
        print(f"{seen / total:6.1%} {subject}")
    _print_two_columns(top, lambda n: own.most_common(n), lambda n: inclusive.most_common(n), total)


def _subject(frames: list[str]) -> str:
    """What a stack was about: its innermost frame that says so."""
    for frame in reversed(frames):
        for subject, words in SUBJECTS.items():
            if any(word in frame for word in words):
                return subject
    return "the rest"


def _print_two_columns(
    top: int,
    own: Callable[[int], list[tuple[str, int]]],
    inclusive: Callable[[int], list[tuple[str, int]]],
    total: int,
) -> None:
    print(f"{'own time':<66}  with what it calls")
    for (left, left_count), (right, right_count) in zip(own(top), inclusive(top), strict=False):
        print(f"{left_count / total:6.1%} {left:<59}  {right_count / total:6.1%} {right}")


def _short(frame: str) -> str:
    return frame.replace(str(ROOT) + "/", "").replace("gateway/", "")


# --- Every call counted ----------------------------------------------------------------------------------


def _start_under_cprofile(plane: Plane) -> None:
    for one in plane.gateways:
        gateways.prepare(one)
        wrapper = one.folder / "python"
        wrapper.write_text(
            WORKER_UNDER_CPROFILE.format(python=sys.executable, folder=one.folder, program=WORKER_UNCONFINED)
        )
        wrapper.chmod(0o755)
        program = DAEMON_UNDER_CPROFILE.format(wrapper=str(wrapper), configuration=str(one.configuration))
        command = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-c", program]
        processes.start_in(one.namespace, command, log=one.log, pid_file=one.pid_file)
    for one in plane.gateways:
        gateways.wait_ready(one)


def _print_calls(folder: Path, label: str, top: int, sessions: int, keep: Path) -> None:
    files = sorted(folder.glob("worker-*.prof"))
    if not files:
        print(f"\n== {label}: the workers have left no profile")
        return
    stats = pstats.Stats(*(str(path) for path in files))
    saved = keep / f"{label.replace(' ', '-')}.prof"
    stats.dump_stats(saved)
    print(f"\n== {label}: {len(files)} workers, {sessions} sessions; calls and milliseconds are per session")
    print(f"{'own ms':>8} {'with ms':>8} {'calls':>7}  function")
    rows = [(own, whole, calls, where) for where, (_, calls, own, whole, _) in stats.stats.items()]  # type: ignore[attr-defined]
    for own, whole, calls, (file, line, name) in sorted(rows, reverse=True)[:top]:
        where = f"{_short(file)}:{line} {name}" if line else name
        print(f"{own / sessions * 1e3:8.3f} {whole / sessions * 1e3:8.3f} {calls / sessions:7.1f}  {where}")


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
