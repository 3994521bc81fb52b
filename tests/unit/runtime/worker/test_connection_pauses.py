"""Pauses and deadlines of one session over real sockets: who is not read, and what is told when."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import pytest

from gateway.policy import limits
from gateway.session import commands as c
from gateway.session.events import (
    DeadlineReached,
    EndReceived,
    Event,
    OctetsReceived,
    Side,
)
from tests.unit.runtime.sockets import CountingLoop, read_all, read_exactly, run
from tests.unit.runtime.worker.scripted import Scripted, World


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
