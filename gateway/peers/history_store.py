"""Histories of pins on disk: the SQL of `history`. Works within a transaction of `store`."""

from __future__ import annotations

import sqlite3
from typing import Final

from gateway.peers.history import TROUBLES, Happening, History, PeerEvent, appended
from gateway.peers.pins import Destination
from gateway.peers.schema import NotOurFileError

_HERE: Final = "address = ? AND port = ?"
_READ: Final = f"SELECT event, at, until, times, identity FROM events WHERE {_HERE} ORDER BY number"  # noqa: S608
LAST: Final = """(
    SELECT event FROM events WHERE address = identities.address AND port = identities.port
    ORDER BY number DESC LIMIT 1
)"""
"""A column of a query of `identities`: what `is_trouble` asks for."""
_LASTS: Final = """
    SELECT address, port, event FROM events AS outer
    WHERE number = (SELECT max(number) FROM events WHERE address = outer.address AND port = outer.port)
"""


def read(connection: sqlite3.Connection, destination: Destination) -> History:
    """Oldest first."""
    rows = connection.execute(_READ, destination).fetchall()
    return tuple(
        PeerEvent(_happening(event), at, until, times, identity) for event, at, until, times, identity in rows
    )


def add(connection: sqlite3.Connection, destination: Destination, events: History) -> None:
    before = after = read(connection, destination)
    for event in events:
        after = appended(after, event)
    if after is before:
        return
    connection.execute(f"DELETE FROM events WHERE {_HERE}", destination)  # noqa: S608
    connection.executemany(
        "INSERT INTO events (address, port, number, event, at, until, times, identity)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (*destination, number, one.happening.value, one.at, one.until, one.times, one.identity)
            for number, one in enumerate(after)
        ],
    )


def is_trouble(last: str | None) -> bool:
    """Of `LAST`; None where nothing has happened."""
    return last is not None and _happening(last) in TROUBLES


def all_in_trouble(connection: sqlite3.Connection) -> set[Destination]:
    return {
        Destination(address, port)
        for address, port, event in connection.execute(_LASTS)
        if _happening(event) in TROUBLES
    }


def _happening(word: str) -> Happening:
    try:
        return Happening(word)
    except ValueError:
        raise NotOurFileError(f"no such event: {word}") from None
