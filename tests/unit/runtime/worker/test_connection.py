"""One session over real sockets: what the mail servers' kernels see is what the machine asked for."""

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
from gateway.runtime.worker.pressure import Account
from gateway.session import commands as c
from gateway.session.events import (
    DeadlineReached,
    EndReceived,
    Event,
    OctetsReceived,
    RedialFailed,
    Redialled,
    ResetReceived,
    Side,
)
from gateway.smtp.events import Role
from tests.playbook import (
    EHLO,
    GREETING,
    REPLY,
    FarReceivingGateway,
    receiving,
    sending,
)
from tests.unit.runtime.sockets import (
    CountingLoop,
    open_descriptors,
    read_all,
    read_exactly,
    run,
    send_reset,
    tcp_pair,
)


class Scripted:
    """A machine that does what the test says. `says` maps an event to commands."""

    def __init__(self, says: Callable[[Event], list[c.Command]], deadline: float | None = None) -> None:
        self._says = says
        self.deadline = deadline
        self.waits_for_silence = False
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
        self.connection = Connection(  # type: ignore[arg-type]
            loop, loop.poller(), self, machine, "flow", "id", near, far, account
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
        assert self.connection._timer is None or self.connection._timer.cancelled()

    async def sends(self, sock: socket.socket, octets: bytes) -> None:
        await self.loop.sock_sendall(sock, octets)


# --- The relay ----------------------------------------------------------------------------------------------


def test_a_dialogue_then_an_end_each_way() -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying))
        await world.sends(world.far, b"220 hello\r\n")
        assert await read_exactly(loop, world.near, 11) == b"220 hello\r\n"
        await world.sends(world.near, b"QUIT\r\n")
        world.near.shutdown(socket.SHUT_WR)
        assert await read_all(loop, world.far) == b"QUIT\r\n"
        assert not world.over.done(), "half-closed is not over"
        await world.sends(world.far, b"221 bye\r\n")
        world.far.close()
        assert await read_all(loop, world.near) == b"221 bye\r\n"
        await world.finish()
        assert world.connection.end_reason(Role.SENDING) is Reason.CLOSED

    run(body)


@pytest.mark.parametrize("first", ["near", "far"])
def test_a_half_close_as_the_first_thing(first: str) -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying))
        ending, other = (world.near, world.far) if first == "near" else (world.far, world.near)
        ending.shutdown(socket.SHUT_WR)
        assert await read_all(loop, other) == b""
        await world.sends(other, b"still here")
        other.shutdown(socket.SHUT_WR)
        assert await read_all(loop, ending) == b"still here"
        await world.finish()

    run(body)


@pytest.mark.parametrize("relayed", [False, True])
@pytest.mark.parametrize("first", ["near", "far"])
def test_a_reset_passes_as_a_reset(first: str, relayed: bool) -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying))
        resetting, other = (world.near, world.far) if first == "near" else (world.far, world.near)
        if relayed:
            await world.sends(resetting, b"x")
            await read_exactly(loop, other, 1)
        send_reset(resetting)
        with pytest.raises(ConnectionResetError):
            await read_all(loop, other)
        await world.finish()
        by = Reason.RESET_BY_SENDER if first == "near" else Reason.RESET_BY_RECEIVER
        assert world.connection.end_reason(Role.SENDING) is by

    run(body)


def test_a_reset_seen_first_by_a_write_is_still_a_reset() -> None:
    """The failed send takes the error off the socket, and a read then answers like an end."""

    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying))
        await world.sends(world.far, b"x")
        await read_exactly(loop, world.near, 1)
        # Both in one turn of the loop, so that the write finds the reset before the reader does.
        world.near.send(b"words for a server that is gone")
        world.connection._far.hold(Hold.BY_PRESSURE)
        send_reset(world.far)
        await asyncio.sleep(0)
        with pytest.raises(ConnectionResetError):
            await read_all(loop, world.near)
            await world.sends(world.near, b"more")
            await read_all(loop, world.near)
        await world.finish()
        assert world.connection.end_reason(Role.SENDING) is Reason.RESET_BY_RECEIVER

    run(body)


def test_a_write_broken_behind_an_end_ends_the_session() -> None:
    """The sender says QUIT and closes; the receiver's many words find nobody."""

    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying))
        await world.sends(world.near, b"QUIT\r\n")
        world.near.close()
        assert await read_all(loop, world.far) == b"QUIT\r\n"
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(1000):
                await world.sends(world.far, bytes(65536))
                await asyncio.sleep(0)
        await world.finish()

    run(body)


