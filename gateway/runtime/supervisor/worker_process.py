"""One worker as the supervisor sees it: its slot, its listeners, the process that serves them now.

Counterparts: `pool`, which starts and watches them; `worker`, the process itself; `handover`.
"""

from __future__ import annotations

import enum
import socket
from dataclasses import dataclass, field
from typing import Any

from gateway.config import Network
from gateway.intercept.ruleset import Slot
from gateway.observe.counters import Snapshot, empty_snapshot
from gateway.policy import limits
from gateway.runtime.link import Link
from gateway.runtime.order import Presented
from gateway.runtime.supervisor.child import Child
from gateway.runtime.supervisor.handover import Heirloom


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
    generation: int = 0
    """Counts the reloads. One generation serves at a time; older ones finish their sessions."""
    state: State = State.DEAD
    process: Child | None = None
    link: Link | None = None
    alive_at: float = 0.0
    started_at: float = 0.0
    restarts: int = 0
    rest_seconds: float = limits.RESTART_SECONDS
    yields: bool = False
    """It has said that another process may have its slot."""
    has_successor: bool = False
    """Another process serves its slot: this one only finishes its sessions."""
    told: Presented | None = None
    """Who it believes the site to be."""
    told_inside: tuple[Network, ...] | None = None
    """Which networks it believes to lie inside."""
    confined: list[str] = field(default_factory=list)
    """The layers that are in force, as it says itself."""
    counters: Snapshot = field(default_factory=empty_snapshot)

    def as_json(self) -> dict[str, Any]:
        tallies = self.counters["tallies"]
        return {
            "slot": self.slot.index,
            "generation": self.generation,
            "state": self.state.value,
            "pid": self.process.pid if self.process and not self.process.has_ended else None,
            "queue": self.slot.queue,
            "sessions": tallies.get("sessions-open", 0),
            "restarts": self.restarts,
            "confined": self.confined,
        }

    def as_heirloom(self) -> Heirloom:
        """For the next supervisor; this one must not use the worker any more."""
        assert self.process is not None
        assert self.link is not None
        return Heirloom(
            self.slot.index,
            self.slot.queue,
            self.slot.port,
            self.generation,
            self.process.pid,
            self.state is State.DRAINING,
            self.restarts,
            self.link.detach(),
            tuple(listener.detach() for listener in self.listeners),
            self.counters,
            tuple(self.confined),
        )
