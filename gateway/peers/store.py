"""Pins on disk: one SQLite file, one writer at a time, never half-written. The only file with SQL.

Pins come in as verified peers and as nothing else. A lookup is a few microseconds; a write happens when
something has changed, for a known peer once an hour. Every trouble is an EnvironmentFailureError within
STORE_BUSY_SECONDS, so that the caller goes on without memory instead of stopping mail; only a file that
SQLite calls corrupt is moved aside (never deleted), and `take_facts` tells so.
A connection must not cross a fork: each process opens its own. Counterpart: `peers.pins`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

from gateway.errors import EnvironmentFailureError, Reason
from gateway.peers.pins import (
    Acceptance,
    Destination,
    MetPeer,
    PathFailures,
    Pin,
    PinnedIdentity,
    accepted,
    updated,
    without,
)
from gateway.policy import limits

SCHEMA_VERSION: Final = 1
_APPLICATION_ID: Final = 0x4E6D5031  # "NmP1": whose file this is, also to file(1)
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_PRIMARY_CODE: Final = 0xFF  # extended result codes keep the primary one in the low octet

_SCHEMA: Final = (
    """
    CREATE TABLE identities (
        address TEXT NOT NULL,
        port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
        identity BLOB NOT NULL CHECK (length(identity) = 32),
        epoch INTEGER NOT NULL,
        first_seen INTEGER NOT NULL,
        last_seen INTEGER NOT NULL,
        days_seen INTEGER NOT NULL,
        acceptance TEXT NOT NULL CHECK (acceptance IN ('first-use', 'time', 'operator', 'not-yet')),
        had_full_offer INTEGER NOT NULL CHECK (had_full_offer IN (0, 1)),
        run_since INTEGER NOT NULL,
        run_days INTEGER NOT NULL,
        PRIMARY KEY (address, port, identity)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE failures (
        address TEXT NOT NULL,
        port INTEGER NOT NULL,
        in_a_row INTEGER NOT NULL,
        rest_until INTEGER NOT NULL,
        last_failed INTEGER NOT NULL,
        PRIMARY KEY (address, port)
    ) STRICT, WITHOUT ROWID
    """,
)
_COLUMNS: Final = (
    "identity, epoch, first_seen, last_seen, days_seen, acceptance, had_full_offer, run_since, run_days"
)
_HERE: Final = "address = ? AND port = ?"
_LOOKUP: Final = f"SELECT {_COLUMNS} FROM identities WHERE {_HERE} ORDER BY first_seen, identity"  # noqa: S608
_LIST: Final = (
    f"SELECT address, port, {_COLUMNS} FROM identities ORDER BY address, port, first_seen, identity"  # noqa: S608
)
_PUT: Final = f"INSERT OR REPLACE INTO identities (address, port, {_COLUMNS}) VALUES ({', '.join('?' * 11)})"  # noqa: S608
_DROP: Final = f"DELETE FROM identities WHERE {_HERE} AND identity = ?"  # noqa: S608

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class StoreFact:
    """Something about the file that the operator has to know: log it, and ring for it."""

    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class RestingPath:
    """A destination that never upgraded, failed too often, and is left in peace until then."""

    destination: Destination
    failures: PathFailures


class _NotOurFileError(Exception):
    """The rows are not what this schema allows; treated as corruption."""


class PinStore:
    """Raises EnvironmentFailureError from every method that reads or writes."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time, *, may_write: bool = True) -> None:
        """Opens the file, made if it is not there. `clock` only names files that are moved aside."""
        self._may_write = may_write
        self._path = path
        self._clock = clock
        self._facts: list[StoreFact] = []
        self._connection: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        self._open()

    @classmethod
    def read_only(cls, path: Path) -> Self:
        """For processes that only look up. The file must be there; a corrupt one is left to the writer."""
        return cls(path, may_write=False)

    def take_facts(self) -> list[StoreFact]:
        """What happened to the file since the last call."""
        facts, self._facts = self._facts, []
        return facts

    def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def __enter__(self) -> PinStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- For sessions --------------------------------------------------------------------------------

    def lookup(self, destination: Destination) -> Pin | None:
        return self._guarded("read", lambda connection: _lookup(connection, destination))

    def remember(self, destination: Destination, peer: MetPeer, now: int) -> Pin:
        """The pin after a verified channel; on disk when this returns. Mostly there is nothing to write."""
        known = self.lookup(destination)
        if known is not None and updated(known, destination, peer, now) is known:
            return known

        def write(connection: sqlite3.Connection) -> Pin:
            # Read again under the lock: another worker may have written in between.
            before = _lookup(connection, destination)
            after = updated(before, destination, peer, now)
            _replace(connection, before, after)
            connection.execute(f"DELETE FROM failures WHERE {_HERE}", astuple(destination))  # noqa: S608
            return after

        return self._written(write)

    def resting(self, destination: Destination, now: int) -> bool:
        """Whether upgrades to this destination are not tried now: it never upgraded, and failed too often."""
        return self._guarded("read", lambda connection: _failures(connection, destination).resting(now))

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
                (*astuple(destination), failures.in_a_row, failures.rest_until, now),
            )
            return failures

        return self._written(write)

    # --- For the operator ----------------------------------------------------------------------------

    def pins(self) -> list[Pin]:
        """All of them, by address and port."""
        return self._guarded("read", _all_pins)

    def resting_paths(self, now: int) -> list[RestingPath]:
        return [path for path in self._guarded("read", _all_failures) if path.failures.resting(now)]

    def accept(self, destination: Destination, identity: bytes) -> Pin | None:
        """None: no such identity is known there."""

        def write(connection: sqlite3.Connection) -> Pin | None:
            before = _lookup(connection, destination)
            if before is None or before.find(identity) is None:
                return None
            after = accepted(before, identity)
            _replace(connection, before, after)
            return after

        return self._written(write)

    def forget(self, destination: Destination) -> bool:
        """All that is known of a destination, failures included; False: nothing was."""

        def write(connection: sqlite3.Connection) -> bool:
            gone = [
                connection.execute(f"DELETE FROM {table} WHERE {_HERE}", astuple(destination)).rowcount  # noqa: S608
                for table in ("identities", "failures")
            ]
            return any(gone)

        return self._written(write)

    def forget_identity(self, destination: Destination, identity: bytes) -> Pin | None:
        """One identity of several; None: it is not known there, or no accepted one would be left."""

        def write(connection: sqlite3.Connection) -> Pin | None:
            before = _lookup(connection, destination)
            after = without(before, identity) if before is not None and before.find(identity) else None
            if after is not None:
                _replace(connection, before, after)
            return after

        return self._written(write)

    # --- The file ------------------------------------------------------------------------------------

    def _written(self, write: Callable[[sqlite3.Connection], Answer]) -> Answer:
        def transaction(connection: sqlite3.Connection) -> Answer:
            connection.execute("BEGIN IMMEDIATE")
            try:
                answer = write(connection)
                connection.execute("COMMIT")
            except BaseException:
                # SQLite may have rolled back by itself (full disk).
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return answer

        return self._guarded("written", transaction)

    def _guarded(self, what: str, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Run `work`; after corruption once more, on a fresh file."""
        if self._connection is not None and self._file_is_another():
            self.close()
        for last in (False, True):
            if self._connection is None:
                self._open()
            assert self._connection is not None
            try:
                return work(self._connection)
            except (sqlite3.Error, _NotOurFileError) as error:
                if last or not self._may_write or not _is_corruption(error):
                    raise self._trouble(what, error) from None
            self.close()
        raise AssertionError("unreachable")

    def _trouble(self, what: str, error: Exception) -> EnvironmentFailureError:
        return EnvironmentFailureError(f"{self._path}: pins cannot be {what}: {error}")

    def _open(self) -> None:
        """Under a lock of its own, so that of several processes one makes or mends the file."""
        if not self._may_write:
            self._open_to_read()
            return
        with self._alone():
            try:
                self._connection = self._connected()
            except (sqlite3.Error, _NotOurFileError) as error:
                if not _is_corruption(error):
                    raise self._trouble("read", error) from None
                self._move_aside(str(error))
                try:
                    self._connection = self._connected()
                except (sqlite3.Error, _NotOurFileError) as again:
                    raise self._trouble("made anew", again) from None
            self._opened = self._file_on_disk()

    def _open_to_read(self) -> None:
        self._opened = self._file_on_disk()
        try:
            self._connection = self._connected()
        except (sqlite3.Error, _NotOurFileError) as error:
            raise self._trouble("read", error) from None

    def _file_on_disk(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _file_is_another(self) -> bool:
        """Moved aside by another process, or put back by the operator: what we write would be lost."""
        return self._file_on_disk() != self._opened

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        lock_path = self._path.with_name(self._path.name + ".lock")
        try:
            # Root makes it for the daemon's user, who owns the directory.
            with _made_private(lock_path) as descriptor:
                _locked(descriptor, lock_path)
                with _made_private(self._path):
                    pass
                yield
        except OSError as error:
            raise EnvironmentFailureError(f"{self._path}: pins cannot be opened: {error.strerror}") from None

    def _connected(self) -> sqlite3.Connection:
        # Never `rwc`: what is to be made is made by `_alone`, with its mode and owner.
        where = f"{self._path.absolute().as_uri()}?mode={'rw' if self._may_write else 'ro'}"
        connection = sqlite3.connect(where, uri=True, timeout=limits.STORE_BUSY_SECONDS, isolation_level=None)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA trusted_schema = OFF")
        if self._may_write:
            # A reader never waits for a writer, and a killed process leaves nothing half-written. FULL: a
            # pin is on disk when it counts; writes are rare.
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("PRAGMA synchronous = FULL")
        (fault,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if fault != "ok":
            raise _NotOurFileError(fault)
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if not tables and not version and self._may_write:
            _make_schema(connection)
        elif application != _APPLICATION_ID:
            raise EnvironmentFailureError(f"{self._path}: a database, but not of pins; left as it is")
        elif version != SCHEMA_VERSION:
            raise EnvironmentFailureError(
                f"{self._path}: pins of schema {version}, this version knows {SCHEMA_VERSION}; left as it is"
            )
        else:
            _all_pins(connection)

    def _move_aside(self, why: str) -> None:
        """Never deleted: what can be read of it is the operator's to rescue."""
        aside = self._path.with_name(f"{self._path.name}.corrupt-{int(self._clock())}")
        while aside.exists():
            aside = aside.with_name(aside.name + "+")
        for suffix in ("-wal", "-shm", ""):
            part = self._path.with_name(self._path.name + suffix)
            with contextlib.suppress(FileNotFoundError):
                part.rename(aside.with_name(aside.name + suffix))
        with _made_private(self._path):
            pass
        self._facts.append(StoreFact(Reason.PINS_UNREADABLE, f"{why}; moved to {aside}, all pins start anew"))


def _is_corruption(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, _NotOurFileError) or (code is not None and code & _PRIMARY_CODE in _CORRUPT)


@contextlib.contextmanager
def _made_private(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        owner = path.parent.stat()
        if os.geteuid() == 0 and os.fstat(descriptor).st_uid != owner.st_uid:
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(descriptor: int, path: Path) -> None:
    """Let go when the descriptor is closed. The holder needs milliseconds."""
    deadline = time.monotonic() + limits.STORE_OPEN_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise EnvironmentFailureError(f"{path}: another process holds the pins' file") from None
        time.sleep(0.01)


def _make_schema(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _identity(row: tuple[bytes, int, int, int, int, str, int, int, int]) -> PinnedIdentity:
    identity, epoch, first, last, days, acceptance, full, run_since, run_days = row
    try:
        how = Acceptance(acceptance)
    except ValueError:
        raise _NotOurFileError(f"no such acceptance: {acceptance}") from None
    return PinnedIdentity(identity, epoch, first, last, days, how, bool(full), run_since, run_days)


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
    )


def _lookup(connection: sqlite3.Connection, destination: Destination) -> Pin | None:
    rows = connection.execute(_LOOKUP, (destination.address, destination.port)).fetchall()
    return Pin(destination, tuple(map(_identity, rows))) if rows else None


def _all_pins(connection: sqlite3.Connection) -> list[Pin]:
    found: dict[Destination, list[PinnedIdentity]] = {}
    for address, port, *row in connection.execute(_LIST):
        found.setdefault(Destination(address, port), []).append(_identity(tuple(row)))
    return [Pin(destination, tuple(identities)) for destination, identities in found.items()]


def _replace(connection: sqlite3.Connection, before: Pin | None, after: Pin) -> None:
    where = astuple(after.destination)
    left = {known.identity for known in after.identities}
    for known in before.identities if before is not None else ():
        if known.identity not in left:
            connection.execute(_DROP, (*where, known.identity))
    connection.executemany(_PUT, [(*where, *_row(known)) for known in after.identities])


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
