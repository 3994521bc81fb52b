"""Child processes by their pid: started with chosen descriptors, waited for, taken over."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest

from gateway.runtime.supervisor.child import Child


def run(
    module: str, words: list[str], inherited: list[int], environment: dict[str, str] | None = None
) -> int:
    async def waited() -> int:
        loop = asyncio.get_running_loop()
        told: list[int] = []
        child = Child.start(loop, module, words, inherited, told.append, environment)
        status = await child.wait()
        assert told == [status]
        assert child.has_ended
        child.kill()  # of one that has ended: nothing
        return status

    return asyncio.run(waited())


def test_a_child_gets_the_descriptors_it_was_promised_and_no_other() -> None:
    ours, theirs = socket.socketpair()
    other, silent = socket.socketpair()
    with ours, theirs, other, silent:
        # `timeit` runs what it is told: writes to the first descriptor, and finds the second one closed.
        work = (
            "import os\n"
            f"os.write({theirs.fileno()}, b'here')\n"
            f"try: os.fstat({silent.fileno()})\n"
            "except OSError: pass\n"
            "else: os._exit(9)"
        )
        assert run("timeit", ["-n1", "-r1", work], [theirs.fileno()]) == 0
        assert ours.recv(100) == b"here"
        assert not os.get_inheritable(theirs.fileno())


def test_a_child_that_cannot_be_watched_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """No descriptor is left for its pid: a process without anybody who waits for it would stay for ever."""

    asked: list[int] = []

    def refuses(pid: int) -> int:
        asked.append(pid)
        raise OSError(24, "Too many open files")

    async def started() -> None:
        with pytest.raises(OSError, match="Too many"):
            Child.start(asyncio.get_running_loop(), "timeit", ["-n1", "-r1", "while True: pass"], [], print)

    monkeypatch.setattr(os, "pidfd_open", refuses)
    asyncio.run(started())
    with pytest.raises(ChildProcessError):
        os.waitpid(asked[0], os.WNOHANG)


def test_the_exit_status_is_told() -> None:
    assert run("timeit", ["-n1", "-r1", "import os; os._exit(7)"], []) == 7
    assert run("timeit", ["-n1", "-r1", "import os; os.kill(os.getpid(), 9)"], []) == -signal.SIGKILL


def test_a_child_of_somebody_else_s_making_is_taken_over_and_killed() -> None:
    started = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])

    async def taken_over() -> int:
        child = Child(asyncio.get_running_loop(), started.pid, lambda status: None)
        child.kill()
        status = await child.wait()
        started.returncode = status  # it has been waited for
        return status

    assert asyncio.run(taken_over()) == -signal.SIGKILL


def test_what_it_is_told_beside_our_environment_does_not_replace_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NIGHTMAIL_OURS", "1")
    said = {"NIGHTMAIL_OURS": "2", "NIGHTMAIL_ITS": "3"}
    work = "import os; os._exit(os.environ['NIGHTMAIL_OURS'] + os.environ['NIGHTMAIL_ITS'] != '13')"
    assert run("timeit", ["-n1", "-r1", work], [], said) == 0


def test_a_child_hears_signals_that_its_parent_does_not_hear_yet() -> None:
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        work = "import os; os.kill(os.getpid(), 15)"
        assert run("timeit", ["-n1", "-r1", work], []) == -signal.SIGTERM
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
