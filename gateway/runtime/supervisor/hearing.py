"""What the workers say of peers and paths, and what follows: into the memory, into the kernel, to the bell.

Counterparts: `sessions`, which says it; `said`, which holds the words; `peer_memory`, `causes`, `spared`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from gateway.errors import Reason
from gateway.peers.history import Happening
from gateway.peers.looks import Look
from gateway.peers.pins import Destination
from gateway.peers.sources import SourceSeen, beginnings
from gateway.policy import limits
from gateway.policy.own_path import OwnPath
from gateway.runtime.link import Message, told_address, told_destination
from gateway.runtime.supervisor.causes import Causes
from gateway.runtime.supervisor.peer_memory import PeerMemory, told_peer
from gateway.runtime.supervisor.spared import Spared, Visit

_TROUBLE: Final = {Reason.OFFER_MISSING: Happening.MISSING, Reason.HANDSHAKE_FAILED: Happening.FAILED}

Alarm = Callable[[Reason, str, str, Reason | None], None]
"""Told the reason, the subject, the detail and the likely cause, where one can be named."""


class Hearing:
    """`hear` takes one message of a worker's."""

    def __init__(
        self,
        memory: PeerMemory,
        dead_ends: Spared[Destination],
        resting: Spared[Visit],
        causes: Causes,
        alarm: Alarm,
    ) -> None:
        self._memory = memory
        self._dead_ends = dead_ends
        self._resting = resting
        self._causes = causes
        self._alarm = alarm
        self._own_path = OwnPath()

    def hear(self, message: Message) -> None:
        """Raises ValueError, KeyError, TypeError for what no worker of ours says."""
        if "remember" in message:
            self._upgraded(message["remember"])
        elif "failure" in message:
            self._memory.note_failure(told_destination(message["failure"]))
        elif "source" in message:
            self._met_client(message["source"])
        elif "look" in message:
            self._looked(message["look"])
        elif "dead-end" in message:
            self._found_dead_end(told_destination(message["dead-end"]))
        elif "rests" in message:
            self._found_resting(told_address(message["rests"]["client"]), told_destination(message["rests"]))
        elif "wakes" in message:
            self._resting.is_none_at(told_address(message["wakes"]["client"]))
        elif "cause" in message:
            self._causes.name(message["cause"], lambda cause: None)
        elif "alarm" in message:
            self._alarmed(message["alarm"])

    def _upgraded(self, peer: dict[str, Any]) -> None:
        met, statement = told_peer(peer)
        destination, now = told_destination(peer), int(time.time())
        new, rang = bool(peer.get("new")), bool(peer.get("rang", True))
        if self._memory.remember(destination, met, statement, now, new=new, rang=rang):
            self._own_path.well(met.identity, now)
            self._dead_ends.is_none(destination)

    def _met_client(self, source: dict[str, Any]) -> None:
        self._memory.sources.note(source)
        address = told_address(source["address"])
        if source["seen"] == SourceSeen.UPGRADED.value:
            # Who sends through a gateway has one for the way back, too, where the address is the same.
            self._dead_ends.is_none_at(address)
        if source.get("new"):
            # More of its addresses may be among those that rest, wherever they are.
            self._resting.are_none(limits.MET_SECONDS)
        elif source["seen"] != SourceSeen.WENT_ON.value:
            self._resting.is_none_at(address)

    def _looked(self, look: dict[str, Any]) -> None:
        keywords = tuple(look["keywords"].encode("latin-1").split())
        self._memory.learn_look(told_destination(look), Look(look["host"].encode("latin-1"), keywords))

    def _found_dead_end(self, destination: Destination) -> None:
        """Whoever says so, a pinned one is none: its mail would pass in clear without a word."""
        if not self._memory.may_be_pinned(destination):
            self._dead_ends.found(destination)

    def _found_resting(self, client: str, server: Destination) -> None:
        """Whoever says so, nobody who may remember us rests: he would miss an offer, and ring. Nor does mail
        to a pinned one pass so, as if its sender came from outside. Raises ValueError."""
        if (":" in client) is not (":" in server.address):
            raise ValueError("two families")
        if not self._memory.sources.may_have_upgraded(client) and not self._memory.may_be_pinned(server):
            self._resting.found(Visit(client, *server))

    def _alarmed(self, alarm: dict[str, Any]) -> None:
        """With its likely cause, where one can be named; that may take the kernel some milliseconds."""
        reason = Reason(alarm["reason"])
        if reason in _TROUBLE and "address" in alarm and self._is_own_path(told_destination(alarm), reason):
            return

        def ring(cause: Reason | None) -> None:
            self._alarm(reason, alarm["subject"], alarm["detail"], cause)

        if "likely" in alarm:
            self._causes.name(alarm, ring)
        else:
            ring(None)

    def _is_own_path(self, at: Destination, reason: Reason) -> bool:
        """Whether many sites have the same trouble now; our own path then rings in the peer's place."""
        now = int(time.time())
        pin = self._memory.note_trouble(at, _TROUBLE[reason], now)
        many = self._own_path.missing(pin.site, beginnings(at.address), now) if pin is not None else 0
        if not many:
            return False
        told = f"{many} sites without their offer, or with failed handshakes; the last one: {at}"
        self._alarm(Reason.OWN_PATH, "our own path", told, None)
        return True
