"""Reads interfaces, addresses, routes and neighbours into the snapshot, for `machine`; changes nothing"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from typing import Any, Final

from gateway.config import Network
from gateway.intercept import kernel
from gateway.operator.doctor.snapshot import (
    Address,
    Link,
    Neighbour,
    Route,
    RoutingRule,
    Snapshot,
)

_IFF_UP, _IFF_LOWER_UP = 0x1, 0x10000  # <linux/if.h>
_RTN_UNICAST: Final = 1  # <linux/rtnetlink.h>
_MAIN_TABLE: Final = 254
_NTF_ROUTER: Final = 0x80  # <linux/neighbour.h>
_NUD_USABLE: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x80  # reachable, stale, delay, probe, permanent
_ASKS: Final = ("FRA_SRC", "FRA_DST", "FRA_FWMARK", "FRA_IIFNAME")
_ASKS_IN_PARTICULAR: Final = ("FRA_OIFNAME", "FRA_IP_PROTO", "FRA_UID_RANGE")
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_ANYWHERE: Final = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - a route's destination, nothing is bound to it


def seen_with(seen: Snapshot, ip: Any) -> Snapshot:
    """`seen`, and what an IPRoute knows."""
    names: dict[int, str] = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
    return replace(
        seen,
        links=tuple(_link(link) for link in ip.get_links()),
        addresses=tuple(
            Address(
                names.get(one["index"], ""), ip_interface(f"{one.get_attr('IFA_ADDRESS')}/{one['prefixlen']}")
            )
            for one in ip.get_addr()
        ),
        routes=tuple(_routes(ip, names)),
        routing_rules=tuple(_routing_rules(ip)),
        neighbours=tuple(_neighbours(ip, names)),
    )


def _link(link: Any) -> Link:
    information = link.get_attr("IFLA_LINKINFO")
    return Link(
        link["index"],
        link.get_attr("IFLA_IFNAME"),
        bool(link["flags"] & _IFF_UP),
        bool(link["flags"] & _IFF_LOWER_UP),
        link.get_attr("IFLA_MTU"),
        (information.get_attr("IFLA_INFO_KIND") or "") if information else "",
    )


def _routes(ip: Any, names: Mapping[int, str]) -> Iterator[Route]:
    for version in kernel.families():
        for route in ip.get_routes(family=_FAMILIES[version], table=_MAIN_TABLE):
            if route["type"] != _RTN_UNICAST:
                continue
            hops = route.get_attr("RTA_MULTIPATH") or []
            indexes = [route.get_attr("RTA_OIF"), *(hop["oif"] for hop in hops)]
            where = route.get_attr("RTA_DST") or _ANYWHERE[version]
            yield Route(
                ip_network(f"{where}/{route['dst_len']}"),
                tuple(names.get(index, "") for index in indexes if index),
                route.get_attr("RTA_GATEWAY") or "",
                route.get_attr("RTA_PRIORITY") or 0,
            )


def _routing_rules(ip: Any) -> Iterator[RoutingRule]:
    for version in kernel.families():
        for rule in ip.get_rules(family=_FAMILIES[version]):
            has = {name: rule.get_attr(name) for name in (*_ASKS, *_ASKS_IN_PARTICULAR)}
            yield RoutingRule(
                version,
                rule.get_attr("FRA_PRIORITY") or 0,
                rule.get_attr("FRA_TABLE") or rule["table"],
                narrow=any(value is not None for value in has.values()),
                interface=has["FRA_IIFNAME"] or "",
                source=_network(has["FRA_SRC"], rule["src_len"]),
                destination=_network(has["FRA_DST"], rule["dst_len"]),
                mark=has["FRA_FWMARK"] or 0,
                particular=any(has[name] is not None for name in _ASKS_IN_PARTICULAR),
            )


def _network(address: str | None, length: int) -> Network | None:
    return None if address is None else ip_network(f"{address}/{length}")


def _neighbours(ip: Any, names: Mapping[int, str]) -> Iterator[Neighbour]:
    for version in kernel.families():
        for one in ip.get_neighbours(family=_FAMILIES[version]):
            address = one.get_attr("NDA_DST")
            if address and one["state"] & _NUD_USABLE:
                yield Neighbour(names.get(one["ifindex"], ""), address, bool(one["flags"] & _NTF_ROUTER))
