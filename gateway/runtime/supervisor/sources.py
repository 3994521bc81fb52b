"""What the workers tell of clients, gathered and written once a second: the only writer of that memory.

Strangers decide how much there is to learn: so nothing is written at once, what does not fit is left, and of
one network only so many are learnt of in a day.
Counterparts: `memory` (how workers read it), `peers.sources` (what follows from what was seen).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from gateway.errors import EnvironmentFailureError, Reason
from gateway.observe.log import Level, Log
from gateway.peers.source_store import SourceCounts, SourceStore
from gateway.peers.sources import (
    Sender,
    Source,
    SourceSeen,
    after_drop,
    after_endorsement,
    after_going_on,
    after_upgrade,
    beginnings,
)
from gateway.policy import limits
from gateway.policy.newcomers import Newcomers
from gateway.runtime.link import told_address


class SourceMemory:
    """`store` answers where it is kept, or None while there is no such place; `trouble` is told why not.
    `crowded` is told of a client whose network has had enough of them for today."""

    def __init__(
        self,
        store: Callable[[], SourceStore | None],
        log: Log,
        trouble: Callable[[str], None],
        crowded: Callable[[str], None],
    ) -> None:
        self._store = store
        self._log = log
        self._trouble = trouble
        self._crowded = crowded
        self._upgrading = Newcomers(limits.SOURCES_NEW_OF_NETWORK)
        self._dropping = Newcomers(limits.SOURCES_NEW_OF_NETWORK)
        """Who makes identities by the dozen must not keep a mailer beside him from the rest that it needs."""
        self._sources: dict[str, Source] = {}
        self._senders: dict[bytes, Sender] = {}
        self.counts = SourceCounts(0, 0)
        """As of the last write or `count`."""

    def note(self, learnt: dict[str, Any]) -> None:
        """One message of a worker's (`runtime.worker.learning` makes it)."""
        store = self._store()
        if store is None or max(len(self._sources), len(self._senders)) >= limits.SOURCES_PENDING:
            return
        try:
            self._note(store, learnt, int(time.time()))
        except EnvironmentFailureError as error:
            self._trouble(str(error))

    def _note(self, store: SourceStore, learnt: dict[str, Any], now: int) -> None:
        address, seen = told_address(learnt["address"]), SourceSeen(learnt["seen"])
        before = self._sources.get(address) or store.source(address)
        today, is_new = now // limits.DAY_SECONDS, not before.seen_day
        if seen is SourceSeen.UPGRADED:
            identity = bytes.fromhex(learnt["identity"])
            sender = self._senders.get(identity) or store.sender(identity)
            is_new = is_new or not sender.seen_day
        newcomers = self._upgrading if seen is SourceSeen.UPGRADED else self._dropping
        if is_new and not newcomers.has_room(beginnings(address), today):
            self._crowded(address)
            return
        if seen is SourceSeen.UPGRADED:
            self._senders[identity] = after_endorsement(sender, learnt["epoch"], today)
            self._sources[address] = after_upgrade(before, bytes.fromhex(learnt["name"]), today)
        elif seen is SourceSeen.DROPPED:
            self._sources[address] = after = after_drop(before, now)
            if after.rests(now):
                reason, seconds = Reason.SOURCE_RESTS, after.rest_until - now
                self._log.fact(
                    "sources", "rests", level=Level.NOTICE, reason=reason, source=address, seconds=seconds
                )
        else:
            self._sources[address] = after_going_on(before, now)

    def write(self) -> None:
        """What was learnt since the last time. What cannot be written is told, and forgotten."""
        if not self._sources:
            return
        sources, senders = list(self._sources.values()), list(self._senders.values())
        self._sources.clear()
        self._senders.clear()
        store = self._store()
        if store is None:
            return
        try:
            store.put(sources, senders, int(time.time()) // limits.DAY_SECONDS)
            self.counts = store.counts(int(time.time()))
        except EnvironmentFailureError as error:
            self._trouble(str(error))

    def may_have_upgraded(self, address: str) -> bool:
        """It, or anybody of its network; also where that cannot be read."""
        store = self._store()
        try:
            return (
                store is None
                or store.source(address).has_upgraded
                or store.has_upgraded_among(beginnings(address))
            )
        except EnvironmentFailureError:
            return True

    async def keep(self) -> None:
        """Runs until cancelled."""
        while True:
            await asyncio.sleep(limits.SOURCES_WRITE_SECONDS)
            self.write()

    def count(self) -> None:
        """What is there at the start."""
        store = self._store()
        if store is not None:
            try:
                self.counts = store.counts(int(time.time()))
            except EnvironmentFailureError as error:
                self._trouble(str(error))
