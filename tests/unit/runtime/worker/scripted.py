"""A connection over real sockets, and a machine that does what a test says. Counterpart: `sockets`."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from gateway.intercept.syn import Flow
from gateway.runtime.worker.connection import Connection
from gateway.runtime.worker.pressure import Account
from gateway.session import commands as c
from gateway.session.events import (
    EndReceived,
    Event,
    OctetsReceived,
    ResetReceived,
)
from tests.unit.runtime.sockets import CountingLoop, tcp_pair


class Scripted:
    """A machine that does what the test says. `says` maps an event to commands."""

    def __init__(self, says: Callable[[Event], list[c.Command]], deadline: float | None = None) -> None:
        self._says = says
        self.deadline = deadline
        self.waits_for_silence = False
        self.octets_kept = 0
        self.events: list[Event] = []

    def handle(self, event: Event, now: float) -> list[c.Command]:
        self.events.append(event)
        return self._says(event)


def relaying(event: Event) -> list[c.Command]:
    """Pass the first event, then be done."""
    if isinstance(event, OctetsReceived):
        return [c.SendOctets(event.side.other, event.octets), c.RelayInClear()]
    if isinstance(event, EndReceived):
        return [c.SendEnd(event.side.other), c.RelayInClear()]
    assert isinstance(event, ResetReceived)
    return [c.SendReset(event.side.other)]


class World:
    """Surroundings, both mail servers' sockets, and the connection between them."""

    def __init__(
        self, loop: CountingLoop, machine: object, *, small: bool = False, account: Account | None = None
    ) -> None:
        self.loop = loop
        near, self.near = tcp_pair(small)
        far, self.far = tcp_pair(small)
        self.over = loop.create_future()
        self.times_over = 0
        self.redials = 0
        self.redial_asked = loop.create_future()
        self.errors: list[Exception] = []
        self.remembered: list[object] = []
        self.learnt: list[c.NoteSource] = []
        self.decisions: list[c.NoteDecision] = []
        self.facts: list[c.NoteFact] = []
        self.times_held_back = 0
        self.connection = Connection(
            loop,
            loop.poller(),
            cast("Any", self),
            cast("Any", machine),
            Flow("192.0.2.1", 40_000, "198.51.100.1", 25),
            "id",
            near,
            far,
            account,
        )
        self.connection.start()

    def redial(self, connection: Connection) -> None:
        self.redials += 1
        if not self.redial_asked.done():
            self.redial_asked.set_result(None)

    def remember_peer(self, connection: Connection, note: c.RememberPeer) -> None:
        self.remembered.append(note.peer)

    def note_source(self, connection: Connection, note: c.NoteSource) -> None:
        self.learnt.append(note)

    def note_decision(self, connection: Connection, note: c.NoteDecision) -> None:
        assert not self.times_over, "a word about a session that is over"
        self.decisions.append(note)

    def note_fact(self, connection: Connection, note: c.NoteFact) -> None:
        self.facts.append(note)

    def session_failed(self, connection: Connection, error: Exception) -> None:
        self.errors.append(error)

    def held_back(self, connection: Connection) -> None:
        self.times_held_back += 1

    def connection_over(self, connection: Connection) -> None:
        assert connection is self.connection
        self.times_over += 1
        if not self.over.done():
            self.over.set_result(None)

    async def finish(self) -> None:
        """The connection ends by itself; only the test's own sockets are left to close."""
        await self.over
        await asyncio.sleep(0)
        self.near.close()
        self.far.close()
        assert self.times_over == 1
        timer = cast("asyncio.TimerHandle | None", self.connection._timer)
        assert timer is None or timer.cancelled()

    async def sends(self, sock: socket.socket, octets: bytes) -> None:
        await self.loop.sock_sendall(sock, octets)


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("never")
