"""Pins with little in them, and what becomes of one over days."""

from __future__ import annotations

from gateway.peers.comparison import Observed
from gateway.peers.pins import (
    Acceptance,
    Destination,
    MetPeer,
    Pin,
    PinnedIdentity,
    updated,
)

HERE = Destination("192.0.2.7", 25)
THERE = Destination("2001:db8::7", 25)
A, B, C = b"A" * 32, b"B" * 32, b"C" * 32
DAY = 86400
NOON = 20_000 * DAY + DAY // 2
EPOCH = 20_000
NOW = 1_800_000_000


def known(
    identity: bytes, acceptance: Acceptance = Acceptance.FIRST_USE, epoch: int = EPOCH
) -> PinnedIdentity:
    return PinnedIdentity(identity, epoch, NOON, NOON, 1, acceptance, True)


def pin(*identities: PinnedIdentity) -> Pin:
    return Pin(HERE, identities)


def met(identity: bytes = A, epoch: int = EPOCH, full: bool = True) -> MetPeer:
    return MetPeer(identity, epoch, full)


def offered(identity: bytes) -> Observed:
    return Observed.offered(identity, EPOCH, full=True)


def history(*sights: tuple[int, bytes]) -> Pin:
    """A pin after these sights: (seconds since NOON, identity)."""
    found: Pin | None = None
    for after, identity in sights:
        found = updated(found, HERE, met(identity), NOON + after)
    assert found is not None
    return found


def acceptance(of: Pin, identity: bytes) -> Acceptance | None:
    one = of.find(identity)
    return one.acceptance if one is not None else None
