"""What waits in a worker for slow readers is bounded, however many of them there are."""

from __future__ import annotations

import asyncio
import contextlib

from gateway.policy import limits
from gateway.runtime.worker.pressure import Account, Bank
from tests.unit.runtime.sockets import CountingLoop, run
from tests.unit.runtime.worker.scripted import Scripted, World, relaying

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
