"""The table of docs/protocol.md, "Memory", column "no promise in force", line by line."""

import pytest

from gateway.errors import Reason
from gateway.peers.comparison import Comparison
from gateway.peers.pins import Destination, MetPeer, Pin, updated
from gateway.policy.decision import DECISIONS, Decision, decide, waits_for_statement

TABLE = {
    Comparison.NEW: Decision(True, Reason.UPGRADED_NEW_PEER, alarm=False, remember=True),
    Comparison.SAME: Decision(True, Reason.UPGRADED, alarm=False, remember=True),
    Comparison.MISSING: Decision(False, Reason.OFFER_MISSING, alarm=True, remember=False),
    Comparison.CHANGED: Decision(True, Reason.UPGRADED_CHANGED_PEER, alarm=True, remember=True),
    Comparison.CHANGED_AGAIN: Decision(True, Reason.UPGRADED_CHANGED_PEER, alarm=False, remember=True),
    Comparison.ROLLED: Decision(True, Reason.UPGRADED_BY_STATEMENT, alarm=False, remember=True),
    Comparison.WEAKER: Decision(True, Reason.UPGRADED_WEAKER_OFFER, alarm=True, remember=True),
    Comparison.OLD: Decision(True, Reason.UPGRADED_OLD_EPOCH, alarm=False, remember=True),
    Comparison.FAILED: Decision(False, Reason.HANDSHAKE_FAILED, alarm=True, remember=False),
    Comparison.UNKNOWN: Decision(False, Reason.NO_OFFER, alarm=False, remember=False),
}


@pytest.mark.parametrize("comparison", Comparison)
def test_every_word_has_its_decision(comparison: Comparison) -> None:
    assert decide(comparison) == TABLE[comparison]


def test_the_table_is_total_and_holds_nothing_else() -> None:
    assert set(DECISIONS) == set(Comparison)


def test_in_clear_never_remembers() -> None:
    assert Decision.in_clear(Reason.NEVER) == Decision(False, Reason.NEVER, False, False)
    assert Decision.in_clear(Reason.HANDSHAKE_FAILED, alarm=True).alarm


HERE = Destination("192.0.2.7", 25)
A, B, C = b"A" * 32, b"B" * 32, b"C" * 32
PIN = updated(updated(None, HERE, MetPeer(A, 1, True), 1000), HERE, MetPeer(B, 1, True), 1001)


@pytest.mark.parametrize(
    ("pin", "identity", "follows", "waits"),
    [
        (None, C, True, False),
        (PIN, A, True, False),
        (PIN, B, True, True),
        (PIN, C, True, True),
        (PIN, B, False, False),
        (PIN, C, False, False),
    ],
    ids=["no pin", "accepted", "seen", "stranger", "seen, no statement", "stranger, no statement"],
)
def test_only_a_stranger_with_a_statement_is_waited_for(
    pin: Pin | None, identity: bytes, follows: bool, waits: bool
) -> None:
    assert waits_for_statement(pin, identity, follows=follows) is waits
