"""Destinations that offer nothing, session after session: when is one worth no more looks for a while? Pure.

A dead end costs nothing: the kernel lets its SYNs by, without asking us, until it forgets it. Then the next
session looks again, and if that is offered nothing either, the while begins anew. It does not grow: one
session in half an hour costs nothing, and a gateway that is installed there is found within that time.
Counterpart: `runtime.supervisor.spared`, which tells the kernel.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from gateway.policy import limits


class ClearRuns:
    """How many sessions in a row each destination's server has offered nothing."""

    def __init__(self) -> None:
        self._runs: OrderedDict[Hashable, int] = OrderedDict()

    def offered_nothing(self, destination: Hashable) -> bool:
        """Whether it is a dead end now; then the next session that is offered nothing says so again."""
        run = min(self._runs.pop(destination, 0) + 1, limits.DEAD_END_AFTER_SESSIONS)
        self._runs[destination] = run
        if len(self._runs) > limits.DEAD_ENDS_COUNTED:
            self._runs.popitem(last=False)
        return run >= limits.DEAD_END_AFTER_SESSIONS

    def was_dead_end(self, destination: Hashable) -> None:
        """Another worker has found it to be one: a single session is enough here, too."""
        self._runs[destination] = limits.DEAD_END_AFTER_SESSIONS - 1
        self.offered_nothing(destination)

    def anything_else(self, destination: Hashable) -> None:
        """A session there went another way: what was counted is worth nothing."""
        self._runs.pop(destination, None)
