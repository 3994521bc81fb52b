"""A worker's way in, without a kernel: the queue and the listeners are stand-ins, the sockets real ones.

A bug of ours costs one session. Counterpart: tests/lab, where the kernel brings the SYNs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import select
import socket
import struct
from collections.abc import Iterator
from typing import Any, cast

import pytest

from gateway.intercept import tproxy
from gateway.intercept.admission import Limit
from gateway.intercept.marks import MarkBits
from gateway.intercept.nfqueue import HeldPacket
from gateway.intercept.outcomes import DialOutcome
from gateway.intercept.roles import Roles
from gateway.intercept.syn import Flow
from gateway.observe.counters import Counters
from gateway.policy import limits
from gateway.runtime.worker import intake as module
from gateway.runtime.worker.intake import Intake
from gateway.runtime.worker.poller import Poller
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
        self.knows_names = True

    def fd(self) -> int:
        return self._ours.fileno()

    def run(self) -> None: ...

    def forget_names(self) -> None:
        self.knows_names = False

    def arrives(self, packet: bytes) -> None:
        self.judged.clear()
        self._on_packet(HeldPacket(None), packet, 0, "lan")

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
        self.failures: list[tuple[Flow, str]] = []
        self.outcomes: list[DialOutcome] = []
        self.over: list[Limit] = []
        self.kept: list[int] = []
        """Errnos of this machine's."""
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
        self.queue = cast("Queue", self.intake._queue)

    def pair_ready(self, flow: Flow, role: Role, accepted: socket.socket, dialled: socket.socket) -> None:
        self.pairs.append((flow, accepted, dialled))

    def dial_failed(self, flow: Flow, role: Role, outcome: DialOutcome) -> None:
        self.outcomes.append(outcome)

    def syn_refused(self, flow: Flow, reason: object) -> None: ...

    def over_limit(self, flow: Flow, limit: Limit) -> None:
        self.over.append(limit)

    def kept_from_dialling(self, flow: Flow, number: int) -> None:
        self.kept.append(number)

    def flow_failed(self, flow: Flow, error: Exception) -> None:
        self.failures.append((flow, str(error)))

    def is_known(self, flow: Flow, role: Role) -> bool:
        return False

    def connected(self, *_: object, **__: object) -> socket.socket:
        ours, theirs = tcp_pair()
        self.others.append(theirs)
        return ours

    def accepts(self, port: int) -> None:
        ours = self.connected()
        self.intake._listeners._accepted(ours, (CLIENT, port))

    def close(self) -> None:
        self.intake.stop_taking()
        self.intake._ticker.cancel()
        self.intake._reserve.give()
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
        tproxy, "flow_of_accepted", lambda accepted, source: Flow(source[0], source[1], SERVER, 25)
    )
    world = World(loop)
    monkeypatch.setattr(tproxy, "dial", world.connected)
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


def test_the_names_of_interfaces_are_asked_for_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "GATE_TICK_SECONDS", 3600)
    world.intake._tick()
    assert not world.queue.knows_names
    world.intake.stop_taking()
    world.intake._tick()


def test_servers_that_have_answered_are_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may be any address of a network that one machine answers for."""
    moments = [100.0]
    monkeypatch.setattr(world.loop, "time", lambda: moments[0])
    monkeypatch.setattr(limits, "GATE_TICK_SECONDS", 3600)
    told: list[object] = []
    monkeypatch.setattr(world.intake, "_tell", told.append)
    for host in range(10):
        world.intake._tell_answer((f"2001:db8::{host}", 25))
        moments[0] += 2 * limits.TELL_ANSWER_SECONDS
        world.intake._tell_answer(("2001:db8::ff", 25))
        world.intake._tick()
        world.intake._tell_answer(("2001:db8::ff", 25))
        assert list(world.intake._answer_told) == [("2001:db8::ff", 25)]
    assert len(told) == 20, "of none twice within a second"


def test_what_slept_for_long_forgets_and_what_slept_for_a_moment_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose SYN cannot have come again yet has not gone direct: he is dialled for as if nothing had been."""
    moments = [100.0]
    monkeypatch.setattr(world.loop, "time", lambda: moments[0])
    world.queue.arrives(syn(1000))
    moments[0] += limits.SYN_AGAIN_SECONDS - 0.1
    world.queue.arrives(syn(1001))
    world.intake.discard_backlog(limits.HUNG_AFTER_SECONDS)
    assert set(world.intake._dials.flows()) == {flow(1000), flow(1001)}
    moments[0] += 0.2
    world.intake.discard_backlog(limits.HUNG_AFTER_SECONDS)
    assert set(world.intake._dials.flows()) == {flow(1001)}, "the other one's client has sent its SYN again"
    assert world.queue.verdicts == ["drop"]
    backlog = [syn(1002)]
    monkeypatch.setattr(world.queue, "run", lambda: backlog and world.queue.arrives(backlog.pop()))
    world.intake.discard_backlog(limits.SYN_AGAIN_SECONDS)
    assert not world.intake._dials
    assert world.queue.verdicts == ["drop"] * 3


