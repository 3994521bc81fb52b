"""Routing rules and routes: what is marked as ours is looked up in a table of our own, and delivered here."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from pathlib import Path
from typing import Any, Final, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink import NETLINK_GET_STRICT_CHK, SOL_NETLINK
from pyroute2.netlink.exceptions import NetlinkError

from gateway.config import Network
from gateway.errors import EnvironmentFailureError
from gateway.intercept.kernel.commands import why
from gateway.intercept.kernel.news import heard_of
from gateway.intercept.objects import (
    FAMILIES,
    LAST_RESORT_PRIORITY,
    LOOPBACK,
    RULE_PRIORITY,
    InterfaceRoute,
    KernelObject,
    LocalRoute,
    PolicyRule,
)
from gateway.policy import limits

_T = TypeVar("_T")
_Route = LocalRoute | InterfaceRoute
_AF: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_MAIN_TABLE: Final = 254  # <linux/rtnetlink.h>
_RULE_GROUPS: Final = 1 << 7 | 1 << 18  # RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, <linux/rtnetlink.h>
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_RTPROT_KERNEL: Final = 2  # <linux/rtnetlink.h>
_LEFT_ALONE: Final = _RTPROT_KERNEL
"""systemd-networkd takes out routing rules that it does not know when it starts, but none of the kernel's."""
_BY_HAND: Final = (_RTPROT_KERNEL, 3, 4)  # RTPROT_BOOT, RTPROT_STATIC
"""Routes that somebody has meant, and those to who is on the cable: few, where others come by the million."""
_IPV6: Final = Path("/proc/sys/net/ipv6")
_LINK_LOCAL: Final = IPv6Network("fe80::/10")
_MULTICAST: Final = IPv6Network("ff00::/8")


class Routing:
    """Of these tables. Routing rules are ours by our priorities, their shape and that table."""

    of: tuple[type[KernelObject], ...] = (PolicyRule, LocalRoute, InterfaceRoute)
    numbered = False

    def __init__(self, tables: Iterable[int]) -> None:
        self._tables = tuple(tables)

    def missing(self, wanted: Sequence[PolicyRule | _Route]) -> list[str]:
        return with_routes(lambda ip: _missing(ip, wanted))

    def surplus(self, wanted: Sequence[PolicyRule | _Route]) -> list[str]:
        rules = with_routes(_policy_rules)
        return [_words_of(rule) for rule in rules if rule.table in self._tables and rule not in wanted]

    def put(self, wanted: Sequence[PolicyRule | _Route]) -> None:
        with_routes(lambda ip: self._put(ip, wanted))

    def mend(self, wanted: Sequence[PolicyRule | _Route]) -> list[str]:
        gone = self.missing(wanted)
        if gone:
            self.put(wanted)
        return gone

    def take_away(self) -> None:
        with_routes(self._take_away)

    def _put(self, ip: Any, wanted: Sequence[PolicyRule | _Route]) -> None:
        loopback = ip.link_lookup(ifname=LOOPBACK)[0]
        if ip.get_links(loopback)[0]["state"] != "up":
            raise EnvironmentFailureError("interface lo is down: nothing can be delivered here")
        here = families()
        for route in wanted:
            if not isinstance(route, PolicyRule) and route.family in here:
                ip.route("replace", **_route_words(ip, route))
        present = _policy_rules(ip)
        for rule in present:
            if rule.table in self._tables and rule not in wanted:
                ip.rule("del", **_rule_words(rule))
        for each in wanted:
            if isinstance(each, PolicyRule) and each.family in here and each not in present:
                ip.rule("add", **_rule_words(each), protocol=_LEFT_ALONE)

    def _take_away(self, ip: Any) -> None:
        for rule in _policy_rules(ip):
            if rule.table in self._tables:
                _delete(ip.rule, _rule_words(rule))
        for family in spoken():
            for table in self._tables:
                for route in _routes(ip, family, table):
                    _delete(ip.route, _route_words(ip, route))


