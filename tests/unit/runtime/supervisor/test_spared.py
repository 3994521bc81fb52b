"""What the supervisor puts into the kernel's sets of dead ends, and for how long it takes them for one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.observe.log import Entry, Log
from gateway.peers.pins import Destination
from gateway.policy import limits
from gateway.runtime.supervisor import spared as module
from gateway.runtime.supervisor.spared import DEAD_ENDS, RESTING, Spared, Visit

HERE = Destination("192.0.2.7", 25)
THERE = Destination("192.0.2.8", 25)
MINUTES = 30


class Kernel:
    """Its sets, its counter and the clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.until: dict[Destination | Visit, float] = {}
        self.counter = 0
        self.room = 8192
        self.most = 8192
        self.asked = 0

    def add(self, entries: Sequence[Destination | Visit], seconds: int) -> None:
        self.now += 0.01  # it takes a while
        self.asked += 1
        if len(self.until) + len(entries) > self.room:
            raise EnvironmentFailureError("nft: Too many open files in system")
        for entry in entries:
            if not self.passes(entry):
                self.until[entry] = self.now + seconds

    def remove(self, entry: Destination | Visit) -> None:
        self.until.pop(entry, None)

    def forget(self) -> None:
        self.until.clear()

    def count(self) -> int:
        return self.counter

    def passes(self, entry: Destination | Visit) -> bool:
        return self.until.get(entry, self.now) > self.now

    def monotonic(self) -> float:
        return self.now