@pytest.fixture
def silent(world: World, monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """What is dialled: never ready to be written to, as a connection is until somebody answers its SYN."""
    made: list[socket.socket] = []

    def dial(*_: object, **__: object) -> socket.socket:
        dialled = world.connected()
        dialled.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                dialled.send(bytes(1 << 20))
        made.append(dialled)
        return dialled

    monkeypatch.setattr(tproxy, "dial", dial)
    return made


def test_a_dial_that_nobody_answers_is_given_up(
    world: World, silent: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DIAL_SECONDS", 0.01)
    world.queue.arrives(syn(1000))
    assert world.intake._dials
    world.loop.run_until_complete(asyncio.wait_for(world.queue.judged.wait(), 30))
    assert world.queue.verdicts == ["drop"], "silence is silence"
    nothing_is_left(world, 1000)


def test_a_dial_is_not_over_when_the_copy_of_an_icmp_error_wakes_us(
    world: World, silent: list[socket.socket]
) -> None:
    """The error itself comes a moment later; until then the socket has none, and is not connected either."""
    world.queue.arrives(syn(1000))
    world.poller._ready[silent[0].fileno()](select.EPOLLERR)
    assert len(world.intake._dials) == 1
    assert world.queue.verdicts == []


@pytest.mark.parametrize("why", [errno.EADDRINUSE, errno.EADDRNOTAVAIL])
def test_where_the_clients_port_is_taken_it_is_dialled_from_another_one(
    world: World, monkeypatch: pytest.MonkeyPatch, why: int
) -> None:
    """To drop its SYN until the port is free would be to drop them all: it comes again from the same one."""
    dialled_from: list[int | None] = []

    def dial(flow: Flow, marks: MarkBits, *, from_port: int | None = None) -> socket.socket:
        dialled_from.append(from_port)
        if from_port is None:
            raise OSError(why, "taken")
        return world.connected()

    monkeypatch.setattr(tproxy, "dial", dial)
    goes_well(world, 1000)
    assert dialled_from == [None, tproxy.ANY_PORT]
    nothing_is_left(world, 1000)


def fails(monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    def dial(*_: object, **__: object) -> socket.socket:
        raise error

    monkeypatch.setattr(tproxy, "dial", dial)


@pytest.mark.parametrize(
    ("error", "verdict", "outcome", "over", "kept"),
    [
        (OSError(errno.EMFILE, ""), "pass", DialOutcome.NO_DESCRIPTOR, [Limit.DESCRIPTORS], []),
        (OSError(errno.EADDRNOTAVAIL, ""), "drop", DialOutcome.PORTS_BUSY, [Limit.PORTS], []),
        (OSError(errno.EPERM, ""), "pass", DialOutcome.LOCAL_TROUBLE, [], [errno.EPERM]),
        (
            tproxy.NotDialledError(errno.EINVAL, ""),
            "pass",
            DialOutcome.LOCAL_TROUBLE,
            [],
            [errno.EINVAL],
        ),
        (OSError(errno.EINVAL, ""), "pass", DialOutcome.SWALLOWED, [], []),
    ],
    ids=["descriptors", "ports", "refused-here", "not-made", "swallowed"],
)
def test_what_keeps_us_from_dialling_is_told_as_what_it_is(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    verdict: str,
    outcome: DialOutcome,
    over: list[Limit],
    kept: list[int],
) -> None:
    fails(monkeypatch, error)
    monkeypatch.setattr(world.intake._reserve, "give", lambda: False)
    world.queue.arrives(syn(1000))
    world.loop.run_until_complete(asyncio.wait_for(world.queue.judged.wait(), 5))
    assert (world.queue.verdicts, world.outcomes) == ([verdict], [outcome])
    assert (world.over, world.kept) == (over, kept)
    nothing_is_left(world, 1000)


def test_what_a_started_connect_says_of_this_machine_is_told_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tproxy, "connect_error", lambda dialled, events: errno.EPERM)
    world.queue.arrives(syn(1000))
    world.loop.run_until_complete(asyncio.wait_for(world.queue.judged.wait(), 5))
    assert (world.queue.verdicts, world.outcomes) == (["pass"], [DialOutcome.LOCAL_TROUBLE])
    assert (world.over, world.kept) == ([], [errno.EPERM])
    nothing_is_left(world, 1000)


# --- A bug of ours ------------------------------------------------------------------------------------------


def breaks(monkeypatch: pytest.MonkeyPatch, where: object, name: str) -> None:
    """Once; from then on it does what it did."""
    whole = getattr(where, name)

    def bug(*args: Any, **named: Any) -> Any:
        monkeypatch.setattr(where, name, whole)
        raise RuntimeError("a bug")

    monkeypatch.setattr(where, name, bug)


def goes_well(world: World, port: int) -> None:
    """A client gets its session, from this port."""
    world.queue.arrives(syn(port))
    world.loop.run_until_complete(asyncio.wait_for(world.queue.judged.wait(), 5))
    assert world.queue.verdicts.pop() == "mark"
    world.accepts(port)
    at, accepted, dialled = world.pairs.pop()
    assert at == flow(port)
    accepted.close()
    dialled.close()
    world.intake.ended(flow(port), by_reset=False)


def nothing_is_left(world: World, port: int) -> None:
    intake = world.intake
    assert not intake._gate.knows(flow(port))
    for kept in (intake._held, intake._flow_roles, intake._dials, intake._ready):
        assert not kept
    admission = intake._gate._admission
    assert not admission.connects.total and not admission.sessions.total


@pytest.mark.parametrize(
    ("where", "name"),
    [
        (lambda world: world.intake._gate, "syn_arrived"),
        (lambda world: world.intake._counters, "add"),
        (lambda world: world.intake, "_dial_for"),
        (lambda world: module, "parse_syn"),
    ],
    ids=["gate", "verdict", "dial", "packet"],
)
def test_a_syn_passes_where_a_bug_meets_it(
    world: World, monkeypatch: pytest.MonkeyPatch, where: Any, name: str
) -> None:
    breaks(monkeypatch, where(world), name)
    if name == "add":  # a verdict is given at once only to what is not ours
        world.intake.roles = Roles(["wan"], ["lan2"], [])
    try:
        world.queue.arrives(syn(1000))
    except RuntimeError:
        assert name in ("parse_syn", "add"), "the queue told of the next packets is the loop's business"
    assert world.queue.verdicts == ["pass"]
    world.queue.verdicts.clear()
    nothing_is_left(world, 1000)
    if name in ("syn_arrived", "_dial_for"):
        assert world.failures == [(flow(1000), "a bug")]
    world.intake.roles = Roles(["lan"], ["wan"], [])
    goes_well(world, 1000)


@pytest.mark.parametrize("name", ["dial_finished", "_execute"])
def test_a_syn_passes_where_its_dial_ends_in_a_bug_and_the_dial_is_reset_before(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    world.queue.arrives(syn(1000))
    breaks(monkeypatch, world.intake._gate if name == "dial_finished" else world.intake, name)
    dialled = world.others[0]
    resets: list[str] = []
    give = world.queue.verdict

    def verdict(*args: Any, **named: Any) -> None:
        dialled.settimeout(5)
        try:
            resets.append(repr(dialled.recv(1)))
        except ConnectionResetError:
            resets.append("reset")
        give(*args, **named)

    monkeypatch.setattr(world.queue, "verdict", verdict)
    world.loop.run_until_complete(asyncio.wait_for(world.queue.judged.wait(), 5))
    assert (resets, world.queue.verdicts) == (["reset"], ["pass"])
    assert world.failures == [(flow(1000), "a bug")]
    world.queue.verdicts.clear()
    monkeypatch.setattr(world.queue, "verdict", give)
    goes_well(world, 1000)


def test_a_syn_that_has_waited_passes_where_its_dial_cannot_be_watched(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel lets nobody watch more than so many descriptors. The SYN is none of this turn's packets."""
    world.queue.arrives(syn(1000))
    world.loop.run_until_complete(asyncio.wait_for(world.queue.judged.wait(), 5))
    world.accepts(1000)
    for one in world.pairs.pop()[1:]:
        one.close()
    world.queue.arrives(syn(1000))  # from the same port again, before the session has ended
    world.queue.verdicts.clear()
    breaks(monkeypatch, world.poller, "watch")
    world.intake.ended(flow(1000), by_reset=False)
    assert world.queue.verdicts == ["pass"]
    assert world.failures == [(flow(1000), "a bug")]
    nothing_is_left(world, 1000)
    world.queue.verdicts.clear()
    goes_well(world, 1000)


def test_a_client_is_reset_where_its_session_cannot_begin(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.queue.arrives(syn(1000))
    world.loop.run_until_complete(asyncio.wait_for(world.queue.judged.wait(), 5))
    world.queue.verdicts.clear()
    breaks(monkeypatch, world, "pair_ready")
    world.accepts(1000)
    for other in world.others:
        other.settimeout(5)
        with pytest.raises(ConnectionResetError):
            other.recv(1)
    assert world.failures == [(flow(1000), "a bug")]
    nothing_is_left(world, 1000)
    goes_well(world, 1000)
