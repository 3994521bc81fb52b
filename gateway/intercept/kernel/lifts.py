"""The way out of a bridge and back: a veth pair, one end a port, and the bridge itself if there is none.

What was before us is noted in the alias of our interface, so that the kernel remembers it for as long as
the interface is there, whatever process takes it away. Must never touch a bridge or port that is not named
in the configuration: br_netfilter's own switches, which are for all bridges of the machine, stay.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyroute2.netlink.exceptions import NetlinkError

from gateway.errors import EnvironmentFailureError
from gateway.intercept.kernel import commands, iptables, made, sysctls, vlans
from gateway.intercept.kernel.routing import families, spoken, strictly, with_routes
from gateway.intercept.objects import FAMILIES, BridgeLift, KernelObject

_NOTE: Final = "nightmail:"
_BR_NETFILTER: Final = Path("/proc/sys/net/bridge")
_MISSING: Final = "br_netfilter is missing: this kernel cannot show bridged frames to iptables"
_CALLS: Final = {4: "nf_call_iptables", 6: "nf_call_ip6tables"}
_FOR_ALL: Final = {4: "net/bridge/bridge-nf-call-iptables", 6: "net/bridge/bridge-nf-call-ip6tables"}
_FOR_ALL_ARP: Final = "net/bridge/bridge-nf-call-arptables"
_PORT_FLAGS: Final = {"learning": 0, "unicast_flood": 0, "mcast_flood": 0, "bcast_flood": 0}
"""What is not for our own MAC has no business at our port; and a bridge that learned there, from frames in
the names of others, would believe them to be behind it."""
_PORT_MAC: Final = "fe:4e:4d:00:00:19"
"""As high as can be: a bridge takes the lowest of its ports' MACs for its own, and is not to change it."""
_IFF_UP, _IFF_NOARP = 0x1, 0x80  # <linux/if.h>
_NUD_NOARP, _NTF_MASTER = 0x40, 0x04  # <linux/neighbour.h>: a static entry, of the bridge
_ADDRESSES_NONE: Final = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", 1]]}]]}

Links = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Former:
    """What was before us. `called` are families whose frames on this bridge went through iptables by its own
    flag, `filtered` by whatever cause; `down` and `with_ipv6` are ports."""

    bridge: str
    made: bool
    called: tuple[int, ...]
    filtered: tuple[int, ...]
    down: tuple[str, ...] = ()
    with_ipv6: tuple[str, ...] = ()

    def note(self) -> str:
        words = {
            "bridge": self.bridge,
            "made": str(int(self.made)),
            "called": ",".join(map(str, self.called)),
            "filtered": ",".join(map(str, self.filtered)),
            "down": ",".join(self.down),
            "ipv6": ",".join(self.with_ipv6),
        }
        return " ".join([_NOTE, *(f"{key}={value}" for key, value in words.items())])

    @classmethod
    def read(cls, note: str) -> _Former:
        words = dict(word.partition("=")[::2] for word in note.split()[1:])

        def several(key: str) -> tuple[str, ...]:
            return tuple(filter(None, words.get(key, "").split(",")))

        return cls(
            bridge=words.get("bridge", ""),
            made=words.get("made") == "1",
            called=tuple(map(int, several("called"))),
            filtered=tuple(map(int, several("filtered"))),
            down=several("down"),
            with_ipv6=several("ipv6"),
        )


class Lifts:
    """Ours by the alias of the interface."""

    of: tuple[type[KernelObject], ...] = (BridgeLift,)
    numbered = False

    def missing(self, wanted: Sequence[BridgeLift]) -> list[str]:
        """Raises EnvironmentFailureError also where `put` would, before it changes anything."""
        return with_routes(lambda ip: [line for lift in wanted for line in _missing(ip, lift)])

    def surplus(self, wanted: Sequence[BridgeLift]) -> list[str]:
        names = {lift.interface for lift in wanted}
        ours = with_routes(lambda ip: [name for name, link in _links(ip).items() if _is_ours(link)])
        return [f"ip link del {name}" for name in ours if name not in names]

    def put(self, wanted: Sequence[BridgeLift]) -> None:
        if not wanted:
            self.take_away()
        for lift in wanted:
            with_routes(lambda ip, lift=lift: _put(ip, lift))  # type: ignore[misc]

    def mend(self, wanted: Sequence[BridgeLift]) -> list[str]:
        gone = self.missing(wanted)
        if gone:
            self.put(wanted)
        return gone

    def take_away(self) -> None:
        with_routes(_take_away)


def unfiltered(lift: BridgeLift) -> tuple[int, ...]:
    """Families whose frames on this bridge met no packet filter before us, whether we stand there or not."""

    def asked(ip: Any) -> tuple[int, ...]:
        links = _links(ip)
        former = _noted(links) or _observed(links, lift)
        return tuple(family for family in FAMILIES if family not in former.filtered)

    return with_routes(asked)


