"""What waits in a worker for slow readers, and for decisions, is bounded, however many of them there are."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc

import pytest

from gateway.policy import limits
from gateway.runtime.worker.endpoint import Hold
from gateway.runtime.worker.pressure import Account, Bank
from gateway.session import commands as c
from gateway.session.events import Event, OctetsReceived, ResetReceived, Side
from tests.playbook import EHLO, GREETING, LONG_REPLY, sending
from tests.unit.runtime.sockets import CountingLoop, read_exactly, run, send_reset, tcp_pair
from tests.unit.runtime.worker.scripted import Scripted, World, relaying, until

SLOW_READERS = 12
POURED = 2 * limits.WRITE_BUFFER_OCTETS


def test_accounts_are_of_a_source_and_end_with_its_last_session() -> None:
    bank = Bank(most=100, most_per_source=10)
    one, again, other = bank.opened("192.0.2.1"), bank.opened("192.0.2.1"), bank.opened("192.0.2.2")
    assert one is again
    one.add(10)
    assert one.is_over
    assert not other.is_over
    assert (one.allowance, other.allowance) == (0, limits.WRITE_BUFFER_OCTETS)
    bank.closed("192.0.2.1")
    assert bank.opened("192.0.2.1") is one
    for _ in range(2):
        bank.closed("192.0.2.1")
    assert bank.opened("192.0.2.1") is not one


def test_all_sources_together_are_over_the_total() -> None:
    bank = Bank(most=100, most_per_source=60)
    one, other = bank.opened("192.0.2.1"), bank.opened("192.0.2.2")
    one.add(50)
    other.add(50)
    assert bank.is_over
    assert one.allowance == other.allowance == 0
    other.add(-1)
    assert not bank.is_over
    assert one.allowance == limits.WRITE_BUFFER_OCTETS


async def poured(loop: CountingLoop, account: Account) -> list[World]:
    """Sessions whose near sides do not read, and whose far sides send as long as anything is taken."""
    worlds = [World(loop, Scripted(relaying), small=True, account=account) for _ in range(SLOW_READERS)]
    for world in worlds:
        world.far.setblocking(False)
    left = dict.fromkeys(range(SLOW_READERS), POURED)
    stalled = 0
    while any(left.values()) and stalled < 50:
        moved = 0
        for number, world in enumerate(worlds):
            with contextlib.suppress(BlockingIOError):
                sent = world.far.send(bytes(min(left[number], 64 * 1024)))
                left[number] -= sent
                moved += sent
        stalled = 0 if moved else stalled + 1
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
    return worlds


async def end(worlds: list[World]) -> None:
    for world in worlds:
        world.connection.stop()
        world.near.close()
        world.far.close()
        await world.over


def test_many_slow_readers_hold_no_more_than_the_bank_allows() -> None:
    async def body(loop: CountingLoop) -> None:
        bank = Bank(most=limits.WRITE_BUFFER_OCTETS, most_per_source=limits.WRITE_BUFFER_OCTETS)
        worlds = await poured(loop, bank.opened("192.0.2.1"))
        held = sum(world.connection._near.pending for world in worlds)
        assert bank.held == held > 0
        # Each may have read once before the bank was full, and a little once afterwards.
        slack = limits.READ_OCTETS + SLOW_READERS * limits.READ_WHEN_OVER_OCTETS
        assert held <= bank.most + slack
        assert sum(world.times_held_back for world in worlds) > 0
        await end(worlds)
        assert bank.held == 0

    run(body)


def test_over_the_limit_a_session_adds_a_small_piece_and_no_more() -> None:
    async def body(loop: CountingLoop) -> None:
        bank = Bank(most=1, most_per_source=1)
        account = bank.opened("192.0.2.1")
        account.add(1)  # others hold it
        worlds = await poured(loop, account)
        for world in worlds:
            assert 0 < world.connection._near.pending <= limits.READ_WHEN_OVER_OCTETS
        await end(worlds)

    run(body)


def test_below_the_limit_each_session_has_its_own_bound_only() -> None:
    async def body(loop: CountingLoop) -> None:
        bank = Bank()
        worlds = await poured(loop, bank.opened("192.0.2.1"))
        assert bank.held > 2 * limits.WRITE_BUFFER_OCTETS
        assert not any(world.times_held_back for world in worlds)
        await end(worlds)
        assert bank.held == 0

    run(body)


def test_a_slow_reader_gets_everything_in_the_end() -> None:
    async def body(loop: CountingLoop) -> None:
        bank = Bank(most=1, most_per_source=1)
        world = World(loop, Scripted(relaying), small=True, account=bank.opened("192.0.2.1"))
        octets = bytes(range(256)) * 4096
        sending = asyncio.ensure_future(world.sends(world.far, octets))
        while not world.connection._near.pending:  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0)
        got = bytearray()
        while len(got) < len(octets):
            got += await loop.sock_recv(world.near, 65536)
        await sending
        assert bytes(got) == octets
        assert world.times_held_back > 0
        await end([world])
        assert bank.held == 0

    run(body)


def test_what_waits_takes_hardly_more_than_its_octets_however_small_they_come() -> None:
    """Replies come in pieces of twenty octets, and whoever likes sends single ones; what counts is octets."""

    async def body(loop: CountingLoop) -> None:
        world = World(loop, Scripted(relaying), small=True)
        endpoint = world.connection._near
        endpoint.write(bytes(1 << 20))  # more than any kernel takes
        waiting = endpoint.pending
        pieces = [b"%d" % (number % 10) for number in range(20_000)]
        tracemalloc.start()
        for piece in pieces:
            endpoint.write(piece)
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert endpoint.pending == waiting + len(pieces)
        assert taken < 2 * len(pieces)
        written = bytes(1 << 20) + b"".join(pieces)
        assert await read_exactly(loop, world.near, len(written)) == written
        await end([world])

    run(body)


# --- What a machine keeps of its sender, until there is a decision ------------------------------------------


async def talked(loop: CountingLoop, account: Account, octets: bytes) -> list[World]:
    """Senders that wait for no reply to their EHLO, at receivers that make none."""
    worlds = [World(loop, sending(), account=account) for _ in range(SLOW_READERS)]
    for world in worlds:
        await world.sends(world.far, GREETING)
        assert await loop.sock_recv(world.near, 4096) == GREETING
        await world.sends(world.near, EHLO)
        assert await loop.sock_recv(world.far, 4096) == EHLO
    for world in worlds:
        world.near.setblocking(False)
        world.near.send(octets)
    return worlds


def test_what_senders_say_behind_their_ehlo_counts_as_what_waits() -> None:
    async def body(loop: CountingLoop) -> None:
        bank = Bank(most=limits.FIRST_FLIGHT_OCTETS, most_per_source=limits.FIRST_FLIGHT_OCTETS)
        octets = b"NOOP\r\n" * 20_000
        worlds = await talked(loop, bank.opened("192.0.2.1"), octets)
        await until(lambda: all(world.connection.near_octets > len(EHLO) for world in worlds))
        assert bank.is_over
        await asyncio.sleep(0.05)
        slack = limits.READ_OCTETS + SLOW_READERS * limits.READ_WHEN_OVER_OCTETS
        kept = sum(world.connection.near_octets - len(EHLO) for world in worlds)
        assert bank.held == kept <= bank.most + slack
        assert sum(world.times_held_back for world in worlds) > 0
        for world in worlds:  # nobody is held back for ever
            await world.sends(world.far, LONG_REPLY)
            assert await read_exactly(loop, world.near, len(LONG_REPLY)) == LONG_REPLY
            assert await read_exactly(loop, world.far, 1024) == octets[:1024]
        await end(worlds)
        assert bank.held == 0

    run(body)


def keeping(event: Event) -> list[c.Command]:
    """Says more than the far side takes; dials again when that is reset, then relays."""
    if isinstance(event, OctetsReceived) and event.octets == b"x":
        return [c.SendOctets(Side.FAR, bytes(4 << 20))]
    if isinstance(event, OctetsReceived):
        return [c.SendOctets(event.side.other, event.octets), c.RelayInClear()]
    return [c.Redial()] if isinstance(event, ResetReceived) else []


@pytest.mark.parametrize("way", ["drained", "redialled"])
def test_a_far_side_that_takes_everything_is_no_reason_to_read_while_much_is_kept(way: str) -> None:
    async def body(loop: CountingLoop) -> None:
        bank = Bank(most=1, most_per_source=1)
        machine = Scripted(keeping)
        machine.octets_kept = 10
        world = World(loop, machine, small=True, account=bank.opened("192.0.2.1"))
        await world.sends(world.near, b"x")
        await until(lambda: world.connection._far.pending > 0)
        if way == "drained":
            await read_exactly(loop, world.far, 4 << 20)
        else:
            send_reset(world.far)
            await world.redial_asked
            ours, world.far = tcp_pair()
            world.connection.redialled(ours)
        await until(lambda: world.connection._far.pending == 0)
        assert bank.held == 10
        assert world.connection._near._hold == Hold.BY_PRESSURE
        machine.octets_kept = 0
        await world.sends(world.far, b"proof")
        assert await read_exactly(loop, world.near, 5) == b"proof"
        assert bank.held == 0
        await world.sends(world.near, b"more")
        assert await read_exactly(loop, world.far, 4) == b"more"
        await end([world])
        assert bank.held == 0

    run(body)
