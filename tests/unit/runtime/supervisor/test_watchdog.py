"""Who is silent is found, and killed in the end; looking itself never ends."""

from __future__ import annotations

import asyncio

import pytest

from gateway.policy import limits
from gateway.runtime.supervisor.worker_process import State, WorkerProcess
from tests.unit.runtime.supervisor.ears import Ears, Process


@pytest.mark.parametrize("state", [State.HUNG, State.DRAINING])
def test_a_worker_that_is_silent_for_long_is_killed(ears: Ears, state: State) -> None:
    """Also one that takes nothing new: its sessions would hang as long as it does."""
    process = Process()
    ears.worker.process, ears.worker.state = process, state  # type: ignore[assignment]
    ears.pool._watchdog.judge(ears.worker, limits.KILL_HUNG_AFTER_SECONDS - 0.1)
    assert process.killed == 0
    ears.pool._watchdog.judge(ears.worker, limits.KILL_HUNG_AFTER_SECONDS + 0.1)
    assert process.killed == 1


def test_workers_are_watched_though_one_look_at_them_fails(
    ears: Ears, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a bug of ours: a worker that hangs from then on would stay in the gate."""
    looks: list[float] = []
    seen_again = asyncio.Event()

    def judge(worker: WorkerProcess, silent: float) -> None:
        looks.append(silent)
        if len(looks) == 1:
            raise RuntimeError("a bug")
        seen_again.set()

    async def watched() -> None:
        ears.pool._watchdog._looked_at = loop.time()
        ears.pool._watchdog.watch()

    loop.set_exception_handler(lambda _loop, _context: None)
    monkeypatch.setattr(ears.pool._watchdog, "judge", judge)
    ears.pool.workers.append(ears.worker)
    with pytest.raises(RuntimeError, match="a bug"):
        loop.run_until_complete(watched())
    loop.run_until_complete(asyncio.wait_for(seen_again.wait(), 5))