def vlan(lift: BridgeLift) -> int:
    """The VLAN of frames without a tag; 0 where the bridge tells none apart, is not there, or is refused."""

    def asked(ip: Any) -> int:
        links = _links(ip)
        if lift.bridge not in links or _kind(links[lift.bridge]) != "bridge":
            return 0
        with contextlib.suppress(vlans.OtherVlansError):
            return vlans.of(ip, links[lift.bridge], links, lift)
        return 0

    return with_routes(asked)


def refusal(lift: BridgeLift) -> str:
    """Why `put` would refuse this bridge, or these ports of it; empty where it would not."""
    try:
        with_routes(lambda ip: _require(ip, _links(ip), lift))
    except EnvironmentFailureError as error:
        return str(error)
    return ""


def trouble() -> str | None:
    """Why this kernel cannot show bridged frames to iptables, if it cannot; one line."""
    if _BR_NETFILTER.is_dir() or commands.succeeds(["modprobe", "-n", "-q", "br_netfilter"]):
        return None
    return _MISSING


# --- Looking -----------------------------------------------------------------------------------------


def _links(ip: Any) -> dict[str, Any]:
    return {link.get_attr("IFLA_IFNAME"): link for link in ip.get_links()}


def _is_ours(link: Any) -> bool:
    return (link.get_attr("IFLA_IFALIAS") or "").startswith(_NOTE)


def _noted(links: Links) -> _Former | None:
    return next(
        (_Former.read(link.get_attr("IFLA_IFALIAS")) for link in links.values() if _is_ours(link)), None
    )


def _is_made(links: Links, former: _Former) -> bool:
    """Whether the bridge that stands is the one that we made."""
    return former.made and former.bridge in links and made.is_by_us(links[former.bridge])


def _pair(links: Links) -> list[str]:
    """Our interface, and the port at its other end."""
    here = {name: link for name, link in links.items() if link.get_attr("IFLA_LINK_NETNSID") is None}
    ends = {link["index"] for link in here.values() if _is_ours(link)}
    return [name for name, link in here.items() if {link["index"], link.get_attr("IFLA_LINK")} & ends]


def _bridge_says(link: Any, attribute: str) -> int:
    info = link.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA") if info is not None else None
    return (data.get_attr(attribute) or 0) if data is not None else 0


def _kind(link: Any) -> str:
    info = link.get_attr("IFLA_LINKINFO")
    return (info.get_attr("IFLA_INFO_KIND") or "") if info is not None else ""


def _observed(links: Links, lift: BridgeLift) -> _Former:
    """What is now, before we change anything."""
    bridge = links.get(lift.bridge)
    if bridge is None:
        down = tuple(port for port in lift.ports if port in links and not links[port]["flags"] & _IFF_UP)
        with_ipv6 = tuple(port for port in lift.ports if sysctls.value(_ipv6_switch(port)) == "0")
        return _Former(lift.bridge, True, (), (), down, with_ipv6)
    called = tuple(family for family in FAMILIES if _calls(bridge, family))
    filtered = tuple(
        family for family in FAMILIES if family in called or sysctls.value(_FOR_ALL[family]) == "1"
    )
    return _Former(lift.bridge, False, called, filtered)


def _calls(bridge: Any, family: int) -> bool:
    return bool(_bridge_says(bridge, f"IFLA_BR_{_CALLS[family].upper()}"))


def _ipv6_switch(interface: str) -> str:
    return f"net/ipv6/conf/{interface}/disable_ipv6"


def _missing(ip: Any, lift: BridgeLift) -> list[str]:
    links = _links(ip)
    _require(ip, links, lift)
    lines = [] if _BR_NETFILTER.is_dir() else ["modprobe br_netfilter", *map(_off, _for_all())]
    bridge = links.get(lift.bridge)
    if bridge is None:
        lines.append(f"ip link add {lift.bridge} type bridge")
    for port in lift.ports:
        if bridge is None or _master(links, port) != bridge["index"]:
            lines.append(f"ip link set {port} master {lift.bridge}")
    for family in families():
        if bridge is None or not _calls(bridge, family):
            lines.append(f"ip link set {lift.bridge} type bridge {_CALLS[family]} 1")
    if lift.interface not in links:
        words = f"address {lift.mac} arp off type veth peer name {lift.port}"
        lines.append(f"ip link add {lift.interface} {words}")
    if bridge is None or not _is_attached(links, lift):
        flags = " ".join(f"{flag.replace('unicast_', '')} off" for flag in _PORT_FLAGS)
        lines.append(f"ip link set {lift.port} master {lift.bridge}; bridge link set dev {lift.port} {flags}")
    if lift.vlan and (lift.port not in links or not vlans.is_joined(ip, links[lift.port], lift.vlan)):
        lines.append(f"bridge vlan add vid {lift.vlan} dev {lift.port} pvid untagged")
    if lift.port not in links or not _has_entry(ip, links, lift):
        lines.append(f"bridge fdb replace {lift.mac} dev {lift.port} master static")
    return lines


