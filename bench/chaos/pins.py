"""What others do to the memory of peers: `python -m bench.chaos.pins lock FILE`, `... tear FILE FOLDER`.

A process of its own, where the daemon's state directory is mounted: SQLite follows links in the name of a
file, and would leave that place by the way that leads to it from elsewhere. `lock` says "held" and holds it
until standard input ends; `tear` copies the files into the folder while a large transaction is half written,
as a power loss would leave them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

ROWS, ROW_OCTETS = 60, 3000
LOST_OCTETS = 1000
LOCKED_SECONDS = 30.0
"""The daemon writes, too, and a busy machine may let it wait in the midst of that."""


def lock(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    print("held", flush=True)
    sys.stdin.read()
    connection.execute("ROLLBACK")
    connection.close()


def tear(path: Path, folder: Path) -> None:
    """A copy of database and log in mid-write; of the log's last page a part is missing.

    Of one that is noise, which the daemon has not come upon yet, there is a copy as it is.
    """
    connection = sqlite3.connect(path, timeout=LOCKED_SECONDS, isolation_level=None)
    with contextlib.closing(connection):
        try:
            _write_half(connection)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise
        for each in path.parent.glob(f"{path.name}*"):
            shutil.copy(each, folder / each.name)
        if connection.in_transaction:
            connection.execute("ROLLBACK")
            log = folder / f"{path.name}-wal"
            os.truncate(log, log.stat().st_size - LOST_OCTETS)


def _write_half(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA cache_size = 2")  # so that pages go to the log before the end
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE torn (a)")
    connection.executemany("INSERT INTO torn VALUES (?)", [(os.urandom(ROW_OCTETS),) for _ in range(ROWS)])


if __name__ == "__main__":
    what, *paths = sys.argv[1:]
    deeds: dict[str, Callable[..., None]] = {"lock": lock, "tear": tear}
    deeds[what](*map(Path, paths))
