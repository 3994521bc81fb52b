"""Workers' lives: started, started again, stopped, and succeeded while they finish their sessions.

Without processes. Counterpart: tests/lab, where workers are real ones.
"""

from __future__ import annotations

import asyncio
import gc
import math
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.errors import Reason
from gateway.intercept.ruleset import Slot
from gateway.observe.counters import empty_snapshot
from gateway.policy import limits
from gateway.runtime.link import Link, Message
from gateway.runtime.supervisor.child import Child
from gateway.runtime.supervisor.pool import Pool
from gateway.runtime.supervisor.worker_process import State, WorkerProcess
from tests.unit.runtime.sockets import open_descriptors
from tests.unit.runtime.supervisor.ears import PRESENTED, Ears, Process


def test_a_worker_that_cannot_be_started_is_started_later(
    ears: Ears, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process to be had for a moment (a limit, no memory): the slot must not stay empty for good."""
    tries: list[float] = []
    started = asyncio.Event()

    def starts(*_: object) -> Process:
        tries.append(loop.time())
        if len(tries) < 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.set()
        return Process()

    monkeypatch.setattr(Child, "start", starts)
    monkeypatch.setattr(limits, "RESTART_SECONDS", 0.01)
    worker = ears.worker
    worker.process, worker.rest_seconds = Process(), 0.01  # type: ignore[assignment]
    ears.pool.workers.append(worker)
    monkeypatch.setattr(ears.pool, "_signer_end", lambda slot: 0)

    async def served() -> None:
        ears.pool._ended(worker, -9)
        async with asyncio.timeout(5):
            await started.wait()

    before = open_descriptors()
    loop.run_until_complete(served())
    assert (len(tries), worker.state) == (3, State.STARTING)
    assert [reason for reason, _ in ears.rung] == [Reason.WORKER_DIED]
    assert worker.link is not None
    worker.link.close()
    assert open_descriptors() <= before


def test_at_a_stop_who_does_not_end_is_told_to_reset_what_is_left_and_then_killed(
    ears: Ears, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STOP_SECONDS", 0.02)
    monkeypatch.setattr(limits, "ENDING_SECONDS", 0.02)
    told: list[Message] = []
    ended = loop.create_future()

    async def wait() -> None:
        await asyncio.shield(ended)

    process = Process()
    process.wait = wait  # type: ignore[attr-defined]
    process.kill = lambda: told.append({"killed": True}) or ended.set_result(None)  # type: ignore[method-assign]
    ears.worker.process = process  # type: ignore[assignment]
    ears.worker.link = cast("Link", SimpleNamespace(send=told.append))
    ears.pool.workers.append(ears.worker)
    loop.run_until_complete(ears.pool.stop())
    assert told == [{"drain": True}, {"end": True}, {"killed": True}]


def with_link(worker: WorkerProcess, said: list[Message]) -> WorkerProcess:
    """It hears all that it is told, and ends when it is told to."""
    process = Process()
    ended = asyncio.Event()

    def send(message: Message) -> bool:
        said.append(message)
        if "end" in message:
            ended.set()
        return True

    process.wait = ended.wait  # type: ignore[attr-defined]
    worker.process, worker.link = process, cast("Link", SimpleNamespace(send=send, close=lambda: None))  # type: ignore[assignment]
    return worker


def test_before_the_rules_go_only_who_has_not_finished_is_told_to_end(
    ears: Ears, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end rings nothing, and it is started anew; one that is only starting has no session."""
    monkeypatch.setattr(limits, "STOP_SECONDS", 0.02)
    pool, late = ears.pool, ears.worker
    said: list[list[Message]] = [[], [], []]
    quick, starting = (
        WorkerProcess(Slot(number, 2500 + number, 12525 + number), (), 0, state)
        for number, state in ((1, State.SERVING), (2, State.STARTING))
    )
    pool.workers += [with_link(one, told) for one, told in zip((late, quick, starting), said, strict=True)]
    late.counters = {"tallies": {"sessions-open": 3}}

    async def emptied() -> int:
        emptying = asyncio.ensure_future(pool.ending.of_sessions())
        await asyncio.sleep(0)
        pool._told(quick, {"finished": True})
        return await emptying

    assert loop.run_until_complete(emptied()) == 3
    assert said == [[{"finish": True}, {"end": True}], [{"finish": True}], []]
    pool._ended(late, 0)
    assert ears.rung == []
    assert late.finished.is_set(), "nobody waits for one that has ended"


def test_who_hurries_has_what_is_left_reset_at_once(ears: Ears, loop: asyncio.AbstractEventLoop) -> None:
    """And no later time. Nor does the loop miss anybody who was waited for: a traceback in the log."""
    said: list[Message] = []
    missed: list[object] = []
    loop.set_exception_handler(lambda _, context: missed.append(context))
    ears.pool.workers.append(with_link(ears.worker, said))
    loop.call_soon(ears.pool.ending.hurry)
    loop.run_until_complete(asyncio.wait_for(ears.pool.ending.of_sessions(), limits.STOP_SECONDS / 2))
    assert said == [{"finish": True}, {"end": True}]
    assert not ears.pool.ending._hurried.is_set()
    loop.run_until_complete(asyncio.sleep(0))
    gc.collect()
    assert missed == []


def test_who_hurried_does_so_for_a_while_only(
    ears: Ears, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the sessions had just ended: a stop, months later, is to give others their time."""
    monkeypatch.setattr(limits, "HURRIED_DOWN_SECONDS", 0.02)
    loop.call_soon(ears.pool.ending.hurry)
    loop.run_until_complete(asyncio.sleep(0.1))
    assert not ears.pool.ending._hurried.is_set()


def test_a_worker_whose_start_fails_by_a_bug_is_started_again(
    ears: Ears, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[WorkerProcess] = []
    started = asyncio.Event()

    def spawn(worker: WorkerProcess) -> None:
        tries.append(worker)
        if len(tries) == 1:
            raise TypeError("a bug")
        started.set()

    monkeypatch.setattr(ears.pool, "_spawn", spawn)
    ears.worker.rest_seconds = 0.01
    ears.pool.workers.append(ears.worker)
    ears.pool._start_again(ears.worker)
    loop.run_until_complete(asyncio.wait_for(started.wait(), 5))


# --- One that somebody else told to end ------------------------------------------------------------------


class Slots:
    """A pool whose processes are none, with one worker that serves."""

    def __init__(self, ears: Ears, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ears, self.loop, self.pool, self.worker = ears, loop, ears.pool, ears.worker
        self.spawned: list[WorkerProcess] = []
        self.due: list[tuple[float, Any]] = []
        monkeypatch.setattr(self.pool, "_spawn", self._spawn)
        monkeypatch.setattr(
            loop, "call_later", lambda after, call, *given: self.due.append((after, (call, given)))
        )
        self.worker.process = Process()  # type: ignore[assignment]
        self.pool.workers.append(self.worker)

    def _spawn(self, worker: WorkerProcess) -> None:
        worker.process = Process()  # type: ignore[assignment]
        worker.state, worker.started_at = State.SERVING, self.loop.time()
        self.spawned.append(worker)

    def turn(self) -> None:
        due, self.due = self.due, []
        for _, (call, given) in due:
            call(*given)

    def told_to_end(self, worker: WorkerProcess) -> None:
        self.pool._told(worker, {"drains": True})
        self.pool._told(worker, {"yields": True})


@pytest.fixture
def slots(ears: Ears, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> Slots:
    return Slots(ears, loop, monkeypatch)


def test_its_successor_starts_while_it_finishes_its_sessions(slots: Slots) -> None:
    slots.pool._told(slots.worker, {"drains": True})
    assert slots.pool.live_queues == [] and slots.due == []
    slots.told_to_end(slots.worker)
    slots.turn()
    (successor,) = slots.spawned
    assert (successor.slot, successor.generation) == (slots.worker.slot, slots.worker.generation)
    assert successor.restarts == 1
    assert slots.ears.rung == [(Reason.WORKER_DIED, "pid=7 was told to end, and finishes its sessions")]
    slots.pool._ended(slots.worker, 0)
    assert slots.pool.workers == [successor]
    assert len(slots.ears.rung) == 1, "its end is no news"
    assert slots.due == []


def test_one_slot_has_two_processes_at_most(slots: Slots) -> None:
    slots.told_to_end(slots.worker)
    slots.told_to_end(slots.worker)
    slots.turn()
    assert len(slots.spawned) == 1
    slots.told_to_end(slots.spawned[0])
    slots.turn()
    assert len(slots.spawned) == 1, "the first one has not ended"
    assert [after for after, _ in slots.due] == [limits.RESTART_MOST_SECONDS]
    slots.pool._ended(slots.worker, 0)
    slots.turn()
    assert len(slots.spawned) == 2


def test_a_successor_that_dies_is_started_again_beside_the_old_one(slots: Slots) -> None:
    slots.told_to_end(slots.worker)
    slots.turn()
    (successor,) = slots.spawned
    slots.pool._ended(successor, 9)
    slots.turn()
    assert slots.spawned == [successor, successor]
    assert slots.pool.workers == [slots.worker, successor]


@pytest.mark.parametrize("why", ["daemon stops", "reload", "it has ended"])
def test_nobody_succeeds_who_is_not_wanted(slots: Slots, why: str) -> None:
    slots.told_to_end(slots.worker)
    if why == "daemon stops":
        slots.pool._stopping = True
    elif why == "reload":
        slots.pool.newest += 1
    else:
        slots.pool._ended(slots.worker, 0)
        assert slots.ears.rung == [(Reason.WORKER_DIED, "pid=7 status=0")]
    slots.turn()
    assert slots.spawned == ([slots.worker] if why == "it has ended" else [])


def test_without_a_descriptor_its_successor_waits(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    class Listener:
        def dup(self) -> None:
            raise OSError(24, "Too many open files")

        def close(self) -> None: ...

    slots.worker.listeners = (Listener(),)  # type: ignore[assignment]
    slots.told_to_end(slots.worker)
    slots.turn()
    assert (slots.spawned, slots.worker.has_successor, slots.ears.rung) == ([], False, [])
    slots.worker.listeners = ()
    slots.turn()
    assert len(slots.spawned) == 1


def test_who_never_was_told_to_end_does_not_yield(slots: Slots) -> None:
    slots.pool._told(slots.worker, {"yields": True})
    assert slots.due == []


# --- Generations ------------------------------------------------------------------------------------------


def test_a_generation_leads_once_the_last_of_it_has_come_to_itself(ears: Ears) -> None:
    """One that had hung for a moment when the others were ready: the older one would have led for ever."""
    pool = ears.pool
    pool.newest, pool._offers_can_be_signed = 1, True
    late, other = (
        WorkerProcess(Slot(number, 2500 + number, 12525 + number), (), 1, state)
        for number, state in ((2, State.HUNG), (3, State.SERVING))
    )
    pool.workers += [ears.worker, late, other]
    pool._lead_if_ready()
    assert pool.live_queues == [2500]
    pool._alive(late)
    assert pool.live_queues == [2502, 2503]


@pytest.mark.parametrize("reloads", [True, False])
def test_without_a_signer_who_leads_at_a_reload_goes_on(
    slots: Slots, monkeypatch: pytest.MonkeyPatch, reloads: bool
) -> None:
    """They have the one of before: mail that comes in would travel in clear. At a start there is none."""
    pool = slots.pool
    if reloads:
        pool.newest = 1
        pool.workers.append(WorkerProcess(Slot(1, 2501, 12526), (), 1))
    for worker in pool.workers:
        worker.alive_at = math.inf
    pool.start()
    ((late, _),) = (call for after, call in slots.due if after == limits.SIGNER_START_SECONDS)
    late()
    assert pool.live_queues == [2500]
    assert pool._offers_can_be_signed != reloads
    assert [reason for reason, _ in slots.ears.rung] == ([Reason.SIGNER_SILENT] if reloads else [])
    pool.signer_serves()
    assert pool.live_queues == ([2501] if reloads else [2500])


def test_one_whose_link_is_full_hears_later_that_it_retires(ears: Ears) -> None:
    """One that hangs reads nothing: unheard, it would have kept its slot for as long as the daemon lives."""
    pool, worker = ears.pool, ears.worker
    answers, said = iter([False, True]), []

    def send(message: Message) -> bool:
        said.append(message)
        return next(answers)

    pool._leading = pool.newest = 1
    worker.state, worker.link = State.HUNG, cast("Link", SimpleNamespace(send=send))
    worker.told, worker.told_inside = PRESENTED, ()
    pool.workers.append(worker)
    pool.gate_is([2502])
    for _ in range(3):
        pool._alive(worker)
    assert said == [{"retire": True}] * 2
    assert worker.state is State.DRAINING


def test_a_start_without_a_process_to_be_had_ends_nothing(
    slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit that is reached for a moment, at a reload for instance, whose older workers carry mail."""

    def refuses(worker: WorkerProcess) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    begins = slots.pool._spawn
    monkeypatch.setattr(slots.pool, "_spawn", refuses)
    slots.pool.start()
    assert slots.spawned == []
    monkeypatch.setattr(slots.pool, "_spawn", begins)
    slots.turn()
    assert slots.spawned == [slots.worker]


def test_who_is_not_handed_over_is_waited_for_by_the_next_one(
    ears: Ears, loop: asyncio.AbstractEventLoop
) -> None:
    """One that was just starting: a child of the same process, it would be a zombie as long as that lives."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], {})
    process = Child(loop, pid, lambda status: None)
    ears.worker.process, ears.worker.state = process, State.STARTING
    ears.pool.workers.append(ears.worker)
    assert ears.pool.hand_over() == ((), empty_snapshot(), (pid,))
    # An exec leaves nothing of it.
    loop.remove_reader(process._pidfd)
    os.close(process._pidfd)

    async def succeeded() -> None:
        assert Pool(**ears.given, ending=(pid,)).workers == []
        while _exists(pid):  # noqa: ASYNC110
            await asyncio.sleep(0)

    loop.run_until_complete(asyncio.wait_for(succeeded(), 5))


def test_a_generation_that_has_not_come_up_is_not_handed_over(ears: Ears) -> None:
    """Its few that serve would have led, and the one before, which is whole, would have retired."""
    pool = ears.pool
    pool.newest = 1
    came_up, late = (
        WorkerProcess(Slot(number, 2500 + number, 12525 + number), (), 1, state)
        for number, state in ((2, State.SERVING), (3, State.STARTING))
    )
    pool.workers += [ears.worker, came_up, late]
    for descriptor, worker in enumerate(pool.workers, 8):
        worker.process = Process()  # type: ignore[assignment]
        worker.link = cast(
            "Link", SimpleNamespace(is_open=True, detach=lambda descriptor=descriptor: descriptor)
        )
    heirs, _, ending = pool.hand_over()
    assert [(heir.index, heir.generation, heir.link) for heir in heirs] == [(0, 0, 8)]
    assert [worker.process.killed for worker in pool.workers] == [0, 1, 1]  # type: ignore[union-attr]
    assert len(ending) == 2


def test_one_that_ends_as_its_supervisor_does_is_waited_for_and_counted(
    ears: Ears, loop: asyncio.AbstractEventLoop
) -> None:
    """It has closed its link some milliseconds before: a reload in between ended the daemon."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    worker = ears.worker
    worker.process = Process()  # type: ignore[assignment]
    worker.counters = {"tallies": {"sessions-begun": 3, "sessions-open": 1}}
    ears.pool.workers.append(worker)

    async def heard() -> None:
        ears.pool._join(worker, ours)
        theirs.close()
        while worker.link is not None and worker.link.is_open:  # noqa: ASYNC110
            await asyncio.sleep(0)

    loop.run_until_complete(asyncio.wait_for(heard(), 5))
    heirs, past, ending = ears.pool.hand_over()
    assert (heirs, past["tallies"], ending) == ((), {"sessions-begun": 3}, (7,))


@pytest.mark.parametrize(("before", "number"), [(None, 0), (4, 5)])
def test_no_generation_has_the_number_of_one_that_was_begun(
    ears: Ears, loop: asyncio.AbstractEventLoop, before: int | None, number: int
) -> None:
    """Who has asked for a reload waits for a later one, and waited in vain where the one before it had no
    heirs. Without heirs there is nothing to wait for: each worker takes mail as soon as it serves."""

    async def succeeded() -> Pool:
        return Pool(**ears.given, newest=before)

    pool = loop.run_until_complete(succeeded())
    pool.signer_serves()
    serving, starting = (
        WorkerProcess(Slot(slot, 2500 + slot, 12525), (), pool.newest, state)
        for slot, state in ((0, State.SERVING), (1, State.STARTING))
    )
    pool.workers += [serving, starting]
    assert (pool.newest, pool.live_queues) == (number, [2500])


def test_lines_that_the_supervisor_itself_could_not_write_are_counted(
    ears: Ears, loop: asyncio.AbstractEventLoop
) -> None:
    ears.worker.counters = {"tallies": {"log-lines-lost": 2}}
    ears.pool.workers.append(ears.worker)
    ears.log.lost_lines = 3
    assert ears.pool.counters()["tallies"] == {"log-lines-lost": 5}
    ears.pool.workers.clear()
    _, past, _ = ears.pool.hand_over()
    ears.log.lost_lines = 1  # of the program that comes next, which counts for itself

    async def succeeded() -> Pool:
        return Pool(**ears.given, past=past)

    assert loop.run_until_complete(succeeded()).counters()["tallies"] == {"log-lines-lost": 4}


def _exists(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()
