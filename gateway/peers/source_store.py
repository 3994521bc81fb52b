"""Sources and senders on disk: the SQL of the receiving side.

Written in heaps by the supervisor, once a second at most: strangers decide how much there is to write.
Counterparts: `database` (the file, every trouble with it), `schema` (the tables), `sources` (the meaning).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from gateway.peers.database import Database
from gateway.peers.sources import Sender, Source
from gateway.policy import limits

_SOURCE: Final = "address, upgraded_day, name, drops, rest_until, seen_day"
_SENDER: Final = "identity, epoch, seen_day"
_ONE_SOURCE: Final = f"SELECT {_SOURCE} FROM sources WHERE address = ?"  # noqa: S608
_ONE_SENDER: Final = f"SELECT {_SENDER} FROM senders WHERE identity = ?"  # noqa: S608
# The texts of a network's addresses stand together in the table's own order.
_UPGRADED_BETWEEN: Final = (
    "SELECT EXISTS (SELECT 1 FROM sources WHERE upgraded_day > 0 AND address >= ? AND address < ?)"
)
_ALL_SOURCES: Final = f"SELECT {_SOURCE} FROM sources ORDER BY address"  # noqa: S608
_PUT_SOURCE: Final = f"INSERT OR REPLACE INTO sources ({_SOURCE}) VALUES (?, ?, ?, ?, ?, ?)"  # noqa: S608
_PUT_SENDER: Final = f"INSERT OR REPLACE INTO senders ({_SENDER}) VALUES (?, ?, ?)"  # noqa: S608
_TOO_OLD: Final = (
    ("DELETE FROM sources WHERE upgraded_day > 0 AND upgraded_day < ?", limits.SOURCE_KEPT_DAYS),
    ("DELETE FROM sources WHERE upgraded_day = 0 AND seen_day < ?", limits.HARMED_KEPT_DAYS),
)
# The least recently seen go first; among those of one day, any. Of those that never upgraded, who has dropped
# one offer goes before whoever rests, for else anybody with a network of addresses could end a rest.
_TOO_MANY: Final = (
    (
        "DELETE FROM sources WHERE address IN (SELECT address FROM sources WHERE upgraded_day > 0"
        " ORDER BY seen_day DESC LIMIT -1 OFFSET ?)",
        limits.SOURCES_UPGRADED,
    ),
    (
        "DELETE FROM sources WHERE address IN (SELECT address FROM sources WHERE upgraded_day = 0"
        " ORDER BY rest_until DESC, seen_day DESC LIMIT -1 OFFSET ?)",
        limits.SOURCES_HARMED,
    ),
    (
        "DELETE FROM senders WHERE identity IN (SELECT identity FROM senders"
        " ORDER BY seen_day DESC LIMIT -1 OFFSET ?)",
        limits.SENDERS,
    ),
)


@dataclass(frozen=True, slots=True)
class SourceCounts:
    """For `status`. `resting`: get no offer now."""

    upgraded: int
    resting: int


class SourceStore:
    """On a file that it shares. Raises EnvironmentFailureError from every method."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def source(self, address: str) -> Source:
        """A blank one where nothing is remembered."""

        def read(connection: sqlite3.Connection) -> Source:
            row = connection.execute(_ONE_SOURCE, (address,)).fetchone()
            return Source(*row) if row else Source(address)

        return self._database.read(read)

    def has_upgraded_among(self, beginnings: Iterable[str]) -> bool:
        """Whether any address whose text begins so has upgraded."""

        def read(connection: sqlite3.Connection) -> bool:
            return any(
                connection.execute(_UPGRADED_BETWEEN, (one, one[:-1] + chr(ord(one[-1]) + 1))).fetchone()[0]
                for one in beginnings
            )

        return self._database.read(read)

    def sender(self, identity: bytes) -> Sender:
        """A blank one where nothing is remembered."""

        def read(connection: sqlite3.Connection) -> Sender:
            row = connection.execute(_ONE_SENDER, (identity,)).fetchone()
            return Sender(*row) if row else Sender(identity)

        return self._database.read(read)

    def put(self, sources: Iterable[Source], senders: Iterable[Sender], today: int) -> None:
        """In one transaction, which also forgets what is too old or too much."""
        source_rows = [
            (s.address, s.upgraded_day, s.name, s.drops, s.rest_until, s.seen_day) for s in sources
        ]
        sender_rows = [(s.identity, s.epoch, s.seen_day) for s in senders]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(_PUT_SOURCE, source_rows)
            connection.executemany(_PUT_SENDER, sender_rows)
            for statement, days in _TOO_OLD:
                connection.execute(statement, (today - days,))
            for statement, most in _TOO_MANY:
                connection.execute(statement, (most,))

        self._database.write(write)

    def sources(self) -> list[Source]:
        """All of them, by address."""
        return self._database.read(lambda c: [Source(*row) for row in c.execute(_ALL_SOURCES)])

    def counts(self, now: int) -> SourceCounts:
        def read(connection: sqlite3.Connection) -> SourceCounts:
            row = connection.execute(
                "SELECT count(*) FILTER (WHERE upgraded_day > 0),"
                " count(*) FILTER (WHERE rest_until > ? AND rest_until <= ?) FROM sources",
                (now, now + limits.SOURCE_REST_SECONDS),
            ).fetchone()
            return SourceCounts(*row)

        return self._database.read(read)

    def forget(self, address: str) -> bool:
        """False: nothing was remembered of this client."""

        def write(connection: sqlite3.Connection) -> bool:
            return bool(connection.execute("DELETE FROM sources WHERE address = ?", (address,)).rowcount)

        return self._database.write(write)
