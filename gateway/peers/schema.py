"""The tables of the memory of peers, and the steps that lead an older file to them.

A new file goes through all steps as well, so that a file that grew up and one made today are the same.
A step, once released, is never changed: what is to be new stands in the next one. New columns have a default,
so that a daemon of the version before, still running, can go on writing.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from gateway.errors import EnvironmentFailureError

APPLICATION_ID: Final = 0x4E6D5031  # "NmP1": whose file this is, also to file(1)

_TO_VERSION_1: Final = (
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
_TO_VERSION_2: Final = (
    # Sending side: how the server of a pin looked when all was well (docs/protocol.md says nothing of it).
    """
    CREATE TABLE looks (
        address TEXT NOT NULL,
        port INTEGER NOT NULL,
        host BLOB NOT NULL,
        keywords BLOB NOT NULL,
        seen INTEGER NOT NULL,
        PRIMARY KEY (address, port, host, keywords)
    ) STRICT, WITHOUT ROWID
    """,
    # Sending side: what went wrong last at a pinned destination, and what it likely was.
    """
    CREATE TABLE troubles (
        address TEXT NOT NULL,
        port INTEGER NOT NULL,
        likely TEXT NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (address, port)
    ) STRICT, WITHOUT ROWID
    """,
    # Receiving side: clients that have upgraded, or that our offer may have harmed.
    """
    CREATE TABLE sources (
        address TEXT NOT NULL PRIMARY KEY,
        upgraded_day INTEGER NOT NULL,
        name BLOB NOT NULL,
        drops INTEGER NOT NULL,
        rest_until INTEGER NOT NULL,
        seen_day INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX peers_by_age ON sources (seen_day) WHERE upgraded_day > 0",
    "CREATE INDEX strangers_by_age ON sources (seen_day) WHERE upgraded_day = 0",
    # Receiving side: identities of sending gateways.
    """
    CREATE TABLE senders (
        identity BLOB NOT NULL PRIMARY KEY CHECK (length(identity) = 32),
        epoch INTEGER NOT NULL,
        seen_day INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX senders_by_age ON senders (seen_day)",
    # Sending side: statements. The list of acceptances grows, which SQLite allows in a new table only.
    "ALTER TABLE identities RENAME TO identities_of_version_1",
    """
    CREATE TABLE identities (
        address TEXT NOT NULL,
        port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
        identity BLOB NOT NULL CHECK (length(identity) = 32),
        epoch INTEGER NOT NULL,
        first_seen INTEGER NOT NULL,
        last_seen INTEGER NOT NULL,
        days_seen INTEGER NOT NULL,
        acceptance TEXT NOT NULL
            CHECK (acceptance IN ('first-use', 'time', 'operator', 'statement', 'not-yet')),
        had_full_offer INTEGER NOT NULL CHECK (had_full_offer IN (0, 1)),
        run_since INTEGER NOT NULL,
        run_days INTEGER NOT NULL,
        serial INTEGER NOT NULL DEFAULT 0,
        stated_by BLOB NOT NULL DEFAULT x'' CHECK (length(stated_by) IN (0, 32)),
        PRIMARY KEY (address, port, identity)
    ) STRICT, WITHOUT ROWID
    """,
    """
    INSERT INTO identities
        (address, port, identity, epoch, first_seen, last_seen, days_seen, acceptance, had_full_offer,
         run_since, run_days)
        SELECT address, port, identity, epoch, first_seen, last_seen, days_seen, acceptance, had_full_offer,
               run_since, run_days FROM identities_of_version_1
    """,
    "DROP TABLE identities_of_version_1",
    # Sending side: what became of a pin, for people; the last one also says whether good news is news.
    """
    CREATE TABLE events (
        address TEXT NOT NULL,
        port INTEGER NOT NULL,
        number INTEGER NOT NULL,
        event TEXT NOT NULL,
        at INTEGER NOT NULL,
        until INTEGER NOT NULL,
        times INTEGER NOT NULL,
        identity BLOB NOT NULL,
        PRIMARY KEY (address, port, number)
    ) STRICT, WITHOUT ROWID
    """,
)
_TO_VERSION_3: Final = (
    # How many sessions were protected, by day: what `status` tells of today and this week.
    """
    CREATE TABLE days (
        day INTEGER NOT NULL,
        direction TEXT NOT NULL CHECK (direction IN ('out', 'in')),
        protected INTEGER NOT NULL CHECK (protected IN (0, 1)),
        reason TEXT NOT NULL,
        sessions INTEGER NOT NULL CHECK (sessions > 0),
        PRIMARY KEY (day, direction, protected, reason)
    ) STRICT, WITHOUT ROWID
    """,
    # When an alarm went out last, by command or mail: a daemon that starts again and again sends it once.
    """
    CREATE TABLE alarms_sent (
        reason TEXT NOT NULL,
        subject TEXT NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (reason, subject)
    ) STRICT, WITHOUT ROWID
    """,
)
_STEPS: Final = (_TO_VERSION_1, _TO_VERSION_2, _TO_VERSION_3)
SCHEMA_VERSION: Final = len(_STEPS)


class NotOurFileError(Exception):
    """The rows are not what this schema allows; treated as corruption."""


def require(connection: sqlite3.Connection, *, may_write: bool) -> None:
    """Bring the file to this version, or raise EnvironmentFailureError and leave it as it is.

    The caller holds the lock under which files are made. A reader gets no older file: the writer has been
    there before it, or the daemon has not been started since this version was installed.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    is_new = not tables and not version
    if not (is_new and may_write) and application != APPLICATION_ID:
        raise EnvironmentFailureError("a database, but not of pins; left as it is")
    if version > SCHEMA_VERSION:
        raise EnvironmentFailureError(
            f"pins of schema {version}, this version knows {SCHEMA_VERSION}; left as it is"
        )
    if version < SCHEMA_VERSION:
        if not may_write:
            raise EnvironmentFailureError(
                f"pins of schema {version}: the daemon brings them to {SCHEMA_VERSION} at its next start"
            )
        _bring_up(connection, version)


def _bring_up(connection: sqlite3.Connection, version: int) -> None:
    """All steps in one transaction: killed in the middle, the file is what it was."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statements in _STEPS[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
