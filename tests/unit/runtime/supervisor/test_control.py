"""The control socket: one question, one answer; also while one supervisor follows another."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.errors import EnvironmentFailureError
from gateway.operator import status as asking
from gateway.policy import limits
from gateway.runtime.supervisor.control import ControlSocket


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "control.sock"


def made(path: Path, name: str, inherited: int | None = None) -> ControlSocket:
    async def status(_: str) -> dict[str, Any]:
        return {"name": name}

    async def echo(rest: str) -> dict[str, Any]:
        return {"echo": rest}

    return ControlSocket(path, {"status": status, "echo": echo}, inherited)


def run(work: Callable[[], Awaitable[None]]) -> None:
    """As the supervisor runs."""

    async def worked() -> None:
        async with asyncio.timeout(60):
            await work()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(worked())


async def asked(path: Path, question: bytes = b"status\n") -> Any:
    return await asyncio.to_thread(asking.ask, path, question)


def test_questions_and_answers(path: Path) -> None:
    async def work() -> None:
        control = made(path, "first")
        await control.open()
        assert (await asyncio.to_thread(path.stat)).st_mode & 0o777 == 0o600
        assert await asked(path) == {"name": "first"}
        assert await asked(path, b"echo 192.0.2.7 x\n") == {"echo": "192.0.2.7 x"}
        assert await asked(path, b"sing\n") == {"error": "this daemon knows the questions status, echo"}
        with pytest.raises(EnvironmentFailureError, match="no JSON object"):
            await asked(path, b"\xff\n")
        assert await asked(path) == {"name": "first"}
        await control.close()
        assert not await asyncio.to_thread(path.exists)
        assert await asked(path) is None

    run(work)


def test_who_asks_nothing_is_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONTROL_SECONDS", 0.05)

    async def work() -> None:
        control = made(path, "first")
        await control.open()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"stat")
        try:
            assert await asyncio.wait_for(reader.read(), 10.0) == b""
        finally:
            # A loop of libuv's that still has somebody at its sockets does not end.
            writer.close()
            await control.close()

    run(work)


def test_who_does_not_read_the_answer_is_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `nightmail status` that somebody has stopped."""
    for name in ("CONTROL_SECONDS", "ANSWER_SECONDS"):
        monkeypatch.setattr(limits, name, 0.05)

    asked = asyncio.Event()

    async def status(_: str) -> dict[str, Any]:
        asked.set()
        return {"name": "x" * (1 << 20)}

    async def work() -> None:
        control = ControlSocket(path, {"status": status})
        await control.open()
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(str(path))
            silent.send(b"status\n")
            try:
                async with asyncio.timeout(10):
                    await asked.wait()
                    await asyncio.gather(*control._answering)
                assert silent.recv(1 << 21, socket.MSG_WAITALL)[-2:] != b'"}'
            finally:
                silent.close()
                await control.close()

    run(work)


def test_one_daemon_in_a_run_directory(path: Path) -> None:
    async def work() -> None:
        control = made(path, "first")
        await control.open()
        with pytest.raises(
            EnvironmentFailureError, match=rf"run directory \(process {os.getpid()}\); `nightm"
        ):
            made(path, "second").require_free()
        with pytest.raises(EnvironmentFailureError, match="another daemon"):
            await made(path, "second").open()
        assert await asked(path) == {"name": "first"}
        await control.close()

    run(work)


def test_what_a_dead_daemon_has_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def work() -> None:
        control = made(path, "first")
        await control.open()
        assert await asked(path) == {"name": "first"}
        await control.close()

    run(work)


def test_who_asks_between_two_supervisors_is_answered_by_the_second(path: Path) -> None:
    async def work() -> None:
        first = made(path, "first")
        await first.open()
        left = await first.hand_over()
        assert left is not None
        assert not os.get_inheritable(left), "by the exec alone, which `handover` sees to"
        early = asyncio.ensure_future(asked(path))
        await asyncio.to_thread(connected, path)
        assert asking.is_running(path)
        second = made(path, "second", left)
        second.require_free()
        await second.open()
        assert await early == {"name": "second"}
        assert await asked(path) == {"name": "second"}
        await second.close()
        assert await asked(path) is None

    run(work)


