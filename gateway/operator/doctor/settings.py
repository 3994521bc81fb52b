"""Checks: switches of the kernel: forwarding, bridges, address families, sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.config import Placement
from gateway.operator.doctor.snapshot import Snapshot
from gateway.operator.doctor.trouble import Trouble, shell
from gateway.policy import limits

_CONNTRACK_MAX: Final = "net/netfilter/nf_conntrack_max"
_CONNTRACK_COUNT: Final = "net/netfilter/nf_conntrack_count"
_ESTABLISHED: Final = "net/netfilter/nf_conntrack_tcp_timeout_established"
_KERNELS_ESTABLISHED: Final = 432_000
_IPV6_LEAST_MTU: Final = 1280  # RFC 8200, 5
_USUAL_MTU: Final = 1500


def _set(name: str, value: object) -> str:
    return shell("sysctl", "-w", f"{name}={value}")


def forwarding(seen: Snapshot) -> Iterator[Trouble]:
    """For the whole box, or else for one of our interfaces. A site without IPv6 need not route it."""
    for family, of_all, of_one in (
        ("IPv4", "net/ipv4/ip_forward", "net/ipv4/conf/{}/forwarding"),
        ("IPv6", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/{}/forwarding"),
    ):
        if family == "IPv6" and not any(map(seen.has_ipv6, seen.sides)):
            continue
        if seen.sysctl(of_all) == "0":
            yield Trouble(
                f"this machine does not route {family} ({of_all.replace('/', '.')} is 0)",
                "mail does not come by; what does not go through the gateway does not pass at all",
                _set(of_all, 1),
            )
            continue
        for name in seen.sides:
            if seen.sysctl(of_one.format(name)) == "0":
                yield Trouble(
                    f"interface {name} does not route {family} ({of_one.format(name)} is 0)",
                    f"{family} mail that comes in by {name} is dropped",
                    _set(of_one.format(name), 1),
                )


def sets_there(seen: Snapshot) -> Iterator[Trouble]:
    for absent in seen.absent_sets:
        family = ("family", "inet6") if absent.family == 6 else ()
        yield Trouble(
            f"exceptions.never names a set that the kernel does not have: {absent}",
            "rules that ask for it are not taken, so none are put in: mail passes in clear",
            shell("ipset", "create", absent.name, "hash:ip", *family),
        )


def bridge_able(seen: Snapshot) -> Iterator[Trouble]:
    for remark in seen.remarks:
        yield Trouble(
            f"no gateway in a bridge on this kernel: {remark}",
            "frames that cross the bridge do not come to the gate: mail passes in clear",
            "modprobe br_netfilter",
        )
    if seen.bridge_refused and not seen.remarks:
        yield Trouble(
            f"no gateway in this bridge: {seen.bridge_refused}",
            "the daemon does not put its rules in, and mail passes in clear",
            "bridge link; bridge vlan"
            f"  # which port is in which bridge and VLAN; {seen.config_path} has to fit",
        )


def bridged_mail(seen: Snapshot) -> Iterator[Trouble]:
    """Docker and others switch br_netfilter on for all bridges of the box. A mail server has bridges for
    other things, too: of one without named interfaces it is the one by which it reaches the world."""
    ways_out = [name for route in seen.routes if not route.destination.prefixlen for name in route.interfaces]
    bridges = [name for name in seen.sides or ways_out if (link := seen.link(name)) and link.kind == "bridge"]
    names = ("net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables")
    on = [name for name in names if seen.sysctl(name) == "1"]
    if bridges and on:
        yield Trouble(
            f"frames that only cross {bridges[0]} go through iptables too ({on[0].replace('/', '.')} is 1)",
            "what is new from there comes to the gate as frames, which it cannot take, and passes in clear",
            shell("sysctl", "-w", *(f"{name}=0" for name in on)),
        )


def ipv6_on_one_side(seen: Snapshot) -> Iterator[Trouble]:
    in_use = any(one.address.version == 6 and not one.address.ip.is_link_local for one in seen.addresses)
    if seen.sysctl("net/ipv6/conf/lo/disable_ipv6") == "1" and (
        in_use or seen.config.placement is Placement.BRIDGE
    ):
        yield Trouble(
            "IPv6 is switched off on lo, and so cannot be delivered to the gateway",
            "mail by IPv6 that comes by passes in clear",
            _set("net/ipv6/conf/lo/disable_ipv6", 0),
        )
    if seen.sysctl("net/ipv6/conf/all/disable_ipv6") == "1":
        return
    for name in seen.sides:
        others = [other for other in seen.sides if other != name and seen.has_ipv6(other)]
        if seen.sysctl(f"net/ipv6/conf/{name}/disable_ipv6") == "1" and others:
            yield Trouble(
                f"IPv6 is switched off on {name}, and in use on {', '.join(others)}",
                "mail servers with IPv6 addresses try them first, and wait for nothing",
                _set(f"net/ipv6/conf/{name}/disable_ipv6", 0),
            )


def packet_sizes(seen: Snapshot) -> Iterator[Trouble]:
    for name in seen.sides:
        link = seen.link(name)
        if link is not None and link.mtu < _IPV6_LEAST_MTU:
            yield Trouble(
                f"interface {name} carries packets of {link.mtu} octets at most (MTU)",
                f"IPv6 needs {_IPV6_LEAST_MTU}, and many mail servers' large packets get lost below that",
                shell("ip", "link", "set", "dev", name, "mtu", _USUAL_MTU),
            )


def conntrack_room(seen: Snapshot) -> Iterator[Trouble]:
    most, count = (seen.sysctl(name) for name in (_CONNTRACK_MAX, _CONNTRACK_COUNT))
    if not (most.isdigit() and count.isdigit()) or not int(most):
        return
    if int(count) > int(most) * limits.CONNTRACK_FULL_SHARE:
        yield Trouble(
            f"the table of connections is nearly full: {count} of {most}",
            "new connections, mail among them, are dropped once it is; each of ours takes two entries",
            _set(_CONNTRACK_MAX, 2 * int(most)),
        )
    elif int(most) < limits.CONNTRACK_LEAST:
        yield Trouble(
            f"the table of connections has room for {most} only",
            "new connections, mail among them, are dropped once it is full; each of ours takes two entries",
            _set(_CONNTRACK_MAX, limits.CONNTRACK_LEAST),
        )


def conntrack_patience(seen: Snapshot) -> Iterator[Trouble]:
    seconds = seen.sysctl(_ESTABLISHED)
    if seconds.isdigit() and int(seconds) < limits.KEEPALIVE_IDLE_SECONDS:
        yield Trouble(
            f"the kernel forgets a silent connection after {seconds} s ({_ESTABLISHED.replace('/', '.')})",
            "mail servers may be silent for 10 minutes (RFC 5321); stateful filters and NAT then cut it",
            _set(_ESTABLISHED, _KERNELS_ESTABLISHED),
        )