class World:
    def __init__(self, kernel: Kernel, left: Mapping[str, Any], minutes: int) -> None:
        self.kernel = kernel
        self.passed: list[int] = []
        self.logged: list[str] = []
        self.round = asyncio.Event()
        self.stands = True
        """Whether the rules do, for the moment."""
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens while the kernel is told, or just behind it."""
        log = Log(self)
        sets: Any = kernel
        kind = replace(DEAD_ENDS, sets=sets, most=kernel.most)
        self.dead_ends = Spared(kind, minutes * 60, self.while_standing, self.passed.append, log, left)
        self.log = log

    def write_entries(self, entries: Sequence[Entry]) -> None:
        self.logged += [entry.text for entry in entries]

    def close(self) -> None: ...

    async def while_standing(self, work: Callable[[], None]) -> None:
        try:
            if self.stands:
                work()
            self.meanwhile()
        finally:
            self.round.set()

    async def carried(self) -> None:
        """What the task does when there is news, also where that fails."""
        self.round.clear()
        await self.round.wait()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def keeping(kernel: Kernel, left: Mapping[str, Any], minutes: int) -> AsyncIterator[World]:
    world = World(kernel, left, minutes)
    task = asyncio.create_task(world.dead_ends.keep())
    try:
        yield world
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(module, "time", kernel)
    return kernel


def run(
    scene: Callable[[World], Awaitable[None]],
    kernel: Kernel,
    left: Mapping[str, Any] | None = None,
    minutes: int = MINUTES,
) -> None:
    async def whole() -> None:
        async with asyncio.timeout(10), keeping(kernel, left or {}, minutes) as world:
            await scene(world)

    coroutine: Coroutine[None, None, None] = whole()
    asyncio.run(coroutine)


def test_whoever_finds_it_when_the_kernel_has_forgotten_it_is_heard(kernel: Kernel) -> None:
    """Also in the moment in which it has: else that word would be lost, and the next session be looked at."""

    async def scene(world: World) -> None:
        for _ in range(3):
            world.dead_ends.found(HERE)
            await world.carried()
            assert kernel.passes(HERE)
            kernel.now = kernel.until[HERE]
            assert not kernel.passes(HERE)

    run(scene, kernel)


def test_its_time_is_the_same_each_time(kernel: Kernel) -> None:
    """A gateway that is installed there is found within that time, however long there was none."""
    lasted = []

    async def scene(world: World) -> None:
        for _ in range(5):
            world.dead_ends.found(HERE)
            await world.carried()
            lasted.append(round(kernel.until[HERE] - kernel.now))
            kernel.now += 60 * MINUTES

    run(scene, kernel)
    assert lasted == [60 * MINUTES] * 5


def test_sessions_that_were_under_way_say_nothing_new(kernel: Kernel) -> None:
    async def scene(world: World) -> None:
        world.dead_ends.found(HERE)
        await world.carried()
        kernel.now += 60
        world.dead_ends.found(HERE)
        world.dead_ends.found(THERE)
        await world.carried()
        world.log.flush()
        assert sum("to=192.0.2.7:25" in line for line in world.logged) == 1

    run(scene, kernel)


@pytest.mark.parametrize(
    "ends",
    [lambda known: known.is_none(HERE), lambda known: known.is_none_at(HERE.address)],
    ids=["as a server", "as a client"],
)
def test_a_gateway_that_shows_itself_ends_it_at_once(
    kernel: Kernel, ends: Callable[[Spared[Destination]], None]
) -> None:
    async def scene(world: World) -> None:
        world.dead_ends.found(HERE)
        world.dead_ends.found(THERE)
        await world.carried()
        ends(world.dead_ends)
        await world.carried()
        assert not kernel.passes(HERE)
        assert kernel.passes(THERE)
        world.dead_ends.found(HERE)
        await world.carried()
        assert kernel.passes(HERE)

    run(scene, kernel)


@pytest.mark.parametrize(
    "ends",
    [lambda known: known.is_none(HERE), lambda known: known.is_none_at(HERE.address)],
    ids=["as a server", "as a client"],
)
def test_a_gateway_that_shows_itself_while_the_kernel_is_told_is_no_dead_end(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, ends: Callable[[Spared[Destination]], None]
) -> None:
    """The kernel has it by then, and would lead its mail by us, unseen, until it forgets it by itself."""
    monkeypatch.setattr(limits, "SPARED_COUNTED_EVERY_SECONDS", 0.01)

    async def scene(world: World) -> None:
        def once() -> None:
            world.meanwhile = lambda: None
            ends(world.dead_ends)

        world.meanwhile = once
        world.dead_ends.found(HERE)
        await world.carried()
        while kernel.passes(HERE):
            await world.carried()

    run(scene, kernel)


def test_a_client_with_a_gateway_has_nothing_searched(kernel: Kernel) -> None:
    """It may say so in each of its sessions, and the supervisor has all workers to hear."""

    class Whole(dict[Destination, Any]):
        def __iter__(self) -> Any:
            raise AssertionError("looks at one after the other")

    async def scene(world: World) -> None:
        other_port = Destination(HERE.address, 587)
        for each in (HERE, other_port, THERE):
            world.dead_ends.found(each)
        await world.carried()
        known = world.dead_ends
        known._until, known._changes = Whole(known._until), Whole(known._changes)
        known.is_none_at(HERE.address)
        known._until, known._changes = dict(known._until.items()), dict(known._changes.items())
        await world.carried()
        assert [kernel.passes(each) for each in (HERE, other_port, THERE)] == [False, False, True]

    run(scene, kernel)


def test_a_client_with_a_gateway_is_no_dead_end_that_the_kernel_is_still_to_be_told_of(
    kernel: Kernel,
) -> None:
    async def scene(world: World) -> None:
        world.dead_ends.found(HERE)
        world.dead_ends.is_none_at(HERE.address)
        await world.carried()
        assert not kernel.passes(HERE)

    run(scene, kernel)


def test_one_that_is_none_after_all_is_taken_out_once_the_rules_stand_again(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of them may be gone for a moment, and the sets be there."""
    monkeypatch.setattr(limits, "SPARED_COUNTED_EVERY_SECONDS", 0.01)

    async def scene(world: World) -> None:
        world.dead_ends.found(HERE)
        await world.carried()
        world.stands = False
        world.dead_ends.is_none(HERE)
        await world.carried()
        assert kernel.passes(HERE)
        world.stands = True
        await world.carried()
        assert not kernel.passes(HERE)

    run(scene, kernel)


def test_what_went_by_is_counted_once_also_when_the_kernel_begins_anew(kernel: Kernel) -> None:
    async def scene(world: World) -> None:
        for counter in (5, 5, 8, 2):
            kernel.counter = counter
            world.dead_ends.is_none(HERE)
            world.dead_ends.found(HERE)
            await world.carried()
        assert world.passed == [5, 3, 2]

    run(scene, kernel)


