"""How large a flight is made to look: Padme, with a floor. Arithmetic only; `records` makes the octets.

A flight is what one side sends between two turns of the dialogue; its padding must go out in the same
write as its last data (docs/protocol.md, "Padding"). Counterpart: `session.flights`, which counts.
"""

from __future__ import annotations

from typing import Final

from gateway.policy.limits import FLIGHT_FLOOR_OCTETS, FLIGHT_HELD_STEP_OCTETS

_SIZE_BITS: Final = 64
_STEPS: Final[tuple[int, ...]] = tuple(
    1 << max(exponent - exponent.bit_length(), 0) for exponent in (0, *range(_SIZE_BITS))
)
"""For sizes of so many bits: Padme's sizes are multiples of it, as far as they are about as large."""


def padme(octets: int) -> int:
    """The least size not below `octets` that Padme lets be seen: its low bits are zero, so that a size
    tells a listener O(log log n) bits. Nikitin et al., PETS 2019."""
    mask = _STEPS[octets.bit_length()] - 1
    return (octets + mask) & ~mask


def passed_step(octets: int) -> int:
    """How much of a flight that has `octets` so far may be seen before its end: up to the last step below.

    Then the pause before the end shows no more than the padded size does. The grid of a very large flight
    is finer than its steps, so that it does not hold too much.
    """
    below = octets - 1
    return below & ~(min(_STEPS[below.bit_length()], FLIGHT_HELD_STEP_OCTETS) - 1)


def flight_padding(since: int, padded: int = 0) -> int:
    """How much to add to a flight that had `padded` octets on the wire when it was padded last, and has got
    `since` more; 0 where it has got none. What leaves then is never less than the floor by itself."""
    if not since:
        return 0
    size = padded + max(since, FLIGHT_FLOOR_OCTETS)
    mask = _STEPS[size.bit_length()] - 1  # as in `padme`
    return ((size + mask) & ~mask) - padded - since
