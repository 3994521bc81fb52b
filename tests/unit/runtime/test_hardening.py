"""A process that holds keys cannot be looked into by others of its user, and leaves no core.

Real processes, without capabilities: each is a fork that gives its root away where it has it. Each refusal
stands beside a process that is not hardened and lets the same be done.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import json
import os
import pickle
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.runtime import hardening
from gateway.runtime.worker import worker

_NOBODY = 65534
_PR_SET_DUMPABLE = 4
_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17


def _without_root() -> None:
    """One user, no capability; a change of user clears the flag under test, so it is set again."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    assert ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0) == 0


@contextlib.contextmanager
def _process(body: Callable[[], None]) -> Iterator[int]:
    """A fork without root that runs `body` and then waits to be killed; entered once `body` has returned."""
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _without_root()
            body()
            os.write(tell, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(tell)
    try:
        assert os.read(ready, 1) == b"x", "the process did not come up"
        yield pid
    finally:
        os.close(ready)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _what_another_can_do(pid: int) -> dict[str, bool]:
    """Tried by a second process of the same user."""
    answers, tell = os.pipe()
    other = os.fork()
    if other == 0:
        try:
            _without_root()
            tried = {name: _succeeds(way, pid) for name, way in _WAYS.items()}
            os.write(tell, json.dumps(tried).encode())
        finally:
            os._exit(0)
    os.close(tell)
    os.waitpid(other, 0)
    with os.fdopen(answers, "rb") as file:
        done: dict[str, bool] = json.loads(file.read())
    return done


def _succeeds(way: Callable[[int], object], pid: int) -> bool:
    try:
        way(pid)
    except OSError:
        return False
    return True


def _attach(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    if libc.ptrace(_PTRACE_ATTACH, pid, None, None):
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(pid, 0)
    libc.ptrace(_PTRACE_DETACH, pid, None, None)


_WAYS: dict[str, Callable[[int], object]] = {
    "mem": lambda pid: Path(f"/proc/{pid}/mem").open("rb").close(),
    "environ": lambda pid: Path(f"/proc/{pid}/environ").read_bytes(),
    "maps": lambda pid: Path(f"/proc/{pid}/maps").read_bytes(),
    "descriptors": lambda pid: os.listdir(f"/proc/{pid}/fd"),
    "ptrace": _attach,
}
_NOTHING = dict.fromkeys(_WAYS, False)


def _yama_forbids_ptrace() -> bool:
    try:
        return Path("/proc/sys/kernel/yama/ptrace_scope").read_text().strip() != "0"
    except OSError:
        return False


def test_another_process_of_the_same_user_sees_nothing_of_a_hardened_one() -> None:
    with _process(hardening.forbid_dumps) as pid:
        assert _what_another_can_do(pid) == _NOTHING
        assert os.stat(f"/proc/{pid}/mem").st_uid == 0
    with _process(lambda: None) as pid:
        seen = _what_another_can_do(pid)
        assert seen["environ"] and seen["maps"] and seen["descriptors"]
        assert seen["mem"] == seen["ptrace"] == (not _yama_forbids_ptrace())


def test_a_worker_is_hardened_before_it_has_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """`main` as the supervisor starts it; it waits for the order then."""
    supervisors, workers = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    told, tell = os.pipe()
    monkeypatch.setattr(sys, "argv", ["worker", str(workers.fileno())])
    pid = os.fork()
    if pid == 0:
        try:
            _without_root()
            # Asked for right behind the hardening, when the order has not come yet.
            monkeypatch.setattr(pickle, "loads", lambda octets: os._exit(7))
            os.write(tell, b"x")
            worker.main()
        finally:
            os._exit(1)
    try:
        assert os.read(told, 1) == b"x"
        _wait_until_it_sleeps(pid)
        assert _what_another_can_do(pid) == _NOTHING
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if "core file" in line] == [["0", "0"]]
        supervisors.send(b"an order")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7, "it did not come to its order"
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        for one in (supervisors, workers):
            one.close()
        os.close(told)
        os.close(tell)


def _wait_until_it_sleeps(pid: int) -> None:
    """In `recv`: nothing else of `main` waits before the order."""
    for _ in range(1_000_000):
        wchan = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if wchan == "S":
            return
        os.sched_yield()
    raise AssertionError("the worker does not wait for its order")


@pytest.mark.parametrize("hardened", [True, False])
def test_no_core_is_left(hardened: bool, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if not hardened and (hard == 0 or Path("/proc/sys/kernel/core_pattern").read_text().strip() != "core"):
        pytest.skip("no process leaves a core in its directory on this machine")
    pid = os.fork()
    if pid == 0:
        try:
            os.chdir(tmp_path)
            resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
            _without_root()
            if hardened:
                hardening.forbid_dumps()
            faulthandler.disable()
            signal.signal(signal.SIGSEGV, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGSEGV)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV
    assert os.WCOREDUMP(status) is not hardened
    assert bool(list(tmp_path.glob("core*"))) is not hardened
