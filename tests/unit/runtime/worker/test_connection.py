"""One session over real sockets: what the mail servers' kernels see is what the machine asked for."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref

import pytest

from gateway.errors import Reason
from gateway.policy import limits
from gateway.runtime.worker.endpoint import Hold
from gateway.session import commands as c
from gateway.session.events import (
    Event,
    OctetsReceived,
    Side,
)
from gateway.smtp.events import Role
from tests.playbook import EHLO, GREETING, REPLY, FarReceivingGateway, receiving, sending
from tests.unit.runtime.sockets import CountingLoop, open_descriptors, read_all, read_exactly, run, send_reset
from tests.unit.runtime.worker.scripted import Scripted, World, relaying

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


def test_what_an_ended_session_had_is_free_without_the_collector() -> None:
    async def body(loop: CountingLoop) -> None:
        machine = Scripted(relaying)
        world, kept = World(loop, machine), weakref.ref(machine)
        await world.sends(world.far, b"220 hello\r\n")
        await read_exactly(loop, world.near, 11)
        world.near.shutdown(socket.SHUT_WR)
        world.far.shutdown(socket.SHUT_WR)
        await world.finish()
        del machine, world.connection
        assert kept() is None

    gc.disable()
    try:
        run(body)
    finally:
        gc.enable()


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


@pytest.mark.parametrize("relayed", [True, False], ids=["in clear", "in a channel"])
def test_a_peer_that_takes_nothing_any_more_is_given_up(relayed: bool) -> None:
    """Its kernel lives, and has no room for ever; and the sender, who is not read meanwhile, has gone."""

    def says(event: Event) -> list[c.Command]:
        if isinstance(event, OctetsReceived):
            return [c.SendOctets(event.side.other, event.octets)]
        return [c.SendReset(Side.NEAR), c.SendReset(Side.FAR)]

    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying if relayed else says), small=True)
        speaking = loop.create_task(world.sends(world.near, bytes(8 * 1024 * 1024)))
        await _until_standstill(world)
        speaking.cancel()
        send_reset(world.near)
        await _until_standstill(world)
        began = loop.time()
        for moment in (0.0, limits.STALLED_SECONDS - 1):
            world.connection.look(began + moment)
            assert not world.times_over
        # Something has moved: the time counts from here.
        await read_exactly(loop, world.far, 256 * 1024)
        await _until_standstill(world)
        world.connection.look(began + limits.STALLED_SECONDS)
        world.connection.look(began + 2 * limits.STALLED_SECONDS - 1)
        assert not world.times_over
        # What the kernel still moves after its own timers puts it off, as it should, and comes to an end.
        for times in range(2, 100):
            world.connection.look(began + times * limits.STALLED_SECONDS)
            if world.times_over:
                break
            await _until_standstill(world)
        await world.finish()
        assert world.connection.end_reason(Role.SENDING) is Reason.RESET_BY_RECEIVER

    run(body)


def test_who_waits_for_nothing_is_never_given_up() -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying))
        await world.sends(world.near, b"x")
        await read_exactly(loop, world.far, 1)
        for days in range(3):
            world.connection.look(loop.time() + days * 86400)
        await world.sends(world.near, b"y")
        assert await read_exactly(loop, world.far, 1) == b"y"
        world.near.close()
        world.far.close()
        await world.finish()

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


def test_a_stop_resets_both_sides() -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying))
        world.connection.stop()
        for sock in (world.near, world.far):
            with pytest.raises(ConnectionResetError):
                await read_all(loop, sock)
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
        test_a_stop_resets_both_sides()
    assert open_descriptors() <= before
