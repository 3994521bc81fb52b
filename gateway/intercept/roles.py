"""Who is who: which role this gateway has for a SYN, or why it has none. Pure.

Counterparts: `syn`, which reads the flow; `gate`, which judges what has a role.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final

from gateway.errors import Reason
from gateway.intercept.marks import Verdict
from gateway.intercept.syn import Flow
from gateway.policy import limits
from gateway.smtp.events import Role

Network = IPv4Network | IPv6Network
_EVERYBODY: Final = ip_address("255.255.255.255")


@dataclass(frozen=True, slots=True)
class Refusal:
    """No role for this SYN: give it this verdict, for this reason."""

    verdict: Verdict
    reason: Reason


class Roles:
    """Who is who: from the interface a SYN came in by and its two addresses. No `outside`: all the others."""

    def __init__(
        self,
        inside: Iterable[str],
        outside: Iterable[str] | None,
        inside_networks: Iterable[Network],
        inside_sources_allowed_outside: Iterable[Network] = (),
        *,
        side_tells: bool = False,
    ) -> None:
        """`side_tells`: without inside networks, the interface alone says who is inside."""
        self._inside = frozenset(inside)
        self._outside = None if outside is None else frozenset(outside)
        networks, allowed = tuple(inside_networks), tuple(inside_sources_allowed_outside)
        self._side_alone = side_tells and not networks
        # Parsing an address costs as much as the rest of the gate, and mail servers are few.
        self._is_inside = lru_cache(limits.ADDRESSES_CACHED)(lambda address: _within(address, networks))
        self._is_allowed = lru_cache(limits.ADDRESSES_CACHED)(lambda address: _within(address, allowed))
        self._is_nobodys = lru_cache(limits.ADDRESSES_CACHED)(is_nobodys)

    def of(self, flow: Flow, in_interface: str) -> Role | Refusal:
        """The gateway's role for this flow, or why it has none and what becomes of the SYN."""
        if self._is_nobodys(flow.source) or self._is_nobodys(flow.destination):
            return Refusal(Verdict.PASS, Reason.NOT_OURS)
        to_inside = self._is_inside(flow.destination)
        from_inside = self._is_inside(flow.source)
        is_outside = (
            in_interface in self._outside if self._outside is not None else in_interface not in self._inside
        )
        if self._side_alone and (is_outside or in_interface in self._inside):
            return Role.RECEIVING if is_outside else Role.SENDING
        if in_interface in self._inside and is_outside:
            return self._one_armed(from_inside, to_inside)
        if is_outside:
            if from_inside and not self._is_allowed(flow.source):
                return Refusal(Verdict.DROP, Reason.SPOOFED_INSIDE_SOURCE)
            if to_inside:
                return Role.RECEIVING
        if in_interface in self._inside and not to_inside:
            return Role.SENDING
        return Refusal(Verdict.PASS, Reason.NOT_OURS)

    def _one_armed(self, from_inside: bool, to_inside: bool) -> Role | Refusal:
        """Both sides on one interface: only the addresses tell."""
        if from_inside == to_inside:
            return Refusal(Verdict.PASS, Reason.NOT_OURS)
        return Role.SENDING if from_inside else Role.RECEIVING


def is_nobodys(address: str) -> bool:
    """Which no connection across machines has, or (link-local, IPv6) many of one name: to bind to one that
    means nobody or everybody, and anybody can forge, would be to dial in our own name."""
    parsed = ip_address(address)
    if parsed.is_unspecified or parsed.is_multicast or parsed.is_loopback or parsed == _EVERYBODY:
        return True
    return parsed.version == 6 and (parsed.is_link_local or parsed.ipv4_mapped is not None)


def _within(address: str, networks: Sequence[Network]) -> bool:
    parsed = ip_address(address)
    return any(parsed in network for network in networks if network.version == parsed.version)
