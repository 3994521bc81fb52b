"""What the memory of clients holds, for a person and as JSON.

Works on the file directly, so it needs no running daemon; that writes what it learns within a second or two.
Counterpart: `peers.source_store`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gateway.operator.status import when
from gateway.peers.sources import Source
from gateway.policy import limits


def as_json(source: Source, now: int) -> dict[str, Any]:
    return {
        "address": source.address,
        "upgraded_day": source.upgraded_day or None,
        "name": source.name.decode("ascii", "backslashreplace") or None,
        "drops": source.drops,
        "rests_until": source.rest_until if source.rests(now) else None,
        "seen_day": source.seen_day,
    }


def in_one_line(source: Source, now: int) -> str:
    name = source.name.decode("ascii", "backslashreplace")
    greets = f", greets as {printable(name)}" if name else ""
    if source.has_upgraded:
        return f"{source.address}  has a gateway{greets}, last upgraded {_day(source.upgraded_day)}"
    if source.rests(now):
        return f"{source.address}  dropped our offers: gets none until {when(source.rest_until)}"
    return f"{source.address}  dropped {source.drops} of our offers, last seen {_day(source.seen_day)}"


def printable(text: str) -> str:
    """A stranger chose it: nothing in it may reach the terminal as a command."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _day(day: int) -> str:
    return datetime.fromtimestamp(day * limits.DAY_SECONDS, UTC).strftime("%Y-%m-%d")
