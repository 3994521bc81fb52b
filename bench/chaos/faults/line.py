"""Interfaces, addresses and the line between the sites."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from bench.chaos.faults.fault import EVERYWHERE, Act, Subject
from bench.chaos.ground import World
from gateway.config import Placement
from gateway.lab import wan
from gateway.lab.topology import MAIL_INTERFACE

SUBJECT: Final = Subject()
fault: Final = SUBJECT.fault

BETWEEN: Final = frozenset({Placement.ROUTER, Placement.BRIDGE})
"""Where the gateway is no mail server."""


def _routes(world: World, node: str, interface: str) -> list[str]:
    """Commands that put this interface's routes back: the kernel drops them when it goes down."""
    lines = []
    for family in ("-4", "-6"):
        for line in world.sh(node, f"ip {family} route show dev {interface}").splitlines():
            if "proto kernel" not in line and "fe80" not in line:
                lines.append((family, line.replace("linkdown", "").replace("pref medium", "").strip()))
    lines.sort(key=lambda each: " via " in each[1])
    return [f"ip {family} route replace {line} dev {interface}" for family, line in lines]


def _interface_down(place: str) -> Act:
    def act(world: World) -> Iterator[None]:
        node = world.home("a")
        interface = MAIL_INTERFACE if world.placement is Placement.HOST else place
        back = _routes(world, node, interface)
        world.sh(node, f"ip link set {interface} down")
        time.sleep(0.5)  # the fault itself: so long it is down
        world.sh(node, f"ip link set {interface} up")
        for command in back:
            world.sh(node, command)
        yield

    return act


for _interface in ("outside", "inside"):
    fault(
        f"interface-{_interface}-down",
        f"gateway a's interface {_interface} is down for half a second",
        "up, with its routes",
        seconds=3.0,
        quick=_interface == "outside",
        # The mail server itself has one interface, and that is outside.
        placements=EVERYWHERE if _interface == "outside" else BETWEEN,
    )(_interface_down(_interface))


@fault(
    "address-changed",
    "router a gets another address on the wire, and loses the one it had",
    "the old one again",
    placements=frozenset({Placement.ROUTER}),
)
def _address(world: World) -> Iterator[None]:
    changes = (
        ("198.51.100.11", "198.51.100.13", "32", "10.11.0.0/24"),
        ("2001:db8:100::11", "2001:db8:100::13", "128", "2001:db8:11::/64"),
    )

    def change(old: str, new: str, bits: str, network: str) -> None:
        world.sh("gw-a", f"ip addr add {new}/{bits} dev outside")
        world.sh("wire", f"ip route replace {new}/{bits} dev gw-a")
        world.sh("wire", f"ip route replace {network} via {new} dev gw-a")
        world.sh("gw-a", f"ip addr del {old}/{bits} dev outside")

    for old, new, bits, network in changes:
        change(old, new, bits, network)
    try:
        yield
    finally:
        for old, new, bits, network in changes:
            change(new, old, bits, network)


@fault(
    "mtu-black-hole",
    "the wire to site b takes 1,280 octets, and the ICMP errors that say so are dropped",
    "1,500 again",
    seconds=3.0,
)
def _black_hole(world: World) -> Iterator[None]:
    drops = (
        "iptables -w {} OUTPUT -p icmp --icmp-type fragmentation-needed -j DROP",
        "ip6tables -w {} OUTPUT -p icmpv6 --icmpv6-type packet-too-big -j DROP",
    )
    for rule in drops:
        world.sh("wire", rule.format("-A"))
    world.sh("wire", "ip link set gw-b mtu 1280")
    try:
        yield
    finally:
        world.sh("wire", "ip link set gw-b mtu 1500")
        for rule in drops:
            world.sh("wire", rule.format("-D"))


@fault(
    "loss-and-reordering",
    "the wire loses 5 % of all packets and lets 5 % overtake",
    "a good line again",
    seconds=5.0,
)
def _loss(world: World) -> Iterator[None]:
    wan.set_to(world.lab.line, wan.Wan(rtt_seconds=0.002, loss=0.05, overtaken=0.05))
    try:
        yield
    finally:
        wan.set_to(world.lab.line, wan.Wan())
