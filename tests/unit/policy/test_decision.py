"""The table of docs/protocol.md, "Memory", column "no promise in force", line by line."""

import pytest

from gateway.errors import Reason
from gateway.peers.pins import Comparison
from gateway.policy.decision import DECISIONS, Decision, decide

TABLE = {
    Comparison.NEW: Decision(True, Reason.UPGRADED_NEW_PEER, alarm=False, remember=True),
    Comparison.SAME: Decision(True, Reason.UPGRADED, alarm=False, remember=True),
    Comparison.MISSING: Decision(False, Reason.OFFER_MISSING, alarm=True, remember=False),
    Comparison.CHANGED: Decision(True, Reason.UPGRADED_CHANGED_PEER, alarm=True, remember=True),
    Comparison.CHANGED_AGAIN: Decision(True, Reason.UPGRADED_CHANGED_PEER, alarm=False, remember=True),
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
