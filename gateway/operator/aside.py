"""Whether a gateway here looks at mail to an address at all: by where that is, seen from here.

Says what the rules (`iptables/`) and `intercept.roles` would, of a connection that a mail server of this site
begins. Reads interfaces and routes, no rules. Counterpart: `explain`, which tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from gateway.config import Config, Placement
from gateway.config_text import ConfigurationError
from gateway.errors import EnvironmentFailureError, Reason
from gateway.intercept import kernel
from gateway.intercept.marks import MarkBits
from gateway.intercept.objects import LOOPBACK
from gateway.intercept.roles import is_nobodys
from gateway.operator import lifecycle

_OWN: Final = "it is this machine's own address"
_INSIDE: Final = (
    "it is inside, and mail between servers inside is not touched; of mail from outside ask by its sender's"
    " address"
)


@dataclass(frozen=True, slots=True)
class Aside:
    """Why it passes."""

    reason: Reason
    why: str
    """For a person."""


def aside(config: Config, address: str) -> Aside | None:
    """None: it is looked at; or nobody can tell, for what is inside and outside here is not known."""
    if is_nobodys(address):
        return Aside(Reason.NOT_OURS, "no connection between two machines has such an address")
    try:
        return next(_ASIDE[config.placement](lifecycle.resolved(config), address), None)
    except (ConfigurationError, EnvironmentFailureError):
        return None


def _of_router(config: Config, address: str) -> Iterator[Aside]:
    """What forwards and what dials may go two ways; one of them by an interface of ours is enough."""
    ways = [kernel.interface_to(address, mark) for mark in (MarkBits(config.marks.mask).dialled, 0)]
    if LOOPBACK in ways:
        yield Aside(Reason.NOT_OURS, _OWN)
    elif _is_inside(config, address):
        yield Aside(Reason.NOT_OURS, _INSIDE)
    elif ways[0] and not {*ways} & {*config.inside, *config.outside}:
        named = "which is named on neither side ([interfaces]), and counts as bypassed"
        yield Aside(Reason.BYPASSED, f"the route leads by {ways[0]}, {named}")


def _of_host(config: Config, address: str) -> Iterator[Aside]:
    way = kernel.interface_to(address)
    if way == LOOPBACK or _is_inside(config, address):
        yield Aside(Reason.NOT_OURS, _OWN)
    elif config.outside and way and way not in config.outside:
        yield Aside(Reason.NOT_OURS, f"the route leads by {way}, which interfaces.outside does not name")


def _of_bridge(config: Config, address: str) -> Iterator[Aside]:
    """The port tells the sides, and only a frame has one; but networks that are named tell as well."""
    if _is_inside(config, address):
        yield Aside(Reason.NOT_OURS, _INSIDE)


_ASIDE: Final[dict[Placement, Callable[[Config, str], Iterator[Aside]]]] = {
    Placement.ROUTER: _of_router,
    Placement.HOST: _of_host,
    Placement.BRIDGE: _of_bridge,
}


def _is_inside(config: Config, address: str) -> bool:
    parsed = ip_address(address)
    return any(parsed in net for net in kernel.inside_networks(config) if net.version == parsed.version)
