"""Checks: interfaces, addresses, routes: does mail come by here, both ways?"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network

from gateway.config import Network
from gateway.intercept.objects import RULE_PRIORITY
from gateway.operator.doctor.configfile import setting
from gateway.operator.doctor.snapshot import Route, Snapshot
from gateway.operator.doctor.trouble import Trouble, shell

_FAMILY = {4: "IPv4", 6: "IPv6"}


def named_interfaces(seen: Snapshot) -> Iterator[Trouble]:
    """Interfaces of the configuration that are not there; then sides that nobody has named."""
    wrong = [
        (key, name)
        for key, names in (("inside", seen.config.inside), ("outside", seen.config.outside))
        for name in names
        if seen.links and seen.link(name) is None
    ]
    for key, name in wrong:
        names = getattr(seen.config, key)
        likely = _likely(seen, key, name)
        listed = ", ".join(f'"{likely if one == name else one}"' for one in names)
        yield Trouble(
            f"interfaces.{key}: there is no interface {name} here; it is likely {likely}"
            if likely
            else f"interfaces.{key}: there is no interface {name} here",
            "the daemon does not start without it, and mail passes in clear",
            setting(seen, f"interfaces.{key}", f"[{listed}]") if likely else "ip -brief link  # and name one",
        )
    if seen.interfaces_unknown and not wrong:
        inside, outside = _guessed_sides(seen)
        yield Trouble(
            f"it is not clear which interface is inside, and which outside: {seen.interfaces_unknown}",
            "the daemon does not start before it knows, and mail passes in clear",
            f"{setting(seen, 'interfaces.inside', inside)} && {setting(seen, 'interfaces.outside', outside)}"
            if "[interfaces]" in seen.config_text
            else setting(seen, "interfaces.inside", f"{inside}\noutside = {outside}"),
        )


def _likely(seen: Snapshot, key: str, name: str) -> str:
    """Which one was meant: one of a like name, else the only one that is left, else the way out."""
    free = [link.name for link in seen.links if link.name != "lo" and link.name not in seen.sides]
    close = difflib.get_close_matches(name, free, n=1)
    if close or len(free) == 1:
        return (close or free)[0]
    ways_out = [name for route in _defaults(seen) for name in route.interfaces if name in free]
    return ways_out[0] if key == "outside" and ways_out else ""


def _guessed_sides(seen: Snapshot) -> tuple[str, str]:
    """As lists of the file; the operator looks at them before they are used."""
    out = next((route.interfaces[0] for route in _defaults(seen) if route.interfaces), "OUTSIDE")
    rest = [link.name for link in seen.links if link.name not in ("lo", out) and link.up]
    return f'["{rest[0] if rest else "INSIDE"}"]', f'["{out}"]'


def links_up(seen: Snapshot) -> Iterator[Trouble]:
    for name in ("lo", *seen.sides):
        link = seen.link(name)
        if link is None:
            continue
        if not link.up:
            yield Trouble(
                f"interface {name} is down",
                "nothing can be delivered to the gateway" if name == "lo" else "no mail comes by this way",
                shell("ip", "link", "set", "dev", name, "up"),
            )
        elif not link.carrier:
            yield Trouble(
                f"interface {name} has no link: nothing answers at the other end of its cable",
                "no mail comes by this way",
                f"# see to the cable of {name}, and to what is at its other end",
            )


def default_routes(seen: Snapshot) -> Iterator[Trouble]:
    """Of each family that the outside has an address of: the way out, and it leads outside."""
    outside = seen.config.outside
    for version in (4, 6):
        routes = [route for route in _defaults(seen) if route.destination.version == version]
        has_address = any(
            one.interface in outside and one.address.version == version and not one.address.ip.is_link_local
            for one in seen.addresses
        )
        astray = [route for route in routes if not set(route.interfaces) & set(outside)]
        # Some sites name all networks that they know, and need no default.
        named = any(
            route.gateway and route.destination.version == version and set(route.interfaces) & set(outside)
            for route in seen.routes
        )
        if outside and astray and (len(routes) > len(astray)) and astray[0] is _best(routes):
            words = shell("ip", f"-{version}", "route", "del", "default", "dev", astray[0].interfaces[0])
            yield Trouble(
                f"the best {_FAMILY[version]} default route leads by {', '.join(astray[0].interfaces)},"
                " which is not outside",
                "mail leaves by another way than it comes in (asymmetric), past the gateway",
                words + (f" metric {astray[0].metric}" if astray[0].metric else ""),
            )
        elif has_address and not named and len(routes) == len(astray):
            yield Trouble(
                f"no {_FAMILY[version]} default route by {', '.join(outside)}"
                + (f", but one by {', '.join(astray[0].interfaces)}" if astray else ""),
                f"mail servers elsewhere cannot be reached by {_FAMILY[version]}",
                _turned_round(seen) if _leads_inside(seen, astray) else _way_out(seen, version),
            )


def _leads_inside(seen: Snapshot, routes: list[Route]) -> bool:
    return any(set(route.interfaces) & set(seen.config.inside) for route in routes)


def _turned_round(seen: Snapshot) -> str:
    """Not a route by a mail server: that would take the machine off the Internet."""
    return f"# name the sides the other way round in {seen.config_path}, or lead the default route outside"


def _way_out(seen: Snapshot, version: int) -> str:
    """By a neighbour on the outside that is known to route, or else by the only one there is."""
    there = [
        one
        for one in seen.neighbours
        if one.interface in seen.config.outside and (":" in one.address) == (version == 6)
    ]
    routers = [one for one in there if one.router]
    ours = {str(one.address.ip) for one in seen.addresses}
    likely = [one for one in routers or there if one.address not in ours]
    if not likely:
        where = seen.config.outside[0]
        return (
            f"ip -{version} route replace default dev {shell(where)} via  # the address of the router there"
        )
    best = min(likely, key=lambda one: one.address.startswith("fe80"))
    return shell(
        "ip", f"-{version}", "route", "replace", "default", "via", best.address, "dev", best.interface
    )


def inside_routes(seen: Snapshot) -> Iterator[Trouble]:
    """A part of the inside that is routed by another interface, or not at all."""
    yield from _routed_outside(seen)
    yield from _without_a_route(seen)


def _routed_outside(seen: Snapshot) -> Iterator[Trouble]:
    """Answers to it go past the gateway. A route by a router inside may be a summary, of which narrower ones
    are meant to lead elsewhere: as the gateway sees it, what they lead to is not inside."""
    inside = seen.config.inside
    networks = list(seen.config.inside_networks) or [
        route.destination
        for route in seen.routes
        if route.destination.prefixlen and not route.gateway and set(route.interfaces) & set(inside)
    ]
    for route in seen.routes:
        if not set(route.interfaces) & set(seen.config.outside) - set(inside):
            continue
        if any(_lies_within(route.destination, network) for network in networks):
            yield Trouble(
                f"{route.destination} lies inside, but its route leads by {', '.join(route.interfaces)}",
                "what is sent to mail servers there goes another way than what they send (asymmetric), and"
                " the gateway sees one half of each connection",
                shell(
                    "ip",
                    f"-{route.destination.version}",
                    "route",
                    "del",
                    route.destination,
                    "dev",
                    route.interfaces[0],
                ),
            )


def _without_a_route(seen: Snapshot) -> Iterator[Trouble]:
    inside = seen.config.inside
    for network in seen.config.inside_networks:
        best = _lookup(seen, network)
        if (
            inside
            and best is not None
            and not set(best.interfaces) & set(inside)
            and not best.destination.prefixlen
        ):
            yield Trouble(
                f"interfaces.inside_networks: {network} has no route by {', '.join(inside)}",
                "mail for it goes back to the outside, by the default route",
                shell("ip", f"-{network.version}", "route", "add", network, "dev", inside[0]),
            )


def strict_reverse_path(seen: Snapshot) -> Iterator[Trouble]:
    """rp_filter hurts where the way back leads elsewhere; our own rules live with it."""
    for name in seen.config.outside:
        routes = [route for route in _defaults(seen) if route.destination.version == 4]
        best = _best(routes)
        if _reverse_path(seen, name) != 1 or best is None or name in best.interfaces:
            continue
        yield Trouble(
            f"{name} drops IPv4 packets whose way back leads by another interface (rp_filter strict), and the"
            f" default route leads by {', '.join(best.interfaces)}",
            "mail that comes in by it is dropped before anything sees it",
            shell("sysctl", "-w", f"net/ipv4/conf/{name}/rp_filter=2"),
        )


def _reverse_path(seen: Snapshot, name: str) -> int:
    """The larger one counts (the kernel's ip-sysctl.rst)."""
    values = (seen.sysctl("net/ipv4/conf/all/rp_filter"), seen.sysctl(f"net/ipv4/conf/{name}/rp_filter"))
    return max(int(value) if value.isdigit() else 0 for value in values)


def early_routing_rules(seen: Snapshot) -> Iterator[Trouble]:
    """Routing rules that come before ours take what ours are to deliver here."""
    for rule in seen.routing_rules:
        if 0 < rule.priority < RULE_PRIORITY and not rule.narrow and rule.table != seen.config.table:
            mend = ["ip", f"-{rule.family}", "rule", "add", "priority", "1000", "lookup", str(rule.table)]
            undo = [
                "ip",
                f"-{rule.family}",
                "rule",
                "del",
                "priority",
                str(rule.priority),
                "lookup",
                str(rule.table),
            ]
            yield Trouble(
                f"a routing rule of {_FAMILY[rule.family]} stands before ours: priority {rule.priority},"
                f" lookup {rule.table}",
                "it routes away what our own rules deliver to the gateway",
                f"{shell(*mend)} && {shell(*undo)}",
            )


# --- What several of them look at --------------------------------------------------------------------


def _defaults(seen: Snapshot) -> list[Route]:
    return [route for route in seen.routes if not route.destination.prefixlen]


def _best(routes: list[Route]) -> Route | None:
    return min(routes, key=lambda route: route.metric, default=None)


def _lies_within(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner != outer and inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner != outer and inner.subnet_of(outer) and not inner.is_link_local
    return False


def _lookup(seen: Snapshot, network: Network) -> Route | None:
    """The route of its first address."""
    first = network.network_address
    fitting = [route for route in seen.routes if first in route.destination]
    return max(fitting, key=lambda route: (route.destination.prefixlen, -route.metric), default=None)
