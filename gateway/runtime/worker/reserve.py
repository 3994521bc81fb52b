"""Descriptors kept for the moment at which there are no others.

A process that has none cannot even accept a connection to close it: a client whose handshake the kernel has
completed would wait for its own timer. With these, those that were let in are served; whoever comes later
passes as without us. Counterpart: `intake`, which lets SYNs pass until all of these can be had again.
"""

from __future__ import annotations

import os

from gateway.policy import limits


class Reserve:
    """Copies of a descriptor that this process has anyway."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._kept: list[int] = []
        self.is_whole()

    def is_whole(self) -> bool:
        """Whether all of them can be had; takes what is missing."""
        try:
            while len(self._kept) < limits.SPARE_DESCRIPTORS:
                self._kept.append(os.dup(self._descriptor))
        except OSError:
            return False
        return True

    def give(self) -> bool:
        """Give them all up to those who need one; False if there were none."""
        given = bool(self._kept)
        while self._kept:
            os.close(self._kept.pop())
        return given
