"""One daemon to a network namespace: who may keep another one from starting, and who may not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvloop

from gateway.errors import EnvironmentFailureError
from gateway.policy import limits
from gateway.runtime.supervisor import sole
from gateway.runtime.supervisor.sole import Sole

HOLDER = """
import os, socket, sys
user, name = int(sys.argv[1]), sys.argv[2]
if user != os.geteuid():
    os.setresuid(user, user, user)
with socket.socket(socket.AF_UNIX) as held, socket.socket(socket.AF_UNIX) as control:
    held.bind("\\0" + name)
    if sys.argv[3] == "listens":
        held.listen(1)
    if len(sys.argv) > 4:
        control.bind(sys.argv[4])
        control.listen(1)
    print(os.getpid(), flush=True)
    sys.stdin.read()
"""
NOBODY = 65534


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return f"nightmail-test-{os.getpid()}-{request.node.name}"


@contextmanager
def held_by(name: str, *words: str, user: int | None = None) -> Iterator[int]:
    """Another process holds the name: its pid."""
    user = os.geteuid() if user is None else user
    command = [sys.executable, "-c", HOLDER, str(user), name, *(words or ("listens",))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        yield int(holder.stdout.readline())
        holder.communicate()


def there(name: str, control: Path = Path("/run/x/control.sock"), inherited: int | None = None) -> Sole:
    return Sole(control, inherited, b"\0" + name.encode())


def test_who_is_alone_knows_it(name: str) -> None:
    one = there(name)
    assert one.take() == one.take() == ""
    one.close()
    after = there(name)
    assert after.take() == ""
    after.close()


def test_another_daemon_is_named(name: str, tmp_path: Path) -> None:
    control = tmp_path / "control.sock"
    with held_by(name, "listens", str(control)) as pid:
        second = there(name, tmp_path / "other" / "control.sock")
        with pytest.raises(EnvironmentFailureError, match=f"process {pid}, {control}"):
            second.take()
    assert second.take() == ""
    second.close()


def test_another_daemon_without_a_control_socket_yet(name: str) -> None:
    with held_by(name) as pid, pytest.raises(EnvironmentFailureError, match=rf"\(process {pid}\)"):
        there(name).take()


def test_however_many_have_asked_the_next_one_is_answered(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SOLE_ASKED_SECONDS", 0.0)
    one = there(name)
    one.take()

    async def asked() -> None:
        loop = asyncio.get_running_loop()
        keeping = asyncio.ensure_future(one.keep())
        for _ in range(5 * limits.SOLE_ASKERS):
            with socket.socket(socket.AF_UNIX) as asking:
                asking.setblocking(False)
                await loop.sock_connect(asking, "\0" + name)
                assert await loop.sock_recv(asking, 1) == b""
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(asked(), 20))
    one.close()


@pytest.mark.root
def test_somebody_else_keeps_nobody_from_starting(name: str) -> None:
    with held_by(name, user=NOBODY) as pid:
        assert there(name).take() == f"process {pid} of user {NOBODY} has taken the name to know that by"


def test_a_name_that_is_taken_and_not_listened_at(name: str) -> None:
    with held_by(name, "silent"):
        assert "does not listen" in there(name).take()


def test_the_next_supervisor_goes_on_holding_it(name: str) -> None:
    left = there(name)
    left.take()
    descriptor = left.hand_over()
    after = there(name, inherited=descriptor)
    assert after.take() == ""
    assert there(name).take() == f"the name to know that by is still held for process {os.getpid()}"
    after.close()


def test_a_holder_that_is_gone_keeps_nobody_from_starting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is held on by who has its descriptor."""
    monkeypatch.setattr(sole, "_listener", lambda address: (2**22 + 1, os.geteuid()))
    with socket.socket(socket.AF_UNIX) as held:
        held.bind("\0" + name)
        assert "still held" in there(name).take()


def test_nothing_to_know_it_by(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no socket" in Sole(Path("/run/x/control.sock"), name=b"\0" + b"x" * 108).take()


def test_nothing_is_handed_over_by_who_holds_nothing(name: str) -> None:
    assert there(name).hand_over() is None


def test_another_daemon_is_one_that_has_another_control_socket(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sole, "_NAME", b"\0" + name.encode())
    theirs, ours = tmp_path / "theirs" / "control.sock", tmp_path / "control.sock"
    theirs.parent.mkdir()
    assert sole.another(ours) == ""
    with held_by(name, "listens", str(theirs)) as pid:
        assert sole.another(ours) == f"process {pid}, {theirs}"
        assert sole.another(theirs) == ""
        theirs.unlink()
        assert sole.another(theirs) == "", "it is ours, and has lost its socket"


@pytest.mark.root
def test_whoever_else_has_taken_the_name_is_no_daemon(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sole, "_NAME", b"\0" + name.encode())
    with held_by(name, user=NOBODY):
        assert sole.another(tmp_path / "control.sock") == ""
