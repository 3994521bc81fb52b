"""One worker as the supervisor sees it: its slot, its listeners, the process that serves them now.

Counterparts: `pool`, which starts and watches them; `worker`, the process itself; `handover`.
"""

from __future__ import annotations

import asyncio
import enum
import socket
from dataclasses import dataclass, field
from typing import Any, Final, Self

from gateway.config import Network
from gateway.intercept import kernel, tproxy
from gateway.intercept.marks import MarkBits
from gateway.intercept.ruleset import Slot
from gateway.observe.counters import Snapshot, empty_snapshot
from gateway.policy import limits
from gateway.runtime.link import Link
from gateway.runtime.order import Presented
from gateway.runtime.supervisor.child import Child
from gateway.runtime.supervisor.handover import Heirloom

_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}


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
    signed_for: bytes | None = None
    """The identity that its signer knows, where that is an earlier supervisor's, which learns no other."""
    told_to_retire: bool = False
    told_to_end: bool = False
    """Its end is our doing, and no news."""
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    """It has no session, and nobody is on the way to one: it has said so, or has ended."""
    confined: list[str] = field(default_factory=list)
    """The layers that are in force, as it says itself."""
    counters: Snapshot = field(default_factory=empty_snapshot)

    @classmethod
    def listening(cls, slot: Slot, marks: MarkBits, generation: int) -> Self:
        """It has its listeners already; its process is started later. Raises EnvironmentFailureError."""
        families = [_FAMILIES[family] for family in kernel.spoken()]
        return cls(slot, tuple(tproxy.listener(family, slot.port, marks) for family in families), generation)

    @classmethod
    def inherited(cls, heir: Heirloom) -> Self:
        """Of the supervisor before this one. Its process and its link are still to be taken over."""
        return cls(
            Slot(heir.index, heir.queue, heir.port),
            tuple(socket.socket(fileno=descriptor) for descriptor in heir.listeners),
            heir.generation,
            State.DRAINING if heir.draining else State.SERVING,
            restarts=heir.restarts,
            has_successor=heir.draining,
            counters=heir.counters,
            signed_for=bytes.fromhex(heir.identity) or None,
            confined=list(heir.confined),
        )

    def successor(self) -> WorkerProcess:
        """Another one in the same slot, with copies of the listeners. Raises OSError without descriptors."""
        return WorkerProcess(
            self.slot,
            tuple(listener.dup() for listener in self.listeners),
            self.generation,
            restarts=self.restarts,
            rest_seconds=self.rest_seconds,
        )

    def begins(self, now: float, presented: Presented, inside_networks: tuple[Network, ...]) -> None:
        """A process of it has been started, and was told so."""
        self.state = State.STARTING
        self.yields, self.signed_for, self.told_to_end = False, None, False
        self.told, self.told_inside = presented, inside_networks
        self.started_at = self.alive_at = now

    def tell_who(self, presented: Presented) -> None:
        """Who the site is, if it does not know; with its next proof of life, where its link is full now.

        One that no signature could be had for is not told: its offers would go out no more.
        """
        if self.link is None or self.told is presented:
            return
        if self.signed_for not in (None, presented.identity):
            return
        if self.link.send({"site": presented.as_json()}):
            self.told = presented

    def tell_inside(self, networks: tuple[Network, ...]) -> None:
        """The same for the networks that lie inside."""
        if self.link is None or self.told_inside == networks:
            return
        if self.link.send({"inside": [str(network) for network in networks]}):
            self.told_inside = networks

    def tell_to_retire(self) -> None:
        """Once; the same where its link is full, as that of one that hangs may be."""
        if self.link is not None and not self.told_to_retire:
            self.told_to_retire = self.link.send({"retire": True})

    def tell_to_finish(self) -> None:
        """To say when its sessions have ended. Who does not hear it, its link being full, is told to end."""
        self.finished.clear()
        if self.link is not None:
            self.link.send({"finish": True})

    def tell_to_end(self) -> None:
        """Now, and its sessions by a reset."""
        self.told_to_end = True
        if self.link is not None:
            self.link.send({"end": True})

    def forgive(self, now: float) -> None:
        """One that lived for a while starts again at once."""
        if now - self.started_at >= limits.STABLE_SECONDS:
            self.rest_seconds = limits.RESTART_SECONDS

    def rest(self) -> float:
        """Seconds until the slot's next process, longer each time."""
        rest = self.rest_seconds
        self.rest_seconds = min(2 * rest, limits.RESTART_MOST_SECONDS)
        return rest

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

    def as_heirloom(self, identity: bytes) -> Heirloom:
        """For the next supervisor; this one must not use the worker any more. `identity`: in use now."""
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
            (self.signed_for or identity).hex(),
        )
