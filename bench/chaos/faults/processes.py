"""Processes of the daemon: killed, stopped, frozen, blocked; without memory, without descriptors."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from bench.chaos.faults.fault import ITS_SESSIONS, Act, Subject, on_daemon
from bench.chaos.ground import World
from bench.chaos.service import Service, signal_all

SUBJECT: Final = Subject()
fault: Final = SUBJECT.fault

SYSTEMD: Final = "systemd starts it again after a second"
LEFT_SECONDS: Final = 10.0
"""Until a control group has nobody in it any more."""


def _one(service: Service) -> list[int]:
    return service.workers()[:1]


def _all(service: Service) -> list[int]:
    return service.workers()


def _supervisor(service: Service) -> list[int]:
    return [service.supervisor()]


def _everything(service: Service) -> list[int]:
    return [process.pid for process in service.everything()]


def _struck(letter: str, whom: Callable[[Service], list[int]], number: signal.Signals) -> Act:
    @on_daemon(letter)
    def act(_: World, service: Service) -> Iterator[None]:
        signal_all(whom(service), number)
        yield

    return act


def _stopped(letter: str, whom: Callable[[Service], list[int]]) -> Act:
    @on_daemon(letter)
    def act(_: World, service: Service) -> Iterator[None]:
        pids = whom(service)
        signal_all(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            signal_all(pids, signal.SIGCONT)

    return act


for _letter, _side in (("a", ""), ("b", "-b")):
    _at = f"at gateway {_letter}"
    for _name, _who, _whom, _undone in (
        ("worker", "one worker", _one, "the supervisor starts another"),
        ("workers", "all workers", _all, "the supervisor starts others"),
        ("supervisor", "the supervisor", _supervisor, SYSTEMD),
        ("everything", "every process of the daemon", _everything, SYSTEMD),
    ):
        fault(
            f"{_name}-killed{_side}",
            f"SIGKILL to {_who} {_at}",
            _undone,
            seconds=3.0,
            breaks_tcp="" if _name == "supervisor" else ITS_SESSIONS,
            quick=_name in ("worker", "everything") and not _side,
        )(_struck(_letter, _whom, signal.SIGKILL))
    for _name, _who, _whom in (
        ("worker", "one worker", _one),
        ("workers", "all workers", _all),
        ("supervisor", "the supervisor", _supervisor),
        ("everything", "every process of the daemon, at once,", _everything),
    ):
        fault(
            f"{_name}-stopped{_side}",
            f"SIGSTOP to {_who} {_at}",
            "SIGCONT",
            seconds=3.0,
            quick=_name in ("workers", "everything") and not _side,
        )(_stopped(_letter, _whom))
for _name, _who, _whom in (("worker", "one worker", _one), ("workers", "all workers", _all)):
    fault(
        f"{_name}-terminated",
        f"SIGTERM to {_who}",
        "the supervisor starts another, and it ends with its sessions",
        seconds=3.0,
    )(_struck("a", _whom, signal.SIGTERM))


@fault(
    "everything-frozen",
    "a control group with every process of the daemon in it is frozen",
    "it is thawed",
    seconds=3.0,
)
@on_daemon("a")
def _frozen(_: World, service: Service) -> Iterator[None]:
    with _control_group("freezer") as group:
        old = group / "freezer.state"
        switch, off, on = (old, "THAWED", "FROZEN") if old.exists() else (group / "cgroup.freeze", "0", "1")
        for pid in _everything(service):
            (group / "cgroup.procs").write_text(str(pid))
        try:
            switch.write_text(on)
            yield
        finally:
            switch.write_text(off)


@fault(
    "supervisor-terminated",
    "SIGTERM to the supervisor, as `systemctl restart` does",
    "it ends once the sessions have, at most 20 s later; systemd starts it again",
    seconds=24.0,
    breaks_tcp="a stopping daemon resets what has not ended after 20 s",
)
def _terminated(world: World) -> Iterator[None]:
    yield from _struck("a", _supervisor, signal.SIGTERM)(world)


@fault(
    "loop-blocked", "the event loop of one worker stands still for 5 s", "it goes on", seconds=5.5, quick=True
)
@on_daemon("a")
def _blocked(_: World, service: Service) -> Iterator[None]:
    signal_all(_one(service), signal.SIGUSR2)
    yield


@fault(
    "memory-limit",
    "a control group with no memory left for one worker: the kernel kills it",
    "the supervisor starts another, outside the group",
    seconds=4.0,
    breaks_tcp=ITS_SESSIONS,
)
@on_daemon("a")
def _memory(_: World, service: Service) -> Iterator[None]:
    with _control_group("memory") as group:
        old = group / "memory.limit_in_bytes"
        (old if old.exists() else group / "memory.max").write_text("65536")
        (group / "cgroup.procs").write_text(str(_one(service)[0]))
        yield


@contextlib.contextmanager
def _control_group(controller: str) -> Iterator[Path]:
    """A new one, in the tree of this controller, or of all of them; what is in it at the end moves back."""
    root = Path("/sys/fs/cgroup", controller)
    root = root if root.is_dir() else root.parent
    group = root / f"nightmail-chaos-{controller}-{os.getpid()}"
    group.mkdir()
    try:
        yield group
    finally:
        _move_all(group, root)


def _move_all(group: Path, root: Path) -> None:
    """And take the group away. Again and again, for who is in it starts others there, and ends slowly.
    Raises OSError where somebody does not leave."""
    deadline = time.monotonic() + LEFT_SECONDS
    while True:
        for pid in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (root / "cgroup.procs").write_text(pid)
        try:
            group.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _descriptors_of(pid: int) -> int:
    found = re.search(r"^Max open files +(\d+)", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def _allow_descriptors(pid: int, count: int) -> None:
    """As the process's own user: without CAP_SYS_RESOURCE, as in a container, root may not."""
    status = Path(f"/proc/{pid}/status").read_text()
    user, group = (re.findall(rf"^{kind}:\t(\d+)", status, re.MULTILINE)[0] for kind in ("Uid", "Gid"))
    as_user = ["setpriv", "--reuid", user, "--regid", group, "--clear-groups"]
    subprocess.run([*as_user, "prlimit", "--pid", str(pid), f"--nofile={count}:"], check=True, timeout=10)


def _descriptors(letter: str) -> Act:
    @on_daemon(letter)
    def act(_: World, service: Service) -> Iterator[None]:
        before = {}
        for pid in service.workers():
            before[pid] = _descriptors_of(pid)
            # A new descriptor gets the lowest free number, which must be below the limit.
            taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
            lowest = next(number for number in range(len(taken) + 1) if number not in taken)
            _allow_descriptors(pid, lowest)
        try:
            yield
        finally:
            for pid, count in before.items():
                if Path(f"/proc/{pid}").exists():
                    _allow_descriptors(pid, count)

    return act


for _letter, _side in (("a", ""), ("b", "-b")):
    fault(
        f"descriptors{_side}",
        f"no descriptor left for any worker of gateway {_letter} (prlimit)",
        "the limit as it was",
        quick=_letter == "b",
    )(_descriptors(_letter))
