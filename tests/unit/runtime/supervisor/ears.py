"""A pool with one worker and real ears, and no process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from gateway.config import Config
from gateway.errors import Reason
from gateway.intercept.ruleset import Slot
from gateway.observe import sinks
from gateway.peers.pins import Destination
from gateway.runtime.hardening import Confinement
from gateway.runtime.order import Presented
from gateway.runtime.supervisor.causes import Causes
from gateway.runtime.supervisor.hearing import Hearing
from gateway.runtime.supervisor.peer_memory import PeerMemory
from gateway.runtime.supervisor.pool import Pool
from gateway.runtime.supervisor.spared import Visit
from gateway.runtime.supervisor.worker_process import State, WorkerProcess

PRESENTED = Presented(bytes(32), bytes(32), 1, 15, bytes(64))


class Kernel:
    """What it would be told of dead ends, or of clients that rest."""

    def __init__(self) -> None:
        self.known: list[Destination | Visit] = []
        self.ended: list[str] = []
        self.emptied = 0

    def found(self, entry: Destination | Visit) -> None:
        self.known.append(entry)

    def is_none(self, entry: Destination) -> None: ...

    def is_none_at(self, address: str) -> None:
        self.ended.append(address)

    def are_none(self, rest_seconds: float) -> None:
        self.emptied += 1


class Ears:
    """A pool that listens to one worker, and what hears of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        state = folder / "state"
        state.mkdir(0o700)
        config = Config(state_dir=state, run_dir=folder / "run", log_file=folder / "log")
        self.log = sinks.opened(config, config.log_file)
        self.memory = PeerMemory(config.pins_file, None, self.log, self._ring)
        self.memory.open()
        self.dead_ends, self.resting = Kernel(), Kernel()
        self.asked: list[tuple[str, str]] = []
        """What nft would be asked about resets."""

        async def was_odd(server: str, client: str) -> bool | None:
            self.asked.append((server, client))
            return None

        causes = Causes(was_odd, self.log, self.memory.note_cause)
        dead_ends: Any = self.dead_ends
        resting: Any = self.resting
        hearing = Hearing(self.memory, dead_ends, resting, causes, self._ring)
        self.rung: list[tuple[Reason, str]] = []
        """What the pool has rung for."""

        self.given: dict[str, Any] = {
            "config": config,
            "slots": (),
            "presented": PRESENTED,
            "confinement": Confinement(None, None),
            "signer_end": lambda slot: -1,
            "log": self.log,
            "on_change": lambda: None,
            "on_message": hearing.hear,
            "alarm": lambda reason, subject, detail: self.rung.append((reason, detail)),
        }

        async def made() -> Pool:
            return Pool(**self.given)

        self.pool = loop.run_until_complete(made())
        self.worker = WorkerProcess(Slot(0, 2500, 12525), (), state=State.SERVING)

    def _ring(self, reason: Reason, subject: str, detail: str, cause: Reason | None = None) -> None: ...

    def hear(self, message: Any) -> None:
        self.pool._told(self.worker, message)


class Process:
    """Stands for a worker's process; `killed` counts."""

    pid = 7
    has_ended = False

    def __init__(self) -> None:
        self.killed = 0

    def kill(self) -> None:
        self.killed += 1
