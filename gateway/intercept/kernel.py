"""Puts a rule set into the kernel, looks whether it still stands, and takes it out again.

The only user of pyroute2 and of subprocess in this room; blocking, a few milliseconds a call. Must never
leave half of a rule set: each tool's input is one transaction, and the gate comes last and goes first.
Changes one sysctl, `tcp_early_demux`, and gives it back; strict rp_filter does not hurt us, and forwarding is
the router's own business.
Counterpart: `ruleset`, which spells everything.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from pathlib import Path
from typing import Any, Final, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from gateway.config import Config, Network
from gateway.errors import EnvironmentFailureError
from gateway.intercept import ruleset
from gateway.intercept.ruleset import LocalRoute, PolicyRule, RuleSet
from gateway.policy import limits

_T = TypeVar("_T")
_TOOL: Final = {4: "iptables", 6: "ip6tables"}
_AF: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_MAIN_TABLE: Final = 254  # <linux/rtnetlink.h>
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_REMOVE_NFT: Final = f"table inet {ruleset.NFT_TABLE}\ndelete table inet {ruleset.NFT_TABLE}\n"
_LIST_NFT: Final = ("nft", "-s", "-t", "list", "table", "inet", ruleset.NFT_TABLE)
_EARLY_DEMUX: Final = "net.ipv4.tcp_early_demux"
_DEMUX_NOTE: Final = "early-demux-was-on"
"""An empty chain in our nft table: so the kernel remembers what to give back, whatever process does it."""
_NOTE_NFT: Final = f"add chain inet {ruleset.NFT_TABLE} {_DEMUX_NOTE}\n"
_LINK_LOCAL: Final = IPv6Network("fe80::/10")
_MULTICAST: Final = IPv6Network("ff00::/8")


class KernelRules:
    """The rules of one configuration in this network namespace."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._wanted: RuleSet | None = None
        self._live: tuple[int, ...] = ()
        self._nft_listing: str | None = None
        self._seen_generation: int | None = None
        self._demux_was_on = False

    def apply(self, wanted: RuleSet, live_queues: Iterable[int]) -> None:
        """Make the kernel hold exactly `wanted`, whatever of ours stood there before.

        Raises EnvironmentFailureError. What others have put into the kernel is not touched.
        """
        self._wanted, self._live, self._seen_generation = wanted, tuple(live_queues), None
        with_routes(lambda ip: _put_routes(ip, wanted))
        note = _NOTE_NFT if self._turn_off_early_demux() else ""
        _run(["nft", "-f", "-"], wanted.nft + note)
        self._nft_listing = _nft_listing()
        for family in families():
            text = wanted.restore_text(family, self._live)
            _restore(family, ruleset.with_withdrawal(text, _save(family)))

    @property
    def standing(self) -> dict[str, str]:
        """For `adopt`, in another process."""
        wanted = self._wanted
        return {} if wanted is None else {"nft": wanted.nft, "listing": self._nft_listing or ""}

    def adopt(self, wanted: RuleSet, live_queues: Iterable[int], standing: dict[str, str]) -> bool:
        """Take over what the process before this one has put in, untouched; False if it is not `wanted`.

        `apply` would do as well, but a first packet can get lost while nft's table is replaced.
        """
        live = tuple(live_queues)
        listing = _nft_listing()
        if standing.get("nft") != wanted.nft or standing.get("listing") != listing:
            return False
        for family in families():
            expected = ruleset.expected_lines(wanted.restore_text(family, live))
            if ruleset.own_lines(_save(family)) != expected:
                return False
        if with_routes(lambda ip: _missing_routes(ip, wanted)):
            return False
        self._wanted, self._live, self._seen_generation = wanted, live, None
        self._nft_listing, self._demux_was_on = listing, _demux_note_stands()
        return True

    def swap_gate(self, live_queues: Iterable[int]) -> None:
        """Send SYNs to these queues from now on (to none: everything passes). One transaction a family."""
        self._live = tuple(live_queues)
        text = ruleset.render_gate(self._live)
        running = [(_TOOL[family], _start(_restore_command(family))) for family in families()]
        for tool, process in running:
            _finish(tool, process, text)

    def missing(self) -> list[str]:
        """What should stand and does not, in words for a log; empty if all is well.

        Cheap when nothing has changed since the last look: the kernel numbers its rule sets.
        """
        if self._wanted is None:
            return []
        gone = with_routes(lambda ip: _missing_routes(ip, self._wanted))
        generation = _generation()
        if generation is not None and generation == self._seen_generation:
            return gone
        tables = self._missing_tables(self._wanted)
        if not tables:
            self._seen_generation = generation
        return gone + tables

    def remove(self) -> None:
        """Take out everything that is ours, from whichever version or process it is."""
        self._wanted = None
        demux_was_on = self._demux_was_on or _demux_note_stands()
        for family in families():
            text = ruleset.removal_text(_save(family))
            if text:
                _restore(family, text)
        _run(["nft", "-f", "-"], _REMOVE_NFT)
        with_routes(lambda ip: _remove_routes(ip, self._config.table))
        self._demux_was_on = False
        if demux_was_on:
            _set_sysctl(_EARLY_DEMUX, "1")

    def _turn_off_early_demux(self) -> bool:
        """Whether it is ours to give back; both families have this one switch.

        With it the kernel looks for a socket of this box before it routes a packet, finds what a session has
        left in TIME_WAIT, and drops the packet instead of forwarding it: a client that uses its port again,
        within a minute and past a gateway that has died, would get no answer.
        """
        self._demux_was_on = self._demux_was_on or _demux_note_stands() or _sysctl(_EARLY_DEMUX) == "1"
        _set_sysctl(_EARLY_DEMUX, "0")
        return self._demux_was_on

    def _missing_tables(self, wanted: RuleSet) -> list[str]:
        missing: list[str] = []
        for family in families():
            present = ruleset.own_lines(_save(family))
            expected = ruleset.expected_lines(wanted.restore_text(family, self._live))
            missing += [f"{_TOOL[family]} {line}" for line in expected if line not in present]
        listing = _nft_listing()
        if listing is None:
            missing.append(f"nft table inet {ruleset.NFT_TABLE}")
        elif self._nft_listing is not None and listing != self._nft_listing:
            missing.append(f"nft table inet {ruleset.NFT_TABLE}: its rules differ from ours")
        return missing