@pytest.mark.parametrize("first", ["near", "far"])
def test_a_reset_behind_an_end_is_told_without_a_write(first: str) -> None:
    """A server closes in mid-mail and its kernel resets: the sender must not speak on into nothing."""

    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying))
        ending, other = (world.near, world.far) if first == "near" else (world.far, world.near)
        ending.shutdown(socket.SHUT_WR)
        assert await read_all(loop, other) == b""
        send_reset(ending)
        await world.over
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await world.sends(other, b"more")
            await world.sends(other, b"and more")
        await world.finish()

    run(body)


def test_a_big_transfer_arrives_whole() -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying))
        octets = bytes(range(256)) * 64 * 1024  # 16 MiB

        async def speak() -> None:
            await world.sends(world.near, octets)
            world.near.shutdown(socket.SHUT_WR)

        speaking = loop.create_task(speak())
        assert await read_all(loop, world.far) == octets
        await speaking
        world.far.close()
        await world.finish()
        assert world.connection.near_octets == len(octets)

    run(body)


def test_a_slow_reader_stops_the_other_side_in_bounded_memory() -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying), small=True)
        octets = bytes(8 * 1024 * 1024)
        speaking = loop.create_task(world.sends(world.near, octets))
        most = await _until_standstill(world)
        assert most <= limits.WRITE_BUFFER_OCTETS + limits.READ_OCTETS
        assert not speaking.done(), "8 MiB went somewhere"
        assert len(await read_exactly(loop, world.far, len(octets))) == len(octets)
        await speaking
        world.near.shutdown(socket.SHUT_WR)
        world.far.close()
        await world.finish()

    run(body)


async def _until_standstill(world: World) -> int:
    """The most that was ever pending, once nothing moves any more."""
    most, seen, still = 0, -1, 0
    while still < 500:
        await asyncio.sleep(0)  # turns of the loop; no clock is waited for
        pending = world.connection._far.pending
        still = still + 1 if (now := world.connection.near_octets) == seen and now > 0 else 0
        seen, most = now, max(most, pending)
    return most


def test_a_slow_reader_that_resets_ends_the_session() -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying), small=True)
        speaking = loop.create_task(world.sends(world.near, bytes(8 * 1024 * 1024)))
        await _until_standstill(world)
        send_reset(world.far)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            await speaking
        await world.finish()
        assert world.connection.end_reason(Role.SENDING) is Reason.RESET_BY_RECEIVER

    run(body)


# --- Closing ------------------------------------------------------------------------------------------------


def test_last_words_reach_a_sender_whose_octets_are_unread() -> None:
    """A close with octets unread would be a reset, and that may overtake the 421."""
    words = b"421 4.7.0 Encrypted channel to the destination was lost, please try again\r\n"

    def says(event: Event) -> list[c.Command]:
        if not isinstance(event, OctetsReceived):
            return []
        return [
            c.PauseReading(Side.NEAR),
            c.SendOctets(Side.NEAR, words),
            c.SendReset(Side.FAR),
            c.CloseBoth(),
        ]

    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(says))
        speaking = loop.create_task(world.sends(world.near, bytes(512 * 1024)))
        assert await read_all(loop, world.near) == words
        await speaking
        with pytest.raises(ConnectionResetError):
            await read_all(loop, world.far)
        world.near.close()
        await world.finish()

    run(body)


def test_a_sender_that_never_closes_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DRAIN_SECONDS", 0.01)

    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(lambda event: [c.CloseBoth()]))
        await world.sends(world.near, b"x")
        await world.finish()

    run(body)


def test_a_sender_that_never_reads_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINGER_SECONDS", 0.01)

    def says(event: Event) -> list[c.Command]:
        return [c.SendOctets(Side.NEAR, bytes(4 * 1024 * 1024)), c.SendReset(Side.FAR), c.CloseBoth()]

    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(says), small=True)
        await world.sends(world.near, b"x")
        await world.finish()

    run(body)


def test_octets_given_before_the_end_go_out_before_it() -> None:
    octets = bytes(range(256)) * 4096

    def says(event: Event) -> list[c.Command]:
        if isinstance(event, OctetsReceived):
            return [c.SendOctets(Side.FAR, octets), c.SendEnd(Side.FAR)]
        return [c.CloseBoth()]

    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(says), small=True)
        await world.sends(world.near, b"x")
        assert await read_all(loop, world.far) == octets
        world.far.close()
        world.near.close()
        await world.finish()

    run(body)


