"""The memory of peers and clients in the one process that writes it. Told of a peer, it writes at once.

Trouble with the disk is an alarm, never an error: the session that was to be remembered has its channel.
Counterparts: `hearing`, which hears what is to be remembered; `memory` (how workers read it).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.crypto.keys import fingerprint_of
from gateway.errors import EnvironmentFailureError, Reason
from gateway.observe.log import Log
from gateway.peers.database import Database
from gateway.peers.history import Happening, stranger_number
from gateway.peers.look_store import LookStore
from gateway.peers.looks import Look
from gateway.peers.pins import Destination, MetPeer, MetStatement, Pin, is_accepted
from gateway.peers.source_store import SourceStore
from gateway.peers.store import PinStore
from gateway.policy import limits
from gateway.runtime.supervisor.sources import SourceMemory


class PeerMemory:
    """Kept in `path`, which the group `readers` may read; `alarm` is told what is wrong with it.

    `again_seconds`: so long the bell takes the same reason and the same peer for one cause.
    """

    def __init__(
        self,
        path: Path,
        readers: int | None,
        log: Log,
        alarm: Callable[[Reason, str, str], None],
        again_seconds: int = limits.ALARM_AGAIN_SECONDS,
    ) -> None:
        self._path = path
        self._again_seconds = again_seconds
        self._readers = readers
        self._log = log
        self._alarm = alarm
        self._looks: LookStore | None = None
        self._source_store: SourceStore | None = None
        self.pins: PinStore | None = None
        """None while there is no such place."""
        self.sources = SourceMemory(lambda: self._source_store, log, self.unwritable, self._crowded)
        self.count = 0
        """How many peers are remembered; where very many are, some minutes behind `peers forget`."""
        self._count_again_at = 0.0

    @property
    def database(self) -> Database | None:
        return self.pins.database if self.pins is not None else None

    def open(self) -> None:
        try:
            database = Database(self._path, readers=self._readers)
            self.pins = PinStore(database)
            self._looks, self._source_store = LookStore(database), SourceStore(database)
            self.sources.count()
            self._count()
        except EnvironmentFailureError as error:
            self.pins = self._looks = self._source_store = None
            self._alarm(Reason.PINS_UNREADABLE, "peers", str(error))
        self._ring_facts()

    def close(self) -> None:
        """What is in the database's journal goes into the file, and the journal goes."""
        if self.database is not None:
            self.database.close()

    def unwritable(self, trouble: str) -> None:
        self._alarm(Reason.PINS_UNWRITABLE, "peers", trouble)
        self._ring_facts()

    def _crowded(self, client: str) -> None:
        self._alarm(Reason.OVERLOADED, "clients", f"too many new ones in one network, the latest {client}")

    def _ring_facts(self) -> None:
        for fact in self.pins.take_facts() if self.pins is not None else []:
            self._alarm(fact.reason, "peers", fact.detail)

    # --- What is told ------------------------------------------------------------------------------------

    def remember(
        self,
        at: Destination,
        met: MetPeer,
        statement: MetStatement | None,
        now: int,
        *,
        new: bool,
        rang: bool = True,
    ) -> bool:
        """Whether there is a memory to hold it. `new`: the worker knew no peer there; `rang`: its session has
        rung for what it saw."""
        if self.pins is None:
            self.open()
        if self.pins is None:
            return False
        try:
            before = self.pins.lookup(at)
            after = self.pins.remember(at, met, now, statement)
            if _is_stranger(before, met) and not is_accepted(after, met.identity):
                is_kept = after.find(met.identity) is not None
                if is_kept or self.pins.note_stranger(at, met.identity, now, self._again_seconds):
                    self._ring_for_stranger(at, met, rang=rang)
            if new:
                self._one_more(before)
        except EnvironmentFailureError as error:
            self._alarm(Reason.PINS_UNWRITABLE, "peers", str(error))
        self._ring_facts()
        return True

    def _one_more(self, before: Pin | None) -> None:
        """Counting all of them for each one that comes would take as long as there are many."""
        if time.monotonic() >= self._count_again_at:
            self._count()
        elif before is None:
            self.count += 1

    def _count(self) -> None:
        assert self.pins is not None
        began = time.monotonic()
        self.count = self.pins.count()
        ended = time.monotonic()
        self._count_again_at = ended + (ended - began) * limits.PEERS_COUNT_REST

    def _ring_for_stranger(self, at: Destination, met: MetPeer, *, rang: bool) -> None:
        """From now on it is one that has been seen, and rings no more: so it must have rung.

        It has not, where its session knew of no other peer (two first sessions at once), nor where the bell
        heard of another stranger there a while ago. So many in that while as a pin has places, and no more.
        """
        assert self.pins is not None
        number = stranger_number(self.pins.history(at), self._again_seconds)
        if number > limits.IDENTITIES_PER_PIN:
            return
        if number > 1 or not rang:
            subject = f"{at} ({number})" if number > 1 else str(at)
            self._alarm(Reason.UPGRADED_CHANGED_PEER, subject, f"peer={fingerprint_of(met.identity)}")

    def learn_look(self, at: Destination, look: Look) -> None:
        if self._looks is None:
            return
        try:
            self._looks.learn(at, look, int(time.time()))
        except EnvironmentFailureError as error:
            self.unwritable(str(error))

    def note_cause(self, at: Destination, likely: Reason, now: int) -> None:
        if self._looks is None:
            return
        try:
            self._looks.note_trouble(at, likely, now)
        except EnvironmentFailureError as error:
            self.unwritable(str(error))

    def note_trouble(self, at: Destination, what: Happening, now: int) -> Pin | None:
        """Into the history of the pin, if there is one; answers it."""
        if self.pins is None:
            return None
        try:
            pin = self.pins.lookup(at)
            self.pins.note_trouble(at, what, now)
        except EnvironmentFailureError as error:
            self.unwritable(str(error))
            return None
        return pin

    def note_failure(self, at: Destination) -> None:
        """A path on which no handshake has ever gone well; told where it rests from now on."""
        if self.pins is None:
            return
        try:
            failures = self.pins.note_failure(at, int(time.time()))
        except EnvironmentFailureError as error:
            self._alarm(Reason.PINS_UNWRITABLE, "peers", str(error))
            return
        if failures.rest_until:
            until = failures.rest_until - int(time.time())
            self._log.fact("peers", "rests", reason=Reason.RECENTLY_FAILED, to=str(at), seconds=until)

    def may_be_pinned(self, at: Destination) -> bool:
        """Also where it cannot be read, or could not even be opened: what it holds is not known then."""
        try:
            return self.pins is None or self.pins.lookup(at) is not None
        except EnvironmentFailureError:
            return True


def _is_stranger(pin: Pin | None, met: MetPeer) -> bool:
    """Somebody else is known there, and this one is not."""
    return pin is not None and pin.find(met.identity) is None


def told_peer(peer: dict[str, Any]) -> tuple[MetPeer, MetStatement | None]:
    """A peer in a worker's words (`runtime.said` holds what they may be), and the statement it has shown."""
    told = peer.get("statement")
    met = MetPeer(bytes.fromhex(peer["identity"]), peer["epoch"], peer["full"])
    if told is None:
        return met, None
    return met, MetStatement(bytes.fromhex(told["old"]), bytes.fromhex(told["new"]), told["serial"])
