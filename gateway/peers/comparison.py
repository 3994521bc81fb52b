"""How what is seen at a destination compares with what is remembered of it. Pure.

`compare` answers in one word and decides nothing; what follows from the word is `policy.decision`'s.
Counterpart: `pins`, which is what is remembered.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from gateway.errors import IdentityHashed
from gateway.peers.pins import MetStatement, Pin, PinnedIdentity, leads_on


class Comparison(IdentityHashed):
    """What is seen now against what is remembered (docs/protocol.md, "Memory")."""

    SAME = "same"
    NEW = "new"
    """Never met, and there is an offer."""
    CHANGED = "changed"
    """Pinned, and this identity has never been seen here."""
    CHANGED_AGAIN = "changed-again"
    """Pinned, and this identity was seen here before, but nobody has accepted it: the bell rang then."""
    ROLLED = "rolled"
    """Not accepted until now, and a statement that counts leads here from an accepted identity."""
    MISSING = "missing"
    """Pinned, and no longer offering."""
    WEAKER = "weaker"
    """A short offer where the size rule allowed a full one."""
    OLD = "old"
    """The epoch of this identity went back: a restored backup, a wrong clock."""
    FAILED = "failed"
    """The handshake failed, the second one as well."""
    UNKNOWN = "unknown"
    """Never met, and offers nothing: nearly all of the world."""


class _Seen(enum.Enum):
    OFFER = "offer"
    NOTHING = "nothing"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Observed:
    """What a session has seen of its far side. Made by `offered`, `missing` and `failed`."""

    seen: _Seen
    identity: bytes = b""
    epoch: int = 0
    full: bool = False
    full_fits: bool = False
    """The size rule allows a full offer in this reply."""

    @classmethod
    def offered(cls, identity: bytes, epoch: int, *, full: bool, full_fits: bool = True) -> Observed:
        return cls(_Seen.OFFER, bytes(identity), epoch, full, full_fits)

    @classmethod
    def missing(cls) -> Observed:
        return cls(_Seen.NOTHING)

    @classmethod
    def failed(cls) -> Observed:
        return cls(_Seen.FAILURE)


class Standing(IdentityHashed):
    """What a pin knows of an identity."""

    UNPINNED = "unpinned"
    """There is no pin."""
    STRANGER = "stranger"
    """Not seen there; also where no identity is shown at all."""
    SEEN = "seen"
    """Seen there, not accepted."""
    STATED = "stated"
    """Not accepted, and a statement that counts leads to it."""
    ACCEPTED = "accepted"


class _Sight(IdentityHashed):
    """How good an offer is; WEAKER outranks OLD."""

    FINE = "fine"
    OLD = "old"
    """Its epoch is lower than the highest one seen of this identity."""
    WEAKER = "weaker"
    """The short form where the size rule allows the full one."""
    NOTHING = "nothing"
    FAILURE = "failure"


def _row(
    *, unpinned: Comparison, stranger: Comparison, seen: Comparison, stated: Comparison, accepted: Comparison
) -> dict[Standing, Comparison]:
    return dict(zip(Standing, (unpinned, stranger, seen, stated, accepted), strict=True))


COMPARISONS: Final[dict[_Sight, dict[Standing, Comparison]]] = {
    _Sight.FINE: _row(
        unpinned=Comparison.NEW,
        stranger=Comparison.CHANGED,
        seen=Comparison.CHANGED_AGAIN,
        stated=Comparison.ROLLED,
        accepted=Comparison.SAME,
    ),
    _Sight.OLD: _row(
        unpinned=Comparison.NEW,
        stranger=Comparison.CHANGED,
        seen=Comparison.CHANGED_AGAIN,
        stated=Comparison.ROLLED,
        accepted=Comparison.OLD,
    ),
    # An identity that nobody has accepted must not silence what an accepted one would have rung for.
    _Sight.WEAKER: _row(
        unpinned=Comparison.NEW,
        stranger=Comparison.CHANGED,
        seen=Comparison.WEAKER,
        stated=Comparison.WEAKER,
        accepted=Comparison.WEAKER,
    ),
    _Sight.NOTHING: dict.fromkeys(Standing, Comparison.MISSING) | {Standing.UNPINNED: Comparison.UNKNOWN},
    _Sight.FAILURE: dict.fromkeys(Standing, Comparison.FAILED),
}
"""Total: every sight with every standing. docs/protocol.md, "Pins", is this table in words."""


def compare(pin: Pin | None, observed: Observed, statement: MetStatement | None = None) -> Comparison:
    """One word; where several hold, the one that needs the operator most.

    `statement` is one that has verified; whether it counts here is judged here.
    """
    known = pin.find(observed.identity) if pin is not None else None
    return COMPARISONS[_sight(known, observed)][_standing(pin, known, observed, statement)]


def _sight(known: PinnedIdentity | None, observed: Observed) -> _Sight:
    if observed.seen is not _Seen.OFFER:
        return _Sight.NOTHING if observed.seen is _Seen.NOTHING else _Sight.FAILURE
    if observed.full_fits and not observed.full:
        return _Sight.WEAKER
    return _Sight.OLD if known is not None and observed.epoch < known.epoch else _Sight.FINE


def _standing(
    pin: Pin | None, known: PinnedIdentity | None, observed: Observed, statement: MetStatement | None
) -> Standing:
    if pin is None:
        return Standing.UNPINNED
    if known is not None and known.accepted:
        return Standing.ACCEPTED
    if statement is not None and statement.new == observed.identity and leads_on(pin, statement):
        return Standing.STATED
    return Standing.STRANGER if known is None else Standing.SEEN
