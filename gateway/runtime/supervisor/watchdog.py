"""Looks after workers' proofs of life: one that is silent is hung, one that stays so is killed.

Judges none by a silence that this process may itself have slept through. Counterparts: `pool`, whose workers
they are and who hears that they live; `rulekeeper`, which takes the queue of one that hangs out of the gate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from gateway.errors import Reason
from gateway.observe.log import Level, Log
from gateway.policy import limits
from gateway.runtime.supervisor.worker_process import State, WorkerProcess

_MAY_HANG: Final = frozenset({State.HUNG, State.DRAINING})
"""One that takes nothing new is in no gate's way, but what it still carries would hang with it."""


class Watchdog:
    """`workers` are looked at as they are at each look; `on_change` is called when one is found hung."""

    def __init__(
        self,
        workers: Sequence[WorkerProcess],
        log: Log,
        on_change: Callable[[], None],
        alarm: Callable[[Reason, str, str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._workers = workers
        self._log = log
        self._on_change = on_change
        self._alarm = alarm
        self._looked_at = self._loop.time()
        self._stopping = False

    def stop(self) -> None:
        self._stopping = True

    def watch(self) -> None:
        """Now, and from now on."""
        now = self._loop.time()
        slept = now - self._looked_at > limits.HUNG_AFTER_SECONDS / 2
        self._looked_at = now
        # Before all else: a bug in what follows must not leave the workers unwatched.
        if not self._stopping:
            self._loop.call_later(limits.WATCH_SECONDS, self.watch)
        if not slept:
            for worker in self._workers:
                self.judge(worker, now - worker.alive_at)

    def judge(self, worker: WorkerProcess, silent: float) -> None:
        """`silent`: for so many seconds it has given no proof of life."""
        if worker.process is None:
            return
        if worker.state is State.SERVING and silent > limits.HUNG_AFTER_SECONDS:
            worker.state = State.HUNG
            self._on_change()
            self._alarm(Reason.WORKER_HUNG, f"worker {worker.slot.index}", f"silent={silent:.2f}")
        elif worker.state in _MAY_HANG and silent > limits.KILL_HUNG_AFTER_SECONDS:
            self._log.fact("pool", "kill-hung", level=Level.ERROR, worker=worker.slot.index)
            worker.process.kill()
        elif worker.state is State.STARTING and silent > limits.START_SECONDS:
            worker.process.kill()
