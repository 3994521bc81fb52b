"""Checks: our rules, and rules of others (iptables of either kind) that stand in mail's way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from gateway.config import Placement
from gateway.operator.doctor.saved import Rule, Saved, parse
from gateway.operator.doctor.snapshot import Snapshot
from gateway.operator.doctor.trouble import Trouble, shell

_ENDS: Final = frozenset({"DROP", "REJECT", "TARPIT"})
_PASSES: Final = frozenset({"ACCEPT", "NFQUEUE"})
_TURNS: Final = frozenset({"REDIRECT", "DNAT"})
_MODULES: Final = (
    "nfnetlink_queue", "nft_tproxy", "nft_socket", "nft_ct", "xt_NFQUEUE", "xt_socket", "xt_connmark",
    "xt_CONNMARK", "xt_addrtype", "xt_multiport", "ipt_REJECT", "ip6t_REJECT",
)  # fmt: skip
_MSS: Final = "TCPMSS"
_FOR_SOME: Final = frozenset({"!", "-s", "-d"})
_ALL_BITS: Final = 0xFFFFFFFF


def missing_rules(seen: Snapshot) -> Iterator[Trouble]:
    """All at once: one command puts all of them back."""
    if seen.wanted != "up" or not seen.missing_rules or seen.daemon.pid is None:
        # Without a daemon that is the trouble: it puts them in place when it starts.
        return
    first, count = seen.missing_rules[0], len(seen.missing_rules)
    frozen = seen.daemon.states.get(seen.daemon.pid) == "T"
    yield Trouble(
        f"{count} of our rules are missing, the first: {first}",
        "without them connections to port 25 do not come to the gateway: mail passes in clear",
        shell("kill", "-CONT", seen.daemon.pid) if frozen else shell(*seen.ours("up")),
    )


def refused_rules(seen: Snapshot) -> Iterator[Trouble]:
    if seen.rules_refused:
        yield Trouble(
            f"the kernel does not take our rules: {seen.rules_refused}",
            "a part of netfilter is missing from this kernel, or another program has a table in its own form",
            shell("modprobe", "-a", *_MODULES),
        )


def drops_before_ours(seen: Snapshot) -> Iterator[Trouble]:
    """In raw and mangle before the gate or the delivery; in INPUT before our ACCEPT."""
    for saved in _each(seen):
        for table, chain in (("raw", "PREROUTING"), ("mangle", "PREROUTING"), ("filter", "INPUT")):
            for rule in saved.before_ours(table, chain, seen.hooks):
                if rule.target in _ENDS and not rule.narrow:
                    yield Trouble(
                        f"a rule before ours ends connections to port 25: {rule}",
                        "what it takes never comes to the gateway: that mail does not pass at all",
                        rule.removal,
                    )


def bypasses(seen: Snapshot) -> Iterator[Trouble]:
    """In raw, where ours stands last: what is accepted, or queued for others, does not come to the gate."""
    on_host = seen.config.placement is Placement.HOST
    for saved in _each(seen):
        for chain in ("PREROUTING", "OUTPUT") if on_host else ("PREROUTING",):
            for rule in saved.before_ours("raw", chain, seen.hooks):
                if rule.target in _PASSES and not rule.narrow:
                    yield Trouble(
                        f"a rule leads connections to port 25 past the gate: {rule}",
                        "what another rule accepts there, or hands to another program, passes in clear",
                        rule.removal,
                    )


def drops_of_dials(seen: Snapshot) -> Iterator[Trouble]:
    """What this very box may not send: a site that lets only one mail server out forgets the gateway."""
    for saved in _each(seen):
        for table in ("raw", "mangle", "filter"):
            for rule in _theirs(saved, table, "OUTPUT", seen):
                if rule.target in _ENDS and rule.names_port and not rule.narrow:
                    yield Trouble(
                        f"a rule ends connections that this machine opens to port 25: {rule}",
                        "the gateway itself dials the mail servers: with this rule it reaches none",
                        rule.removal,
                    )


def redirections(seen: Snapshot) -> Iterator[Trouble]:
    for saved in _each(seen):
        for chain in ("PREROUTING", "OUTPUT"):
            for rule in _theirs(saved, "nat", chain, seen):
                if rule.target in _TURNS and rule.names_port and not rule.narrow:
                    yield Trouble(
                        f"a rule turns port 25 to somewhere else: {rule}",
                        "it changes the destination before our rules deliver the packet: that mail does not"
                        " come to the gateway as it should",
                        rule.removal,
                    )


def smaller_segments(seen: Snapshot) -> Iterator[Trouble]:
    """An MSS of the site's for what it forwards, and no word of it for what the gateway sends."""
    for saved in _each(seen):
        if any(rule.target == _MSS for rule in _theirs(saved, "mangle", "POSTROUTING", seen)):
            continue
        for rule in _theirs(saved, "mangle", "FORWARD", seen):
            # To clamp it to the path's is needed for nothing that starts here: the kernel does that.
            if rule.target == _MSS and "--set-mss" in rule.options and not _FOR_SOME & set(rule.words):
                yield Trouble(
                    f"a rule makes segments smaller of what is forwarded alone: {rule}",
                    "the gateway's connections start here, and are not forwarded: where the line needs them"
                    " small, its mails stall",
                    shell(rule.tool, "-t", "mangle", "-A", "POSTROUTING", *_without_input(rule.words)),
                )


