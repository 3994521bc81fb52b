"""Addresses, networks, and names of lists of them, as the configuration spells them. Pure.

Each check answers the value for the field of `config.Config`, or raises ValueError(what is allowed); of one
entry of a list, EntryError.
Counterpart: `config`, which looks up the names and says where in the file the trouble is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from gateway.values import EntryError

Network = IPv4Network | IPv6Network

_ALLOWED: Final = 'a list of addresses and networks, such as ["192.0.2.7", "2001:db8:5::/48"]'
_AND_NAMES: Final = f"{_ALLOWED}, and of names of lists in [sets]"
_AND_IPSETS: Final = f'{_AND_NAMES}, and of sets of the kernel ("ipset:NAME", "ipset6:NAME")'
_IPSETS: Final = {"ipset": 4, "ipset6": 6}
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,30}")
"""Of a list in [sets]: nothing that an address could be."""
_IPSET_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,30}")
"""Of 31 characters at most (IPSET_MAXNAMELEN), and none that iptables would take for another word."""


@dataclass(frozen=True, slots=True)
class Ipset:
    """A set of the kernel's, whose members are of one family (4 or 6): iptables takes no other one."""

    name: str
    family: int

    def __str__(self) -> str:
        return f"{next(word for word, family in _IPSETS.items() if family == self.family)}:{self.name}"


@dataclass(frozen=True, slots=True)
class Listed:
    """The entries of a list of exceptions, before names are looked up."""

    networks: tuple[Network, ...]
    names: tuple[str, ...]
    ipsets: tuple[Ipset, ...] = ()

    def looked_up(self, sets: Mapping[str, tuple[Network, ...]]) -> tuple[Network, ...]:
        """Its networks and those of the lists that it names. Raises EntryError for a name that none has."""
        for name in self.names:
            if name not in sets:
                there = ", ".join(sorted(sets)) or "none"
                raise EntryError(f"{name} is no address, and no list in [sets]; there: {there}", name)
        of_sets = (network for name in self.names for network in sets[name])
        return tuple(dict.fromkeys([*self.networks, *of_sets]))


def networks(value: object) -> tuple[Network, ...]:
    """Addresses and networks alone."""
    return _parsed(_strings(value, _ALLOWED), _ALLOWED)


def with_names(value: object) -> Listed:
    """And names of lists."""
    return _listed(value, _AND_NAMES, ipsets=False)


def with_ipsets(value: object) -> Listed:
    """And sets of the kernel: where it does the looking."""
    return _listed(value, _AND_IPSETS, ipsets=True)


def set_name(name: str) -> None:
    """Of a list in [sets]."""
    if not _NAME.fullmatch(name):
        raise ValueError("a small letter, then at most 30 small letters, digits, - and _")


def _listed(value: object, allowed: str, *, ipsets: bool) -> Listed:
    plain: list[str] = []
    names: list[str] = []
    kernels: list[Ipset] = []
    for item in _strings(value, allowed):
        kind, _, name = item.partition(":")
        if kind in _IPSETS:
            if not ipsets or not _IPSET_NAME.fullmatch(name):
                raise EntryError(allowed, item)
            kernels.append(Ipset(name, _IPSETS[kind]))
        elif _NAME.fullmatch(item):
            names.append(item)
        else:
            plain.append(item)
    return Listed(_parsed(plain, allowed), tuple(names), tuple(dict.fromkeys(kernels)))


def _strings(value: object, allowed: str) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(allowed)
    for item in value:
        if not isinstance(item, str):
            raise EntryError(allowed, item)
    return value


def _parsed(items: list[str], allowed: str) -> tuple[Network, ...]:
    found = []
    for item in items:
        if "%" in item:
            raise EntryError(allowed, item, "rules know no zone of an address")
        try:
            found.append(ip_network(item))
        except ValueError:
            raise EntryError(allowed, item, _why(item)) from None
    return tuple(found)


def _why(item: str) -> str:
    """What `ip_network` would not say in words of the file."""
    try:
        meant = ip_network(item, strict=False)
    except ValueError:
        return ""
    return f"bits are set behind the prefix; the network is {meant}"
