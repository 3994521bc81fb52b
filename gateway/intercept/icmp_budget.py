"""How many ICMP errors this kernel still sends to a client: what is beyond, it swallows. Pure.

A dial that finds its server unreachable is told to the client by an ICMP error of this machine's own, and a
kernel sends few of them to one address (`net.ipv4.icmp_ratelimit`: one a second, some at once). Without us
they come from as many routers as there are servers. A client that hears nothing waits for its own timer, so
what the kernel would not send is told by a reset. Counterparts: `intake`, which asks; `outcomes`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from gateway.intercept.outcomes import DialOutcome
from gateway.policy import limits

_BY_ICMP: Final = frozenset(
    {DialOutcome.HOST_UNREACHABLE, DialOutcome.NET_UNREACHABLE, DialOutcome.ADMIN_PROHIBITED}
)


class IcmpBudget:
    """One worker's share."""

    def __init__(self, seconds_apart: Mapping[int, float], workers: int) -> None:
        """`seconds_apart`: by family, between two errors to one address; none where there is no limit."""
        self._apart = {family: seconds * workers for family, seconds in seconds_apart.items()}
        self._at_once = max(1, limits.ICMP_ERRORS_AT_ONCE // workers)
        self._due: OrderedDict[str, float] = OrderedDict()
        """When all that a client was told would have been due, had it been told one by one."""

    def tellable(self, outcome: DialOutcome, client: str, now: float) -> DialOutcome:
        """The same, or a refusal in its place: in either case the client goes on at once."""
        if outcome not in _BY_ICMP or self._grants(client, now):
            return outcome
        return DialOutcome.REFUSED

    def _grants(self, client: str, now: float) -> bool:
        apart = self._apart.get(6 if ":" in client else 4, 0.0)
        due = max(self._due.pop(client, now), now)
        grants = due - now <= (self._at_once - 1) * apart
        self._due[client] = due + apart if grants else due
        if len(self._due) > limits.ICMP_CLIENTS:
            self._due.popitem(last=False)
        return grants