@pytest.mark.parametrize("cleans_up", [True, False], ids=["python 3.13", "an earlier loop"])
def test_its_path_outlives_it_with_every_python(
    path: Path, monkeypatch: pytest.MonkeyPatch, cleans_up: bool
) -> None:
    """While the program is loaded anew `status` would say that no daemon runs."""
    serves = asyncio.start_unix_server

    async def served(*told: Any, **how: Any) -> asyncio.Server:
        if not cleans_up and "cleanup_socket" in how:
            raise TypeError("an unexpected keyword argument")
        return await serves(*told, **({"cleanup_socket": True} if cleans_up else {}) | how)

    monkeypatch.setattr(asyncio, "start_unix_server", served)

    async def work() -> None:
        first = made(path, "first")
        await first.open()
        left = await first.hand_over()
        assert await asyncio.to_thread(asking.is_running, path)
        second = made(path, "second", left)
        await second.open()
        assert await asked(path) == {"name": "second"}
        await second.close()
        assert not await asyncio.to_thread(path.exists)

    run(work)


def connected(path: Path) -> None:
    """Returns when the kernel has taken the connection, with nobody to accept it."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(5)
        one.connect(str(path))


def test_who_has_asked_before_is_answered_by_the_first(path: Path) -> None:
    """Whoever asks for the reload itself, for instance."""

    async def work() -> None:
        may_answer = asyncio.Event()
        is_asked = asyncio.Event()

        async def reload(_: str) -> dict[str, Any]:
            is_asked.set()
            await may_answer.wait()
            return {"reloads": "first"}

        first = ControlSocket(path, {"reload": reload})
        await first.open()
        early = asyncio.ensure_future(asked(path, b"reload\n"))
        await is_asked.wait()
        leaving = asyncio.ensure_future(first.hand_over())
        await asyncio.sleep(0)
        assert not leaving.done()
        may_answer.set()
        left = await leaving
        assert await early == {"reloads": "first"}
        assert left is not None
        os.close(left)

    run(work)


def test_one_whose_path_is_gone_is_of_no_use(path: Path) -> None:
    async def work() -> None:
        first = made(path, "first")
        await first.open()
        left = await first.hand_over()
        await asyncio.to_thread(path.unlink)
        second = made(path, "second", left)
        await second.open()
        assert await asked(path) == {"name": "second"}
        await second.close()

    run(work)


def test_one_that_never_listened_leaves_nothing(path: Path) -> None:
    async def work() -> None:
        assert await made(path, "first").hand_over() is None

    run(work)


def test_answers_are_json(path: Path) -> None:
    async def work() -> None:
        control = made(path, "first")
        await control.open()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"status\n")
        assert json.loads(await reader.read()) == {"name": "first"}
        writer.close()
        await control.close()

    run(work)


def test_a_socket_that_is_removed_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its directory, as after `rm -rf`. Why it does not is told once, however often it is tried."""
    monkeypatch.setattr(limits, "CONTROL_LOOK_SECONDS", 0.01)
    path = tmp_path / "run" / "control.sock"

    async def work() -> None:
        path.parent.mkdir()
        control, told = made(path, "the same"), asyncio.Queue[str]()
        await control.open()
        keeping = asyncio.create_task(control.keep(told.put_nowait))
        await asyncio.sleep(0.1)
        assert told.empty()
        path.unlink()
        assert await told.get() == ""
        assert await asked(path) == {"name": "the same"}
        path.unlink()
        path.parent.rmdir()
        path.parent.touch()
        assert await told.get() == "File exists"
        await asyncio.sleep(0.1)
        assert told.empty()
        path.parent.unlink()
        assert await told.get() == ""
        assert await asked(path) == {"name": "the same"}
        keeping.cancel()
        await control.close()
        assert not path.exists()

    run(work)
