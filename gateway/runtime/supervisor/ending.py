"""How sessions end that the daemon cannot carry any longer: at a stop, and before the rules go.

They have some time to end by themselves; what is left is reset, and its senders try again. The gate sends
nothing new meanwhile. Counterparts: `pool`, whose workers they are; `worker`, which is told; `rulekeeper`,
which takes the rules out when no session needs them any more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from typing import Final

from gateway.policy import limits
from gateway.runtime.supervisor.worker_process import State, WorkerProcess

_CARRY: Final = frozenset({State.SERVING, State.HUNG, State.DRAINING})
"""Who is in another state has no session."""


class Ending:
    """`workers` are looked at as they are at each call."""

    def __init__(self, workers: Sequence[WorkerProcess]) -> None:
        self._workers = workers
        self._hurried = asyncio.Event()

    def hurry(self) -> None:
        """Nobody waits for the sessions any longer: those that are ended now, or while who hurried waits for
        that, are reset at once. They may all have ended before, and those of a later stop have their time."""
        self._hurried.set()
        asyncio.get_running_loop().call_later(limits.HURRIED_DOWN_SECONDS, self._hurried.clear)

    async def of_workers(self) -> None:
        """Returns when all processes have ended. Their queues go back at once."""
        for worker in self._workers:
            if worker.link is not None and worker.state is not State.DEAD:
                worker.state = State.DRAINING
                worker.link.send({"drain": True})
        processes = [worker.process for worker in self._workers if worker.process is not None]
        if not await self._come_in_time([process.wait() for process in processes]):
            await _end(self._workers)

    async def of_sessions(self) -> int:
        """Returns when no worker has any: how many have been reset.

        Workers live on, but for those whose sessions had to be reset: they are started anew.
        """
        asked = [worker for worker in self._workers if worker.state in _CARRY]
        for worker in asked:
            worker.tell_to_finish()
        try:
            await self._come_in_time([worker.finished.wait() for worker in asked])
        finally:
            self._hurried.clear()
        late = [worker for worker in asked if not worker.finished.is_set()]
        reset: int = sum(worker.counters["tallies"].get("sessions-open", 0) for worker in late)
        await _end(late)
        return reset

    async def _come_in_time(self, awaited: Sequence[Awaitable[object]]) -> bool:
        """Whether all do, before the sessions' time is over."""
        come = asyncio.ensure_future(_all_come(awaited))
        hurried = asyncio.ensure_future(self._hurried.wait())
        try:
            await asyncio.wait(
                (come, hurried), timeout=limits.STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            return come.done()
        finally:
            come.cancel()
            hurried.cancel()


async def _all_come(awaited: Sequence[Awaitable[object]]) -> None:
    await asyncio.gather(*awaited)


async def _end(workers: Sequence[WorkerProcess]) -> None:
    """What is left in them is reset; who does not even do that is killed."""
    processes = [worker.process for worker in workers if worker.process is not None]
    for worker in workers:
        worker.tell_to_end()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limits.ENDING_SECONDS):
            for process in processes:
                await process.wait()
    for process in processes:
        process.kill()
        await process.wait()
