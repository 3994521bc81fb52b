"""Ephemeral keys, drawn before they are needed: in idle time, and several at once where that did not suffice.

What a key pair costs under load is mostly its code on its way into the caches, which the second one finds
there. That each serves one handshake is `Ephemerals`' own business. Counterparts: `surroundings`, which hands
them to sessions; `bench.handshake`, which measures drawing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gateway.crypto.keys import Ephemerals
from gateway.policy import limits


class Ahead:
    """A stock of what `draw` makes. In memory alone, and never more of it than `limits.EPHEMERALS_AHEAD`."""

    def __init__(self, draw: Callable[[], Ephemerals]) -> None:
        self._draw = draw
        self._stock: deque[Ephemerals] = deque()

    def __len__(self) -> int:
        return len(self._stock)

    def draw_one(self) -> None:
        """In idle time: a session then costs no key generation while a client waits."""
        if len(self._stock) < limits.EPHEMERALS_AHEAD:
            self._stock.append(self._draw())

    def take(self) -> Ephemerals:
        """The oldest one; where there is none, `limits.EPHEMERALS_AT_ONCE` are drawn now."""
        if not self._stock:
            self._stock.extend([self._draw() for _ in range(limits.EPHEMERALS_AT_ONCE)])
        return self._stock.popleft()
