"""What follows from a comparison: upgrade or pass, ring or not, remember or not. The only decider.

This is the column "no promise in force" of docs/protocol.md, "Memory". Passing in clear is the default
because the enemy is the passive listener, and a peer's reinstalled gateway must not stop a site's mail.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.errors import Reason
from gateway.peers.comparison import Comparison
from gateway.peers.pins import Pin, is_accepted


@dataclass(frozen=True, slots=True)
class Decision:
    """`remember`: store the peer once its first record has verified, not before."""

    upgrade: bool
    reason: Reason
    alarm: bool = False
    remember: bool = False

    @classmethod
    def in_clear(cls, reason: Reason, *, alarm: bool = False) -> Decision:
        return cls(upgrade=False, reason=reason, alarm=alarm)


def _upgraded(reason: Reason, *, alarm: bool = False) -> Decision:
    return Decision(upgrade=True, reason=reason, alarm=alarm, remember=True)


DECISIONS: Final[dict[Comparison, Decision]] = {
    Comparison.NEW: _upgraded(Reason.UPGRADED_NEW_PEER),
    Comparison.SAME: _upgraded(Reason.UPGRADED),
    Comparison.CHANGED: _upgraded(Reason.UPGRADED_CHANGED_PEER, alarm=True),
    Comparison.CHANGED_AGAIN: _upgraded(Reason.UPGRADED_CHANGED_PEER),
    Comparison.ROLLED: _upgraded(Reason.UPGRADED_BY_STATEMENT),
    Comparison.WEAKER: _upgraded(Reason.UPGRADED_WEAKER_OFFER, alarm=True),
    Comparison.OLD: _upgraded(Reason.UPGRADED_OLD_EPOCH),
    Comparison.MISSING: Decision.in_clear(Reason.OFFER_MISSING, alarm=True),
    Comparison.FAILED: Decision.in_clear(Reason.HANDSHAKE_FAILED, alarm=True),
    Comparison.UNKNOWN: Decision.in_clear(Reason.NO_OFFER),
}
"""Total: a word without a line here fails a test, and at runtime a KeyError, never a silent default."""


def decide(comparison: Comparison) -> Decision:
    return DECISIONS[comparison]


def waits_for_statement(pin: Pin | None, identity: bytes, *, follows: bool) -> bool:
    """Whether the sender's octets are held until the peer has shown its statement (docs/protocol.md,
    "Rollover"): only where it has one to show, and without it would be a stranger."""
    return follows and not is_accepted(pin, identity)
