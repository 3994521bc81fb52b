"""A client inside and a server outside that are none of the site's: two network namespaces of our own.

Each is tied to this machine by a cable (veth) whose near end hands what it gets to one of our interfaces,
as if it had come in there (tc mirred): so the real rules judge it, and the site's network sees none of it.
Addresses are of the blocks for benchmarks (RFC 2544, RFC 5180), routed by tables and routing rules of our
own. The namespaces have no name and live in a thread: when this process dies, they are gone, cables and
routes with them. Counterpart: `trial`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gateway.config import Config, Placement
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel
from gateway.intercept.marks import MarkBits
from gateway.intercept.objects import LOOPBACK, RULE_PRIORITY

_T = TypeVar("_T")
_CLONE_NEWNET: Final = 0x40000000
CLIENT: Final = {4: "198.18.25.1", 6: "2001:2:0:25::1"}
_WHOLE: Final = {4: 32, 6: 128}
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_CABLES: Final = ("nm-doctor-in", "nm-doctor-out")
_FAR_END: Final = "eth"
_NAME: Final = "\0nightmail-doctor"
_TO_CABLE, _TO_SIDE = 25_250_001, 25_250_002
"""Our two tables: by the cable; and by the site's interface, for whoever asks where a packet must have come
from.
"""
_PRIORITIES: Final = (RULE_PRIORITY + 1, RULE_PRIORITY + 2, RULE_PRIORITY + 3)
_BY_MARK, _BY_INTERFACE, _BY_NOTHING_ELSE = _PRIORITIES
_RULES_AT_MOST, _ROUNDS = 100, 10
"""Of one kind that doctors who were killed have left; and how often their routes are looked for."""
_INGRESS: Final = 0xFFFF0000
_ALL_PROTOCOLS: Final = {4: 0x0800, 6: 0x86DD}  # <linux/if_ether.h>
_NUD_PERMANENT: Final = 0x80
_IFA_F_NODAD: Final = 0x02  # <linux/if_addr.h>


class Space:
    """A network namespace without a name: it is there as long as its thread, or a socket of it."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="doctor")
        self._thread.submit(_unshare).result()

    def run(self, work: Callable[[], _T]) -> _T:
        return self._thread.submit(work).result()

    def descriptor(self) -> int:
        return self.run(lambda: os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        self._thread.shutdown()


class Here:
    """This very machine, in the place of such a namespace."""

    def run(self, work: Callable[[], _T]) -> _T:
        return work()


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        why = os.strerror(ctypes.get_errno())
        raise EnvironmentFailureError(f"no network namespace can be made: {why}")


@dataclass(frozen=True, slots=True)
class Stand:
    """`client` and `server` are where sockets of the trial are made."""

    client: Space | Here
    server: Space
    server_at: Mapping[int, str]
    """Its address by family: another one each time, since a server that never offers anything becomes a dead
    end (docs/configuration.md), which the gate lets pass."""


@contextlib.contextmanager
def standing(config: Config, families: tuple[int, ...]) -> Iterator[Stand]:
    """Built, and taken away whatever happens. Raises EnvironmentFailureError."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_alone())
        client: Space | Here = Here()
        there = _drawn(families)
        try:
            server = Space()
            stack.callback(server.close)
            if config.placement is not Placement.HOST:
                client = Space()
                stack.callback(client.close)
            # Before the spaces go: the kernel takes their cables away at a moment of its own.
            stack.callback(kernel.with_routes, _removed)
            kernel.with_routes(_removed)
            if isinstance(client, Here):
                _lay(server, _CABLES[1], "", (there, CLIENT), families)
                kernel.with_routes(lambda ip: _settle(ip, there))
            else:
                _lay(client, _CABLES[0], config.inside[0], (CLIENT, there), families)
                _lay(server, _CABLES[1], config.outside[0], (there, CLIENT), families)
                kernel.with_routes(lambda ip: _route(ip, config, there))
        except (OSError, NetlinkError) as error:
            raise EnvironmentFailureError(f"its cables cannot be laid: {error}") from None
        yield Stand(client, server, there)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Cables and routes have their names once in a network namespace, as has an abstract socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as name:
        try:
            name.bind(_NAME)
        except OSError:
            raise EnvironmentFailureError(
                "another doctor is at one here; ask again when it has ended"
            ) from None
        yield


def _drawn(families: tuple[int, ...]) -> dict[int, str]:
    number = 1 + secrets.randbelow(0xFFFE)
    addresses = {4: f"198.19.{number >> 8}.{number & 0xFF}", 6: f"2001:2:0:26::{number:x}"}
    return {version: addresses[version] for version in families}


def _lay(
    space: Space,
    cable: str,
    side: str,
    ends: tuple[Mapping[int, str], Mapping[int, str]],
    families: tuple[int, ...],
) -> None:
    """`ends`: the address that lives in the space, and the one that it speaks to. `side`: see `_near_end`."""
    far = space.descriptor()
    try:
        near_mac = kernel.with_routes(lambda ip: _near_end(ip, cable, side, far, families))
    finally:
        os.close(far)
    far_mac = space.run(lambda: _far_end(near_mac, ends, families))
    kernel.with_routes(lambda ip: _known(ip, cable, ends[0], far_mac, families))


def _near_end(ip: Any, cable: str, side: str, far: int, families: tuple[int, ...]) -> str:
    """`side` gets what comes in by the cable; if it is empty, the cable's own end does."""
    ip.link("add", ifname=cable, kind="veth", peer={"ifname": _FAR_END, "net_ns_fd": far})
    index = ip.link_lookup(ifname=cable)[0]
    ip.link("set", index=index, state="up")
    if side:
        _hand_on(ip, index, ip.link_lookup(ifname=side)[0], families)
    return _mac(ip, index)


def _hand_on(ip: Any, index: int, to: int, families: tuple[int, ...]) -> None:
    ip.tc("add", "ingress", index)
    for version in families:
        ip.tc(
            "add-filter",
            "u32",
            index,
            parent=_INGRESS,
            prio=version,
            protocol=_ALL_PROTOCOLS[version],
            target=0x10000,
            keys=["0x0/0x0+0"],
            action={"kind": "mirred", "direction": "ingress", "action": "redirect", "ifindex": to},
        )


def _far_end(
    near_mac: str, ends: tuple[Mapping[int, str], Mapping[int, str]], families: tuple[int, ...]
) -> str:
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=_FAR_END)[0]
        for one in (ip.link_lookup(ifname=LOOPBACK)[0], index):
            ip.link("set", index=one, state="up")
        for version in families:
            _give_address(ip, index, version, ends[0][version])
        mac = _mac(ip, index)
    with IPRoute() as ip:
        for version in families:
            there = f"{ends[1][version]}/{_WHOLE[version]}"
            ip.route("add", family=_FAMILIES[version], dst=there, oif=index, **_on_link(version))
        _known(ip, _FAR_END, ends[1], near_mac, families)
    return mac