def test_abort_resets_both_sides() -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying))
        world.connection.abort()
        for sock in (world.near, world.far):
            with pytest.raises(ConnectionResetError):
                await read_all(loop, sock)
        await world.finish()

    run(body)


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


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(20_000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("never")


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


# --- Pauses, deadlines --------------------------------------------------------------------------------------


def test_a_paused_side_is_not_read_until_it_is_resumed() -> None:
    def says(event: Event) -> list[c.Command]:
        if isinstance(event, OctetsReceived) and event.side is Side.NEAR:
            return [c.SendOctets(Side.FAR, event.octets), c.PauseReading(Side.NEAR)]
        if isinstance(event, OctetsReceived):
            return [c.ResumeReading(Side.NEAR), c.SendOctets(Side.NEAR, event.octets)]
        return [c.CloseBoth()]

    async def body(loop: CountingLoop) -> None:
        world = World(loop, machine := Scripted(says))
        await world.sends(world.near, b"1")
        await read_exactly(loop, world.far, 1)
        await world.sends(world.near, b"2")
        await world.sends(world.far, b"go on")
        await read_exactly(loop, world.near, 5)
        assert await read_exactly(loop, world.far, 1) == b"2"
        assert [e.octets for e in machine.events if isinstance(e, OctetsReceived)] == [b"1", b"go on", b"2"]
        world.near.close()
        world.far.close()
        await world.finish()

    run(body)


class Waiting(Scripted):
    """One that waits for silence, and counts how often it is asked whether it does."""

    def __init__(self, says: Callable[[Event], list[c.Command]]) -> None:
        self.asked = 0
        super().__init__(says)

    @property
    def waits_for_silence(self) -> bool:
        self.asked += 1
        return True

    @waits_for_silence.setter
    def waits_for_silence(self, value: bool) -> None: ...


def test_a_line_that_stays_behind_costs_no_turn_of_the_loop() -> None:
    """A worker may have thousands of slow readers: each is looked at when its line has moved, not before."""

    async def body(loop: CountingLoop) -> None:
        told = loop.create_future()

        def says(event: Event) -> list[c.Command]:
            if isinstance(event, DeadlineReached):
                machine.deadline = None
                told.set_result(None)
                return []
            if isinstance(event, EndReceived):
                return [c.CloseBoth()]
            machine.deadline = loop.time() + limits.FLIGHT_SILENCE_SECONDS
            return [c.SendOctets(Side.FAR, octets)]

        octets = bytes(1 << 20)
        machine = Waiting(says)
        world = World(loop, machine, small=True)
        await world.sends(world.near, b"x")
        await asyncio.sleep(40 * limits.FLIGHT_SILENCE_SECONDS)
        assert (machine.asked, told.done()) == (1, False)
        assert len(await read_exactly(loop, world.far, len(octets))) == len(octets)
        await told
        world.near.shutdown(socket.SHUT_WR)
        assert await read_all(loop, world.far) == b""
        world.far.close()
        await world.finish()

    run(body)


@pytest.mark.parametrize("of_silence", [True, False])
def test_silence_does_not_count_while_the_line_is_behind(of_silence: bool) -> None:
    """The near side is not read then, and would be silent for ever; every other deadline holds."""

    async def body(loop: CountingLoop) -> None:
        told = loop.create_future()

        def says(event: Event) -> list[c.Command]:
            if isinstance(event, DeadlineReached):
                machine.deadline = None
                told.set_result(world.connection._far.pending)
                return []
            if isinstance(event, EndReceived):
                return [c.CloseBoth()]
            assert isinstance(event, OctetsReceived)
            machine.deadline = machine.deadline or loop.time() + 0.001
            return [c.SendOctets(Side.FAR, octets)]

        octets = bytes(1 << 20)
        machine = Scripted(says)
        machine.waits_for_silence = of_silence
        world = World(loop, machine, small=True)
        await world.sends(world.near, b"x")
        if of_silence:
            await asyncio.sleep(20 * limits.FLIGHT_SILENCE_SECONDS)
            assert not told.done()
        else:
            assert await told > 0
        assert len(await read_exactly(loop, world.far, len(octets))) == len(octets)
        if of_silence:
            assert await told == 0
        world.near.shutdown(socket.SHUT_WR)
        assert await read_all(loop, world.far) == b""
        world.far.close()
        await world.finish()

    run(body)


def test_a_deadline_is_told_once_and_a_withdrawn_one_never() -> None:
    async def body(loop: CountingLoop) -> None:
        told = loop.create_future()

        def says(event: Event) -> list[c.Command]:
            if isinstance(event, OctetsReceived) and event.octets == b"set":
                machine.deadline = loop.time() + 3600
                return [c.SendOctets(Side.FAR, b"1")]
            if isinstance(event, OctetsReceived):
                machine.deadline = loop.time()
                return []
            assert isinstance(event, DeadlineReached)
            machine.deadline = None
            told.set_result(None)
            return [c.CloseBoth()]

        machine = Scripted(says)
        world = World(loop, machine)
        await world.sends(world.near, b"set")
        await read_exactly(loop, world.far, 1)
        await world.sends(world.near, b"now")
        await told
        world.near.close()
        world.far.close()
        await world.finish()

    run(body)


def test_no_timer_outlives_the_connection() -> None:
    async def body(loop: CountingLoop) -> None:
        def says(event: Event) -> list[c.Command]:
            machine.deadline = loop.time() + 3600
            return [c.SendReset(Side.NEAR), c.SendReset(Side.FAR)]

        machine = Scripted(says)
        world = World(loop, machine)
        await world.sends(world.near, b"x")
        await world.finish()

    run(body)


# --- Redials ------------------------------------------------------------------------------------------------


def redialling(event: Event) -> list[c.Command]:
    if isinstance(event, OctetsReceived) and event.side is Side.FAR:
        return [c.SendOctets(Side.NEAR, event.octets), c.RelayInClear()]
    if isinstance(event, OctetsReceived):
        return [c.Redial()]
    if isinstance(event, Redialled):
        return [c.SendOctets(Side.FAR, b"again")]
    if isinstance(event, RedialFailed | DeadlineReached):
        return [c.SendOctets(Side.NEAR, b"421 no\r\n"), c.SendReset(Side.FAR), c.CloseBoth()]
    return [c.SendReset(event.side.other)] if isinstance(event, ResetReceived) else []


def test_a_redial_resets_the_old_connection_and_goes_on_over_the_new_one() -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(redialling))
        await world.sends(world.near, b"x")
        await world.redial_asked
        with pytest.raises(ConnectionResetError):
            await read_all(loop, world.far)
        world.far.close()
        ours, world.far = tcp_pair()
        world.connection.redialled(ours)
        assert await read_exactly(loop, world.far, 5) == b"again"
        await world.sends(world.far, b"220\r\n")
        assert await read_exactly(loop, world.near, 5) == b"220\r\n"
        world.far.close()
        world.near.close()
        await world.finish()
        assert world.redials == 1

    run(body)


