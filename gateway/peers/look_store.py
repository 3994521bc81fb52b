"""Looks and troubles of pinned destinations on disk: the SQL of naming causes.

Only of destinations with a pin, so there are not more of them than of those; `PinStore.forget` takes both.
Counterparts: `database` (the file, and every trouble with it), `schema` (the tables), `looks` (the meaning).
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final

from gateway.errors import Reason
from gateway.peers.database import Database
from gateway.peers.looks import Look, with_look
from gateway.peers.pins import Destination
from gateway.policy import limits

_WORDS: Final = frozenset(reason.value for reason in Reason)
_HERE: Final = "address = ? AND port = ?"
_LOOKS: Final = f"SELECT host, keywords, seen FROM looks WHERE {_HERE} ORDER BY seen DESC"  # noqa: S608
_IS_PINNED: Final = f"SELECT 1 FROM identities WHERE {_HERE}"  # noqa: S608
_TROUBLE: Final = f"SELECT likely, at FROM troubles WHERE {_HERE}"  # noqa: S608


@dataclass(frozen=True, slots=True)
class Trouble:
    """The last thing that went wrong at a destination."""

    likely: Reason
    at: int


class LookStore:
    """On a file that it shares. Raises EnvironmentFailureError from every method."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def looks(self, destination: Destination) -> tuple[Look, ...]:
        """Newest first."""
        return self._database.read(lambda connection: _looks(connection, destination))

    def learn(self, destination: Destination, look: Look, now: int) -> None:
        """How it looked in a session that went well; nothing without a pin, or if it is known."""

        def write(connection: sqlite3.Connection) -> None:
            before = _looks(connection, destination)
            after = with_look(before, look, now)
            if after is before or not _is_pinned(connection, destination):
                return
            connection.execute(f"DELETE FROM looks WHERE {_HERE}", destination)  # noqa: S608
            connection.executemany(
                "INSERT INTO looks (address, port, host, keywords, seen) VALUES (?, ?, ?, ?, ?)",
                [(*destination, one.host, b" ".join(one.keywords), one.seen) for one in after],
            )

        self._database.write(write)

    def trouble(self, destination: Destination) -> Trouble | None:
        return self._database.read(lambda connection: _trouble(connection, destination))

    def note_trouble(self, destination: Destination, likely: Reason, now: int) -> None:
        """Nothing without a pin; the same again is written once an hour."""
        if not self._database.read(lambda connection: _is_pinned(connection, destination)):
            return
        known = self.trouble(destination)
        if (
            known is not None
            and known.likely is likely
            and 0 <= now - known.at < limits.TROUBLE_AGAIN_SECONDS
        ):
            return
        self._database.write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO troubles (address, port, likely, at) VALUES (?, ?, ?, ?)",
                (*destination, likely.value, now),
            ).close()
        )


def _looks(connection: sqlite3.Connection, destination: Destination) -> tuple[Look, ...]:
    rows = connection.execute(_LOOKS, destination).fetchall()
    return tuple(Look(host, tuple(keywords.split()), seen) for host, keywords, seen in rows)


def _is_pinned(connection: sqlite3.Connection, destination: Destination) -> bool:
    return connection.execute(_IS_PINNED, destination).fetchone() is not None


def _trouble(connection: sqlite3.Connection, destination: Destination) -> Trouble | None:
    row = connection.execute(_TROUBLE, destination).fetchone()
    if row is None:
        return None
    known = row[0] in _WORDS  # a later version may know more of them
    return Trouble(Reason(row[0]) if known else Reason.CAUSE_UNKNOWN, row[1])