def _known(
    ip: Any, interface: str, addresses: Mapping[int, str], mac: str, families: tuple[int, ...]
) -> None:
    """Nobody on these cables is asked for addresses."""
    for version in families:
        ip.neigh(
            "replace",
            family=_FAMILIES[version],
            dst=addresses[version],
            lladdr=mac,
            ifindex=ip.link_lookup(ifname=interface)[0],
            state=_NUD_PERMANENT,
        )


def _mac(ip: Any, index: int) -> str:
    return str(ip.get_links(index)[0].get_attr("IFLA_ADDRESS"))


def _on_link(version: int) -> dict[str, str]:
    return {"scope": "link"} if version == 4 else {}


# --- Routes ------------------------------------------------------------------------------------------


def _route(ip: Any, config: Config, server: Mapping[int, str]) -> None:
    """To each end by its cable, for what our sockets send and for what only passes through.

    Whoever asks where a packet of theirs should have come from (rp_filter, `fib`) hears: from the side.
    """
    bits = MarkBits(config.marks.mask)
    sides = (config.inside[0], config.outside[0])
    sockets = (bits.accepted, bits.dialled)
    for ends, cable, side, other, mark in zip(
        (CLIENT, server), _CABLES, sides, reversed(sides), sockets, strict=True
    ):
        for version in server:
            family, to = _FAMILIES[version], f"{ends[version]}/{_WHOLE[version]}"
            for table, interface in ((_TO_CABLE, cable), (_TO_SIDE, side)):
                index = ip.link_lookup(ifname=interface)[0]
                ip.route("add", family=family, dst=to, oif=index, table=table, **_on_link(version))
            where = {"family": family, "dst": ends[version], "dst_len": _WHOLE[version]}
            ip.rule("add", priority=_BY_MARK, fwmark=mark, fwmask=mark, table=_TO_CABLE, **where)
            ip.rule("add", priority=_BY_INTERFACE, iifname=other, table=_TO_CABLE, **where)
            ip.rule("add", priority=_BY_NOTHING_ELSE, table=_TO_SIDE, **where)


