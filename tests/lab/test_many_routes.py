"""A router may have a million routes, and a thousand interfaces: the kernel is asked of those that matter."""

from __future__ import annotations

import os
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Final

import pytest
from pyroute2 import IPRoute

from gateway.intercept.kernel import routing
from gateway.intercept.objects import InterfaceRoute, LocalRoute
from tests.lab.own_namespaces import ip, lonely_router, remove_ours
from tests.lab.rules_ground import sh, within
from tests.told import LINK, ROUTE, Told

PREFIX: Final = "nmmr"
HERE: Final = f"{PREFIX}-{os.getpid()}"
OUTSIDE: Final = 200


@pytest.fixture
def router() -> Iterator[None]:
    remove_ours(PREFIX)
    with lonely_router(HERE):
        ip(
            f"-n {HERE} address add fd00:1::1/64 dev lan nodad",
            f"-n {HERE} address add fd00:2::1/64 dev wan nodad",
            f"-n {HERE} route add 192.168.7.0/24 via 10.1.0.7",
            f"-n {HERE} route add 192.168.9.0/24 nexthop via 10.2.0.9 nexthop via 10.1.0.9",
            f"-n {HERE} route add unreachable 192.168.11.0/24",
            f"-n {HERE} route add fd00:7::/64 via fd00:1::7",
            f"-n {HERE} route add fd00:9::/64 nexthop via fd00:2::9 nexthop via fd00:1::9",
        )
        routes = (
            f"route add 172.16.{each}.0/24 via 10.2.0.2 proto bgp\n"
            f"route add fd00:16:{each}::/64 via fd00:2::2 proto bgp\n"
            for each in range(OUTSIDE)
        )
        sh(HERE, "ip -batch -", stdin="".join(routes))
        yield


def looked() -> tuple[list[str], int]:
    with IPRoute() as route:
        told = Told(route, ROUTE)
        return sorted(map(str, routing._routed_networks(route, ["lan"], ["wan"]))), told.count


def test_what_lies_inside_is_asked_of_the_interfaces_inside(router: None) -> None:
    found, told = within(HERE, looked)
    assert found == [
        "10.1.0.0/24",
        "192.168.7.0/24",
        "192.168.9.0/24",
        "fd00:1::/64",
        "fd00:7::/64",
        "fd00:9::/64",
    ]
    assert told < OUTSIDE


def test_what_a_narrower_route_leads_outside_is_not_inside(router: None) -> None:
    """The site says in one route that all of its networks are inside; the cable to the next router is one."""
    ip(
        f"-n {HERE} route add 10.0.0.0/8 via 10.1.0.7",
        f"-n {HERE} route add 10.7.0.0/16 via 10.2.0.2",
        f"-n {HERE} route add 10.7.8.0/24 via 10.1.0.7",
        f"-n {HERE} route add fd00::/16 via fd00:1::7",
    )
    networks, told = within(HERE, looked)
    found = [ip_network(each) for each in networks]

    def is_inside(address: str) -> bool:
        return any(ip_address(address) in net for net in found)

    inside = ("10.1.0.2", "10.200.0.1", "10.7.8.1", "192.168.7.1", "fd00:1::2", "fd00:77::1")
    assert [each for each in inside if not is_inside(each)] == []
    outside = ("10.2.0.2", "10.7.0.1", "10.7.9.1", "fd00:2::2", "172.16.1.1")
    assert [each for each in outside if is_inside(each)] == []
    assert told < OUTSIDE


def test_our_own_routes_are_known_without_a_look_at_all_interfaces(router: None) -> None:
    ours: list[LocalRoute | InterfaceRoute] = [
        LocalRoute(4, 99),
        InterfaceRoute(6, "lan", 99),
        InterfaceRoute(4, "lan", 99),
    ]
    ip(
        f"-n {HERE} route add local default dev lo table 99",
        f"-n {HERE} -6 route add default dev lan table 99",
    )

    def missing() -> tuple[list[str], int]:
        with IPRoute() as route:
            told = Told(route, LINK)
            return routing._missing(route, ours), told.count

    assert within(HERE, missing) == (["ip -4 route default dev lan table 99"], 0)