def _delete(ask: Callable[..., Any], words: dict[str, Any]) -> None:
    """One that is gone already is as wanted: the daemon and `nightmail down` may do it at the same moment."""
    try:
        ask("del", **words)
    except NetlinkError as error:
        if error.code not in (errno.ENOENT, errno.ESRCH):
            raise


def spoken() -> tuple[int, ...]:
    """The families this kernel speaks: of them there may be something of ours."""
    return FAMILIES if _IPV6.is_dir() else FAMILIES[:1]


def families() -> tuple[int, ...]:
    """Those of them that can be delivered here. Who has IPv6 off for all interfaces has it off on lo as well,
    and then no route by lo is to be had, without which nothing else may stand."""
    return spoken() if not is_off_on_loopback() else FAMILIES[:1]


def is_off_on_loopback() -> bool:
    """IPv6 is switched off there, which this kernel speaks."""
    try:
        return (_IPV6 / f"conf/{LOOPBACK}/disable_ipv6").read_text().strip() == "1"
    except OSError:
        return False


def with_routes(ask: Callable[[Any], _T]) -> _T:
    """Call `ask` with an IPRoute: the one that this thread keeps, or one in a thread of its own, for pyroute2
    runs an event loop, and so may we."""

    def asked() -> _T:
        with IPRoute() as ip:
            return ask(ip)

    try:
        kept: _Kept | None = getattr(_here, "kept", None)
        if kept is not None:
            return kept.asked(ask)
        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(asked).result()
    except (NetlinkError, OSError) as error:
        code = error.code if isinstance(error, NetlinkError) else error.errno or 0
        raise EnvironmentFailureError(f"routes: {why(code)}") from error


def keep_open() -> None:
    """This thread asks by one IPRoute from now on, in its network namespace of now. No event loop runs in it.

    For who looks again and again: each IPRoute makes a loop, sockets and thousands of objects in cycles, and
    that twice a second made the daemon grow.
    """
    _here.kept = _Kept()


def let_go() -> None:
    """The same thread needs it no more."""
    kept: _Kept | None = _here.__dict__.pop("kept", None)
    if kept is not None:
        kept.close()


class _Kept:
    """One thread's IPRoute. What has failed leaves nothing behind: the next question finds a new one."""

    def __init__(self) -> None:
        self._ip: Any = None

    def asked(self, ask: Callable[[Any], _T]) -> _T:
        if self._ip is None:
            self._ip = IPRoute()
        try:
            answer = ask(self._ip)
            _drop_unread(self._ip)
        except BaseException:
            self.close()
            raise
        return answer

    def close(self) -> None:
        ip, self._ip = self._ip, None
        if ip is not None:
            ip.close()


def _drop_unread(ip: Any) -> None:
    """What came behind an answer: of one link, say, the kernel tells, and then that this was all. pyroute2
    lays the second where nobody reads, and there it waits for as long as `ip` lives."""
    unread = ip.asyncore.msg_queue.root
    while not unread.empty():
        unread.get_nowait()


@contextlib.contextmanager
def strictly(ip: Any) -> Iterator[None]:
    """Within, the kernel tells what it is asked for alone, and not all that it has of the kind. It is asked
    twice a second, in the thread that switches the gate."""
    ip.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
    try:
        yield
    finally:
        # Most of what pyroute2 asks was not written for it.
        ip.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 0)


_here = threading.local()


def changes() -> socket.socket:
    """Readable when a routing rule of either family changes in this network namespace; see `nft.changes`.

    Not when a route does: some routers have thousands of those a second.
    """
    return heard_of(socket.NETLINK_ROUTE, _RULE_GROUPS)


def other_route(wanted: _Route) -> str:
    """One that is not ours in the table that this one is to stand in, in words; empty if there is none."""
    return with_routes(lambda ip: _other_route(ip, wanted))


def networks_behind(interfaces: Iterable[str], others: Iterable[str]) -> tuple[Network, ...]:
    """All that the routes say lies behind these: of the main table, a default route excepted, and what a
    narrower route leads by one of the `others`."""
    return with_routes(lambda ip: _routed_networks(ip, interfaces, others))