def _settle(ip: Any, server: Mapping[int, str]) -> None:
    """The client is this machine: an address on the cable, and the way to the server by it."""
    index = ip.link_lookup(ifname=_CABLES[1])[0]
    for version, there in server.items():
        family, length = _FAMILIES[version], _WHOLE[version]
        _give_address(ip, index, version, CLIENT[version])
        to = f"{there}/{length}"
        ip.route("add", family=family, dst=to, oif=index, table=_TO_CABLE, **_on_link(version))
        where = {"family": family, "dst": there, "dst_len": length}
        ip.rule("add", priority=_BY_MARK, table=_TO_CABLE, **where)


def _give_address(ip: Any, index: int, version: int, address: str) -> None:
    """Works at once: nobody else is on this cable who could have the same one."""
    flags = {"flags": _IFA_F_NODAD} if version == 6 else {}
    ip.addr("add", index=index, address=address, prefixlen=_WHOLE[version], **flags)


# --- Away again --------------------------------------------------------------------------------------


def _removed(ip: Any) -> None:
    """All of ours, also what a doctor who was killed has left: its cables may vanish at this very moment.

    Rules first, which lead others' packets. Raises NetlinkError, or EnvironmentFailureError for what stays.
    """
    families = [_FAMILIES[version] for version in kernel.families()]
    for family in families:
        for priority in _PRIORITIES:
            _without_rules(ip, family, priority)
    for cable in _CABLES:
        for index in ip.link_lookup(ifname=cable):
            _is_gone(ip.link, "del", index=index)
    for family in families:
        for table in (_TO_CABLE, _TO_SIDE):
            _without_routes(ip, family, table)


def _without_rules(ip: Any, family: int, priority: int) -> None:
    """Taken out unseen, until the kernel says that there is none: a list may be out of date, or lack some."""
    for table in (_TO_CABLE, _TO_SIDE):
        for _ in range(_RULES_AT_MOST):
            if _is_gone(ip.rule, "del", family=family, priority=priority, table=table):
                break
        else:
            raise EnvironmentFailureError(f"its routing rules of priority {priority} stay")


def _without_routes(ip: Any, family: int, table: int) -> None:
    """Again where one goes meanwhile, with its interface: those behind it are not asked for then."""
    for _ in range(_ROUNDS):
        if not ip.get_routes(family=family, table=table):
            return
        _is_gone(ip.flush_routes, family=family, table=table)
    raise EnvironmentFailureError(f"its routes of table {table} stay")


def _is_gone(delete: Callable[..., Any], *words: str, **which: Any) -> bool:
    """Whether it was gone before, whoever did that."""
    try:
        delete(*words, **which)
    except NetlinkError as error:
        if error.code not in (errno.ENODEV, errno.ENOENT, errno.ESRCH):
            raise
        return True
    return False
