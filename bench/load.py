"""Rounds of Postfix's smtp-source against its smtp-sink.

smtp-source says HELO, and with HELO there is nothing to upgrade: a copy of it is made that says EHLO, which
is the same program but for one word of equal length. One process per pair of addresses; every mail has a
connection of its own. Counterparts: `planes` (where), `meter` (what it cost).
"""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import meter
from bench.planes import Plane
from gateway.lab import processes

SOURCE: Final = Path("/usr/sbin/smtp-source")
SINK: Final = Path("/usr/sbin/smtp-sink")
BACKLOG: Final = "2048"
SINK_SESSIONS: Final = "6000"
ROUND_SECONDS: Final = 90.0
READY_SECONDS: Final = 10.0
REST_SECONDS: Final = 0.3
"""Before a round, so that the last sessions of the one before it are closed and not counted as ours."""
LAUNCHES: Final = 32
CLOSED_PORT: Final = 9


@dataclass(frozen=True, slots=True)
class Anyway:
    """CPU seconds that a round takes whatever its sessions cost."""

    idle_per_second: float
    launch_seconds: float
    """To start and end one load generator: a fast variant's many sessions would share it better."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round took."""

    variant: str
    parallel: int
    sessions: int
    octets: int
    processes: int
    seconds: float
    cpu_seconds: float
    softirq_seconds: float
    stranger_seconds: float
    steal_seconds: float
    gateway_seconds: float
    """CPU of the gateways' own processes: part of cpu_seconds, and free of other people's noise."""

    @property
    def sessions_per_second(self) -> float:
        return self.sessions / self.seconds

    @property
    def megabytes_per_second(self) -> float:
        return self.sessions * self.octets / self.seconds / 1e6

    def cpu_ms(self, anyway: Anyway) -> float:
        """Whole machine's CPU per session, less what has nothing to do with sessions."""
        other = anyway.idle_per_second * self.seconds + anyway.launch_seconds * self.processes
        return (self.cpu_seconds - other) / self.sessions * 1000


def esmtp_source(folder: Path) -> Path:
    """The copy that says EHLO. Raises SystemExit where the program is not the one we know."""
    program = SOURCE.read_bytes()
    if program.count(b"\0HELO\0") != 1:
        raise SystemExit(f"bench: {SOURCE} does not hold the word HELO once; another version of Postfix?")
    copy = folder / "esmtp-source"
    copy.write_bytes(program.replace(b"\0HELO\0", b"\0EHLO\0"))
    shutil.copymode(SOURCE, copy)
    return copy


@contextlib.contextmanager
def sink(plane: Plane, address: str = "") -> Iterator[None]:
    """smtp-sink on one address of the plane's receiving server, or on all of them."""
    namespace = plane.namespace("mta-b")
    command = [
        str(SINK),
        "-u",
        "nobody",
        "-4",
        "-m",
        SINK_SESSIONS,
        "-t",
        "900",
        "-h",
        "mta-b.b.test",
        f"{address}:25",
        BACKLOG,
    ]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = ["prlimit", f"--nofile={hard}:{hard}"]
    with (plane.folder / "sink.log").open("ab") as log:
        process = subprocess.Popen(
            processes.command_in(namespace, [*limits, *command]),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    try:
        _wait_listening(plane, address)
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def sinks(planes: Iterable[Plane]) -> Iterator[None]:
    """One on every address of each plane."""
    with contextlib.ExitStack() as stack:
        for plane in planes:
            stack.enter_context(sink(plane))
        yield


def _wait_listening(plane: Plane, address: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while f"{address}:25 ".encode() not in processes.run_in(plane.namespace("mta-b"), ["ss", "-Hltn"]).stdout:
        if time.monotonic() > deadline:
            raise SystemExit(f"bench: smtp-sink does not listen: {(plane.folder / 'sink.log').read_text()}")
        time.sleep(0.02)


def anyway(plane: Plane, program: Path, seconds: float) -> Anyway:
    """Measured: the machine with nothing to do, and load generators that find nobody."""
    idle = meter.idle_cpu_per_second(seconds)
    command = processes.command_in(plane.namespace("mta-a"), [str(program), "-4", f"127.0.0.1:{CLOSED_PORT}"])
    before = _own_and_children()
    quiet = subprocess.DEVNULL
    running = [subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) for _ in range(LAUNCHES)]
    for process in running:
        process.wait(timeout=READY_SECONDS)
    return Anyway(idle, (_own_and_children() - before) / LAUNCHES)


def _own_and_children() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def shares(parallel: int, sessions: int, pairs: int) -> list[tuple[int, int]]:
    """(parallel, sessions) of each pair's process: as even as whole numbers allow, sessions by parallel."""
    slots = [parallel // pairs + (i < parallel % pairs) for i in range(pairs)]
    return [(slot, max(1, round(sessions * slot / parallel))) for slot in slots if slot]


def drive(
    plane: Plane,
    program: Path,
    *,
    parallel: int,
    sessions: int,
    octets: int,
    until: Callable[[int], None] | None = None,
    destinations: Sequence[str] = (),
) -> Round:
    """One round. Raises SystemExit if a mail was refused or the time is over: then there is no figure.

    To all servers, or to these. `until` is given the number of mails and returns when they have arrived,
    where that is later than their acceptance.
    """
    pids = [pid for one in plane.gateways for pid in plane.gateway_pids(one.node.name)]
    servers = destinations or plane.destinations
    plan = shares(parallel, sessions, len(servers))
    time.sleep(REST_SECONDS)
    own_before = meter.process_seconds(pids)
    before = meter.begin()
    running = [
        _generator(plane, [str(program), "-4", "-s", str(slot), "-m", str(count), "-l", str(octets)], to)
        for (slot, count), to in zip(plan, servers, strict=False)
    ]
    failures = _failures_of(running, before.wall + ROUND_SECONDS)
    if until is not None and not failures:
        until(sum(count for _, count in plan))
    after = meter.end()
    own_after = meter.process_seconds(pids)
    if failures:
        raise SystemExit(f"bench: {plane.variant.value}, {parallel} parallel: {failures[0]}")
    used = meter.between(before, after)
    return Round(
        plane.variant.value,
        parallel,
        sum(count for _, count in plan),
        octets,
        len(plan),
        used.wall,
        used.cpu,
        used.softirq,
        used.strangers,
        used.steal,
        own_after - own_before,
    )


def _generator(plane: Plane, command: list[str], server: str) -> subprocess.Popen[bytes]:
    """smtp-source at site a, towards one server of site b's."""
    mail = ["-M", "mta-a.a.test", "-f", "a@a.test", "-t", "b@b.test", f"{server}:25"]
    return subprocess.Popen(
        processes.command_in(plane.namespace("mta-a"), [*command, *mail]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _failures_of(running: list[subprocess.Popen[bytes]], deadline: float) -> list[str]:
    """Waits until all have ended, and has ended them if the time is over."""
    failures = []
    try:
        for process in running:
            _, words = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
            if process.returncode:
                failures.append(words.decode(errors="replace").strip() or f"status {process.returncode}")
    except subprocess.TimeoutExpired:
        failures.append(f"not at its end after {ROUND_SECONDS:.0f} s")
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.wait()
    return failures
