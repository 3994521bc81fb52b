"""The rules of the router placement: nothing is lost where a way is narrower than its ends."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from gateway.config import Config
from tests.lab.own_namespaces import ip, link
from tests.lab.rules_ground import (
    RELAYED,
    SITE,
    A,
    B,
    G,
    GateProcess,
    R,
    Server,
    apply,
    echo,
    sh,
)
from tests.lab.two_sites import BOTH_FAMILIES


@pytest.fixture
def narrow(router: None) -> Iterator[Config]:
    """A second way from the router to B, over R, with an MTU of 1300 two hops on."""
    ip(f"netns add {R}", f"-n {R} link set lo up")
    ip(f"link add r0 netns {R} type veth peer name far netns {G}")
    ip(f"link add r1 netns {R} type veth peer name eth2 netns {B}")
    link(G, "far", "10.3.0.1/24", "fd00:3::1/64")
    link(R, "r0", "10.3.0.2/24", "fd00:3::2/64")
    link(R, "r1", "10.4.0.1/24", "fd00:4::1/64")
    link(B, "eth2", "10.4.0.2/24", "fd00:4::2/64")
    # Only R's routes are narrow: a veth of 1300 would silently lose what B sends to it.
    ip(f"-n {R} route replace 10.4.0.0/24 dev r1 mtu lock 1300")
    ip(f"-n {R} -6 route replace fd00:4::/64 dev r1 metric 256 mtu lock 1300")
    sh(R, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    sh(R, "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0")
    sh(G, "sysctl -qw net.ipv4.conf.far.rp_filter=1")
    ip(f"-n {G} route add 10.4.0.0/24 via 10.3.0.2", f"-n {G} -6 route add fd00:4::/64 via fd00:3::2")
    ip(f"-n {R} route add default via 10.3.0.1", f"-n {R} -6 route add default via fd00:3::1")
    ip(f"-n {B} route replace 10.1.0.0/24 via 10.4.0.1 src 10.4.0.2")
    ip(f"-n {B} -6 route replace fd00:1::/64 via fd00:4::1 src fd00:4::2")
    try:
        yield Config(inside=("lan",), outside=("wan", "far"))
    finally:
        ip(f"-n {B} route del 10.1.0.0/24", f"-n {B} -6 route del fd00:1::/64")
        subprocess.run(["ip", "netns", "del", R], capture_output=True, timeout=20)
        ip(f"-n {G} route flush cache")


@BOTH_FAMILIES
@SITE
def test_no_black_hole_towards_the_dialled_side(narrow: Config, v6: bool, site: str) -> None:
    RELAYED[site]()
    if site == "masquerade":
        for tool in ("iptables", "ip6tables"):
            sh(G, f"{tool} -t nat -A POSTROUTING -o far -j MASQUERADE")
    apply(config=narrow)
    address = ("10.4.0.2", "fd00:4::2")[v6]
    return_way = "fd00:3::1" if v6 else "10.3.0.1"
    if site == "masquerade":
        ip(f"-n {B} {'-6 ' if v6 else ''}route add {return_way} via {('10.4.0.1', 'fd00:4::1')[v6]}")
    try:
        with Server(B, v6, address), GateProcess(config_outside=["wan", "far"]) as gate:
            echo(A, B, v6, 300_000, address=address)
            assert gate.wait("accepted")
    finally:
        if site == "masquerade":
            ip(f"-n {B} {'-6 ' if v6 else ''}route del {return_way}")


@BOTH_FAMILIES
def test_no_black_hole_towards_the_accepted_side(narrow: Config, v6: bool) -> None:
    apply(config=narrow)
    with Server(A, v6), GateProcess(config_outside=["wan", "far"]) as gate:
        echo(B, A, v6, 300_000)
        assert gate.wait("accepted")


@BOTH_FAMILIES
def test_no_black_hole_towards_a_client_behind_masquerading(narrow: Config, v6: bool) -> None:
    """The error is about what the accepted socket sent: the dialled connection's NAT must not touch it."""
    for tool in ("iptables", "ip6tables"):
        sh(G, f"{tool} -t nat -A POSTROUTING -o lan -j MASQUERADE")
        sh(G, f"{tool} -t nat -A INPUT -p udp -j ACCEPT")  # makes NAT look at what is delivered here
    apply(config=Config(inside=("far",), outside=("lan",)))
    options = {
        "config_inside": ["far"],
        "config_outside": ["lan"],
        "inside_networks": ["10.4.0.0/24", "fd00:4::/64"],
    }
    with Server(A, v6), GateProcess(**options) as gate:
        echo(B, A, v6, 300_000)
        assert gate.wait("accepted")
