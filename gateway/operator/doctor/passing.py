"""Check: filters of others at FORWARD that end mail which passes by the gateway

Nothing shows it while the gateway carries all mail: forwarded is what it lets by, and everything once it is
dead. Pure. Named is only what is certainly dropped, as in `closed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.config import Placement
from gateway.operator.doctor import nftables
from gateway.operator.doctor.closed import ENDS_HERE, GOES_ON, End, Packet, end_in, is_not_new
from gateway.operator.doctor.nftables import BaseChain
from gateway.operator.doctor.saved import Rule, Saved, parse
from gateway.operator.doctor.snapshot import Snapshot
from gateway.operator.doctor.trouble import Trouble, shell
from gateway.policy import limits

_WHY: Final = (
    "mail that passes by the gateway is forwarded, all of it once no daemon runs: mail stops with the daemon"
)
_UFW: Final = "ufw-user-forward"
_OF_OTHERS: Final = "DOCKER-USER"
"""The chain that Docker leaves to the site, before its own."""
_POLICY: Final = "mail-passes"


def passing(seen: Snapshot) -> Iterator[Trouble]:
    yield from _by_nftables(seen)
    if seen.config.placement is Placement.ROUTER:
        yield from _by_iptables(seen)


def ways(seen: Snapshot) -> list[Packet]:
    """The SYN of a mail connection on each way through this machine."""
    config = seen.config
    if config.placement is Placement.BRIDGE:
        return [Packet("forward", config.bridge, leaves_by=config.bridge)]
    pairs = [(one, other) for one in config.inside for other in config.outside]
    pairs += [(other, one) for one, other in pairs]
    return [Packet("forward", one, leaves_by=other) for one, other in dict.fromkeys(pairs)]


def _told(chain: str, dropped: list[Packet], mend: str) -> Trouble:
    by = ", ".join(f"from {one.interface} to {one.leaves_by}" for one in dropped)
    return Trouble(f"the chain {chain} drops all mail that passes by the gateway {by}", _WHY, mend)


# --- nftables ----------------------------------------------------------------------------------------


def _by_nftables(seen: Snapshot) -> Iterator[Trouble]:
    for chain in nftables.base_chains(seen.nft, ("forward",)):
        if chain.family == "ip6" and not any(seen.has_ipv6(name) for name in seen.hooks):
            continue
        dropped = [way for way in ways(seen) if end_in(seen, chain, way) in (End.DROPPED, End.NAMED)]
        if dropped:
            yield _told(" ".join(chain.words), dropped, _let_by(seen, chain, dropped))


def _let_by(seen: Snapshot, chain: BaseChain, dropped: list[Packet]) -> str:
    """firewalld's table is its own, and is made anew at each reload."""
    ports = seen.config.ports
    if chain.table == "firewalld":
        change = f"firewall-cmd --permanent --policy={_POLICY}"
        words = (
            "--add-ingress-zone=ANY",
            "--add-egress-zone=ANY",
            *(f"--add-port={port}/tcp" for port in ports),
        )
        made = f"firewall-cmd --permanent --new-policy={_POLICY}"
        return " && ".join([made, *(f"{change} {word}" for word in words), "firewall-cmd --reload"])
    named = "{ " + ", ".join(map(str, ports)) + " }"
    lines = []
    for way in dropped:
        there = ("iifname", way.interface, "oifname", way.leaves_by, "tcp", "dport", named, "accept")
        back = ("iifname", way.leaves_by, "oifname", way.interface, "tcp", "sport", named)
        back = (*back, *(() if seen.bridged else ("ct", "state", "established")), "accept")
        lines += [shell("nft", "insert", "rule", *chain.words, *words) for words in (there, back)]
    return " && ".join(lines)


# --- iptables ----------------------------------------------------------------------------------------


def _by_iptables(seen: Snapshot) -> Iterator[Trouble]:
    for family, dump in seen.dumps.items():
        if family == 6 and not any(seen.has_ipv6(name) for name in seen.hooks):
            continue
        saved = parse(dump, family, seen.config.ports)
        policy, _ = saved.policies.get(("filter", "FORWARD"), ("ACCEPT", 0))
        dropped = []
        for way in ways(seen):
            end = _walked(saved, "FORWARD", way, limits.JUMPS_FOLLOWED)
            if end is End.DROPPED or (end is End.FALLS_THROUGH and policy == "DROP"):
                dropped.append(way)
        if dropped:
            tool = "iptables" if family == 4 else "ip6tables"
            yield _told(f"FORWARD of {tool}", dropped, _accepted(seen, saved, tool, dropped))


def _walked(saved: Saved, chain: str, way: Packet, jumps: int) -> End:
    """Through the chain of this name, and those that it leads to."""
    for rule in saved.rules.get(("filter", chain), ()):
        if rule.is_ours or rule.other or is_not_new(rule.words) or _means_another_way(rule, way):
            continue
        end = (
            _walked(saved, rule.target, way, jumps - 1) if jumps and _leads_on(rule, saved) else _end_of(rule)
        )
        if end is End.PASSES or (end is End.DROPPED and not rule.narrow):
            return end
        if end is End.FALLS_THROUGH and ("-g" in rule.words or rule.target == "RETURN"):
            # It may leave the chain here, before what would drop it.
            return End.PASSES if rule.narrow else end
    return End.FALLS_THROUGH


def _leads_on(rule: Rule, saved: Saved) -> bool:
    return ("filter", rule.target) in saved.rules


def _end_of(rule: Rule) -> End:
    if rule.target in ENDS_HERE:
        return End.DROPPED
    return End.FALLS_THROUGH if rule.target in GOES_ON or rule.target == "RETURN" else End.PASSES


def _means_another_way(rule: Rule, way: Packet) -> bool:
    for before, key, value in zip(("", *rule.words), rule.words, rule.words[1:], strict=False):
        if key not in ("-i", "-o"):
            continue
        mine = way.interface if key == "-i" else way.leaves_by
        fits = mine.startswith(value[:-1]) if value.endswith("+") else mine == value
        if fits == (before == "!"):
            return True
    return False


def _accepted(seen: Snapshot, saved: Saved, tool: str, dropped: list[Packet]) -> str:
    """ufw's chains are its own, and are made anew at each boot."""
    ports = ",".join(map(str, seen.config.ports))
    if any(chain == _UFW for _, chain in saved.rules):
        return shell("ufw", "route", "allow", "proto", "tcp", "to", "any", "port", ports)
    chain = _OF_OTHERS if ("filter", _OF_OTHERS) in saved.rules else "FORWARD"
    lines = []
    for way in dropped:
        begin = (tool, "-I", chain, "-i", way.interface, "-o", way.leaves_by, "-p", "tcp", "-m", "multiport")
        back = (tool, "-I", chain, "-i", way.leaves_by, "-o", way.interface, "-p", "tcp", "-m", "multiport")
        known = ("-m", "conntrack", "--ctstate", "ESTABLISHED")
        lines.append(shell(*begin, "--dports", ports, "-j", "ACCEPT"))
        lines.append(shell(*back, "--sports", ports, *known, "-j", "ACCEPT"))
    return " && ".join(lines)
