"""SYNs that wait in the kernel's queue for a verdict: one of a flow, so many in all and of one source.

Pure. Counterpart: `gate`, whose book this is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable

from gateway.immutable import immutable
from gateway.intercept.counted import counted_as
from gateway.intercept.syn import Flow
from gateway.smtp.events import Role

Token = Hashable
"""Stands for one held packet; only `nfqueue` knows what is inside."""


@immutable
class Held:
    """One SYN. `since`: when it came, on the caller's clock in seconds."""

    token: Token
    role: Role
    since: float


class HeldSyns:
    """All of one worker. Whoever adds one asks first whether there is room."""

    def __init__(self, limit: int, per_source_limit: int) -> None:
        self._limit = limit
        self._per_source_limit = per_source_limit
        self._by_flow: dict[Flow, Held] = {}
        self._of_source: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._by_flow)

    def __contains__(self, flow: Flow) -> bool:
        return flow in self._by_flow

    def get(self, flow: Flow) -> Held | None:
        return self._by_flow.get(flow)

    def items(self) -> Iterable[tuple[Flow, Held]]:
        """In order of arrival."""
        return self._by_flow.items()

    def is_full_for(self, source: str) -> bool:
        """`source` as `counted_as` names it."""
        return len(self._by_flow) >= self._limit or self._of_source[source] >= self._per_source_limit

    def add(self, flow: Flow, held: Held) -> None:
        self._by_flow[flow] = held
        self._of_source[counted_as(flow, held.role)] += 1

    def release(self, flow: Flow) -> Held | None:
        """The one of this flow, which is held no longer; None if there was none."""
        held = self._by_flow.pop(flow, None)
        if held is None:
            return None
        source = counted_as(flow, held.role)
        self._of_source[source] -= 1
        if not self._of_source[source]:
            del self._of_source[source]
        return held

    def clear(self) -> None:
        self._by_flow.clear()
        self._of_source.clear()
