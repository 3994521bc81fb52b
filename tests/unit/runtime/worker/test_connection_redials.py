"""Redials of one session over real sockets: the old connection goes, the new one takes its place."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import Reason
from gateway.runtime.worker.endpoint import Hold
from gateway.runtime.worker.pressure import Bank
from gateway.session import commands as c
from gateway.session.events import (
    DeadlineReached,
    Event,
    OctetsReceived,
    RedialFailed,
    Redialled,
    ResetReceived,
    Side,
)
from gateway.smtp.events import Role
from tests.unit.runtime.sockets import CountingLoop, read_all, read_exactly, run, send_reset, tcp_pair
from tests.unit.runtime.worker.scripted import Scripted, World


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


def test_what_a_reset_decides_during_a_redial_is_told_before_the_session_is_over() -> None:
    """Both sockets are closed by then: the worker, which forgets the session, must hear of it before."""
    decided = c.NoteDecision(False, Reason.ENDED_BEFORE_DECISION)

    def says(event: Event) -> list[c.Command]:
        if isinstance(event, ResetReceived):
            return [decided, c.SendReset(event.side.other)]
        return redialling(event)

    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(says))
        await world.sends(world.near, b"x")
        await world.redial_asked
        send_reset(world.near)
        await world.finish()
        assert world.decisions == [decided]
        assert world.errors == []
        assert world.connection.end_reason(Role.SENDING) is Reason.RESET_BY_SENDER

    run(body)


def test_a_sender_held_back_by_the_old_connection_is_read_again_after_a_redial() -> None:
    """What waited for the old one is gone with it: nothing of it will ever drain."""

    async def body(loop: CountingLoop) -> None:
        bank = Bank(most=1, most_per_source=1)
        world = World(loop, Scripted(stuffing), small=True, account=bank.opened("192.0.2.1"))
        await world.sends(world.near, b"x")
        while not world.connection._far.pending:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)
        assert world.connection._near._hold == Hold.BY_PRESSURE
        send_reset(world.far)
        await world.redial_asked
        ours, world.far = tcp_pair()
        world.connection.redialled(ours)
        await read_exactly(loop, world.far, 5)
        await world.sends(world.near, b"more")
        assert await read_exactly(loop, world.far, 4) == b"more"
        world.connection.stop()
        world.near.close()
        world.far.close()
        await world.over

    run(body)


def stuffing(event: Event) -> list[c.Command]:
    """As `redialling`, but the first octets of the sender become more than the far side takes."""
    if isinstance(event, OctetsReceived) and event.octets == b"x":
        return [c.SendOctets(Side.FAR, bytes(4 << 20))]
    if isinstance(event, OctetsReceived):
        return [c.SendOctets(event.side.other, event.octets)]
    if isinstance(event, ResetReceived) and event.side is Side.FAR:
        return [c.Redial()]
    return redialling(event)


def test_a_stop_during_a_redial() -> None:
    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(redialling))
        await world.sends(world.near, b"x")
        await world.redial_asked
        world.connection.stop()
        await world.finish()

    run(body)
