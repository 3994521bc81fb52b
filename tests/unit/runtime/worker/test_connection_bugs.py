"""A bug of ours in one session over real sockets: that one is reset and it is told; the others go on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import Reason
from gateway.policy import limits
from gateway.runtime.worker.connection import Connection
from gateway.runtime.worker.endpoint import Endpoint, Hold
from gateway.session import commands as c
from gateway.session.events import (
    Event,
    Side,
)
from gateway.smtp.events import Role
from tests.unit.runtime.sockets import CountingLoop, read_all, read_exactly, run, send_reset
from tests.unit.runtime.worker.scripted import Scripted, World, relaying, until


def test_a_bug_of_the_machine_resets_one_session_and_is_told() -> None:
    def says(event: Event) -> list[c.Command]:
        raise KeyError("a bug")

    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(says))
        await world.sends(world.far, b"x")
        with pytest.raises(ConnectionResetError):
            await read_all(loop, world.near)
        await world.finish()
        assert [type(error) for error in world.errors] == [KeyError]
        assert world.connection.end_reason(Role.SENDING) is Reason.INTERNAL

    run(body)


class Bug(Exception):
    """Ours, for a test."""


def broken(monkeypatch: pytest.MonkeyPatch, where: type, name: str, only: Callable[[Any], bool]) -> None:
    """This method raises, for those of which `only` is true."""
    whole = getattr(where, name)

    def breaks(self: Any, *args: Any, **named: Any) -> Any:
        if only(self):
            raise Bug(name)
        return whole(self, *args, **named)

    monkeypatch.setattr(where, name, breaks)


BUGS: list[tuple[str, type, str, str]] = [
    # what happens, and where the bug is then
    ("octets", Endpoint, "write", "_far"),
    ("octets", Connection, "octets_received", ""),
    ("end", Endpoint, "end", "_far"),
    ("end", Connection, "end_received", ""),
    ("end", Endpoint, "_shut", "_far"),
    ("reset", Connection, "reset_received", ""),
    ("reset", Endpoint, "reset", "_far"),
    ("reset", Endpoint, "_close_now", "_far"),
    ("ends", Endpoint, "close", "_near"),
    ("ends", Endpoint, "_drain_then_close", "_near"),
]


@pytest.mark.parametrize(("event", "where", "name", "side"), BUGS, ids=[f"{b[0]}-{b[2]}" for b in BUGS])
def test_a_bug_in_a_relayed_session_resets_it_alone(
    monkeypatch: pytest.MonkeyPatch, event: str, where: type, name: str, side: str
) -> None:
    async def body(loop: CountingLoop) -> None:
        world, other = World(loop, Scripted(relaying)), World(loop, Scripted(relaying))
        for each in (world, other):
            await each.sends(each.near, b"a")
            assert await read_exactly(loop, each.far, 1) == b"a"
        if event == "ends":
            world.far.shutdown(socket.SHUT_WR)
            assert await read_all(loop, world.near) == b""
        broken_one = getattr(world.connection, side) if side else world.connection
        broken(monkeypatch, where, name, lambda one: one is broken_one)
        if event == "octets":
            await world.sends(world.near, b"b")
        elif event in ("end", "ends"):
            world.near.shutdown(socket.SHUT_WR)
        else:
            send_reset(world.near)
        if event != "ends":  # else it has our FIN already
            with pytest.raises(ConnectionResetError):
                await read_all(loop, world.far)
        if event == "octets":
            with pytest.raises(ConnectionResetError):
                await read_all(loop, world.near)
        await world.finish()
        assert [type(error) for error in world.errors] == [Bug]
        assert world.connection.end_reason(Role.SENDING) is Reason.INTERNAL
        await other.sends(other.far, b"c")
        assert await read_exactly(loop, other.near, 1) == b"c"
        for one in (other.near, other.far):
            one.shutdown(socket.SHUT_WR)
        await other.finish()
        assert not other.errors

    run(body)


def test_a_bug_while_a_slow_peer_is_served_resets_that_session(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying))
        await world.sends(world.near, b"a")
        assert await read_exactly(loop, world.far, 1) == b"a"
        broken(monkeypatch, Connection, "drained", lambda one: one is world.connection)
        sending = asyncio.ensure_future(world.sends(world.near, bytes(32 << 20)))
        await until(lambda: world.connection._far.pending > 0)
        with pytest.raises(ConnectionResetError):
            await read_all(loop, world.far)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await sending
        await world.finish()
        assert [type(error) for error in world.errors] == [Bug]

    run(body)


@pytest.mark.parametrize("when", ["linger", "drain", "broken write"])
def test_a_bug_in_what_is_called_later_resets_that_session(
    monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr(limits, "LINGER_SECONDS", 0.05)
    monkeypatch.setattr(limits, "DRAIN_SECONDS", 0.05)

    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(lambda event: [c.CloseBoth()]), small=True)
        near = world.connection._near
        if when == "linger":
            near.write(bytes(1 << 20))
            broken(monkeypatch, Endpoint, "reset", lambda one: one is near)
        elif when == "drain":
            broken(monkeypatch, Endpoint, "_close_now", lambda one: one is near)
        else:
            broken(monkeypatch, Connection, "reset_received", lambda one: one is world.connection)
            world.connection._near._hold |= Hold.ENDED
            world.connection._near._break_write()
        if when != "broken write":
            await world.sends(world.far, b"x")
        await world.finish()
        assert [type(error) for error in world.errors] == [Bug]

    run(body)


def test_a_bug_at_a_deadline_resets_that_session() -> None:
    class Broken(Scripted):
        @property
        def waits_for_silence(self) -> bool:
            raise Bug("waits_for_silence")

        @waits_for_silence.setter
        def waits_for_silence(self, value: bool) -> None: ...

    async def body(loop: CountingLoop) -> None:
        def says(event: Event) -> list[c.Command]:
            machine.deadline = loop.time() + 0.05
            return [c.SendOctets(Side.FAR, bytes(4 << 20))]

        machine = Broken(says)
        world = World(loop, machine, small=True)
        await world.sends(world.near, b"x")
        await world.finish()
        assert [type(error) for error in world.errors] == [Bug]

    run(body)


def test_a_session_whose_end_cannot_be_told_is_over_all_the_same() -> None:
    class Deaf(World):
        def connection_over(self, connection: Connection) -> None:
            super().connection_over(connection)
            raise Bug("connection_over")

        def session_failed(self, connection: Connection, error: Exception) -> None:
            super().session_failed(connection, error)

    async def body(loop: CountingLoop) -> None:
        world = Deaf(loop, Scripted(relaying))
        send_reset(world.near)
        with pytest.raises(ConnectionResetError):
            await read_all(loop, world.far)
        await world.finish()
        assert [type(error) for error in world.errors] == [Bug]

    run(body)
