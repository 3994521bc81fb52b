"""Check: routing rules of a site with several ways out, which do not know what the gateway sends.

A rule for what comes in by an interface (`ip rule add iif ...`) means the packets of those behind it. What
the gateway sends in their names starts on this very machine: in the words of routing, it comes in by lo.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from gateway.config import Network
from gateway.intercept.marks import MarkBits
from gateway.intercept.objects import LOOPBACK
from gateway.operator.doctor.snapshot import RoutingRule, Snapshot
from gateway.operator.doctor.trouble import Trouble, shell

_ORDINARY: Final = frozenset({0, 253, 254, 255})
"""No table (a rule that does something else), default, main, local: of those the gateway's packets know."""
_MAIN_PRIORITY: Final = 32766
"""A rule behind that of the main table is hardly ever asked."""


def rules_by_interface(seen: Snapshot) -> Iterator[Trouble]:
    for rule in seen.routing_rules:
        if rule.interface not in seen.sides or rule.mark or rule.particular:
            continue
        if rule.table in _ORDINARY or rule.table == seen.config.table or rule.priority > _MAIN_PRIORITY:
            continue
        missing = [like for like in _likes(seen, rule) if not _covered(like, seen.routing_rules)]
        if missing:
            yield Trouble(
                f"a routing rule of IPv{rule.family} for what comes in by {rule.interface} (priority"
                f" {rule.priority}, lookup {rule.table}) does not know what the gateway sends",
                "mail that the gateway carries goes another way than without it, or nowhere",
                " && ".join(_command(like) for like in missing),
            )


def _likes(seen: Snapshot, rule: RoutingRule) -> Iterator[RoutingRule]:
    """The same for what our sockets send: from those inside, or to them where the rule is of the outside."""
    bits, is_inside = MarkBits(seen.config.marks.mask), rule.interface in seen.config.inside
    for network in _inside(seen, rule):
        for mark in (bits.dialled, bits.accepted):
            yield RoutingRule(
                rule.family,
                rule.priority,
                rule.table,
                narrow=True,
                interface=LOOPBACK,
                source=rule.source or (network if is_inside else None),
                destination=rule.destination or (None if is_inside else network),
                mark=mark,
            )


def _inside(seen: Snapshot, rule: RoutingRule) -> list[Network]:
    """The networks of this rule's interface, or all inside for one of the outside."""
    config = seen.config
    names = {rule.interface} if rule.interface in config.inside else set(config.inside)
    found = config.inside_networks or [
        route.destination
        for route in seen.routes
        if route.destination.prefixlen and set(route.interfaces) & names
    ]
    return [net for net in found if net.version == rule.family and not net.is_link_local]


def _covered(wanted: RoutingRule, rules: Iterable[RoutingRule]) -> bool:
    return any(
        (rule.family, rule.table) == (wanted.family, wanted.table)
        and rule.interface in ("", LOOPBACK)
        and rule.mark in (0, wanted.mark)
        and not rule.particular
        and _holds(rule.source, wanted.source)
        and _holds(rule.destination, wanted.destination)
        for rule in rules
    )


def _holds(outer: Network | None, inner: Network | None) -> bool:
    """None: anywhere."""
    if outer is None or inner is None:
        return outer is None
    if isinstance(outer, IPv4Network) and isinstance(inner, IPv4Network):
        return inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and isinstance(inner, IPv6Network) and inner.subnet_of(outer)


def _command(rule: RoutingRule) -> str:
    words: list[object] = [
        "ip",
        f"-{rule.family}",
        "rule",
        "add",
        "priority",
        rule.priority,
        "iif",
        rule.interface,
    ]
    words += ["fwmark", f"{rule.mark:#x}/{rule.mark:#x}"]
    words += ["from", rule.source] if rule.source is not None else []
    words += ["to", rule.destination] if rule.destination is not None else []
    return shell(*words, "lookup", rule.table)
