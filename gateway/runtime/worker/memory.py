"""A worker's look into the memory of peers and of sources. Unreadable memory is an alarm, never a stop.

Reads the file through short-lived caches, so that a session costs one look into a dictionary; writes nothing.
Counterpart: `peer_memory`, the only writer, which hears from `sessions` what is to be remembered.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from gateway.errors import EnvironmentFailureError
from gateway.peers.database import Database
from gateway.peers.look_store import LookStore
from gateway.peers.looks import Look
from gateway.peers.pins import Destination, Pin
from gateway.peers.source_store import SourceStore
from gateway.peers.sources import (
    Beginnings,
    Sender,
    Source,
    SourceSeen,
    after_drop,
    after_going_on,
    after_upgrade,
    beginnings,
)
from gateway.peers.store import PinStore
from gateway.policy import limits
from gateway.policy.ignored_offers import Neighbourhood

Answer = TypeVar("Answer")
Key = TypeVar("Key")
Value = TypeVar("Value")


class Memory:
    """The file, opened when it is first needed, and anew after trouble. `unreadable` is told once, and again
    when it could be read in between: whom we know is a stranger meanwhile."""

    def __init__(self, path: Path, unreadable: Callable[[str], object]) -> None:
        self._path = path
        self._unreadable = unreadable
        self._database: Database | None = None
        self._told = False

    def ask(self, question: Callable[[Database], Answer], otherwise: Answer) -> Answer:
        """What the file answers, or `otherwise` where it cannot be read."""
        try:
            if self._database is None:
                self._database = Database.read_only(self._path)
            answer = question(self._database)
        except EnvironmentFailureError as error:
            self._database = None
            if not self._told:
                self._told = True
                self._unreadable(str(error))
            return otherwise
        self._told = False
        return answer


class _Recent(Generic[Key, Value]):
    """What was asked lately: at most so old, and so much."""

    def __init__(self, ask: Callable[[Key], Value], seconds: float, most: int) -> None:
        self._ask = ask
        self._seconds = seconds
        self._most = most
        self._known: OrderedDict[Key, tuple[float, Value]] = OrderedDict()

    def of(self, key: Key) -> Value:
        now = time.monotonic()
        known = self._known.get(key)
        if known is not None and now - known[0] < self._seconds:
            return known[1]
        value = self._ask(key)
        self.put(key, value)
        return value

    def put(self, key: Key, value: Value) -> None:
        self._known[key] = time.monotonic(), value
        self._known.move_to_end(key)
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def forget(self, key: Key) -> None:
        self._known.pop(key, None)


class PinReader:
    """Pins, and how the servers of pins look."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._recent: _Recent[Destination, tuple[Pin | None, bool]] = _Recent(
            self._look_up, limits.PIN_CACHE_SECONDS, limits.PIN_CACHE_DESTINATIONS
        )
        self._looks: _Recent[Destination, tuple[Look, ...]] = _Recent(
            self._look_up_looks, limits.SOURCE_CACHE_SECONDS, limits.PIN_CACHE_DESTINATIONS
        )

    def pin_of(self, destination: Destination) -> Pin | None:
        """What is remembered, at most `PIN_CACHE_SECONDS` old; None also where it cannot be read."""
        return self._recent.of(destination)[0]

    def is_resting(self, destination: Destination) -> bool:
        """Whether this path, which never upgraded, has failed so often that it is left in peace now."""
        return self._recent.of(destination)[1]

    def looks_of(self, destination: Destination) -> tuple[Look, ...]:
        return self._looks.of(destination)

    def expect_looks(self, destination: Destination, looks: tuple[Look, ...]) -> None:
        """The supervisor is about to write these."""
        self._looks.put(destination, looks)

    def forget_for_a_while(self, destination: Destination) -> None:
        """The supervisor is about to write this pin: look again the next time."""
        self._recent.forget(destination)

    def _look_up(self, destination: Destination) -> tuple[Pin | None, bool]:
        def question(database: Database) -> tuple[Pin | None, bool]:
            store = PinStore(database)
            pin = store.lookup(destination)
            return pin, pin is None and store.resting(destination, int(time.time()))

        unknown: tuple[Pin | None, bool] = (None, False)
        return self._memory.ask(question, unknown)

    def _look_up_looks(self, destination: Destination) -> tuple[Look, ...]:
        return self._memory.ask(lambda database: LookStore(database).looks(destination), ())


class SourceReader:
    """Clients, and identities of sending gateways."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._sources: _Recent[str, Source] = _Recent(
            self._look_up_source, limits.SOURCE_CACHE_SECONDS, limits.SOURCE_CACHE_ENTRIES
        )
        self._senders: _Recent[bytes, Sender] = _Recent(
            self._look_up_sender, limits.SOURCE_CACHE_SECONDS, limits.SOURCE_CACHE_ENTRIES
        )

        self._networks: _Recent[Beginnings, bool] = _Recent(
            self._look_up_network, limits.SOURCE_CACHE_SECONDS, limits.NEIGHBOURS_CACHED
        )

    def source_of(self, address: str) -> Source:
        return self._sources.of(address)

    def neighbourhood_of(self, address: str) -> Neighbourhood:
        if self._sources.of(address).has_upgraded:
            return Neighbourhood.ITSELF
        known = self._networks.of(beginnings(address))
        return Neighbourhood.NEIGHBOUR if known else Neighbourhood.NOBODY

    def sender_of(self, identity: bytes) -> Sender:
        return self._senders.of(identity)

    def expect(self, source: Source, sender: Sender) -> None:
        """The supervisor is about to write these."""
        self._sources.put(source.address, source)
        self._senders.put(sender.identity, sender)
        self._networks.put(beginnings(source.address), True)

    def expect_upgrade(self, address: str, name: bytes, today: int) -> None:
        """Another worker's client has upgraded for the first time: the supervisor is about to write it.

        Who looks before that must not keep in mind that it never has: two drops, and it would get no offers.
        """
        self._sources.put(address, after_upgrade(self._sources.of(address), name, today))
        self._networks.put(beginnings(address), True)

    def learn(self, address: str, seen: SourceSeen) -> None:
        """A client dropped an offer, or went on, here or at another worker.

        Known before it is written: twice in a row counts, whoever serves it.
        """
        source, now = self._sources.of(address), int(time.time())
        after = after_drop(source, now) if seen is SourceSeen.DROPPED else after_going_on(source, now)
        self._sources.put(address, after)

    def _look_up_source(self, address: str) -> Source:
        return self._memory.ask(lambda database: SourceStore(database).source(address), Source(address))

    def _look_up_network(self, beginnings: Beginnings) -> bool:
        """In doubt somebody there has upgraded: who remembers us may miss an offer, nobody an omitted one."""
        return self._memory.ask(lambda database: SourceStore(database).has_upgraded_among(beginnings), True)

    def _look_up_sender(self, identity: bytes) -> Sender:
        return self._memory.ask(lambda database: SourceStore(database).sender(identity), Sender(identity))
