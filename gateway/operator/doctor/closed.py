"""Check: filters of others that drop what nobody has let by, and let none of what the gateway carries by

What was forwarded before comes to a gateway's own sockets, and leaves by them: other hooks, whose filters the
site has made without a thought of mail. In nftables no accept of ours helps there. Pure. Named is only what
is certainly dropped: whatever is not understood is taken for a rule that lets mail by.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.config import Placement
from gateway.intercept.marks import MarkBits
from gateway.intercept.objects import LOOPBACK
from gateway.operator.doctor import nftables
from gateway.operator.doctor.nftables import BaseChain
from gateway.operator.doctor.saved import Rule, parse
from gateway.operator.doctor.snapshot import Snapshot
from gateway.operator.doctor.trouble import Trouble, shell
from gateway.policy import limits

_ARRIVES: Final = ("iifname", "iif")
_LEAVES: Final = ("oifname", "oif")
_INTERFACE: Final = {"input": _ARRIVES, "output": _LEAVES, "forward": _ARRIVES}
_WAY: Final = {"input": "comes to the gateway by", "output": "leaves the gateway by"}
_WHY_NFT: Final = (
    "in nftables what one table accepts another one may drop: no rule of ours helps there, and that mail does"
    " not pass at all"
)
_WHY_OUTPUT: Final = (
    "the gateway itself dials the mail servers, which a router without one does not: it reaches none"
)
_ENDS: Final = frozenset({"drop", "reject"})
_SILENT: Final = frozenset({"counter", "log", "comment", "quota"})
ENDS_HERE: Final = frozenset({"DROP", "REJECT"})
GOES_ON: Final = frozenset({"", "LOG", "NFLOG", "MARK", "CONNMARK", *ENDS_HERE})
"""Any other target may let a packet by that the rule means."""


@dataclass(frozen=True, slots=True)
class Packet:
    """The SYN of a mail connection at one hook of this machine; `interface` "" is any but lo.

    `leaves_by`: where it is forwarded, the interface that it goes out by.
    """

    hook: str
    interface: str
    state: str = "new"
    """In the words of conntrack."""
    leaves_by: str = ""


class Fits(enum.Enum):
    """Whether a rule means the packet."""

    YES = "yes"
    NO = "no"
    PERHAPS = "perhaps"


class End(enum.Enum):
    """Where the packet ends in a chain. `PASSES`: also where that is not certain."""

    PASSES = "passes"
    DROPPED = "dropped"
    NAMED = "dropped by a rule that names our port"
    """Which the check `nftables` tells, with that very rule."""
    FALLS_THROUGH = "falls through"


def closed(seen: Snapshot) -> Iterator[Trouble]:
    yield from _by_nftables(seen)
    if seen.config.placement is not Placement.BRIDGE:
        yield from _by_iptables(seen)


def packets(seen: Snapshot) -> list[Packet]:
    """All ways of a SYN to and from the gateway's own sockets, as far as they are the gateway's alone.

    On a mail server what comes from outside is as much the mail server's, and its filter knows it.
    """
    config, sides = seen.config, seen.hooks or ("",)
    if config.placement is Placement.BRIDGE:
        return [Packet("input", config.bridge_interface, "untracked")]
    arriving = (LOOPBACK,) if config.placement is Placement.HOST else sides
    return [*(Packet("input", name) for name in arriving), *(Packet("output", name) for name in sides)]


# --- nftables ----------------------------------------------------------------------------------------


def _by_nftables(seen: Snapshot) -> Iterator[Trouble]:
    bits = MarkBits(seen.config.marks.mask)
    marks = {"input": bits.taken, "output": bits.dialled | bits.accepted}
    for chain in nftables.base_chains(seen.nft):
        if chain.family == "ip6" and not any(seen.has_ipv6(name) for name in seen.hooks):
            continue
        dropped = [
            packet
            for packet in packets(seen)
            if packet.hook == chain.hook and end_in(seen, chain, packet) is End.DROPPED
        ]
        if dropped:
            yield Trouble(
                f"the chain {' '.join(chain.words)} drops all mail that {_ways(dropped)}",
                _WHY_NFT,
                nftables.opened(seen, chain, marks[chain.hook]),
            )


def _ways(dropped: Sequence[Packet]) -> str:
    names = ", ".join(packet.interface or "any interface" for packet in dropped)
    return f"{_WAY[dropped[0].hook]} {names}"


def end_in(seen: Snapshot, chain: BaseChain, packet: Packet) -> End:
    end = _walked(seen, chain, chain.name, packet, limits.JUMPS_FOLLOWED)
    if end is not End.FALLS_THROUGH:
        return end
    return End.DROPPED if chain.policy == "drop" else End.PASSES


def _walked(seen: Snapshot, chain: BaseChain, name: str, packet: Packet, jumps: int) -> End:
    """Through the chain of this name, and those that it leads to."""
    for rule in nftables.rules_of(seen.nft, chain, name):
        fits = _fits(rule, seen, packet)
        if fits is Fits.NO:
            continue
        for word in rule["expr"]:
            (kind, value), *_ = word.items()
            end = _end_of(seen, chain, kind, value, packet, jumps)
            if end is End.PASSES or (end is not None and fits is Fits.YES):
                return _as_named(end, rule, seen)
            if end is End.FALLS_THROUGH:
                return End.PASSES  # it may leave the chain here, before what would drop it
    return End.FALLS_THROUGH


def _end_of(
    seen: Snapshot, chain: BaseChain, kind: str, value: Any, packet: Packet, jumps: int
) -> End | None:
    """Of one statement; None: it goes on with the next one."""
    if kind == "accept" or kind == "queue" or not jumps:
        return End.PASSES
    if kind in _ENDS:
        return End.DROPPED
    if kind == "return":
        return End.FALLS_THROUGH
    if kind in ("jump", "goto"):
        end = _walked(seen, chain, value["target"], packet, jumps - 1)
        return None if kind == "jump" and end is End.FALLS_THROUGH else end
    if kind == "vmap":
        return _by_verdict_map(seen, chain, value, packet, jumps)
    return None


def _by_verdict_map(
    seen: Snapshot, chain: BaseChain, vmap: Mapping[str, Any], packet: Packet, jumps: int
) -> End | None:
    """The verdict of the one element that means the packet; whatever is not certain passes."""
    data = vmap.get("data", {})
    if not isinstance(data, dict) or "set" not in data:
        return End.PASSES
    for element, verdict in data["set"]:
        match = {"op": "==", "left": vmap.get("key", {}), "right": element}
        fits = _matches(match, seen, packet)
        if fits is Fits.NO:
            continue
        (kind, value), *_ = verdict.items()
        end = _end_of(seen, chain, kind, value, packet, jumps)
        return end if fits is Fits.YES else End.PASSES
    return None


def _as_named(end: End, rule: Mapping[str, Any], seen: Snapshot) -> End:
    return End.NAMED if end is End.DROPPED and nftables.verb(rule, seen) else end


def _fits(rule: Mapping[str, Any], seen: Snapshot, packet: Packet) -> Fits:
    fits = Fits.YES
    for word in rule["expr"]:
        (kind, value), *_ = word.items()
        if kind == "match":
            told = _matches(value, seen, packet)
        else:
            known = kind in _SILENT or kind in _ENDS or kind in ("accept", "return", "jump", "goto", "vmap")
            told = Fits.YES if known else Fits.PERHAPS
        if told is Fits.NO:
            return told
        fits = told if told is Fits.PERHAPS else fits
    return fits


def _matches(match: Mapping[str, Any], seen: Snapshot, packet: Packet) -> Fits:
    told = _told(match.get("left", {}), nftables.items(match.get("right")), seen, packet)
    if told is Fits.PERHAPS or match.get("op") in ("==", "in"):
        return told
    if match.get("op") != "!=":
        return Fits.PERHAPS
    return Fits.NO if told is Fits.YES else Fits.YES


def _told(left: Any, items: Sequence[Any], seen: Snapshot, packet: Packet) -> Fits:
    """Whether the packet has one of these there."""
    left = left if isinstance(left, dict) else {}
    payload, meta, ct = left.get("payload", {}), left.get("meta", {}), left.get("ct", {})
    if payload.get("field") == "dport" and payload.get("protocol") in ("tcp", "th"):
        return _yes(nftables.holds(list(items), seen.config.ports))
    if payload.get("protocol") in ("udp", "udplite", "icmp", "icmpv6", "igmp", "sctp", "dccp", "esp", "ah"):
        return Fits.NO
    if meta.get("key") == "l4proto" or payload.get("field") in ("protocol", "nexthdr"):
        return _yes("tcp" in items or 6 in items)
    if meta.get("key") in _INTERFACE[packet.hook]:
        return _at(items, packet.interface)
    if packet.leaves_by and meta.get("key") in _LEAVES:
        return _at(items, packet.leaves_by)
    if ct.get("key") == "state":
        return _yes(packet.state in items)
    if ct.get("key") == "status" and set(items) <= {"dnat", "snat"}:
        return Fits.NO  # a connection whose destination is changed is another check's
    return Fits.PERHAPS


def _at(items: Sequence[Any], interface: str) -> Fits:
    names = [str(item) for item in items]
    if any("*" in name for name in names):
        return Fits.PERHAPS
    if interface:
        return _yes(interface in names)
    return Fits.NO if names == [LOOPBACK] else Fits.PERHAPS


def _yes(so: bool) -> Fits:
    return Fits.YES if so else Fits.NO


# --- iptables ----------------------------------------------------------------------------------------
# In INPUT a rule of ours stands first, and accepts. In OUTPUT the site's own rules decide.


def _by_iptables(seen: Snapshot) -> Iterator[Trouble]:
    bits = MarkBits(seen.config.marks.mask)
    ours = f"0x0/{bits.dialled | bits.accepted:#x}"
    for family, dump in seen.dumps.items():
        if family == 6 and not any(seen.has_ipv6(name) for name in seen.hooks):
            continue
        saved = parse(dump, family, seen.config.ports)
        policy, _ = saved.policies.get(("filter", "OUTPUT"), ("ACCEPT", 0))
        sides = [packet.interface for packet in packets(seen) if packet.hook == "output"]
        dropped = [
            side
            for side in sides
            if _is_dropped(saved.walked("filter", "OUTPUT", (side,) if side else ()), side, policy)
        ]
        if dropped:
            tool = "iptables" if family == 4 else "ip6tables"
            names = ", ".join(side or "any interface" for side in dropped)
            yield Trouble(
                f"the chain OUTPUT of {tool} drops all mail that {_WAY['output']} {names}",
                _WHY_OUTPUT,
                shell(tool, "-I", "OUTPUT", "-m", "mark", "!", "--mark", ours, "-j", "ACCEPT"),
            )


def _is_dropped(rules: Iterable[Rule], side: str, policy: str) -> bool:
    for rule in rules:
        if rule.is_ours or is_not_new(rule.words):
            continue
        if rule.target in ENDS_HERE and not rule.narrow and (side or not rule.interface):
            return not rule.names_port  # the check `drops-of-dials` tells of that rule
        if rule.target not in GOES_ON:
            return False
    return policy == "DROP"


def is_not_new(words: Sequence[str]) -> bool:
    """`--ctstate RELATED,ESTABLISHED`, and lo, by which nothing of ours leaves."""
    for key, value in itertools.pairwise(words):
        if key in ("--ctstate", "--state") and "!" not in words and "NEW" not in value.split(","):
            return True
        if key == "-o" and value == LOOPBACK and "!" not in words:
            return True
    return False
