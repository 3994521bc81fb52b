"""Namespaces, cables, addresses, routes and kernel switches of the lab.

It must never touch the machine's own network namespace: every step runs in a thread of its own that has
first entered a namespace of the lab's, and `enter` refuses one that is the machine's, whatever its name.
Counterpart: `topology`, which says what there is to build.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from pyroute2 import IPRoute, netns

from gateway.errors import EnvironmentFailureError
from gateway.lab.topology import (
    BRIDGE,
    INSIDE,
    OUTSIDE,
    Cable,
    End,
    Family,
    Role,
    Route,
    Topology,
    cables,
    routes,
)

Result = TypeVar("Result")

RUN_NETNS: Final = Path("/run/netns")
CLONE_NEWNET: Final = 0x40000000

ROUTER_SWITCHES: Final = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    # A marked packet's answer leaves by another interface than the reverse path check expects.
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    # Two stations on the wire reach each other through one router interface each: no redirects.
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
}
BRIDGE_SWITCHES: Final = {
    "net/ipv6/conf/default/disable_ipv6": "1",
    # As strict as a careful site is, and no frame of a bridge is shown to iptables: both as on Debian.
    "net/ipv4/conf/all/rp_filter": "1",
    "net/ipv4/conf/default/rp_filter": "1",
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/bridge/bridge-nf-call-arptables": "0",
}
"""The last ones are there only where br_netfilter is loaded."""
EVERY_NODE_SWITCHES: Final = {
    # Addresses work from the start, so that nothing has to wait for duplicate detection.
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
}


def namespace_path(namespace: str) -> Path:
    """Where a named namespace is mounted; refuses names that lead elsewhere."""
    if not namespace or "/" in namespace or namespace in {".", ".."}:
        raise EnvironmentFailureError(f"{namespace!r} is no name of a network namespace")
    return RUN_NETNS / namespace


def identity(path: Path) -> tuple[int, int]:
    """What tells one namespace from another: device and inode."""
    status = path.stat()
    return status.st_dev, status.st_ino


def machines_own() -> set[tuple[int, int]]:
    """The namespaces that the lab must never touch: process 1's and the one that we were started in."""
    own = {identity(Path("/proc/self/ns/net"))}
    with contextlib.suppress(OSError):
        own.add(identity(Path("/proc/1/ns/net")))
    return own


def refuse_machines_own(namespace: str) -> None:
    """Raise EnvironmentFailureError if this name leads to the machine's own namespace, or nowhere."""
    path = namespace_path(namespace)
    try:
        found = identity(path)
    except FileNotFoundError:
        raise EnvironmentFailureError(f"there is no network namespace {namespace}") from None
    if found in machines_own():
        raise EnvironmentFailureError(
            f"{path} is the machine's own network namespace: the lab does not touch it"
        )


def inside(namespace: str, action: Callable[[], Result]) -> Result:
    """Run `action` in a thread that has entered the namespace; the calling thread stays where it is."""
    refuse_machines_own(namespace)
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            _enter(namespace)
            outcome.append(action())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name=f"in {namespace}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _enter(namespace: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(namespace_path(namespace), os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNET) != 0:
            code = ctypes.get_errno()
            raise EnvironmentFailureError(f"cannot enter the namespace {namespace}: {os.strerror(code)}")
    finally:
        os.close(descriptor)


def socket_in(namespace: str, family: socket.AddressFamily, kind: socket.SocketKind) -> socket.socket:
    """A socket that lives in the namespace, whoever uses it."""
    return inside(namespace, lambda: socket.socket(family, kind))


def existing(namespaces: Iterable[str]) -> list[str]:
    """Those of the names that are there."""
    return [name for name in namespaces if namespace_path(name).exists()]


def create(namespaces: Iterable[str]) -> None:
    """Make the namespaces. Raises EnvironmentFailureError if one is there already."""
    for namespace in namespaces:
        if namespace_path(namespace).exists():
            raise EnvironmentFailureError(f"there is a network namespace {namespace} already")
        try:
            netns.create(namespace)
        except OSError as error:
            raise EnvironmentFailureError(f"cannot make the namespace {namespace}: {error}") from None


def remove(namespaces: Iterable[str]) -> None:
    """Take the names away; the namespaces end with their last process. Missing ones are fine.

    A name that leads to the machine's own namespace is left alone: it was not made by a lab.
    """
    own = machines_own()
    for namespace in namespaces:
        path = namespace_path(namespace)
        if not path.exists() or identity(path) in own:
            continue
        # A name without a mount is what a kill between the two steps of making one leaves.
        with contextlib.suppress(OSError):
            _unmount(path)
        path.unlink(missing_ok=True)


