"""A worker's way in, without a kernel: the queue and the listeners are stand-ins, the sockets real ones.

Counterpart: tests/lab, where the kernel brings the SYNs.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.intercept.admission import Limit
from gateway.intercept.gate import DialOutcome
from gateway.intercept.marks import MarkBits
from gateway.intercept.roles import Roles
from gateway.intercept.syn import Flow
from gateway.observe.counters import Counters
from gateway.policy import limits
from gateway.runtime import intake as module
from gateway.runtime.intake import Intake
from gateway.runtime.poller import Poller
from gateway.smtp.events import Role
from tests.unit.runtime.sockets import tcp_pair

CLIENT, SERVER = "192.0.2.1", "198.51.100.7"


def syn(port: int) -> bytes:
    """An IPv4 packet without options: SYN from the client to port 25 of the server."""
    addresses = socket.inet_aton(CLIENT) + socket.inet_aton(SERVER)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0) + addresses
    return header + struct.pack("!HHIIBBHHH", port, 25, 1, 0, 5 << 4, 0x02, 1024, 0, 0)


def flow(port: int) -> Flow:
    return Flow(CLIENT, port, SERVER, 25)


class Queue:
    """Holds nothing by itself: `arrives` brings a packet, `verdicts` are what became of them."""

    def __init__(self, number: int, on_packet: Any, *, by_port: bool = False) -> None:
        self._on_packet = on_packet
        self._ours, self._theirs = socket.socketpair()
        self.verdicts: list[str] = []
        self.judged = asyncio.Event()

    def fd(self) -> int:
        return self._ours.fileno()

    def run(self) -> None: ...

    def arrives(self, packet: bytes) -> None:
        self.judged.clear()
        self._on_packet(module.HeldPacket(None), packet, 0, "lan")

    def verdict(self, token: object, mark: int | None = None, drop: bool = False) -> None:
        self.verdicts.append("drop" if drop else "pass" if mark is None else "mark")
        self.judged.set()

    def close(self) -> None:
        self._ours.close()
        self._theirs.close()


class World:
    """One intake on its loop; `pairs` are what it has brought."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.pairs: list[tuple[Flow, socket.socket, socket.socket]] = []
        self.loop = loop
        self.listeners = [socket.create_server(("127.0.0.1", 0))]
        self.others: list[socket.socket] = []
        """The other ends of what was accepted and dialled."""
        self.poller = Poller(loop)
        self.intake = Intake(
            loop,
            self.poller,
            MarkBits(0xFF000000),
            0,
            7,
            self.listeners,
            Roles(["lan"], ["wan"], []),
            self,
            Counters(),
            lambda message: True,
        )
        assert isinstance(self.intake._queue, Queue)
        self.queue = self.intake._queue

    def pair_ready(self, flow: Flow, role: Role, accepted: socket.socket, dialled: socket.socket) -> None:
        self.pairs.append((flow, accepted, dialled))

    def dial_failed(self, flow: Flow, role: Role, outcome: DialOutcome) -> None: ...
    def syn_refused(self, flow: Flow, reason: object) -> None: ...
    def over_limit(self, flow: Flow, limit: Limit) -> None: ...

    def is_known(self, flow: Flow, role: Role) -> bool:
        return False

    def connected(self, *_: object, **__: object) -> socket.socket:
        ours, theirs = tcp_pair()
        self.others.append(theirs)
        return ours

    def accepts(self, port: int) -> None:
        ours = self.connected()
        self.intake._accepted(ours, (CLIENT, port))

    def close(self) -> None:
        self.intake.stop_taking()
        self.intake._ticker.cancel()
        for listener in self.listeners:
            self.loop.remove_reader(listener.fileno())
        for one in (*self.listeners, *self.others):
            one.close()
        self.poller.close()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def world(loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(module, "SynQueue", Queue)
    monkeypatch.setattr(
        module.tproxy, "flow_of_accepted", lambda accepted, source: Flow(source[0], source[1], SERVER, 25)
    )
    world = World(loop)
    monkeypatch.setattr(module.tproxy, "dial", world.connected)
    yield world
    world.close()


def test_a_flow_that_is_over_leaves_nothing_behind(
    world: World, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a SYN that waited for its end in vain: whoever sends many must not make memory grow."""
    for port in range(1000, 1010):
        world.queue.arrives(syn(port))
        loop.run_until_complete(asyncio.wait_for(world.queue.judged.wait(), 5))
        world.accepts(port)
        world.queue.arrives(syn(port))  # from the same port again, before the session has ended
        world.intake.ended(flow(port), by_reset=True)
        _, accepted, dialled = world.pairs.pop()
        accepted.close()
        dialled.close()
    assert world.queue.verdicts == ["mark", "drop"] * 10
    monkeypatch.setattr(limits, "GATE_TICK_SECONDS", 3600)
    world.intake._tick()
    assert world.intake._flow_roles == {}
