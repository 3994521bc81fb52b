"""Checks: rules of others in nftables' own words that stand in mail's way

From nftables.conf, firewalld, scripts. What iptables-nft keeps there is `firewall`'s; what is
`inet nightmail` is ours.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.config import Placement
from gateway.intercept.marks import MarkBits
from gateway.intercept.objects import LOOPBACK, NFT_TABLE
from gateway.operator.doctor.snapshot import Snapshot
from gateway.operator.doctor.trouble import Trouble, shell

_HOOKS: Final = frozenset({"prerouting", "input", "output"})
_ENDS: Final = ("drop", "reject")
_TURNS: Final = ("redirect", "dnat", "tproxy")
_OF_IPTABLES: Final = frozenset({"filter", "nat", "mangle", "raw", "security"})
_SILENT: Final = frozenset({"counter", "log", "comment", "quota"})
_WHY: Final = {
    "drop": "what it ends never comes to or from the gateway: that mail does not pass at all",
    "reject": "what it ends never comes to or from the gateway: that mail does not pass at all",
    "redirect": "it changes the destination before our rules deliver the packet",
    "dnat": "it changes the destination before our rules deliver the packet",
    "tproxy": "it gives to another program what the gateway is to take",
    "notrack": "only connection tracking in zones tells the gateway's two connections apart",
}


@dataclass(frozen=True, slots=True)
class BaseChain:
    """A chain at a hook of the kernel's."""

    family: str
    table: str
    name: str
    hook: str
    policy: str

    @property
    def words(self) -> tuple[str, str, str]:
        return self.family, self.table, self.name


def foreign_rules(seen: Snapshot) -> Iterator[Trouble]:
    """Those that name our port, and do something to it that must not be done before us."""
    for chain in base_chains(seen.nft):
        for rule in _reached(seen.nft, chain):
            done = verb(rule, seen)
            if done:
                at = (rule["family"], rule["table"], rule["chain"])
                yield Trouble(
                    f"an nftables rule has {done} for port 25: {' '.join(at)} handle {rule['handle']}",
                    _WHY[done],
                    shell("nft", "delete", "rule", *at, "handle", rule["handle"]),
                )
    if seen.config.placement is Placement.HOST:
        yield from _strangers_dropped(seen)


def _strangers_dropped(seen: Snapshot) -> Iterator[Trouble]:
    """What others say comes over lo on the mail server itself. wg-quick drops it where all leaves by its
    tunnel: to the tunnel's address nobody may come by another interface who is not on this machine."""
    for chain in base_chains(seen.nft, {"prerouting"}):
        for rule in rules_of(seen.nft, chain, chain.name):
            if _accepts_loopback(rule):
                break
            if _drops_strangers(rule, seen):
                yield Trouble(
                    f"the chain {' '.join(chain.words)} drops what comes over lo from addresses of others",
                    "so does all that the gateway turns back here: that mail does not pass at all",
                    shell("nft", "insert", "rule", *chain.words, "iifname", LOOPBACK, "accept"),
                )
                break


def _accepts_loopback(rule: Mapping[str, Any]) -> bool:
    return "accept" in rule["expr"][-1] and any(
        word.get("match", {}).get("left", {}).get("meta", {}).get("key") in ("iif", "iifname")
        and word["match"]["op"] == "=="
        and word["match"]["right"] == LOOPBACK
        for word in rule["expr"]
    )


def _drops_strangers(rule: Mapping[str, Any], seen: Snapshot) -> bool:
    """For certain: nothing else is asked than by which interface, to which of our addresses, from where."""
    asked = [word["match"] for word in rule["expr"] if "match" in word]
    others = {kind for word in rule["expr"] for kind in word} - {"match", *_SILENT}
    return others == {"drop"} and any(map(_of_strangers, asked)) and all(_may_be(one, seen) for one in asked)


def _of_strangers(match: Mapping[str, Any]) -> bool:
    fib = match.get("left", {}).get("fib", {})
    told = fib.get("result"), fib.get("flags"), match.get("op"), match.get("right")
    return told in (("type", ["saddr"], "!=", "local"), ("type", "saddr", "!=", "local"))


def _may_be(match: Mapping[str, Any], seen: Snapshot) -> bool:
    """Holds for what we turn back over lo to one of our addresses."""
    left, op, right = match.get("left", {}), match.get("op"), items(match.get("right"))
    if left.get("meta", {}).get("key") in ("iif", "iifname"):
        return (LOOPBACK in right) is (op == "==")
    if left.get("payload", {}).get("field") == "daddr":
        return op == "==" and any(str(one.address.ip) in right for one in seen.addresses)
    return _of_strangers(match)


