"""Channels to a destination that break off, one after the other: when is that somebody's business? Pure.

A channel that breaks costs nothing: its sender tries again. Where each one breaks (a device on the way that
cuts what it cannot read) the mail waits in the sender's queue until it goes back, and no session by itself
says so. Counterparts: `session.channel`, which knows how one ended; `runtime.worker.learning`, which rings.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from gateway.policy import limits


class BrokenRuns:
    """How many channels in a row broke off at each destination, and since when (seconds of any clock)."""

    def __init__(self) -> None:
        self._runs: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()

    def broke(self, destination: Hashable, now: float) -> int:
        """How many in a row, where that is worth an alarm; else 0.

        Not by their number alone: a gateway that stops resets all its sessions at once.
        """
        count, since = self._runs.pop(destination, (0, now))
        if now - since > limits.DAY_SECONDS:
            count, since = 0, now
        count += 1
        self._runs[destination] = count, since
        if len(self._runs) > limits.BROKEN_CHANNELS_COUNTED:
            self._runs.popitem(last=False)
        lasts = now - since >= limits.BROKEN_CHANNELS_SECONDS
        return count if lasts and count >= limits.BROKEN_CHANNELS else 0

    def went_well(self, destination: Hashable) -> None:
        """A channel there has ended as its mail servers wanted."""
        self._runs.pop(destination, None)
