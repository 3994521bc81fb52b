"""The lab's processes: started in a namespace, remembered in pid files, ended by their own ids.

A process is ours only if its start time is the one that we wrote down, or if it lives in a namespace of
ours. It must never signal anything else: ids are used again, and names prove nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.errors import EnvironmentFailureError
from gateway.lab.network import identity, machines_own, namespace_path, refuse_machines_own

START_TIME_FIELD: Final = 22
"""proc(5): starttime, counted from 1; everything up to the command's last `)` is two fields."""
ROUNDS: Final = 50
"""A process that forks faster than we kill is met again in the next round."""

SAID_CHARACTERS: Final = 400
"""The end of what a failed command said, where Python and others name what went wrong."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process, told from a later one with the same id by its start time."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started

    def signal(self, number: signal.Signals) -> bool:
        """Send the signal; False if it is gone. The descriptor closes the gap between look and kill."""
        try:
            descriptor = _pidfd(self.pid)
        except ProcessLookupError:
            return False
        try:
            if not self.alive:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def wait_gone(self, seconds: float) -> bool:
        """Wait for the end of a process, which need not be our child."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        try:
            descriptor = _pidfd(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.alive:
                return True
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            gone = bool(poll.poll(seconds * 1000))
        finally:
            os.close(descriptor)
        if gone:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, os.WNOHANG)
        return gone


def _pidfd(pid: int) -> int:
    """Raises ProcessLookupError where there is no such process."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        # Of one that has just been reaped, whose number a group or session still has, older kernels say this.
        if error.errno == errno.EINVAL:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from None
        raise


def start_time(pid: int) -> int | None:
    """When the process began, in clock ticks since boot; None if it is gone or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in {"Z", "X"}:
        return None
    return int(fields[START_TIME_FIELD - 3])


def command_in(namespace: str, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` in the namespace; nsenter becomes it, so the id is its own."""
    refuse_machines_own(namespace)
    return ["nsenter", f"--net={namespace_path(namespace)}", "--", *command]


def run_in(
    namespace: str, command: Sequence[str], *, stdin: bytes = b"", seconds: float = 60.0
) -> subprocess.CompletedProcess[bytes]:
    """Run to the end. Raises EnvironmentFailureError with the command's own last words if it fails."""
    try:
        done = subprocess.run(
            command_in(namespace, command), input=stdin, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise EnvironmentFailureError(f"{command[0]} in {namespace}: no end after {seconds:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip() or "no word"
        raise EnvironmentFailureError(
            f"{command[0]} in {namespace} ended with status {done.returncode}: {said[-SAID_CHARACTERS:]}"
        )
    return done


def start_in(
    namespace: str, command: Sequence[str], *, log: Path, pid_file: Path, stdout: int | None = None
) -> Process:
    """Start a process that outlives us, with its words in `log` and its identity in `pid_file`.

    `stdout` is a descriptor that takes its standard output in place of the log.
    """
    arguments = command_in(namespace, command)
    words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    silence = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pid = os.posix_spawnp(
            arguments[0],
            arguments,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, silence, 0),
                (os.POSIX_SPAWN_DUP2, words if stdout is None else stdout, 1),
                (os.POSIX_SPAWN_DUP2, words, 2),
            ],
            setsid=True,
        )
    finally:
        os.close(words)
        os.close(silence)
    started = start_time(pid)
    if started is None:
        os.waitpid(pid, os.WNOHANG)
        raise EnvironmentFailureError(f"{command[0]} in {namespace} ended at once: see {log}")
    pid_file.write_text(json.dumps({"pid": pid, "started": started}) + "\n")
    return Process(pid, started)


def read_pid_file(path: Path) -> Process | None:
    """The process that a pid file names, if it still runs; None for a missing, cut or stale file."""
    try:
        fields = json.loads(path.read_text())
        process = Process(int(fields["pid"]), int(fields["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return process if process.alive else None


def children_of(parent: Process) -> list[Process]:
    """Its children that run now."""
    found = []
    for listing in Path(f"/proc/{parent.pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for word in listing.read_text().split():
                started = start_time(int(word))
                if started is not None:
                    found.append(Process(int(word), started))
    return found


def living_in(namespaces: Iterable[str]) -> list[Process]:
    """Every process whose network namespace is one of these. Never one of the machine's own namespace."""
    wanted = {identity(path) for name in namespaces if (path := namespace_path(name)).exists()}
    wanted -= machines_own()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            if identity(entry / "ns/net") in wanted:
                started = start_time(int(entry.name))
                if started is not None:
                    found.append(Process(int(entry.name), started))
    return found


def kill_all_in(namespaces: Sequence[str], seconds: float = 10.0) -> int:
    """SIGKILL everything that lives in these namespaces, and wait until it is gone; how many there were."""
    deadline = time.monotonic() + seconds
    killed = 0
    for _ in range(ROUNDS):
        targets = living_in(namespaces)
        if not targets:
            return killed
        killed += sum(process.signal(signal.SIGKILL) for process in targets)
        for process in targets:
            process.wait_gone(max(0.0, deadline - time.monotonic()))
    raise EnvironmentFailureError(
        f"{len(targets)} processes of the lab do not end: {targets[0].pid} and others"
    )
