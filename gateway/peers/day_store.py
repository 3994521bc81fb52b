"""How many sessions were protected, by day, on disk: the SQL of what `status` tells over restarts.

Every word in it is one of ours: nothing that a peer says is counted by name. Counterparts: `database` (the
file, every trouble with it), `schema` (the table), `runtime.supervisor.days` (who counts).
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from gateway.peers.database import Database
from gateway.policy import limits

_ADD: Final = (
    "INSERT INTO days (day, direction, protected, reason, sessions) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET sessions = sessions + excluded.sessions"
)
_SINCE: Final = "SELECT day, direction, protected, reason, sessions FROM days WHERE day >= ?"


class Kind(NamedTuple):
    """What sessions of one kind have in common; `direction` and `reason` in the words of the log."""

    direction: str
    protected: bool
    reason: str


Days = dict[int, Counter[Kind]]
"""Day, counted from 1970-01-01 UTC -> sessions of each kind."""


class DayStore:
    """On a file that it shares. Raises EnvironmentFailureError from every method."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, days: Mapping[int, Mapping[Kind, int]], today: int) -> None:
        """In one transaction, which also forgets what is too old. A count of 0 is left out."""
        rows = [
            (day, kind.direction, int(kind.protected), kind.reason, count)
            for day, counts in days.items()
            for kind, count in counts.items()
            if count > 0
        ]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(_ADD, rows)
            connection.execute("DELETE FROM days WHERE day <= ?", (today - limits.DAYS_KEPT,))

        self._database.write(write)

    def since(self, day: int) -> Days:
        """That day and all later ones."""

        def read(connection: sqlite3.Connection) -> Days:
            found: Days = {}
            for at, direction, protected, reason, count in connection.execute(_SINCE, (day,)):
                found.setdefault(at, Counter())[Kind(direction, bool(protected), reason)] = count
            return found

        return self._database.read(read)