def test_a_far_reset_before_a_redial_is_not_how_the_session_ended() -> None:
    def says(event: Event) -> list[c.Command]:
        if isinstance(event, ResetReceived) and event.side is Side.FAR:
            return [c.Redial()]
        return redialling(event)

    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(says))
        send_reset(world.far)
        await world.redial_asked
        ours, world.far = tcp_pair()
        world.connection.redialled(ours)
        await read_exactly(loop, world.far, 5)
        await world.sends(world.far, b"220\r\n")
        await read_exactly(loop, world.near, 5)
        world.far.close()
        world.near.close()
        await world.finish()
        assert world.connection.end_reason(Role.SENDING) is Reason.CLOSED

    run(body)


def test_a_redial_that_fails_is_told_to_the_machine() -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(redialling))
        await world.sends(world.near, b"x")
        await world.redial_asked
        world.connection.redial_failed()
        assert await read_all(loop, world.near) == b"421 no\r\n"
        world.near.close()
        await world.finish()

    run(body)


@pytest.mark.parametrize("late", ["connected", "failed"])
def test_a_redial_that_comes_after_the_machine_gave_up(late: str) -> None:
    """The sender has its 421 and still drains; the new connection must be closed, not forgotten."""

    async def body(loop: CountingLoop) -> None:
        machine = Scripted(redialling)
        world = World(loop, machine)
        await world.sends(world.near, b"x")
        await world.redial_asked
        machine.deadline = loop.time()
        world.connection._handle(DeadlineReached())
        machine.deadline = None
        assert await read_all(loop, world.near) == b"421 no\r\n"
        events = len(machine.events)
        if late == "connected":
            ours, theirs = tcp_pair()
            world.connection.redialled(ours)
            assert await read_all(loop, theirs) == b""
            theirs.close()
        else:
            world.connection.redial_failed()
        assert len(machine.events) == events
        world.near.close()
        await world.finish()

    run(body)


