"""What differs between placements, as data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.intercept.objects import KernelObject


class InsideNetworks(enum.Enum):
    """Where the inside networks come from, where the configuration does not name them."""

    ROUTED = "routed"
    """What the routes say lies behind the inside interfaces."""
    OWN = "own"
    """The addresses of this very machine."""
    SIDE = "side"
    """Nowhere: the port by which a frame comes in tells the sides."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One placement under one configuration.

    `iptables` names a template for each family of addresses, `nft` one for each family of tables. `repeated`
    are placeholders with several values: a line of a template that has one stands once for each of them;
    `values` are those with one value. `objects` is what the placement needs beside these rules.
    """

    iptables: Mapping[int, str]
    nft: Mapping[str, str]
    inside: tuple[str, ...]
    """Interfaces by which the site's own mail servers reach us; "" is what this machine itself sends."""
    outside: tuple[str, ...] | None
    """Interfaces by which everybody else does. None: all others."""
    inside_networks: InsideNetworks
    keeps_port: bool
    """Whether what we dial bears the port of its client as well as the address."""
    routes_for_others: bool
    """Whether mail comes by only on a machine that forwards."""
    holds_own: bool = False
    """Whether the SYNs that wait are this machine's own, of which its kernel sends none again meanwhile."""
    has_every_slot: bool = True
    """Whether rules for a slot that nobody uses cost nothing."""
    bridged: bool = False
    """Whether the interfaces are ports of a bridge."""
    objects: tuple[KernelObject, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    repeated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