def _off(switch: str) -> str:
    return f"sysctl {switch.replace('/', '.')}=0"


def _for_all() -> list[str]:
    return [*_FOR_ALL.values(), _FOR_ALL_ARP]


def _master(links: Links, name: str) -> int | None:
    found: int | None = links[name].get_attr("IFLA_MASTER") if name in links else None
    return found


def _is_attached(links: Links, lift: BridgeLift) -> bool:
    if _master(links, lift.port) != links[lift.bridge]["index"]:
        return False
    data = links[lift.port].get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_SLAVE_DATA")
    is_up = all(links[name]["flags"] & _IFF_UP for name in (lift.port, lift.interface))
    return is_up and not any(data.get_attr(f"IFLA_BRPORT_{flag.upper()}") for flag in _PORT_FLAGS)


def _has_entry(ip: Any, links: Links, lift: BridgeLift) -> bool:
    """Asked of our port alone: the others have as many entries as there are stations."""
    port, hardware = links[lift.port]["index"], lift.mac
    with strictly(ip):
        entries = list(ip.neigh("dump", dump_filter=None, family=socket.AF_BRIDGE, ifindex=port))
    return any(
        entry["ifindex"] == port
        and entry.get_attr("NDA_LLADDR") == hardware
        and entry.get_attr("NDA_MASTER")
        and (entry.get_attr("NDA_VLAN") or 0) == lift.vlan
        for entry in entries
    )


def _require(ip: Any, links: Links, lift: BridgeLift) -> None:
    """All that must be so before anything is changed. Raises EnvironmentFailureError."""
    former = _noted(links)
    for key, name in (("port", lift.port), ("interface", lift.interface)):
        if name in links and former is None:
            raise EnvironmentFailureError(f"bridge.{key}: an interface {name} is there already; name another")
    for port in lift.ports:
        if port not in links:
            raise EnvironmentFailureError(f"interfaces: no interface {port} here")
    if lift.bridge in links:
        _require_bridge(ip, links, lift, is_made_by_us=former is not None and _is_made(links, former))
        return
    if former is not None and former.bridge == lift.bridge and not former.made:
        # Who took down a bridge of the site's makes it again, as the site wants it, and would find ours.
        raise EnvironmentFailureError(f"bridge.name: {lift.bridge}, which was there before us, is gone")
    for port in lift.ports:
        if _master(links, port) is not None:
            raise EnvironmentFailureError(
                f"interfaces: {port} is a port of another bridge, not of {lift.bridge}"
            )
        addresses = made.addresses(ip, links[port]["index"])
        if addresses:
            raise EnvironmentFailureError(
                f"interfaces: {port} has the address {addresses[0]}, which would be cut off in a new bridge "
                f"{lift.bridge}: make the bridge first, and give the address to it"
            )


def _require_bridge(ip: Any, links: Links, lift: BridgeLift, *, is_made_by_us: bool) -> None:
    bridge = links[lift.bridge]
    if _kind(bridge) != "bridge":
        raise EnvironmentFailureError(f"bridge.name: {lift.bridge} is no bridge")
    if _bridge_says(bridge, "IFLA_BR_STP_STATE"):
        # A new port would listen for half a minute and let nothing pass, and mail would wait for it.
        raise EnvironmentFailureError(
            f"bridge.name: {lift.bridge} runs the spanning tree protocol, not supported"
        )
    for port in lift.ports:
        if _master(links, port) != bridge["index"] and not is_made_by_us:
            raise EnvironmentFailureError(f"interfaces: {port} is no port of the bridge {lift.bridge}")
    vlans.require(ip, bridge, links, lift)


# --- Changing ----------------------------------------------------------------------------------------


def _put(ip: Any, lift: BridgeLift) -> None:
    links = _links(ip)
    former = _noted(links)
    if former is not None and (former.bridge != lift.bridge or lift.interface not in links):
        _take_away(ip)
        links, former = _links(ip), None
    _require(ip, links, lift)
    _load_br_netfilter()
    try:
        if former is None:
            _make_pair(ip, lift, _observed(links, lift))
        if lift.bridge not in links:
            _make_bridge(ip, lift)
        _set_up(ip, lift)
    except (NetlinkError, OSError) as error:
        _take_away(ip)
        code = error.code if isinstance(error, NetlinkError) else error.errno or 0
        raise EnvironmentFailureError(f"bridge {lift.bridge}: {commands.why(code)}") from error