def plan(config: Config, wanted: RuleSet, live_queues: Iterable[int]) -> list[str]:
    """What `apply` would change now, one line for each rule, route and routing rule; empty if nothing."""
    live = tuple(live_queues)
    lines: list[str] = []
    for family in families():
        present = ruleset.own_lines(_save(family))
        expected = ruleset.expected_lines(wanted.restore_text(family, live))
        lines += [f"remove  {_TOOL[family]} {line}" for line in present if line not in expected]
        lines += [f"add     {_TOOL[family]} {line}" for line in expected if line not in present]
    if _nft_listing() is None:
        lines += [f"add     nft {line.strip()}" for line in wanted.nft.splitlines()[2:] if line.strip()]
    lines += [f"add     {line}" for line in with_routes(lambda ip: _missing_routes(ip, wanted))]
    return lines


def inside_networks(config: Config) -> tuple[Network, ...]:
    """Whose mail servers are inside: as configured, or else all that the routes say lies there.

    Connected and static routes of the main table over the inside interfaces, a default route excepted.
    """
    if config.inside_networks:
        return config.inside_networks
    return with_routes(lambda ip: _routed_networks(ip, config.inside))


def gate_counts() -> dict[str, int]:
    """SYNs that reached the gate, by interface, both families; starts anew when the rules are applied."""
    return _summed("raw", ruleset.gate_counts)


def passed_counts() -> dict[str, int]:
    """SYNs that went on behind the gate unmarked; the kernel counts on while no daemon runs."""
    return _summed("mangle", ruleset.passed_counts)


def reset_was_odd(server: str, client: str) -> bool | None:
    """Whether a reset that reached `client` lately in the name of `server` had a TTL with which that does not
    begin its connections. None: there was none, or the kernel does not tell."""
    if _succeeds(ruleset.reset_query("odd", server, client)):
        return True
    return False if _succeeds(ruleset.reset_query("plain", server, client)) else None


def _succeeds(command: list[str]) -> bool:
    process = _start(command)
    process.communicate(timeout=limits.TOOL_SECONDS)
    return process.returncode == 0


