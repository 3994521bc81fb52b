"""How many handshakes a second a worker offers, in total and to each source. Pure: `now` comes in.

An offer costs a signature, and an answer to it a whole key exchange: without a bound anybody could keep a
worker busy with them. Beyond it nothing is offered, and mail passes in clear as without us. A stranger leaves
the last quarter of what there is to sources that have upgraded, so that no crowd costs a peer its channel.
Counterpart: `runtime.worker.surroundings`, which asks for each connection that comes in.
"""

from __future__ import annotations

from collections import OrderedDict

from gateway.policy import limits


class Bucket:
    """So many a second, and twice as many at once after a rest."""

    __slots__ = ("_at", "_per_second", "burst", "level")

    def __init__(self, per_second: float, now: float) -> None:
        self._per_second = per_second
        self.burst = self.level = per_second * limits.HANDSHAKE_BURST_SECONDS
        self._at = now

    def has(self, now: float, left: float) -> bool:
        """Whether one can be taken that leaves so many. A clock that goes back gives nothing."""
        self.level = min(self.burst, self.level + max(0.0, now - self._at) * self._per_second)
        self._at = now
        return self.level - 1 >= left


class HandshakeBudget:
    """One worker's."""

    def __init__(self, per_second: float, per_source: float, now: float) -> None:
        self._per_source = per_source
        self._all = Bucket(per_second, now)
        self._sources: OrderedDict[str, Bucket] = OrderedDict()

    def grants(self, source: str, *, is_known: bool, now: float) -> bool:
        """Whether this source may have an offer now; takes it."""
        bucket = self._sources.get(source)
        if bucket is None:
            bucket = self._sources[source] = Bucket(self._per_source, now)
        self._sources.move_to_end(source)
        while len(self._sources) > limits.HANDSHAKE_SOURCES:
            self._sources.popitem(last=False)
        kept = 0.0 if is_known else 1 - limits.STRANGERS_SHARE
        if not (bucket.has(now, kept * bucket.burst) and self._all.has(now, kept * self._all.burst)):
            return False
        bucket.level -= 1
        self._all.level -= 1
        return True