def _load_br_netfilter() -> None:
    """Once loaded it would show the frames of every bridge of the machine to iptables: not because of us."""
    if _BR_NETFILTER.is_dir():
        return
    # The packaged service may load no module, and sees none: for it the kernel does, when a rule needs one.
    for attempt in (lambda: commands.run(["modprobe", "br_netfilter"]), iptables.name_bridged_frames):
        if not _BR_NETFILTER.is_dir():
            with contextlib.suppress(EnvironmentFailureError):
                attempt()
    if not _BR_NETFILTER.is_dir():
        raise EnvironmentFailureError(_MISSING)
    for switch in _for_all():
        sysctls.turn(switch, "0")


def _make_pair(ip: Any, lift: BridgeLift, former: _Former) -> None:
    peer = {"ifname": lift.port, "address": _PORT_MAC}
    ip.link("add", ifname=lift.interface, kind="veth", address=lift.mac, peer=peer)
    index = ip.link_lookup(ifname=lift.interface)[0]
    ip.link("set", index=index, IFLA_IFALIAS=former.note(), flags=_IFF_NOARP, change=_IFF_NOARP)
    for name in (lift.interface, lift.port):
        ip.link("set", index=ip.link_lookup(ifname=name)[0], IFLA_AF_SPEC=_ADDRESSES_NONE)
    # Where a site has IPv6 off by default, as is usual on a bridge.
    sysctls.turn(_ipv6_switch(lift.interface), "0")
    sysctls.turn(f"net/ipv6/conf/{lift.interface}/accept_ra", "0")
    sysctls.turn(_ipv6_switch(lift.port), "1")
    # What arrives here comes from everywhere: a strict reverse-path check is to ask with the mark.
    sysctls.turn(f"net/ipv4/conf/{lift.interface}/src_valid_mark", "1")


def _make_bridge(ip: Any, lift: BridgeLift) -> None:
    ip.link("add", ifname=lift.bridge, kind="bridge", br_stp_state=0, br_forward_delay=0, br_mcast_snooping=0)
    bridge = ip.link_lookup(ifname=lift.bridge)[0]
    ip.link("set", index=bridge, IFLA_IFALIAS=made.alias(lift.ports))
    ip.link("set", index=bridge, IFLA_AF_SPEC=_ADDRESSES_NONE)
    sysctls.turn(f"net/ipv6/conf/{lift.bridge}/accept_ra", "0")
    ip.link("set", index=bridge, state="up")


def _set_up(ip: Any, lift: BridgeLift) -> None:
    links = _links(ip)
    bridge = links[lift.bridge]
    former = _noted(links)
    if former is not None and _is_made(links, former):
        for port in lift.ports:
            sysctls.turn(_ipv6_switch(port), "1")
            ip.link("set", index=links[port]["index"], master=bridge["index"], state="up")
    calls = {f"br_{_CALLS[family]}": 1 for family in families()}
    ip.link("set", index=bridge["index"], kind="bridge", **calls)
    port, interface = links[lift.port]["index"], links[lift.interface]["index"]
    mtu = ip.get_links(bridge["index"])[0].get_attr("IFLA_MTU")
    ip.link("set", index=port, master=bridge["index"])
    vlans.join(ip, port, lift.vlan)
    # Flushed of whatever was learned there before: no station of a cable is behind it.
    ip.brport("set", index=port, **_PORT_FLAGS, IFLA_BRPORT_FLUSH=None)
    for index in (port, interface):
        ip.link("set", index=index, mtu=mtu, state="up")
    # In each VLAN of the port.
    ip.fdb("replace", ifindex=port, lladdr=lift.mac, state=_NUD_NOARP, flags=_NTF_MASTER)


def _take_away(ip: Any) -> None:
    """Our pair, and what is noted in it as it was before. Without a pair nothing is ours."""
    links = _links(ip)
    former = _noted(links)
    if former is None:
        return
    bridge = links.get(former.bridge)
    if bridge is not None and former.made and not made.claims(ip, links, bridge, _pair(links)):
        ports = [name for name, link in links.items() if link.get_attr("IFLA_MASTER") == bridge["index"]]
        ip.link("del", index=bridge["index"])
        for name in ports:
            if name in former.down:
                ip.link("set", index=links[name]["index"], state="down")
    elif bridge is not None:
        calls = {f"br_{_CALLS[family]}": int(family in former.called) for family in spoken()}
        ip.link("set", index=bridge["index"], kind="bridge", **calls)
    for name in former.with_ipv6:
        sysctls.turn(_ipv6_switch(name), "0")
    for link in links.values():
        if _is_ours(link):
            ip.link("del", index=link["index"])