def _without_input(words: Sequence[str]) -> Iterator[str]:
    """In POSTROUTING it is not known any more by which interface a packet came."""
    for before, word in zip(("", *words), words, strict=False):
        if "-i" not in (before, word):
            yield word


def untracked(seen: Snapshot) -> Iterator[Trouble]:
    for saved in _each(seen):
        for chain in ("PREROUTING", "OUTPUT"):
            for rule in _theirs(saved, "raw", chain, seen):
                off = rule.target == "NOTRACK" or (rule.target == "CT" and "--notrack" in rule.options)
                if off and not rule.narrow:
                    yield Trouble(
                        f"a rule keeps port 25 out of connection tracking: {rule}",
                        "the gateway's two connections have the same addresses, and only tracking in zones"
                        " tells them apart",
                        rule.removal,
                    )


def marks_overwritten(seen: Snapshot) -> Iterator[Trouble]:
    """Every bit of the mark written over, where ours must live."""
    mask = seen.config.marks.mask
    for saved in _each(seen):
        for rule in _theirs(saved, "mangle", "PREROUTING", seen):
            if rule.target != "MARK" or rule.narrow or rule.options[:1] != ("--set-xmark",):
                continue
            value, _, covers = rule.options[1].partition("/")
            covered = int(covers or "0xffffffff", 0)
            if not covered & mask:
                continue
            kept = f"{int(value, 0) & ~mask & _ALL_BITS:#x}/{covered & ~mask & _ALL_BITS:#x}"
            words = [kept if word == rule.options[1] else word for word in rule.words]
            yield Trouble(
                f"a rule writes over our bits of the packet mark: {rule}",
                f"our rules know a packet by the bits {mask:#x} (marks.mask); the others stay the site's",
                rule.replaced_by(words),
            )


def foreign_zone(seen: Snapshot) -> Iterator[Trouble]:
    zone = str(seen.config.zone)
    for saved in _each(seen):
        for rule in saved.all():
            if rule.target == "CT" and zone in rule.options and "--zone" in " ".join(rule.options):
                yield Trouble(
                    f"somebody else uses our connection tracking zone {zone}: {rule}",
                    "connections of the two get mixed up there",
                    rule.removal,
                )


def old_tables(seen: Snapshot) -> Iterator[Trouble]:
    """Legacy tables beside nftables: both see each packet, and neither tool shows the other's rules."""
    for family, dump in seen.legacy.items():
        count = sum(1 for _ in parse(dump, family, seen.config.ports).all())
        tool = "iptables" if family == 4 else "ip6tables"
        if not count or _is_the_same(dump, seen.dumps.get(family, "")):
            continue
        rules = f"{count} rules stand" if count > 1 else "1 rule stands"
        yield Trouble(
            f"{rules} in the old tables of {tool}-legacy, beside those of nftables",
            "packets meet both, and each tool shows only its own: a rule there can stop mail unseen",
            f"{tool}-legacy-save | {tool}-restore --noflush && {_flush(family)}",
        )


def _flush(family: int) -> str:
    tool, names = ("iptables", "ip_tables_names") if family == 4 else ("ip6tables", "ip6_tables_names")
    return f"for table in $(cat /proc/net/{names}); do {tool}-legacy -t $table -F; done"


def _is_the_same(old: str, new: str) -> bool:
    """On a machine whose iptables is the legacy one there is no other."""
    parts = [
        {line.partition("] ")[2] for line in dump.splitlines() if line.startswith("[")} for dump in (old, new)
    ]
    return parts[0] == parts[1]


# --- What all of them look at ------------------------------------------------------------------------


def _each(seen: Snapshot) -> Iterator[Saved]:
    for family, dump in seen.dumps.items():
        yield parse(dump, family, seen.config.ports)


def _theirs(saved: Saved, table: str, chain: str, seen: Snapshot) -> Iterator[Rule]:
    """Those behind our own jump too: what they do, they also do to packets that have passed it."""
    for rule in saved.walked(table, chain, seen.hooks):
        if not rule.is_ours:
            yield rule
