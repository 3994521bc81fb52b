"""How much time the whole bench may still take, and each part of it."""

from __future__ import annotations

import time


class Budget:
    """Counts down from when it was made."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    def part(self, seconds: float) -> Budget:
        """So many seconds, or what is left of the whole."""
        return Budget(max(0.0, min(seconds, self.left)))

    def allows(self, seconds: float) -> bool:
        return self.left >= seconds
