"""Whom a connection counts for, where there is a limit for each source. Pure.

A stranger with IPv6 has a /64 at least, and as many addresses of it as he likes: he is one source. In IPv4,
and inside, a source is an address: a site's mail servers often share one /64 with machines that are none, and
what one of those tries must not cost them their channels. Who has upgraded, and so gets what strangers leave,
is told by the address everywhere: servers of many sites may stand in one /64, and none speaks for another.
Counterparts: `gate`, `held` and `runtime.worker`, which count.
"""

from __future__ import annotations

import socket  # for the name of a family, inet_pton and inet_ntop: no input or output
from functools import lru_cache
from typing import Final

from gateway.intercept.syn import Flow
from gateway.policy import limits
from gateway.smtp.events import Role

_HOST_OCTETS: Final = 8
"""Of an IPv6 address, behind its /64."""
_TRANSLATED: Final = "64:ff9b:"
"""How IPv4 addresses begin that a translator shows as IPv6 (RFC 6052, RFC 8215): nobody else has any of them,
and all of IPv4 would be one source."""


def counted_as(flow: Flow, role: Role) -> str:
    """The name of its source."""
    if role is Role.SENDING or ":" not in flow.source:
        return flow.source
    return _network(flow.source)


@lru_cache(maxsize=limits.ADDRESSES_CACHED)
def _network(address: str) -> str:
    if address.startswith(_TRANSLATED):
        return address
    octets = socket.inet_pton(socket.AF_INET6, address)
    return socket.inet_ntop(socket.AF_INET6, octets[:-_HOST_OCTETS] + bytes(_HOST_OCTETS)) + "/64"
