"""When an alarm was sent out last, on disk: a daemon that starts again and again sends it once a day.

Counterparts: `database` (the file, every trouble with it), `schema` (the table), and
`runtime.supervisor.alarms_out`.
"""

from __future__ import annotations

import sqlite3

from gateway.errors import Reason
from gateway.peers.database import Database

Cause = tuple[Reason, str]
"""A reason, and whom it is about, with the way that it went: each way has its own."""


class AlarmStore:
    """On a file that it shares. Raises EnvironmentFailureError from every method."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def sent_at(self, cause: Cause) -> int | None:
        """Seconds since 1970; None: not, or not lately."""
        reason, subject = cause

        def read(connection: sqlite3.Connection) -> int | None:
            row = connection.execute(
                "SELECT at FROM alarms_sent WHERE reason = ? AND subject = ?", (reason.value, subject)
            ).fetchone()
            return row[0] if row else None

        return self._database.read(read)

    def note(self, cause: Cause, now: int, kept_seconds: int) -> None:
        """It is sent now. What was sent so long ago that it may be sent again is forgotten."""
        reason, subject = cause

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM alarms_sent WHERE at <= ? OR at > ?", (now - kept_seconds, now))
            connection.execute(
                "INSERT OR REPLACE INTO alarms_sent (reason, subject, at) VALUES (?, ?, ?)",
                (reason.value, subject, now),
            )

        self._database.write(write)
