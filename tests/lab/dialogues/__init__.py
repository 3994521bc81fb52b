"""The scripts: what mail servers say to each other, well-behaved and otherwise, and what gateways make of it.

Each dialogue names the decision that the sending and the receiving gateway take; the octets need no
expectation of their own, since both mail servers must see just what they see without gateways. The table
takes for granted that the sending gateway remembers the receiver as a peer (`FIRST_CONTACT` comes first).
Counterpart: `exchange`, which drives them.
"""

from __future__ import annotations

from tests.lab.dialogues import ends, from_vectors, in_clear, protected, timing
from tests.lab.dialogues.words import FIRST_CONTACT, Dialogue

__all__ = ["DIALOGUES", "FIRST_CONTACT", "SMUGGLING", "Dialogue"]

DIALOGUES: list[Dialogue] = [
    *protected.well_behaved(),
    *protected.chunking(),
    *protected.odd_octets(),
    *in_clear.in_clear(),
    *timing.timing(),
    *ends.ends(),
    *protected.chunkings(),
    *protected.large(),
]
SMUGGLING: list[Dialogue] = from_vectors.smuggling()
