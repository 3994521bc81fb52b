"""One SQLite file: opened, owned, mended and moved aside; one writer at a time, never half-written.

Knows no table: what stands in the file is `schema`'s, what it means that of `store` and `source_store`, which
share one of these. Every trouble is an EnvironmentFailureError within STORE_BUSY_SECONDS, so that the
caller goes on without memory instead of stopping mail; only a file that SQLite calls corrupt is moved aside
(never deleted), and `take_facts` tells so. A connection must not cross a fork: each process opens its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

from gateway.errors import EnvironmentFailureError, Reason
from gateway.peers import schema
from gateway.peers.schema import NotOurFileError
from gateway.policy import limits

_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
# What the library's own words about a damaged schema hold may be no text; a number of more than 64 bits is
# refused before SQLite sees it.
_FAULTS: Final = (sqlite3.Error, NotOurFileError, UnicodeDecodeError, OverflowError)
_FOR_READERS: Final = 0o640
_PRIMARY_CODE: Final = 0xFF  # extended result codes keep the primary one in the low octet

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class StoreFact:
    """Something about the file that the operator has to know: log it, and ring for it."""

    reason: Reason
    detail: str


class Database:
    """Raises EnvironmentFailureError from `read` and `write`, and where it cannot be opened."""

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.time,
        *,
        may_write: bool = True,
        readers: int | None = None,
    ) -> None:
        """Opens the file, made if it is not there. `clock` only names files that are moved aside; `readers`
        is a group that may read it, None for nobody."""
        self._may_write = may_write
        self._readers = readers
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

    def read(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """What `work` answers; it may run twice, the second time on a fresh file."""
        return self._guarded("read", work)

    def write(self, work: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """The same in one transaction, which is on disk when this returns."""

        def transaction(connection: sqlite3.Connection) -> Answer:
            connection.execute("BEGIN IMMEDIATE")
            try:
                answer = work(connection)
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
            except _FAULTS as error:
                if last or not self._may_write or not _is_corruption(error):
                    raise self._trouble(what, error) from None
                self.close()
                if not isinstance(error, sqlite3.Error):
                    # Whole for SQLite, so that opening it again would find nothing.
                    self._give_up(str(error))
        raise AssertionError("unreachable")

    def _give_up(self, why: str) -> None:
        with self._alone():
            if not self._file_is_another():
                self._move_aside(why)

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
            except _FAULTS as error:
                if not _is_corruption(error):
                    raise self._trouble("read", error) from None
                self._move_aside(str(error))
                try:
                    self._connection = self._connected()
                except _FAULTS as again:
                    raise self._trouble("made anew", again) from None
            self._let_readers_in()
            self._opened = self._file_on_disk()

    def _let_readers_in(self) -> None:
        """The file and the two beside it, which SQLite makes anew as it finds the file. Where that cannot be,
        it may be so already; else the readers tell."""
        if self._readers is None:
            return
        for suffix in ("", "-wal", "-shm"):
            part = self._path.with_name(self._path.name + suffix)
            with contextlib.suppress(OSError):
                os.chown(part, -1, self._readers, follow_symlinks=False)
                part.chmod(_FOR_READERS)

    def _open_to_read(self) -> None:
        self._opened = self._file_on_disk()
        try:
            self._connection = self._connected()
        except (*_FAULTS, OSError) as error:  # OSError: the writer moves it aside just now
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
        connection.execute(f"PRAGMA cache_size = -{limits.STORE_CACHE_OCTETS // 1024}")
        if self._may_write:
            # A reader never waits for a writer, and a killed process leaves nothing half-written. FULL: a
            # pin is on disk when it counts; writes are rare.
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            connection.execute("PRAGMA synchronous = FULL")
        if self._may_write or self._path.stat().st_size <= limits.CHECKED_BY_READERS_OCTETS:
            (fault,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if fault != "ok":
                raise NotOurFileError(fault)
        try:
            schema.require(connection, may_write=self._may_write)
        except EnvironmentFailureError as error:
            raise EnvironmentFailureError(f"{self._path}: {error}") from None

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
    if isinstance(error, NotOurFileError | UnicodeDecodeError):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & _PRIMARY_CODE in _CORRUPT


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
