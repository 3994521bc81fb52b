"""Whom a worker takes on: limits in total and by source, beyond which connections pass as without us.

Pure. Sources that never upgraded go first: for them every limit is `STRANGERS_SHARE` of what it is, so that a
crowd of strangers costs no peer its channel. A forged SYN counts towards no source: what comes from outside
counts once its client has proven its address. Counterparts: `gate`, which asks before each new flow;
`counted`, which says what a source is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import IdentityHashed
from gateway.intercept.counted import counted_as
from gateway.intercept.syn import Flow
from gateway.policy import limits
from gateway.smtp.events import Role

IsKnown = Callable[[Flow, Role], bool]
"""Whether a channel with the other end of this flow is to be expected."""


class Limit(IdentityHashed):
    """What there is enough of."""

    SESSIONS = "sessions"
    CONNECTS = "connects"
    AWAITED = "awaited"
    DESCRIPTORS = "descriptors"
    PORTS = "ports"


@dataclass(frozen=True, slots=True)
class Bounds:
    """One worker's."""

    sessions: int = limits.SESSIONS
    sessions_per_source: int = limits.SESSIONS_PER_SOURCE
    connects: int = limits.CONNECTS
    connects_per_source: int = limits.CONNECTS_PER_SOURCE
    awaited: int = limits.AWAITED


class Crowd:
    """Flows of one kind, in total and by source."""

    def __init__(self, most: int, most_per_source: int) -> None:
        self._most, self._most_per_source = most, most_per_source
        self._by_source: Counter[str] = Counter()
        self.total = 0

    def add(self, source: str) -> None:
        self.total += 1
        self._by_source[source] += 1

    def remove(self, source: str) -> None:
        self.total -= 1
        self._by_source[source] -= 1
        if not self._by_source[source]:
            del self._by_source[source]

    def is_full(self, source: str, share: float) -> bool:
        """Whether one more from this source would be over this share of a limit."""
        return (
            self.total >= self._most * share
            or self._by_source.get(source, 0) >= self._most_per_source * share
        )


class Admission:
    """Counts what one worker has taken on. The gate tells, and asks."""

    def __init__(self, bounds: Bounds, is_known: IsKnown) -> None:
        self.sessions = Crowd(bounds.sessions, bounds.sessions_per_source)
        """Accepted connections that have not ended."""
        self.connects = Crowd(bounds.connects, bounds.connects_per_source)
        """Dials under way, and dialled connections whose clients have not come for them yet."""
        self._awaited = bounds.awaited
        self._is_known = is_known

    def refuses(self, flow: Flow, role: Role, awaited: int) -> Limit | None:
        """Over which limit one more flow would be; None: take it on.

        `awaited`: SYNs taken whose clients have not come yet.
        """
        source = counted_as(flow, role)
        limit = self._over(source, awaited, limits.STRANGERS_SHARE)
        if limit is None or not self._is_known(flow, role):
            return limit
        return self._over(source, awaited, 1.0)

    def is_far_over(self, source: str) -> bool:
        """Whether one more session is too many although its SYN was taken.

        A client that sends all its SYNs before it answers any is counted too late to let it pass.
        """
        return self.sessions.is_full(source, limits.FAR_OVER_SHARE)

    def _over(self, source: str, awaited: int, share: float) -> Limit | None:
        if self.sessions.is_full(source, share):
            return Limit.SESSIONS
        if self.connects.is_full(source, share):
            return Limit.CONNECTS
        return Limit.AWAITED if awaited >= self._awaited * share else None