def remove_netns_mount() -> None:
    """Undo the mount that the first named namespace of a machine makes; only if nobody else uses it."""
    with contextlib.suppress(OSError):
        if not any(RUN_NETNS.iterdir()):
            _unmount(RUN_NETNS)
            RUN_NETNS.rmdir()


def has_netns_mount() -> bool:
    """Whether somebody (iproute2, another lab) has named namespaces on this machine before us."""
    # A bind mount of a folder upon itself: os.path.ismount cannot tell.
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == str(RUN_NETNS) for line in mounts)


def _unmount(path: Path) -> None:
    # Not the lazy kind for RUN_NETNS's sake: it fails (rightly) while another namespace is mounted in it.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(str(path).encode(), 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))


def build(topology: Topology, name_of: Callable[[str], str], *, bridged: bool = False) -> None:
    """Set switches, lay cables, give addresses and routes, all inside the namespaces that `create` made.

    With `bridged` the gateways are bridges without an address, else routers.
    """
    for node in topology.nodes.values():
        switches = dict(EVERY_NODE_SWITCHES)
        if bridged and node.role is Role.GATEWAY:
            switches |= BRIDGE_SWITCHES
        elif node.role is not Role.MAIL:
            switches |= ROUTER_SWITCHES
        inside(name_of(node.name), lambda switches=switches: _set_switches(switches))  # type: ignore[misc]
    for cable in cables(topology, bridged=bridged):
        _lay(topology, cable, name_of)
    if bridged:
        for node in topology.with_role(Role.GATEWAY):
            inside(name_of(node.name), _make_bridge)
    for node in topology.nodes.values():
        own = [route for route in routes(topology, bridged=bridged) if route.node == node.name]
        inside(name_of(node.name), lambda own=own: _add_routes(own))  # type: ignore[misc]


def _set_switches(switches: dict[str, str]) -> None:
    for name, value in switches.items():
        # The kernel shows a thread the switches of the namespace that the thread is in.
        if not name.startswith("net/bridge/") or Path("/proc/sys/net/bridge").is_dir():
            (Path("/proc/sys") / name).write_text(value)


def _lay(topology: Topology, cable: Cable, name_of: Callable[[str], str]) -> None:
    other = os.open(namespace_path(name_of(cable.right.node)), os.O_RDONLY | os.O_CLOEXEC)

    def make_pair() -> None:
        with IPRoute() as kernel:
            kernel.link(
                "add",
                ifname=cable.left.interface,
                kind="veth",
                peer={"ifname": cable.right.interface, "net_ns_fd": other},
            )

    try:
        refuse_machines_own(name_of(cable.right.node))
        inside(name_of(cable.left.node), make_pair)
    finally:
        os.close(other)
    for end in (cable.left, cable.right):
        inside(name_of(end.node), lambda end=end: _connect(topology, end))  # type: ignore[misc]


def _connect(topology: Topology, end: End) -> None:
    with IPRoute() as kernel:
        for interface in ("lo", end.interface):
            kernel.link("set", index=kernel.link_lookup(ifname=interface)[0], state="up")
        index = kernel.link_lookup(ifname=end.interface)[0]
        if end.addresses is None:
            return
        for family in Family:
            length = _prefix_length(topology, end, family)
            kernel.addr("add", index=index, address=end.addresses.of(family), prefixlen=length)


def _make_bridge() -> None:
    """Between the two ports of the namespace that we are in; as quiet as a piece of cable."""
    with IPRoute() as kernel:
        kernel.link("add", ifname=BRIDGE, kind="bridge", br_stp_state=0, br_forward_delay=0)
        bridge = kernel.link_lookup(ifname=BRIDGE)[0]
        for port in (INSIDE, OUTSIDE):
            kernel.link("set", index=kernel.link_lookup(ifname=port)[0], master=bridge)
        kernel.link("set", index=bridge, state="up")


def _prefix_length(topology: Topology, end: End, family: Family) -> int:
    if not end.whole_network:
        return family.host_bits
    network = next(
        network
        for node in topology.nodes.values()
        for network, addresses in node.addresses.items()
        if addresses == end.addresses
    )
    return int(topology.networks[network].of(family).rpartition("/")[2])


def _add_routes(own: list[Route]) -> None:
    with IPRoute() as kernel:
        for route in own:
            family = socket.AF_INET if route.family is Family.V4 else socket.AF_INET6
            index = kernel.link_lookup(ifname=route.interface)[0]
            fields: dict[str, object] = {"family": family, "dst": route.to, "oif": index}
            if route.via is not None:
                fields["gateway"] = route.via
            elif route.family is Family.V4:
                # Only what is on the link itself can be a next hop of the routes that follow.
                fields["scope"] = "link"
            kernel.route("add", **fields)