def own_addresses() -> tuple[Network, ...]:
    """Every address of this machine by which others could reach it."""
    return with_routes(_own_addresses)


def interface_to(address: str, mark: int = 0) -> str:
    """By which interface a packet of this machine with this mark leaves for there: lo, if it stays here; "",
    if there is no way, or it is another one for some senders."""
    return with_routes(lambda ip: _interface_to(ip, address, mark))


def _missing(ip: Any, wanted: Sequence[PolicyRule | _Route]) -> list[str]:
    here = families()
    present = _policy_rules(ip)
    missing: list[str] = []
    for each in wanted:
        if each.family not in here:
            continue
        if isinstance(each, PolicyRule):
            if each not in present:
                missing.append(_words_of(each))
        elif each not in _routes(ip, each.family, each.table):
            kind, device = ("local ", LOOPBACK) if isinstance(each, LocalRoute) else ("", each.interface)
            missing.append(f"ip -{each.family} route {kind}default dev {device} table {each.table}")
    return missing


def _words_of(rule: PolicyRule) -> str:
    marked = f"fwmark {rule.mark:#x}/{rule.mark:#x} " if rule.mark else ""
    return f"ip -{rule.family} rule pref {rule.priority} iif {rule.interface} {marked}lookup {rule.table}"


def _policy_rules(ip: Any) -> list[PolicyRule]:
    """Routing rules that have our shape: an interface, and at our priorities one mark bit or none."""
    found: list[PolicyRule] = []
    for family in spoken():
        for rule in ip.get_rules(family=_AF[family]):
            mark, interface = rule.get_attr("FRA_FWMARK") or 0, rule.get_attr("FRA_IIFNAME")
            priority = rule.get_attr("FRA_PRIORITY")
            if not interface or priority != (RULE_PRIORITY if mark else LAST_RESORT_PRIORITY):
                continue
            if not mark or rule.get_attr("FRA_FWMASK") == mark:
                found.append(PolicyRule(family, interface, mark, rule.get_attr("FRA_TABLE"), priority))
    return found


def _routes(ip: Any, family: int, table: int) -> list[_Route]:
    """Default routes of one table that have the shape of ours."""
    shapes = (_shape(route, family, table) for route in _table(ip, family, table))
    return [shape for shape in shapes if shape is not None]


def _shape(route: Any, family: int, table: int) -> _Route | None:
    """Which of ours it is by its shape; None if it is somebody else's."""
    interface = _name(route.get_attr("RTA_OIF"))
    if route["dst_len"] != 0 or interface is None:
        return None
    if route["type"] == _RTN_LOCAL:
        return LocalRoute(family, table)
    if route["type"] == _RTN_UNICAST and route.get_attr("RTA_GATEWAY") is None:
        return InterfaceRoute(family, interface, table)
    return None


def _other_route(ip: Any, wanted: _Route) -> str:
    if wanted.family not in families():
        return ""
    for route in _table(ip, wanted.family, wanted.table):
        if type(_shape(route, wanted.family, wanted.table)) is not type(wanted):
            gateway, interface = route.get_attr("RTA_GATEWAY"), _name(route.get_attr("RTA_OIF"))
            to = f"{route.get_attr('RTA_DST')}/{route['dst_len']}" if route["dst_len"] else "default"
            return " ".join(
                [to, *(["via", gateway] if gateway else []), *(["dev", interface] if interface else [])]
            )
    return ""


def _name(index: int | None) -> str | None:
    """Of an interface of this thread's namespace. All of them may be a thousand, and take as long to read."""
    with contextlib.suppress(OSError):
        return None if index is None else socket.if_indextoname(index)
    return None


def _table(ip: Any, family: int, table: int, **wanted: int) -> list[Any]:
    """All routes of one table, or those of it by one interface (oif); in all there may be a million."""
    with strictly(ip):
        # By its own filter pyroute2 would leave the table out of the question.
        return list(ip.route("dump", dump_filter=None, family=_AF[family], table=table, **wanted))