def test_one_that_is_none_after_all_is_taken_out_though_the_kernel_failed_once(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the mail to a gateway would pass in clear until the kernel forgets it by itself."""
    monkeypatch.setattr(limits, "SPARED_COUNTED_EVERY_SECONDS", 0.01)

    async def scene(world: World) -> None:
        world.dead_ends.found(HERE)
        await world.carried()
        takes = kernel.remove

        def fails(entry: Destination) -> None:
            monkeypatch.setattr(kernel, "remove", takes)
            raise EnvironmentFailureError("nft has not ended after 10 s")

        monkeypatch.setattr(kernel, "remove", fails)
        world.dead_ends.is_none(HERE)
        while kernel.passes(HERE):
            await world.carried()

    run(scene, kernel)


def test_where_the_kernel_has_no_more_room_that_is_found_once_in_a_while(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each session to one that does not fit says so again. What went by is counted all the same."""
    kernel.room = 0
    pauses: list[float] = []
    rested = asyncio.Event()

    async def scene(world: World) -> None:
        sleep = asyncio.sleep

        async def pause(seconds: float) -> None:
            pauses.append(seconds)
            rested.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(asyncio, "sleep", pause)
        kernel.counter = 7
        world.dead_ends.found(HERE)
        await rested.wait()
        for _ in range(100):
            world.dead_ends.found(HERE)
            await sleep(0)
        world.log.flush()
        assert kernel.asked == 1
        assert len(world.logged) == 1
        assert world.passed == [7]

    run(scene, kernel)
    assert pauses == [limits.SPARED_COUNTED_EVERY_SECONDS]


def test_the_rules_are_looked_after_between_many(kernel: Kernel) -> None:
    """A worker that is in other hands may tell of thousands at once. What is none comes first."""
    told: list[int] = []
    all_told = asyncio.Event()

    async def scene(world: World) -> None:
        def count() -> None:
            told.append(kernel.asked - sum(told))
            if sum(told) == 2 * limits.SPARED_RUNS_AT_ONCE:
                all_told.set()

        world.dead_ends.found(HERE)
        await world.carried()
        kernel.asked, world.meanwhile = 0, count
        for number in range(2 * limits.SPARED_RUNS_AT_ONCE):
            world.dead_ends.found(Destination(f"2001:db8::{number:x}", 25))
        world.dead_ends.is_none(HERE)
        await world.carried()
        assert not kernel.passes(HERE)
        await all_told.wait()

    run(scene, kernel)
    assert told == [limits.SPARED_RUNS_AT_ONCE - 1, limits.SPARED_RUNS_AT_ONCE, 1]


def test_no_more_wait_than_the_kernel_has_room_for(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel.most = 3

    async def scene(world: World) -> None:
        for number in range(9):
            world.dead_ends.found(Destination(f"2001:db8::{number:x}", 25))
        await world.carried()
        assert kernel.asked == 3

    run(scene, kernel)


def test_one_that_was_put_there_before_another_failed_can_be_taken_out(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SPARED_COUNTED_EVERY_SECONDS", 0.01)
    kernel.room = 1

    async def scene(world: World) -> None:
        world.dead_ends.found(HERE)
        world.dead_ends.found(THERE)
        await world.carried()
        assert kernel.passes(HERE)
        assert not kernel.passes(THERE)
        world.dead_ends.is_none(HERE)
        await world.carried()
        assert not kernel.passes(HERE)

    run(scene, kernel)


def test_a_reload_knows_those_that_the_kernel_has_and_counts_nothing_twice(kernel: Kernel) -> None:
    """Its sets and its counter outlive the daemon's program."""
    left: list[str] = []

    async def before(world: World) -> None:
        kernel.counter = 500
        world.dead_ends.found(HERE)
        await world.carried()
        assert world.passed == [500]
        left.append(json.dumps(world.dead_ends.left()))

    async def after(world: World) -> None:
        kernel.counter = 507
        world.dead_ends.is_none_at(HERE.address)
        await world.carried()
        assert not kernel.passes(HERE)
        assert world.passed == [7]

    run(before, kernel)
    assert kernel.passes(HERE)
    run(after, kernel, json.loads(left[0]))


def test_a_reload_takes_out_what_was_still_to_be_taken_out(kernel: Kernel) -> None:
    left: list[str] = []

    async def before(world: World) -> None:
        world.dead_ends.found(HERE)
        await world.carried()
        world.dead_ends.is_none(HERE)
        left.append(json.dumps(world.dead_ends.left()))

    async def after(world: World) -> None:
        await world.carried()
        assert not kernel.passes(HERE)

    run(before, kernel)
    assert kernel.passes(HERE)
    run(after, kernel, json.loads(left[0]))


@pytest.mark.parametrize("was", [False, True], ids=["taken out", "put there"])
def test_a_reload_knows_of_what_the_kernel_was_being_told(kernel: Kernel, was: bool) -> None:
    """Whether it has taken it is not known; a gateway that shows itself must not be left with it."""
    left: list[Spared[Destination]] = []

    async def before(world: World) -> None:
        left.append(world.dead_ends)
        if not was:
            world.dead_ends.found(HERE)
            await world.carried()
        told = asyncio.Event()

        async def for_ever(work: Callable[[], None]) -> None:
            if was:
                work()
            told.set()
            await asyncio.Event().wait()

        world.dead_ends._while_standing = for_ever
        world.dead_ends._change(HERE, was)
        await told.wait()

    async def after(world: World) -> None:
        if was:
            world.dead_ends.is_none(HERE)
        await world.carried()
        assert not kernel.passes(HERE)

    run(before, kernel)
    assert kernel.passes(HERE)
    run(after, kernel, json.loads(json.dumps(left[0].left())))


@pytest.mark.parametrize(
    ("minutes", "stays"), [(0, False), (MINUTES - 1, False), (MINUTES, True), (1440, True)]
)
def test_what_was_put_there_for_longer_than_is_wanted_now_goes_with_a_reload(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, minutes: int, stays: bool
) -> None:
    """At once, though the kernel failed: who wants none has each session looked at."""
    monkeypatch.setattr(limits, "SPARED_COUNTED_EVERY_SECONDS", 0.01)
    left: list[Mapping[str, Any]] = []

    async def before(world: World) -> None:
        world.dead_ends.found(HERE)
        await world.carried()
        left.append(world.dead_ends.left())

    forgets = kernel.forget

    def fails() -> None:
        monkeypatch.setattr(kernel, "forget", forgets)
        raise EnvironmentFailureError("nft has not ended after 10 s")

    async def behind(world: World) -> None:
        await world.carried()
        while kernel.passes(HERE) != stays:
            await world.carried()
        if minutes:
            world.dead_ends.found(HERE)
            await world.carried()
            assert kernel.passes(HERE)

    run(before, kernel)
    monkeypatch.setattr(kernel, "forget", fails)
    run(behind, kernel, left[0], minutes)


# --- Clients that rest -----------------------------------------------------------------------------------

CLIENT = Visit("192.0.2.9", "203.0.113.7", 25)
OTHER = Visit("192.0.2.9", "203.0.113.8", 25)
QUIET = 60.0


class Resting:
    """A kernel with sets of clients, and what keeps them."""

    def __init__(self, kernel: Kernel, left: Mapping[str, Any] | None = None) -> None:
        self.kernel = kernel
        self.logged: list[str] = []
        self.log = Log(self)
        sets: Any = kernel
        kind = replace(RESTING, sets=sets, most=kernel.most, together=3)
        keeps = 60 * MINUTES, self.while_standing, lambda more: None, self.log, left or {}
        self.clients = Spared(kind, *keeps)

    def write_entries(self, entries: Sequence[Entry]) -> None:
        self.logged += [entry.text for entry in entries]

    def close(self) -> None: ...

    async def while_standing(self, work: Callable[[], None]) -> None:
        work()

    async def carried(self) -> None:
        """One turn of its task."""
        await self.clients._carry_out()
        self.log.flush()


def test_many_clients_are_put_there_together(kernel: Kernel) -> None:
    """A run of nft for each would cost more than the sessions that it spares."""
    visits = [Visit(f"192.0.2.{number}", "203.0.113.7", 25) for number in range(7)]

    async def scene() -> None:
        world = Resting(kernel)
        for visit in visits:
            world.clients.found(visit)
        assert not world.clients._news.is_set(), "they are gathered"
        await world.carried()
        assert kernel.asked == 3
        assert all(kernel.passes(visit) for visit in visits)
        line = next(line for line in world.logged if "client-rests" in line)
        assert line.endswith("client-rests source=192.0.2.0 to=203.0.113.7:25 seconds=1800")

    asyncio.run(scene())


def test_what_is_gathered_is_told_soon(kernel: Kernel) -> None:
    async def scene() -> None:
        world = Resting(kernel)
        world.clients._kind = replace(world.clients._kind, gathered_seconds=0.01)
        world.clients.found(CLIENT)
        async with asyncio.timeout(10):
            await world.clients._news.wait()

    asyncio.run(scene())


def test_a_client_that_does_something_else_is_taken_out_everywhere(kernel: Kernel) -> None:
    async def scene() -> None:
        world = Resting(kernel)
        for visit in (CLIENT, OTHER):
            world.clients.found(visit)
        await world.carried()
        assert set(world.clients.at(CLIENT.address)) == {CLIENT, OTHER}
        world.clients.is_none_at(CLIENT.address)
        await world.carried()
        assert not kernel.passes(CLIENT)
        assert not kernel.passes(OTHER)
        assert world.clients.at(CLIENT.address) == ()

    asyncio.run(scene())


def test_a_gateway_that_was_not_known_ends_it_for_all_and_for_a_while(kernel: Kernel) -> None:
    """A worker may not have heard of it yet, and say once more who rests."""

    async def scene() -> None:
        world = Resting(kernel)
        world.clients.found(CLIENT)
        await world.carried()
        world.clients.found(OTHER)
        world.clients.are_none(QUIET)
        world.clients.found(CLIENT)
        await world.carried()
        assert kernel.until == {}
        assert world.logged[-1].endswith("clients-rest-no-more count=1")
        kernel.now += QUIET
        world.clients.found(CLIENT)
        await world.carried()
        assert kernel.passes(CLIENT)

    asyncio.run(scene())


def test_that_costs_nothing_where_nobody_rests(kernel: Kernel) -> None:
    async def scene() -> None:
        world = Resting(kernel)
        world.clients.are_none(QUIET)
        assert not world.clients._news.is_set()

    asyncio.run(scene())


@pytest.mark.parametrize("how", ["fails", "not standing"])
def test_it_ends_for_all_though_the_kernel_could_not_be_told_at_once(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(limits, "SPARED_COUNTED_EVERY_SECONDS", 0.01)
    forgets = kernel.forget

    def fails() -> None:
        monkeypatch.setattr(kernel, "forget", forgets)
        raise EnvironmentFailureError("nft has not ended after 10 s")

    async def scene() -> None:
        world = Resting(kernel)
        world.clients.found(CLIENT)
        await world.carried()
        if how == "fails":
            monkeypatch.setattr(kernel, "forget", fails)
        else:

            async def nothing(work: Callable[[], None]) -> None:
                world.clients._while_standing = world.while_standing

            world.clients._while_standing = nothing
        world.clients.are_none(QUIET)
        await world.carried()
        assert kernel.passes(CLIENT)
        await world.carried()
        assert not kernel.passes(CLIENT)

    asyncio.run(scene())


def test_it_ends_also_for_those_that_the_kernel_is_being_told_of(kernel: Kernel) -> None:
    async def scene() -> None:
        world = Resting(kernel)

        async def meanwhile(work: Callable[[], None]) -> None:
            world.clients._while_standing = world.while_standing
            work()
            world.clients.are_none(QUIET)

        world.clients._while_standing = meanwhile
        world.clients.found(CLIENT)
        await world.carried()
        await world.carried()
        assert kernel.until == {}

    asyncio.run(scene())


def test_a_reload_knows_that_it_ended_for_all(kernel: Kernel) -> None:
    async def scene() -> None:
        before = Resting(kernel)
        before.clients.found(CLIENT)
        await before.carried()
        before.clients.are_none(QUIET)
        after = Resting(kernel, json.loads(json.dumps(before.clients.left())))
        assert after.clients._news.is_set()
        after.clients.found(OTHER)
        await after.carried()
        assert kernel.until == {}

    asyncio.run(scene())


def test_a_reload_keeps_who_rests(kernel: Kernel) -> None:
    async def scene() -> None:
        before = Resting(kernel)
        before.clients.found(CLIENT)
        await before.carried()
        after = Resting(kernel, json.loads(json.dumps(before.clients.left())))
        assert after.clients.at(CLIENT.address) == (CLIENT,)
        after.clients.is_none_at(CLIENT.address)
        await after.carried()
        assert not kernel.passes(CLIENT)

    asyncio.run(scene())


def test_who_is_found_again_after_the_table_was_made_anew_is_put_there_again(kernel: Kernel) -> None:
    async def scene() -> None:
        world = Resting(kernel)
        kernel.counter = 5
        world.clients.found(CLIENT)
        await world.carried()
        kernel.until.clear()
        kernel.counter = 0
        await world.carried()
        world.clients.found(CLIENT)
        await world.carried()
        assert kernel.passes(CLIENT)

    asyncio.run(scene())


def test_who_is_found_again_long_after_the_kernel_was_told_is_put_there_again(kernel: Kernel) -> None:
    """Its table was made anew before it had counted any."""

    async def scene() -> None:
        world = Resting(kernel)
        world.clients.found(CLIENT)
        await world.carried()
        kernel.until.clear()
        world.clients.found(CLIENT)
        await world.carried()
        assert not kernel.passes(CLIENT), "a session that was begun before"
        kernel.now += limits.SPARED_FOUND_AGAIN_SECONDS
        world.clients.found(CLIENT)
        await world.carried()
        assert kernel.passes(CLIENT)

    asyncio.run(scene())