def _summed(table: str, read: Callable[[str], dict[str, int]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for family in families():
        dump = _run([f"{_TOOL[family]}-save", "-c", "-t", table])
        for interface, count in read(dump).items():
            counts[interface] = counts.get(interface, 0) + count
    return counts


def require_interfaces(config: Config) -> None:
    """Raises EnvironmentFailureError for the first interface of the configuration that does not exist."""
    names = {name for _, name in socket.if_nameindex()}
    for key, wanted in (("inside", config.inside), ("outside", config.outside)):
        for name in wanted:
            if name not in names:
                known = ", ".join(sorted(names - {ruleset.LOOPBACK}))
                raise EnvironmentFailureError(f"{key}: no interface {name!r}; there are {known}")


def remarks() -> list[str]:
    """What in this kernel's settings keeps mail from flowing, as lines for the operator; we change none."""
    lines: list[str] = []
    for family, name in ((4, "net.ipv4.ip_forward"), (6, "net.ipv6.conf.all.forwarding")):
        if family in families() and _sysctl(name) != "1":
            lines.append(f"{name} is not 1: this box does not route IPv{family}, so no mail comes by")
    return lines


def families() -> tuple[int, ...]:
    """The families this kernel speaks."""
    return ruleset.FAMILIES if Path("/proc/sys/net/ipv6").is_dir() else ruleset.FAMILIES[:1]


# --- Routes and routing rules ------------------------------------------------------------------------


def with_routes(ask: Callable[[Any], _T]) -> _T:
    """Call `ask` with an IPRoute, in a thread of its own: pyroute2 runs an event loop, and so may we."""

    def asked() -> _T:
        with IPRoute() as ip:
            return ask(ip)

    with ThreadPoolExecutor(max_workers=1) as thread:
        try:
            return thread.submit(asked).result()
        except NetlinkError as error:
            raise EnvironmentFailureError(f"routes: {_why(error.code)}") from error


def _put_routes(ip: Any, wanted: RuleSet) -> None:
    loopback = ip.link_lookup(ifname=ruleset.LOOPBACK)[0]
    if ip.get_links(loopback)[0]["state"] != "up":
        raise EnvironmentFailureError("interface lo is down: nothing can be delivered here")
    here = families()
    for route in wanted.routes:
        if route.family in here:
            ip.route("replace", **_route_words(route, loopback))
    present = _policy_rules(ip)
    for rule in set(present) - set(wanted.policy_rules):
        if rule.table in {route.table for route in wanted.routes}:
            ip.rule("del", **_rule_words(rule))
    for rule in wanted.policy_rules:
        if rule.family in here and rule not in present:
            ip.rule("add", **_rule_words(rule))


def _missing_routes(ip: Any, wanted: RuleSet | None) -> list[str]:
    if wanted is None:
        return []
    here = families()
    missing: list[str] = []
    present = _policy_rules(ip)
    for rule in wanted.policy_rules:
        if rule.family in here and rule not in present:
            missing.append(
                f"ip -{rule.family} rule pref {rule.priority} iif {rule.interface} "
                f"fwmark {rule.mark:#x}/{rule.mark:#x} lookup {rule.table}"
            )
    for route in wanted.routes:
        if route.family in here and not _has_route(ip, route):
            missing.append(f"ip -{route.family} route local default dev lo table {route.table}")
    return missing


def _remove_routes(ip: Any, table: int) -> None:
    loopback = ip.link_lookup(ifname=ruleset.LOOPBACK)[0]
    for rule in _policy_rules(ip):
        if rule.table == table:
            ip.rule("del", **_rule_words(rule))
    for family in families():
        route = LocalRoute(family, table)
        if _has_route(ip, route):
            ip.route("del", **_route_words(route, loopback))


def _policy_rules(ip: Any) -> list[PolicyRule]:
    """Routing rules that have our shape: our priority, an interface, one mark bit."""
    found: list[PolicyRule] = []
    for family in families():
        for rule in ip.get_rules(family=_AF[family]):
            mark, interface = rule.get_attr("FRA_FWMARK"), rule.get_attr("FRA_IIFNAME")
            if rule.get_attr("FRA_PRIORITY") != ruleset.RULE_PRIORITY or not interface or not mark:
                continue
            if rule.get_attr("FRA_FWMASK") == mark:
                found.append(PolicyRule(family, interface, mark, rule.get_attr("FRA_TABLE")))
    return found


def _has_route(ip: Any, route: LocalRoute) -> bool:
    return any(
        found["type"] == _RTN_LOCAL and found["dst_len"] == 0
        for found in ip.get_routes(family=_AF[route.family], table=route.table)
    )


def _rule_words(rule: PolicyRule) -> dict[str, Any]:
    return {
        "family": _AF[rule.family],
        "priority": rule.priority,
        "iifname": rule.interface,
        "fwmark": rule.mark,
        "fwmask": rule.mark,
        "table": rule.table,
    }


def _route_words(route: LocalRoute, loopback: int) -> dict[str, Any]:
    return {
        "family": _AF[route.family],
        "dst": "0.0.0.0/0" if route.family == 4 else "::/0",
        "type": "local",
        "scope": "host" if route.family == 4 else "universe",
        "oif": loopback,
        "table": route.table,
    }


def _routed_networks(ip: Any, interfaces: Iterable[str]) -> tuple[Network, ...]:
    indexes = {index for name in interfaces for index in ip.link_lookup(ifname=name)}
    networks: list[Network] = []
    for family in families():
        of_family: list[Any] = []
        for route in ip.get_routes(family=_AF[family], table=_MAIN_TABLE):
            if route["type"] != _RTN_UNICAST or not route["dst_len"]:
                continue
            if indexes & _outgoing(route):
                of_family.append(ip_network(f"{route.get_attr('RTA_DST')}/{route['dst_len']}"))
        networks += collapse_addresses(net for net in of_family if not _is_special(net))
    return tuple(networks)


def _outgoing(route: Any) -> set[int]:
    hops = route.get_attr("RTA_MULTIPATH") or []
    return {route.get_attr("RTA_OIF"), *(hop["oif"] for hop in hops)}


def _is_special(network: Network) -> bool:
    """Link-local and multicast: no mail is routed there."""
    if isinstance(network, IPv4Network):
        return False
    return network.subnet_of(_LINK_LOCAL) or network.subnet_of(_MULTICAST)


# --- Tools -------------------------------------------------------------------------------------------


def _save(family: int) -> str:
    return _run([f"{_TOOL[family]}-save"])


def _restore_command(family: int) -> list[str]:
    return [f"{_TOOL[family]}-restore", "--noflush", "-w", str(limits.RULES_LOCK_SECONDS)]


def _restore(family: int, text: str) -> None:
    _run(_restore_command(family), text)


def _nft_listing() -> str | None:
    """Our nft table without the contents of its sets; None if it is not there."""
    process = _start(list(_LIST_NFT))
    out, _ = process.communicate(timeout=limits.TOOL_SECONDS)
    return out if process.returncode == 0 else None


def _run(command: list[str], text: str = "") -> str:
    return _finish(command[0], _start(command), text)


def _start(command: list[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except FileNotFoundError as error:
        raise EnvironmentFailureError(f"{command[0]} is not installed") from error


def _finish(tool: str, process: subprocess.Popen[str], text: str) -> str:
    try:
        out, complaint = process.communicate(text, timeout=limits.TOOL_SECONDS)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.communicate()
        raise EnvironmentFailureError(f"{tool} has not ended after {limits.TOOL_SECONDS} s") from error
    if process.returncode != 0:
        raise EnvironmentFailureError(f"{tool}: {_first_line(complaint)}")
    return out


def _first_line(complaint: str) -> str:
    if os.geteuid() != 0 and ("ermission denied" in complaint or "not permitted" in complaint):
        return _why(errno.EPERM)
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    return lines[0] if lines else "failed without a word"


def _why(code: int) -> str:
    if code in (errno.EPERM, errno.EACCES):
        return "not permitted: run as root, or give the service CAP_NET_ADMIN"
    return os.strerror(code)


def _demux_note_stands() -> bool:
    return f"chain {_DEMUX_NOTE} " in (_nft_listing() or "")


def _set_sysctl(name: str, value: str) -> None:
    """Where that is not allowed it stays as it is: mail flows, but for the one case that it is about."""
    with contextlib.suppress(OSError):
        Path("/proc/sys", *name.split(".")).write_text(value)


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return ""


# --- The number of the kernel's rule set --------------------------------------------------------------

_NETLINK_NETFILTER: Final = 12
_NFT_MSG_GETGEN: Final = 10 << 8 | 16  # subsystem NFNL_SUBSYS_NFTABLES
_NFT_MSG_NEWGEN: Final = 10 << 8 | 15
_NFTA_GEN_ID: Final = 1
_NLMSG: Final = struct.Struct("=IHHII")
_NFGENMSG_OCTETS: Final = 4
_ANSWER_OCTETS: Final = 4096


def _generation() -> int | None:
    """Changes with every change of any nftables rule (iptables-nft included); None where it says nothing."""
    if _is_legacy():
        return None
    request = _NLMSG.pack(_NLMSG.size + _NFGENMSG_OCTETS, _NFT_MSG_GETGEN, 1, 1, 0) + bytes(_NFGENMSG_OCTETS)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as ask:
            ask.settimeout(limits.TOOL_SECONDS)
            ask.sendto(request, (0, 0))
            answer = ask.recv(_ANSWER_OCTETS)
    except OSError:
        return None
    if len(answer) < _NLMSG.size or _NLMSG.unpack_from(answer)[1] != _NFT_MSG_NEWGEN:
        return None
    return _attribute_u32(answer[_NLMSG.size + _NFGENMSG_OCTETS :], _NFTA_GEN_ID)


def _attribute_u32(attributes: bytes, wanted: int) -> int | None:
    while len(attributes) >= 8:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind == wanted and length == 8:
            return int.from_bytes(attributes[4:8])
        attributes = attributes[max(4, (length + 3) & ~3) :]
    return None


def _is_legacy() -> bool:
    """Old iptables keeps its rules outside nftables, whose number then says nothing about them."""
    # thread-self: /proc/net is the network namespace of the process, not of the thread that asks.
    names = [Path("/proc/thread-self/net", name) for name in ("ip_tables_names", "ip6_tables_names")]
    return any(path.exists() and path.read_text().strip() for path in names)