def _rule_words(rule: PolicyRule) -> dict[str, Any]:
    words: dict[str, Any] = {
        "family": _AF[rule.family],
        "priority": rule.priority,
        "iifname": rule.interface,
        "table": rule.table,
    }
    return words | ({"fwmark": rule.mark, "fwmask": rule.mark} if rule.mark else {})


def _route_words(ip: Any, route: _Route) -> dict[str, Any]:
    local = isinstance(route, LocalRoute)
    interface = LOOPBACK if isinstance(route, LocalRoute) else route.interface
    scope = "host" if local else "link"
    return {
        "family": _AF[route.family],
        "dst": "0.0.0.0/0" if route.family == 4 else "::/0",
        "type": "local" if local else "unicast",
        "scope": scope if route.family == 4 else "universe",
        "oif": ip.link_lookup(ifname=interface)[0],
        "table": route.table,
    }


def _routed_networks(ip: Any, interfaces: Iterable[str], others: Iterable[str]) -> tuple[Network, ...]:
    indexes, outside = _indexes(ip, interfaces), _indexes(ip, others)
    networks: list[Network] = []
    for family in families():
        routes = [route for index in indexes for route in _table(ip, family, _MAIN_TABLE, oif=index)]
        of_family = _networks_of(routes)
        # A summary of the site's may hold what lies elsewhere: who comes from there is no forger.
        if any(route["proto"] != _RTPROT_KERNEL for route in routes):
            of_family = _without(of_family, _routed_by_hand(ip, family, outside - indexes))
        networks += collapse_addresses(of_family)
    return tuple(networks)


def _interface_to(ip: Any, address: str, mark: int) -> str:
    try:
        (route,) = ip.route("get", dst=address, mark=mark)
    except NetlinkError:
        return ""
    found = _name(route.get_attr("RTA_OIF")) or ""
    # With a source that is not this machine's own the kernel tells no way of what starts here.
    by_sender = any(rule["src_len"] for rule in ip.get_rules(family=route["family"]))
    return "" if by_sender and found != LOOPBACK else found


def _indexes(ip: Any, interfaces: Iterable[str]) -> set[int]:
    return {index for name in interfaces for index in ip.link_lookup(ifname=name)}


def _networks_of(routes: Iterable[Any]) -> list[Any]:
    found = (
        ip_network(f"{route.get_attr('RTA_DST')}/{route['dst_len']}")
        for route in routes
        if route["type"] == _RTN_UNICAST and route["dst_len"]
    )
    return [net for net in found if not _is_special(net)]


def _routed_by_hand(ip: Any, family: int, indexes: Iterable[int]) -> list[Any]:
    """The widest first."""
    routes = (
        route
        for index in indexes
        for origin in _BY_HAND
        for route in _table(ip, family, _MAIN_TABLE, oif=index, proto=origin)
    )
    return sorted(_networks_of(routes), key=lambda net: net.prefixlen)


def _without(networks: list[Any], narrower: Iterable[Any]) -> list[Any]:
    """As far as there is room for the pieces."""
    for other in narrower:
        pieces = [
            piece
            for net in networks
            for piece in (net.address_exclude(other) if net != other and other.subnet_of(net) else (net,))
        ]
        if len(pieces) > limits.INSIDE_NETWORKS:
            break
        networks = pieces
    return networks


def _is_special(network: Network) -> bool:
    """Link-local and multicast: no mail is routed there."""
    if isinstance(network, IPv4Network):
        return False
    return network.subnet_of(_LINK_LOCAL) or network.subnet_of(_MULTICAST)


def _own_addresses(ip: Any) -> tuple[Network, ...]:
    networks: list[Network] = []
    for family in families():
        for found in ip.get_addr(family=_AF[family]):
            address = found.get_attr("IFA_LOCAL") or found.get_attr("IFA_ADDRESS")
            network = ip_network(address)
            if not network.is_loopback and not _is_special(network):
                networks.append(network)
    return tuple(dict.fromkeys(networks))
