"""How large a flight is made to look: Padme, with a floor. Arithmetic only; `records` makes the octets.

A flight is what one side sends between two turns of the dialogue; its padding must go out in the same
write as its last data (docs/protocol.md, "Padding").
"""

from __future__ import annotations

from gateway.policy.limits import FLIGHT_FLOOR_OCTETS


def padme(octets: int) -> int:
    """The least size not below `octets` that Padme lets be seen: its low bits are zero, so that a size
    tells a listener O(log log n) bits. Nikitin et al., PETS 2019."""
    exponent = max(octets.bit_length() - 1, 0)
    significant = exponent.bit_length()
    zeros = max(exponent - significant, 0)
    mask = (1 << zeros) - 1
    return (octets + mask) & ~mask


def flight_padding(octets: int) -> int:
    """How much to add to a flight that has `octets` on the wire so far; 0 for an empty flight."""
    return padme(max(octets, FLIGHT_FLOOR_OCTETS)) - octets if octets else 0
