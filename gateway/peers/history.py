"""What became of one pin, told to people: a short list of events, oldest first. Pure.

Nothing is decided by it, but for one thing: whether the last of it was trouble, so that good news is written.
Bounded in length and in writes, whatever a peer does: one that comes and goes all day is one counted line.
Counterparts: `pins`, whose changes are told here; `store`, which keeps them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from gateway.peers.pins import Acceptance, Pin, PinnedIdentity
from gateway.policy import limits


class Happening(enum.Enum):
    """What can happen to a pin."""

    FIRST_SEEN = "first-seen"
    CHANGED = "changed"
    """An identity came that nobody has accepted."""
    ANNOUNCED = "announced"
    """A statement named the identity that will come."""
    ROLLED_OVER = "rolled-over"
    """An identity came that a statement has led to."""
    ACCEPTED = "accepted"
    """By the operator, or because it came alone for a week and more."""
    FORGOTTEN = "forgotten"
    MISSING = "missing"
    FAILED = "failed"
    BACK = "back"
    """A good session behind MISSING or FAILED."""


TROUBLES: Final = frozenset({Happening.MISSING, Happening.FAILED})


@dataclass(frozen=True, slots=True)
class PeerEvent:
    """`times` of it between `at` and `until`, in seconds since 1970; of `identity`, where it is about one."""

    happening: Happening
    at: int
    until: int
    times: int = 1
    identity: bytes = b""

    @classmethod
    def now(cls, happening: Happening, at: int, identity: bytes = b"") -> PeerEvent:
        return cls(happening, at, at, 1, identity)


History = tuple[PeerEvent, ...]


def in_trouble(history: History) -> bool:
    return bool(history) and history[-1].happening in TROUBLES


def appended(history: History, event: PeerEvent) -> History:
    """The history with one event more. The very same object if it is not worth a write."""
    if event.happening in TROUBLES:
        return _with_trouble(history, event)
    return _bounded((*history, event))


def _with_trouble(history: History, event: PeerEvent) -> History:
    alike = [one for one in history if one.happening is event.happening]
    silent = event.at - alike[-1].until if alike else None
    if silent is not None and 0 <= silent < limits.TROUBLE_AGAIN_SECONDS:
        return history
    # It came and went: one line, not three.
    before = history[:-1] if history and history[-1].happening is Happening.BACK else history
    if silent is not None and 0 <= silent < limits.DAY_SECONDS and before[-1] is alike[-1]:
        last = replace(before[-1], until=event.at, times=before[-1].times + 1)
        return (*before[:-1], last)
    return _bounded((*history, event))


def _bounded(history: History) -> History:
    """The first one stays: since when a peer is known."""
    extra = len(history) - limits.HISTORY_PER_PIN
    return (history[0], *history[1 + extra :]) if extra > 0 else history


def changes(before: Pin | None, after: Pin, now: int) -> History:
    """What is to be told of a pin that was `before` and is `after`."""
    told: list[PeerEvent] = []
    for known in after.identities:
        was = before.find(known.identity) if before is not None else None
        happening = _what_happened(was, known)
        if happening is not None:
            told.append(PeerEvent.now(happening, now, known.identity))
    for known in before.identities if before is not None else ():
        if after.find(known.identity) is None:
            told.append(PeerEvent.now(Happening.FORGOTTEN, now, known.identity))
    if before is not None and before.in_trouble and not after.in_trouble:
        told.append(PeerEvent.now(Happening.BACK, now))
    return tuple(told)


def stranger_number(history: History, again_seconds: int) -> int:
    """Which one the last stranger is of those that come close together: the lowest number that none has that
    came less than `again_seconds` before. So two with one number are as far apart as two rings for one cause.
    0: none came."""
    numbers: list[tuple[int, int]] = []
    for event in history:
        if event.happening is Happening.CHANGED:
            taken = {number for at, number in numbers if 0 <= event.at - at < again_seconds}
            numbers.append((event.at, next(number for number in count(1) if number not in taken)))
    return numbers[-1][1] if numbers else 0


def has_come(history: History, identity: bytes, now: int, seconds: int) -> bool:
    """Whether it is told of this stranger within so long."""
    return any(
        event.happening is Happening.CHANGED and event.identity == identity and 0 <= now - event.at < seconds
        for event in history
    )


_NEWCOMER: Final = {
    Acceptance.FIRST_USE: Happening.FIRST_SEEN,
    Acceptance.NOT_YET: Happening.CHANGED,
    Acceptance.STATEMENT: Happening.ROLLED_OVER,
    Acceptance.OPERATOR: Happening.ACCEPTED,
    Acceptance.TIME: Happening.ACCEPTED,
}


def _what_happened(was: PinnedIdentity | None, known: PinnedIdentity) -> Happening | None:
    if was is None:
        return Happening.ANNOUNCED if known.announced else _NEWCOMER[known.acceptance]
    if was.announced and not known.announced:
        return Happening.ROLLED_OVER
    if known.accepted and not was.accepted:
        return _NEWCOMER[known.acceptance]
    return None
