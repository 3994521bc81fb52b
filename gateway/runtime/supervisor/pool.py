"""The worker processes of one daemon: started, watched, taken out of the rules when they hang.

Never on the data path. Holds the listeners, so that a connection half open at a worker's death is closed by
its successor; never holds a copy of a queue's descriptor, which would keep a dead worker's queue bound.
Counterparts: `worker` (the process), `watchdog` (which finds those that hang), `rulekeeper` (whom `on_change`
tells which queues live).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gateway.config import Config, Network
from gateway.errors import Reason
from gateway.intercept import kernel, tproxy
from gateway.intercept.marks import MarkBits
from gateway.intercept.ruleset import Slot
from gateway.observe.counters import (
    Counters,
    Direction,
    Snapshot,
    Tally,
    empty_snapshot,
    merged,
    require_snapshot,
    without_gauges,
)
from gateway.observe.log import Level, Log
from gateway.peers.sources import SourceSeen
from gateway.policy import limits
from gateway.runtime.bug import Bug
from gateway.runtime.confinements import seen_by_workers
from gateway.runtime.hardening import LAYERS, Confinement
from gateway.runtime.link import Link, Message
from gateway.runtime.order import Order, Presented, told
from gateway.runtime.said import require_said
from gateway.runtime.supervisor import environment
from gateway.runtime.supervisor.child import Child
from gateway.runtime.supervisor.ending import Ending
from gateway.runtime.supervisor.handover import Heirloom
from gateway.runtime.supervisor.inquiry import Inquiry
from gateway.runtime.supervisor.watchdog import Watchdog
from gateway.runtime.supervisor.worker_process import State, WorkerProcess

_OF_ALL_WORKERS = frozenset({SourceSeen.DROPPED.value, SourceSeen.WENT_ON.value})
"""What a client did that counts in a row, whichever worker saw it; a first upgrade is for all as well."""


class Pool:
    """`on_change` is called whenever the set of live queues may have changed.

    `heirs` are the workers of the supervisor that this process was before: they serve until the workers of
    this one are all ready and the gate has been switched over, and then finish their sessions. Those that it
    has killed are `ending`. `newest` was its last generation, whether it came to anything or not.
    """

    def __init__(
        self,
        config: Config,
        slots: tuple[Slot, ...],
        presented: Presented,
        confinement: Confinement,
        signer_end: Callable[[int], int],
        log: Log,
        on_change: Callable[[], None],
        on_message: Callable[[Message], None],
        alarm: Callable[[Reason, str, str], None],
        heirs: tuple[Heirloom, ...] = (),
        past: Snapshot | None = None,
        ending: tuple[int, ...] = (),
        newest: int | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._config = config
        self._presented = presented
        self._confinement = confinement
        self._signer_end = signer_end
        self._log = log
        self._on_change = on_change
        self._on_message = on_message
        self._alarm = alarm
        self._stopping = False
        self._past = past if past is not None else empty_snapshot()
        led = max((heir.generation for heir in heirs), default=-1)
        # A number is never given twice: who has asked for a reload waits for a later one than there was.
        self.newest = 1 + (led if newest is None else newest)
        self._leading = led if heirs else self.newest
        """The generation to which the gate sends SYNs."""
        marks = MarkBits(config.marks.mask)
        self.workers = [self._inherit(heir) for heir in heirs]
        self.workers += [WorkerProcess.listening(slot, marks, self.newest) for slot in slots]
        for pid in ending:
            with contextlib.suppress(OSError):  # it has ended, and somebody has waited for it
                Child(self._loop, pid, lambda status: None)
        self._watchdog = Watchdog(self.workers, log, on_change, alarm)
        self._offers_can_be_signed = False
        self._inquiry = Inquiry()
        self.ending = Ending(self.workers)

    def start(self) -> None:
        for worker in self.workers:
            if worker.generation == self.newest:
                self._begin(worker)
        self._watchdog.watch()
        self._loop.call_later(limits.SIGNER_START_SECONDS, self._signer_is_late)

    def _signer_is_late(self) -> None:
        """Most mail needs none, but who leads at a reload has one, and goes on until there is another."""
        if self._offers_can_be_signed:
            return
        if any(self._leads_from_before(worker) for worker in self.workers):
            late = "does not come up at the reload: the workers of before go on, with theirs"
            self._alarm(Reason.SIGNER_SILENT, "signer", late)
        else:
            self.signer_serves()

    def _leads_from_before(self, worker: WorkerProcess) -> bool:
        return self._leading < self.newest and worker.generation == self._leading

    def signer_serves(self) -> None:
        """Now workers may be sent SYNs, or after a while without a signer."""
        if not self._offers_can_be_signed:
            self._offers_can_be_signed = True
            self._lead_if_ready()
            self._on_change()

    @property
    def live_queues(self) -> list[int]:
        return [
            worker.slot.queue
            for worker in self.workers
            if worker.state is State.SERVING
            and worker.generation == self._leading
            and (self._offers_can_be_signed or worker.generation < self.newest)
        ]

    @property
    def any_hung(self) -> bool:
        return any(worker.state is State.HUNG for worker in self.workers)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Of all that live, in whichever generation."""
        return tuple(worker.slot for worker in self.workers)

    def gate_is(self, queues: list[int]) -> None:
        """The gate has been switched to these queues: nobody of an older generation gets a new SYN."""
        for worker in self.workers:
            old = worker.generation < self._leading and worker.slot.queue not in queues
            if old and worker.state in (State.SERVING, State.HUNG):
                worker.state = State.DRAINING
                self._log.fact(
                    "pool", "worker-retires", worker=worker.slot.index, generation=worker.generation
                )
                worker.tell_to_retire()

    def hand_over(self) -> tuple[tuple[Heirloom, ...], Snapshot, tuple[int, ...]]:
        """Workers that have led, the counters of those that are gone, and the processes of others, killed.

        Ask nothing of this pool after.
        """
        self._let_go()
        living = [worker for worker in self.workers if self._has_led(worker)]
        others = [worker for worker in self.workers if worker not in living]
        processes = [worker.process for worker in others if worker.process]
        for process in processes:
            process.kill()
        ending = tuple(process.pid for process in processes if not process.has_ended)
        past = merged([self._past, self._own(), *(without_gauges(worker.counters) for worker in others)])
        identity = self._presented.identity
        return tuple(worker.as_heirloom(identity) for worker in living), past, ending

    def _has_led(self, worker: WorkerProcess) -> bool:
        """And lives. Not one of a generation of which others do not come up: it would lead without them."""
        # One that ends closes its link before it has ended.
        lives = worker.link is not None and worker.link.is_open
        has_served = worker.state in (State.SERVING, State.HUNG, State.DRAINING)
        return lives and has_served and worker.generation <= self._leading

    def note_passed_unseen(self, direction: Direction, reason: Reason, sessions: int) -> None:
        """Sessions that no worker saw."""
        seen = Counters()
        seen.decided(direction, False, reason, sessions)
        self._past = merged([self._past, seen.snapshot()])

    def counters(self) -> Snapshot:
        """Of all workers, dead ones included, and of this process."""
        return merged([self._past, self._own(), *(worker.counters for worker in self.workers)])

    def _own(self) -> Snapshot:
        """Lines of the log that this process could not write: alarms are among them."""
        lost = self._log.lost_lines
        return {"tallies": {Tally.LOG_LINES_LOST.value: lost}} if lost else {}

    async def offers_ignored_by(self, address: str) -> list[dict[str, Any]]:
        """As each worker that takes new sessions counts them."""
        serving = (worker for worker in self.workers if worker.state is State.SERVING)
        return await self._inquiry.ignored_by(address, serving)

    def present(self, presented: Presented) -> None:
        """The site is somebody else from now on. Running sessions end as they began."""
        self._presented = presented
        for worker in self.workers:
            worker.tell_who(presented)

    def surround(self, inside_networks: tuple[Network, ...]) -> None:
        """These networks lie inside from now on. Running sessions end as they began."""
        self._config = replace(self._config, inside_networks=inside_networks)
        for worker in self.workers:
            worker.tell_inside(inside_networks)

    async def stop(self) -> None:
        """Let sessions finish for a while, then have what is left reset."""
        self._let_go()
        await self.ending.of_workers()
        for worker in self.workers:
            for listener in worker.listeners:
                listener.close()

    def _let_go(self) -> None:
        """None is started or watched from now on."""
        self._stopping = True
        self._watchdog.stop()

    # --- Life -----------------------------------------------------------------------------------------

    def _spawn(self, worker: WorkerProcess) -> None:
        """Raises OSError where no process is to be had."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            worker.process = self._process(worker, ours, theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        worker.begins(self._loop.time(), self._presented, self._config.inside_networks)
        self._join(worker, ours)

    def _process(self, worker: WorkerProcess, ours: socket.socket, theirs: socket.socket) -> Child:
        """Its order waits in the link for it. What it shares with one before it is as it was made."""
        marks = MarkBits(self._config.marks.mask)
        worker.listeners = tuple(tproxy.as_made(listener, marks) for listener in worker.listeners)
        listeners = tuple(listener.fileno() for listener in worker.listeners)
        slot, signing = worker.slot, self._signer_end(worker.slot.index)
        who, confined = self._presented, self._confinement
        config = seen_by_workers(self._config, confined)
        apart = kernel.icmp_seconds_apart()
        order = Order(config, slot.index, slot.queue, listeners, signing, who, confined, apart)
        ours.send(told(order))
        return Child.start(
            self._loop,
            "gateway.runtime.worker",
            [str(theirs.fileno())],
            [theirs.fileno(), signing, *listeners],
            lambda status: self._ended(worker, status),
            environment.WORKER,
        )

    def _inherit(self, heir: Heirloom) -> WorkerProcess:
        worker = WorkerProcess.inherited(heir)
        worker.started_at = worker.alive_at = self._loop.time()
        self._join(worker, socket.socket(fileno=heir.link))
        worker.process = Child(self._loop, heir.pid, lambda status: self._ended(worker, status))
        return worker

    def _join(self, worker: WorkerProcess, link: socket.socket) -> None:
        worker.link = Link(
            self._loop,
            link,
            lambda message: self._told(worker, message),
            lambda: None,
            lambda: self._alive(worker),
        )

    def _ended(self, worker: WorkerProcess, status: int) -> None:
        """One process is gone. Its successor starts, unless the daemon stops or its generation is over."""
        assert worker.process is not None
        retired = worker.generation < self._leading or worker.has_successor
        worker.state = State.DEAD
        worker.finished.set()
        if worker.link is not None:
            worker.link.close()
        self._past = merged([self._past, without_gauges(worker.counters)])
        worker.counters = empty_snapshot()
        if retired and not self._stopping:
            self._forget(worker, status)
            return
        self._on_change()
        if self._stopping:
            return
        pid = worker.process.pid
        if not worker.told_to_end:
            self._alarm(Reason.WORKER_DIED, f"worker {worker.slot.index}", f"pid={pid} status={status}")
        worker.forgive(self._loop.time())
        self._start_later(worker)

    def _start_later(self, worker: WorkerProcess) -> None:
        self._loop.call_later(worker.rest(), self._start_again, worker)

    def _start_again(self, worker: WorkerProcess) -> None:
        if not self._stopping and worker in self.workers and self._begin(worker):
            worker.restarts += 1

    def _begin(self, worker: WorkerProcess) -> bool:
        """Whether a process was to be had for it; if not, there is another try later."""
        try:
            self._spawn(worker)
        except Exception as error:
            # No process or descriptor, for the moment; or a bug, and the slot must not stay empty for it.
            told = (error.strerror if isinstance(error, OSError) else None) or Bug.of(error).detail
            self._log.fact("pool", "cannot-start", level=Level.ERROR, worker=worker.slot.index, detail=told)
            self._start_later(worker)
            return False
        return True

    def _succeed(self, worker: WorkerProcess) -> None:
        """Somebody else than we told it to end: its sessions may last for hours, and its slot must not wait.

        One slot has two processes at most: what is told to end again and again waits for the one before it.
        """
        if self._stopping or worker.state is not State.DRAINING or worker.generation < self.newest:
            return
        if any(one.has_successor and one.slot == worker.slot for one in self.workers):
            self._loop.call_later(limits.RESTART_MOST_SECONDS, self._succeed, worker)
            return
        try:
            successor = worker.successor()
        except OSError:  # no descriptor is left
            self._loop.call_later(limits.RESTART_MOST_SECONDS, self._succeed, worker)
            return
        assert worker.process is not None
        detail = f"pid={worker.process.pid} was told to end, and finishes its sessions"
        self._alarm(Reason.WORKER_DIED, f"worker {worker.slot.index}", detail)
        worker.has_successor = True
        self.workers.append(successor)
        self._start_again(successor)

    def _forget(self, worker: WorkerProcess, status: int) -> None:
        self.workers.remove(worker)
        for listener in worker.listeners:
            listener.close()
        self._log.fact("pool", "worker-retired", worker=worker.slot.index, status=status)

    def _lead_if_ready(self) -> None:
        """The newest generation takes over once all of it serves: one switch of the gate, no gap."""
        if not self._offers_can_be_signed:
            return
        newest = [
            worker for worker in self.workers if worker.generation == self.newest and not worker.has_successor
        ]
        if self._leading < self.newest and all(worker.state is State.SERVING for worker in newest):
            self._leading = self.newest
            self._log.fact("pool", "generation-leads", level=Level.NOTICE, generation=self.newest)

    # --- What workers say -------------------------------------------------------------------------------

    def _alive(self, worker: WorkerProcess) -> None:
        worker.alive_at = self._loop.time()
        worker.tell_who(self._presented)
        worker.tell_inside(self._config.inside_networks)
        if worker.state is State.DRAINING and worker.generation < self._leading:
            worker.tell_to_retire()
        if worker.state is State.HUNG:
            worker.state = State.SERVING
            self._log.fact("pool", "worker-back", level=Level.NOTICE, worker=worker.slot.index)
            self._lead_if_ready()
            self._on_change()

    def _told(self, worker: WorkerProcess, message: Message) -> None:
        """Nothing that it says, if others have taken it over, may keep this process from its work."""
        try:
            require_said(message)
            self._understood(worker, message)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            told = f"{type(error).__name__}: {error}"
            self._alarm(Reason.INTERNAL, f"worker {worker.slot.index}", f"said what it should not: {told}")

    def _understood(self, worker: WorkerProcess, message: Message) -> None:
        if "ready" in message:
            self._serves(worker, message)
        elif "drains" in message:
            self._drains(worker)
        elif "finished" in message:
            worker.finished.set()
        elif "yields" in message:
            self._yields(worker)
        elif "ignored" in message:
            self._inquiry.heard(worker, message["ignored"])
        elif "counters" in message:
            worker.counters = require_snapshot(message["counters"])
        elif "answered" in message:
            self._tell_others(worker, message, "answered")
        else:
            source = message.get("source", {})
            if source.get("seen") in _OF_ALL_WORKERS or source.get("new"):
                self._tell_others(worker, message, "source")
            self._on_message(message)
            if "dead-end" in message:  # behind what looks whether it names an address
                self._tell_others(worker, message, "dead-end")

    def _serves(self, worker: WorkerProcess, message: Message) -> None:
        worker.state = State.SERVING
        worker.alive_at = self._loop.time()
        worker.confined = message.get("layers", [])
        self._tell_unconfined(worker)
        self._log.fact("pool", "worker-serves", worker=worker.slot.index, pid=message["ready"])
        self._lead_if_ready()
        self._on_change()

    def _drains(self, worker: WorkerProcess) -> None:
        """It takes no new sessions any more."""
        if worker.state in (State.SERVING, State.HUNG):
            worker.state = State.DRAINING
            self._on_change()

    def _yields(self, worker: WorkerProcess) -> None:
        """Its sessions may last for hours; another process may have its slot meanwhile."""
        if worker.state is State.DRAINING and not (worker.yields or worker.has_successor):
            worker.yields = True
            worker.forgive(self._loop.time())
            self._loop.call_later(worker.rest(), self._succeed, worker)

    def _tell_unconfined(self, worker: WorkerProcess) -> None:
        missing = [layer for layer in LAYERS if layer not in worker.confined]
        if missing:
            self._alarm(Reason.WORKER_UNCONFINED, "workers", f"without {', '.join(missing)}")

    def _tell_others(self, worker: WorkerProcess, message: Message, kind: str) -> None:
        """This and nothing else of it: the others obey what this process says."""
        told = {kind: message[kind]}
        for other in self.workers:
            if other is not worker and other.link is not None:
                other.link.send(told)