def closed_chains(seen: Snapshot) -> Iterator[tuple[BaseChain, Trouble]]:
    """Chains that drop what nobody has allowed, and where our packets are not allowed by their mark.

    An ACCEPT of ours in another table does not help there. Only a trial tells whether one of them did it.
    """
    bits = MarkBits(seen.config.marks.mask)
    marks = {"input": bits.taken, "output": bits.dialled | bits.accepted}
    for chain in base_chains(seen.nft):
        rules = list(_reached(seen.nft, chain))
        closed = chain.policy == "drop" or any(_closes(rule) for rule in rules)
        if chain.hook not in marks or not closed or any(_knows_marks(rule) for rule in rules):
            continue
        mark = marks[chain.hook]
        yield (
            chain,
            Trouble(
                f"the chain {' '.join(chain.words)} drops what it does not know, and does not know our marks",
                "in nftables what one table accepts another one may drop: our own rule does not help here",
                opened(seen, chain, mark),
            ),
        )


def opened(seen: Snapshot, chain: BaseChain, mark: int) -> str:
    """The line that lets our packets by. firewalld's table is its own, and is made anew at each reload."""
    if chain.table == "firewalld":
        zones = " ".join(seen.sides)
        add = (
            'firewall-cmd --permanent --zone="$(firewall-cmd --get-zone-of-interface=$i)" --add-service=smtp'
        )
        return f"for i in {zones}; do {add}; done; firewall-cmd --reload"
    accept = ("meta", "mark", "and", hex(mark), "!=", "0", "accept")
    return shell("nft", "insert", "rule", *chain.words, *accept)


def base_chains(
    listing: tuple[Mapping[str, Any], ...], hooks: Collection[str] = _HOOKS
) -> Iterator[BaseChain]:
    for item in listing:
        chain = item.get("chain")
        if not chain or chain.get("hook") not in hooks or _is_known(chain):
            continue
        yield BaseChain(
            chain["family"], chain["table"], chain["name"], chain["hook"], chain.get("policy", "accept")
        )


def _is_known(chain: Mapping[str, Any]) -> bool:
    if chain["family"] not in ("ip", "ip6", "inet"):
        return True
    if chain["family"] == "inet":
        return bool(chain["table"] == NFT_TABLE)
    # By its capital letters: a table of these names with chains of its own is somebody's nftables.conf.
    return chain["table"] in _OF_IPTABLES and bool(chain["name"].isupper())


def rules_of(
    listing: tuple[Mapping[str, Any], ...], chain: BaseChain, name: str
) -> Iterator[Mapping[str, Any]]:
    """Those of the chain of this name in the same table, in order."""
    for item in listing:
        rule = item.get("rule")
        if rule and (rule["family"], rule["table"], rule["chain"]) == (*chain.words[:2], name):
            yield rule


def _reached(listing: tuple[Mapping[str, Any], ...], chain: BaseChain) -> Iterator[Mapping[str, Any]]:
    """Rules of the chain and of those that it leads to."""
    pending, done = [chain.name], set()
    while pending:
        name = pending.pop(0)
        if name in done:
            continue
        done.add(name)
        for rule in rules_of(listing, chain, name):
            yield rule
            pending += [
                word[verb]["target"] for word in rule["expr"] for verb in ("jump", "goto") if verb in word
            ]


def verb(rule: Mapping[str, Any], seen: Snapshot) -> str:
    """What it does to a new connection to our port; empty where it means others, or only some."""
    names_port, found = False, ""
    for word in rule["expr"]:
        (kind, value), *_ = word.items()
        if kind == "match":
            told = _match(value, seen)
            if told is None:
                return ""
            names_port = names_port or told
        elif kind in (*_ENDS, *_TURNS, "notrack"):
            found = kind
        elif kind not in _SILENT:
            return ""
    return found if names_port else ""


def _match(match: Mapping[str, Any], seen: Snapshot) -> bool | None:
    """True: names our port. False: says nothing against it. None: means others, or only some."""
    left, right = match.get("left", {}), match.get("right")
    if match.get("op") not in ("==", "in"):
        return None
    payload, meta = left.get("payload", {}), left.get("meta", {})
    if payload.get("field") == "dport" and payload.get("protocol") in ("tcp", "th"):
        return True if holds(right, seen.config.ports) else None
    if meta.get("key") in ("iifname", "oifname"):
        return False if not seen.hooks or set(items(right)) & set(seen.hooks) else None
    if meta.get("key") in ("l4proto", "nfproto", "protocol"):
        return False
    if left.get("ct", {}).get("key") == "state":
        return False if "new" in items(right) else None
    return None


def holds(right: Any, ports: tuple[int, ...]) -> bool:
    for item in items(right):
        if isinstance(item, dict) and "range" in item:
            low, high = item["range"]
            if any(low <= port <= high for port in ports):
                return True
        elif item in ports:
            return True
    return False


def items(right: Any) -> list[Any]:
    found = right.get("set", right) if isinstance(right, dict) else right
    return list(found) if isinstance(found, list) else [found]


def _closes(rule: Mapping[str, Any]) -> bool:
    """It ends whatever comes to it."""
    return all(next(iter(word)) in (*_ENDS, *_SILENT) for word in rule["expr"]) and any(
        verb in word for word in rule["expr"] for verb in _ENDS
    )


def _knows_marks(rule: Mapping[str, Any]) -> bool:
    return '"mark"' in json.dumps(rule["expr"]) and any("accept" in word for word in rule["expr"])
