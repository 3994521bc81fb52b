"""How large a flight is made to look: Padme, with a floor. Arithmetic only; `records` makes the octets.

A flight is what one side sends between two turns of the dialogue; its padding must go out in the same
write as its last data (docs/protocol.md, "Padding"). Counterpart: `session.flights`, which counts.
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


def flight_padding(since: int, padded: int = 0) -> int:
    """How much to add to a flight that had `padded` octets on the wire when it was padded last, and has got
    `since` more; 0 where it has got none. What leaves then is never less than the floor by itself."""
    return padme(padded + max(since, FLIGHT_FLOOR_OCTETS)) - padded - since if since else 0
