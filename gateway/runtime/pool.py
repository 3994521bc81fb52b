"""The worker processes of one daemon: started, watched, taken out of the rules when they hang.

Never on the data path. Holds the listeners, so that a connection half open at a worker's death is closed by
its successor; never holds a copy of a queue's descriptor, which would keep a dead worker's queue bound.
Counterparts: `worker` (the process), `rulekeeper` (whom `on_change` tells which queues live).
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.config import Config
from gateway.errors import Reason
from gateway.intercept import tproxy
from gateway.intercept.marks import MarkBits
from gateway.intercept.ruleset import Slot
from gateway.observe.counters import Snapshot, empty_snapshot, merged, without_gauges
from gateway.observe.log import Level, Log
from gateway.policy import limits
from gateway.runtime.link import Link, Message
from gateway.runtime.order import Order


class State(enum.Enum):
    STARTING = "starting"
    SERVING = "serving"
    HUNG = "hung"
    DRAINING = "draining"
    DEAD = "dead"


@dataclass(eq=False)
class WorkerProcess:
    """One slot and the process that serves it now."""

    slot: Slot
    listeners: tuple[socket.socket, ...]
    state: State = State.DEAD
    process: asyncio.subprocess.Process | None = None
    link: Link | None = None
    alive_at: float = 0.0
    started_at: float = 0.0
    restarts: int = 0
    rest_seconds: float = limits.RESTART_SECONDS
    counters: Snapshot = field(default_factory=empty_snapshot)

    def as_json(self) -> dict[str, Any]:
        tallies = self.counters["tallies"]
        return {
            "slot": self.slot.index,
            "state": self.state.value,
            "pid": self.process.pid if self.process else None,
            "queue": self.slot.queue,
            "sessions": tallies.get("sessions-open", 0),
            "restarts": self.restarts,
        }


class Pool:
    """`on_change` is called whenever the set of live queues may have changed."""

    def __init__(
        self,
        config: Config,
        slots: tuple[Slot, ...],
        seed: bytes,
        log: Log,
        on_change: Callable[[], None],
        on_message: Callable[[Message], None],
        alarm: Callable[[Reason, str, str], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._seed = seed
        self._log = log
        self._on_change = on_change
        self._on_message = on_message
        self._alarm = alarm
        self._stopping = False
        self._past = empty_snapshot()
        self._tasks: set[asyncio.Task[None]] = set()
        marks = MarkBits(config.marks.mask)
        self.workers = [
            WorkerProcess(
                slot,
                tuple(
                    tproxy.listener(family, slot.port, marks) for family in (socket.AF_INET, socket.AF_INET6)
                ),
            )
            for slot in slots
        ]
        self._watched_at = self._loop.time()

    async def start(self) -> None:
        for worker in self.workers:
            await self._spawn(worker)
        self._watch()

    @property
    def live_queues(self) -> list[int]:
        return [worker.slot.queue for worker in self.workers if worker.state is State.SERVING]

    def counters(self) -> Snapshot:
        """Of all workers, dead ones included."""
        return merged([self._past, *(worker.counters for worker in self.workers)])

    async def stop(self) -> None:
        """Let sessions finish for a while, then end what is left. The queues go back at once."""
        self._stopping = True
        for worker in self.workers:
            if worker.link is not None and worker.state is not State.DEAD:
                worker.state = State.DRAINING
                worker.link.send({"drain": True})
        ending = [worker.process.wait() for worker in self.workers if worker.process is not None]
        if ending:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.STOP_SECONDS):
                    await asyncio.gather(*ending)
        for worker in self.workers:
            self._kill(worker)
            if worker.process is not None:
                await worker.process.wait()
            for listener in worker.listeners:
                listener.close()

    # --- Life -----------------------------------------------------------------------------------------

    async def _spawn(self, worker: WorkerProcess) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listeners = tuple(listener.fileno() for listener in worker.listeners)
        order = Order(self._config, worker.slot.index, worker.slot.queue, listeners, self._seed)
        ours.send(pickle.dumps(order))
        worker.process = await asyncio.create_subprocess_exec(
            # -P: a root process must not import from the directory it happens to stand in.
            sys.executable,
            "-P",
            "-m",
            "gateway.runtime.worker",
            str(theirs.fileno()),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs.fileno(), *listeners),
        )
        theirs.close()
        worker.state = State.STARTING
        worker.started_at = worker.alive_at = self._loop.time()
        worker.link = Link(
            self._loop,
            ours,
            lambda message: self._told(worker, message),
            lambda: None,
            lambda: self._alive(worker),
        )
        self._keep(self._reap(worker, worker.process))

    async def _reap(self, worker: WorkerProcess, process: asyncio.subprocess.Process) -> None:
        """Wait for the end of one process, and start the next one unless the daemon stops."""
        status = await process.wait()
        worker.state = State.DEAD
        if worker.link is not None:
            worker.link.close()
        self._past = merged([self._past, without_gauges(worker.counters)])
        worker.counters = empty_snapshot()
        self._on_change()
        if self._stopping:
            return
        self._alarm(Reason.WORKER_DIED, f"worker {worker.slot.index}", f"pid={process.pid} status={status}")
        lived = self._loop.time() - worker.started_at
        if lived >= limits.STABLE_SECONDS:
            worker.rest_seconds = limits.RESTART_SECONDS
        await asyncio.sleep(worker.rest_seconds)
        worker.rest_seconds = min(2 * worker.rest_seconds, limits.RESTART_MOST_SECONDS)
        if not self._stopping:
            worker.restarts += 1
            await self._spawn(worker)

    def _kill(self, worker: WorkerProcess) -> None:
        if worker.process is not None and worker.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.process.pid, signal.SIGKILL)

    # --- The watchdog -----------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Judges no worker by a silence that this process may itself have slept through."""
        now = self._loop.time()
        slept = now - self._watched_at > limits.HUNG_AFTER_SECONDS / 2
        self._watched_at = now
        if not slept:
            for worker in self.workers:
                self._judge(worker, now - worker.alive_at)
        if not self._stopping:
            self._loop.call_later(limits.WATCH_SECONDS, self._watch)

    def _judge(self, worker: WorkerProcess, silent: float) -> None:
        if worker.state is State.SERVING and silent > limits.HUNG_AFTER_SECONDS:
            worker.state = State.HUNG
            self._on_change()
            self._alarm(Reason.WORKER_HUNG, f"worker {worker.slot.index}", f"silent={silent:.2f}")
        elif worker.state is State.HUNG and silent > limits.KILL_HUNG_AFTER_SECONDS:
            self._log.fact("pool", "kill-hung", level=Level.ERROR, worker=worker.slot.index)
            self._kill(worker)
        elif worker.state is State.STARTING and silent > limits.START_SECONDS:
            self._kill(worker)

    def _alive(self, worker: WorkerProcess) -> None:
        worker.alive_at = self._loop.time()
        if worker.state is State.HUNG:
            worker.state = State.SERVING
            self._log.fact("pool", "worker-back", level=Level.NOTICE, worker=worker.slot.index)
            self._on_change()

    def _told(self, worker: WorkerProcess, message: Message) -> None:
        if "ready" in message:
            worker.state = State.SERVING
            worker.alive_at = self._loop.time()
            self._log.fact("pool", "worker-serves", worker=worker.slot.index, pid=message["ready"])
            self._on_change()
        elif "counters" in message:
            worker.counters = message["counters"]
        elif "answered" in message:
            for other in self.workers:
                if other is not worker and other.link is not None:
                    other.link.send(message)
        else:
            self._on_message(message)

    def _keep(self, coroutine: Any) -> None:
        """A task nobody refers to may be collected in mid-run."""
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
