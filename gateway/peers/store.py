"""Pins and failed paths on disk: the SQL of the sending side.

Pins come in as verified peers and as nothing else. A lookup is a few microseconds; a write happens when
something has changed, for a known peer once an hour. Counterparts: `database` (the file, and every trouble
with it), `schema` (the tables), `pins` (what it all means), `history_store` (what became of each).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from gateway.peers import history_store
from gateway.peers.database import Database, StoreFact
from gateway.peers.history import Happening, History, PeerEvent, changes, has_come
from gateway.peers.pins import (
    Acceptance,
    Destination,
    MetPeer,
    MetStatement,
    PathFailures,
    Pin,
    PinnedIdentity,
    accepted,
    updated,
    without,
)
from gateway.peers.schema import NotOurFileError
from gateway.policy import limits

_COLUMNS: Final = (
    "identity, epoch, first_seen, last_seen, days_seen, acceptance, had_full_offer, run_since, run_days,"
    " serial, stated_by"
)
_HERE: Final = "address = ? AND port = ?"
# One query: each costs a read transaction, and of two that is the dearer half.
_LOOKUP: Final = (
    f"SELECT {_COLUMNS}, {history_store.LAST} FROM identities WHERE {_HERE} ORDER BY first_seen, identity"  # noqa: S608
)
_LIST: Final = (
    f"SELECT address, port, {_COLUMNS} FROM identities ORDER BY address, port, first_seen, identity"  # noqa: S608
)
_COUNT: Final = "SELECT count(*) FROM (SELECT DISTINCT address, port FROM identities)"
_PUT: Final = f"INSERT OR REPLACE INTO identities (address, port, {_COLUMNS}) VALUES ({', '.join('?' * 13)})"  # noqa: S608
_DROP: Final = f"DELETE FROM identities WHERE {_HERE} AND identity = ?"  # noqa: S608
_PER_DESTINATION: Final = ("identities", "failures", "looks", "troubles", "events")
"""Tables keyed by address and port: what `forget` empties."""


@dataclass(frozen=True, slots=True)
class RestingPath:
    """A destination that never upgraded, failed too often, and is left in peace until then."""

    destination: Destination
    failures: PathFailures


class PinStore:
    """Raises EnvironmentFailureError from every method that reads or writes."""

    def __init__(
        self, where: Path | Database, clock: Callable[[], float] = time.time, *, may_write: bool = True
    ) -> None:
        """On a file of its own (see `Database`), or on one that it shares and does not close."""
        self._clock = clock
        self._shared = isinstance(where, Database)
        self._database = where if isinstance(where, Database) else Database(where, clock, may_write=may_write)

    @classmethod
    def read_only(cls, path: Path) -> Self:
        """For processes that only look up. The file must be there; a corrupt one is left to the writer."""
        return cls(path, may_write=False)

    @property
    def database(self) -> Database:
        """The file, for other stores to share."""
        return self._database

    def take_facts(self) -> list[StoreFact]:
        """What happened to the file since the last call."""
        return self._database.take_facts()

    def close(self) -> None:
        if not self._shared:
            self._database.close()

    def __enter__(self) -> PinStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- For sessions --------------------------------------------------------------------------------

    def lookup(self, destination: Destination) -> Pin | None:
        return self._database.read(lambda connection: _lookup(connection, destination))

    def remember(
        self, destination: Destination, peer: MetPeer, now: int, statement: MetStatement | None = None
    ) -> Pin:
        """The pin after a verified channel; on disk when this returns. Mostly there is nothing to write."""
        known = self.lookup(destination)
        if known is not None and updated(known, destination, peer, now, statement) is known:
            return known

        def write(connection: sqlite3.Connection) -> Pin:
            # Read again under the lock: another worker may have written in between.
            before = _lookup(connection, destination)
            after = updated(before, destination, peer, now, statement)
            _replace(connection, before, after, now)
            connection.execute(f"DELETE FROM failures WHERE {_HERE}", destination)  # noqa: S608
            return after

        return self._database.write(write)

    def resting(self, destination: Destination, now: int) -> bool:
        """Whether upgrades to this destination are not tried now: it never upgraded, and failed too often."""
        return self._database.read(lambda connection: _failures(connection, destination).resting(now))

    def note_failure(self, destination: Destination, now: int) -> PathFailures:
        """Count a failed handshake; one towards a pinned destination is not kept."""

        def write(connection: sqlite3.Connection) -> PathFailures:
            if _lookup(connection, destination) is not None:
                return PathFailures()
            failures = _failures(connection, destination).one_more(now)
            connection.execute(
                "DELETE FROM failures WHERE last_failed < ?", (now - limits.FAILURE_KEPT_SECONDS,)
            )
            connection.execute(
                "INSERT OR REPLACE INTO failures (address, port, in_a_row, rest_until, last_failed)"
                " VALUES (?, ?, ?, ?, ?)",
                (*destination, failures.in_a_row, failures.rest_until, now),
            )
            return failures

        return self._database.write(write)

    def note_trouble(self, destination: Destination, happening: Happening, now: int) -> None:
        """A pinned destination was without its offer, or its handshakes failed; nothing without a pin."""

        def write(connection: sqlite3.Connection) -> None:
            if _lookup(connection, destination) is not None:
                history_store.add(connection, destination, (PeerEvent.now(happening, now),))

        self._database.write(write)

    def note_stranger(self, destination: Destination, identity: bytes, now: int, again_seconds: int) -> bool:
        """An identity came that the pin has no place for; whether that is told now, and not by now."""

        def write(connection: sqlite3.Connection) -> bool:
            if has_come(history_store.read(connection, destination), identity, now, again_seconds):
                return False
            history_store.add(connection, destination, (PeerEvent.now(Happening.CHANGED, now, identity),))
            return True

        return self._database.write(write)

    # --- For the operator ----------------------------------------------------------------------------

    def pins(self) -> list[Pin]:
        """All of them, by address and port."""
        return self._database.read(_all_pins)

    def count(self) -> int:
        """How many there are: of a large memory much cheaper than to read it."""
        return self._database.read(lambda connection: int(connection.execute(_COUNT).fetchone()[0]))

    def resting_paths(self, now: int) -> list[RestingPath]:
        return [path for path in self._database.read(_all_failures) if path.failures.resting(now)]

    def history(self, destination: Destination) -> History:
        """What became of it, oldest first; empty for a destination that is not known."""
        return self._database.read(lambda connection: history_store.read(connection, destination))

    def accept(self, destination: Destination, identity: bytes) -> Pin | None:
        """None: no such identity is known there."""

        def write(connection: sqlite3.Connection) -> Pin | None:
            before = _lookup(connection, destination)
            if before is None or before.find(identity) is None:
                return None
            after = accepted(before, identity)
            _replace(connection, before, after, int(self._clock()))
            return after

        return self._database.write(write)

    def forget(self, destination: Destination) -> bool:
        """All that is known of a destination, failures included; False: nothing was."""

        def write(connection: sqlite3.Connection) -> bool:
            gone = [
                connection.execute(f"DELETE FROM {table} WHERE {_HERE}", destination).rowcount  # noqa: S608
                for table in _PER_DESTINATION
            ]
            return any(gone)

        return self._database.write(write)

    def forget_identity(self, destination: Destination, identity: bytes) -> Pin | None:
        """One identity of several; None: it is not known there, or no accepted one would be left."""

        def write(connection: sqlite3.Connection) -> Pin | None:
            before = _lookup(connection, destination)
            after = without(before, identity) if before is not None and before.find(identity) else None
            if after is not None:
                _replace(connection, before, after, int(self._clock()))
            return after

        return self._database.write(write)


def _identity(row: tuple[bytes, int, int, int, int, str, int, int, int, int, bytes]) -> PinnedIdentity:
    identity, epoch, first, last, days, acceptance, full, run_since, run_days, serial, stated_by = row
    try:
        how = Acceptance(acceptance)
    except ValueError:
        raise NotOurFileError(f"no such acceptance: {acceptance}") from None
    return PinnedIdentity(
        identity, epoch, first, last, days, how, bool(full), run_since, run_days, serial, stated_by
    )


def _row(known: PinnedIdentity) -> tuple[bytes | int | str, ...]:
    return (
        known.identity,
        known.epoch,
        known.first_seen,
        known.last_seen,
        known.days_seen,
        known.acceptance.value,
        int(known.had_full_offer),
        known.run_since,
        known.run_days,
        known.serial,
        known.stated_by,
    )


def _lookup(connection: sqlite3.Connection, destination: Destination) -> Pin | None:
    rows = connection.execute(_LOOKUP, (destination.address, destination.port)).fetchall()
    if not rows:
        return None
    in_trouble = history_store.is_trouble(rows[0][-1])
    return Pin(destination, tuple(_identity(row[:-1]) for row in rows), in_trouble)


def _all_pins(connection: sqlite3.Connection) -> list[Pin]:
    found: dict[Destination, list[PinnedIdentity]] = {}
    for address, port, *row in connection.execute(_LIST):
        found.setdefault(Destination(address, port), []).append(_identity(tuple(row)))
    troubled = history_store.all_in_trouble(connection)
    return [
        Pin(destination, tuple(identities), destination in troubled)
        for destination, identities in found.items()
    ]


def _replace(connection: sqlite3.Connection, before: Pin | None, after: Pin, now: int) -> None:
    left = {known.identity for known in after.identities}
    for known in before.identities if before is not None else ():
        if known.identity not in left:
            connection.execute(_DROP, (*after.destination, known.identity))
    connection.executemany(_PUT, [(*after.destination, *_row(known)) for known in after.identities])
    history_store.add(connection, after.destination, changes(before, after, now))


def _failures(connection: sqlite3.Connection, destination: Destination) -> PathFailures:
    row = connection.execute(
        f"SELECT in_a_row, rest_until FROM failures WHERE {_HERE}",  # noqa: S608
        (destination.address, destination.port),
    ).fetchone()
    return PathFailures(*row) if row else PathFailures()


def _all_failures(connection: sqlite3.Connection) -> list[RestingPath]:
    rows = connection.execute(
        "SELECT address, port, in_a_row, rest_until FROM failures ORDER BY 1, 2"
    ).fetchall()
    return [
        RestingPath(Destination(address, port), PathFailures(row, until))
        for address, port, row, until in rows
    ]
