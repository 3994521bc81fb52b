"""Whom a connection counts for, where there is a limit for each source. Pure.

A stranger with IPv6 has a /64 at least, and as many addresses of it as he likes: he is one source. In IPv4,
and inside, a source is an address: a site's mail servers often share one /64 with machines that are none, and
what one of those tries must not cost them their channels. Who has upgraded, and so gets what strangers leave,
is told by the address everywhere: servers of many sites may stand in one /64, and none speaks for another.
Counterparts: `gate`, `held` and `runtime.worker`, which count.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from gateway.intercept.syn import Flow
from gateway.peers.sources import is_translated
from gateway.policy import limits
from gateway.smtp.events import Role

_GROUPS: Final = 8
_OF_NETWORK: Final = 4
"""Of them: a /64."""


def counted_as(flow: Flow, role: Role) -> str:
    """The name of its source."""
    if role is Role.SENDING or ":" not in flow.source:
        return flow.source
    return _network(flow.source)


@lru_cache(maxsize=limits.ADDRESSES_CACHED)
def _network(address: str) -> str:
    if is_translated(address):
        return address
    # By its text: who forges SYNs brings a new address with each, and to parse one costs more than all else.
    front, _, back = address.partition("::")
    groups = front.split(":") if front else []
    if len(groups) < _OF_NETWORK:
        behind = back.split(":") if back else []
        groups += ["0"] * (_GROUPS - len(groups) - len(behind)) + behind
    return ":".join(groups[:_OF_NETWORK]) + "::/64"