@pytest.mark.parametrize("late", ["connected", "failed", "never"])
def test_a_sender_that_resets_during_a_redial_ends_the_session_at_once(late: str) -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(redialling))
        await world.sends(world.near, b"x")
        await world.redial_asked
        send_reset(world.near)
        await world.over
        if late == "connected":
            ours, theirs = tcp_pair()
            world.connection.redialled(ours)
            assert await read_all(loop, theirs) == b""
            theirs.close()
        elif late == "failed":
            world.connection.redial_failed()
        await world.finish()

    run(body)


def test_abort_during_a_redial() -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(redialling))
        await world.sends(world.near, b"x")
        await world.redial_asked
        world.connection.abort()
        await world.finish()

    run(body)


# --- With real machines -------------------------------------------------------------------------------------


def test_two_gateways_over_real_sockets() -> None:
    """sender - S - R - receiver, and 4 MiB each way through the channel."""

    async def body(loop: CountingLoop) -> None:
        s, r = World(loop, sending()), World(loop, receiving())
        wire = loop.create_task(_carry(loop, s.far, r.far)), loop.create_task(_carry(loop, r.far, s.far))
        sender, receiver = s.near, r.near
        await loop.sock_sendall(receiver, GREETING)
        assert await read_exactly(loop, sender, len(GREETING)) == GREETING
        await loop.sock_sendall(sender, EHLO)
        assert await read_exactly(loop, receiver, len(EHLO)) == EHLO
        await loop.sock_sendall(receiver, REPLY)
        assert await read_exactly(loop, sender, len(REPLY)) == REPLY
        await loop.sock_sendall(sender, b"NOOP\r\n")
        assert await read_exactly(loop, receiver, 6) == b"NOOP\r\n"
        there, back = b"MAIL FROM:<>\r\n" + bytes(range(256)) * 16384, bytes(4 * 1024 * 1024)
        speaking = loop.create_task(loop.sock_sendall(sender, there))
        answering = loop.create_task(loop.sock_sendall(receiver, back))
        got = await asyncio.gather(
            read_exactly(loop, receiver, len(there)), read_exactly(loop, sender, len(back))
        )
        assert got == [there, back]
        await speaking
        await answering
        sender.shutdown(socket.SHUT_WR)
        assert await read_all(loop, receiver) == b""
        receiver.shutdown(socket.SHUT_WR)
        assert await read_all(loop, sender) == b""
        await s.over
        await r.over
        await asyncio.gather(*wire)
        await s.finish()
        await r.finish()
        assert [d.upgraded for d in s.decisions + r.decisions] == [True, True]
        assert len(s.remembered) == 1
        assert not s.errors + r.errors

    run(body)


async def _carry(loop: CountingLoop, source: socket.socket, target: socket.socket) -> None:
    while part := await loop.sock_recv(source, 1 << 16):
        await loop.sock_sendall(target, part)
    target.shutdown(socket.SHUT_WR)


def test_a_sender_that_closes_before_the_last_reply_through_a_channel() -> None:
    """QUIT, FIN, and the 221 meets a closed socket: an ordinary end, no bug of ours."""

    async def body(loop: CountingLoop) -> None:
        world = World(loop, sending())
        gateway = FarReceivingGateway()
        await world.sends(world.far, GREETING)
        await read_exactly(loop, world.near, len(GREETING))
        await world.sends(world.near, EHLO)
        await read_exactly(loop, world.far, len(EHLO))
        await world.sends(world.far, gateway.reply)
        await read_exactly(loop, world.near, len(REPLY))
        await world.sends(world.near, b"QUIT\r\n")
        world.near.close()
        got = EHLO
        while gateway.take(got).data != b"QUIT\r\n":
            got += await loop.sock_recv(world.far, 1 << 16)
        await world.sends(world.far, gateway.params())
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(1000):
                await world.sends(world.far, gateway.says(b"221 Bye\r\n"))
                await asyncio.sleep(0)
        await world.finish()
        assert world.errors == []

    run(body)


def test_many_sessions_leave_no_descriptor() -> None:
    before = open_descriptors()
    for _ in range(3):
        test_a_dialogue_then_an_end_each_way()
        test_abort_resets_both_sides()
    assert open_descriptors() <= before
