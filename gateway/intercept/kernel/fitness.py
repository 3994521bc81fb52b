"""What this kernel, or the tools here, cannot do for us, before anything is done. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.intercept import ruleset
from gateway.intercept.kernel import commands, iptables, lifts, nft, sysctls
from gateway.intercept.kernel.routing import families, is_off_on_loopback
from gateway.intercept.objects import IptablesRules, NftTable
from gateway.intercept.placements import layout_of

_FORWARDING: Final = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
_GLOBAL_SCOPE: Final = "00"
# thread-self: /proc/net is the network namespace of the process, not of the thread that asks.
_OLD_TABLES: Final = {
    4: Path("/proc/thread-self/net/ip_tables_names"),
    6: Path("/proc/thread-self/net/ip6_tables_names"),
}

OFF_ON_LOOPBACK: Final = (
    "net.ipv6.conf.lo.disable_ipv6 is 1: IPv6 cannot be delivered here, so mail by IPv6 passes in clear"
)
_ADDRESSES6: Final = Path("/proc/thread-self/net/if_inet6")
"""A line for each: address, index, length of the prefix, scope, flags (all in hex), interface."""


def remarks(config: Config) -> list[str]:
    """What in this kernel keeps mail from flowing, or from being protected, as lines for the operator."""
    layout = layout_of(config)
    found: list[str | None] = []
    if layout.bridged:
        found.append(lifts.trouble())
    elif layout.routes_for_others:
        found += [
            f"{name.replace('/', '.')} is not 1: this box does not route IPv{family}, so no mail comes by"
            for family, name in _FORWARDING.items()
            if family in families() and _in_use(family) and sysctls.value(name) != "1"
        ]
    if is_off_on_loopback() and (layout.bridged or _in_use(6)):
        found.append(OFF_ON_LOOPBACK)
    return [line for line in [*found, *_untaken(config)] if line is not None]


def require_taken(config: Config) -> None:
    """Raises EnvironmentFailureError where iptables would refuse our rules; puts in none.

    nft is not asked: the kernel hooks its chains in to see whether it can, and with a hook that it takes out
    again it drops all that waits in queues. Each SYN there would cost its client a second.
    """
    for refusal in _untaken_by_iptables(ruleset.render(config, ruleset.slots_of(config))):
        raise EnvironmentFailureError(refusal)


def _in_use(family: int) -> bool:
    """Every machine has IPv6 addresses of a link; who has no others forwards no IPv6, and need not."""
    if family != 6 or not _ADDRESSES6.exists():
        return family != 6
    return any(line.split()[3] == _GLOBAL_SCOPE for line in _ADDRESSES6.read_text().splitlines())


def _untaken(config: Config) -> list[str]:
    """Of our rules. Asked of the tools themselves, which then put in none of them."""
    wanted = ruleset.render(config, ruleset.slots_of(config))
    lines: list[str] = []
    for table in wanted.of(NftTable):
        complaint = nft.complaint(table)
        if complaint is not None:
            lines.append(f"nft does not take our table of the family {table.family}: {complaint}")
    return [*lines, *_untaken_by_iptables(wanted)]


def _untaken_by_iptables(wanted: ruleset.RuleSet) -> Iterator[str]:
    for rules in wanted.of(IptablesRules):
        complaint = iptables.complaint(rules) if rules.family in families() else None
        if complaint is not None:
            yield f"our rules for IPv{rules.family} are not taken: {complaint}"


def notes() -> list[str]:
    """What is good to know, and keeps no mail from being protected: which iptables there is here."""
    lines: list[str] = []
    for family in families():
        tool = iptables.TOOL[family]
        if iptables.is_legacy(family):
            lines.append(
                f"{tool} is the legacy one here: our rules go into its old tables, and do all they do"
            )
        elif (count := _old_rules(family)) != 0:
            many = {None: "rules may stand", 1: "1 rule stands"}.get(count, f"{count} rules stand")
            lines.append(
                f"{many} in the old tables of {tool}-legacy, beside those of nftables: packets meet both, "
                "and each tool shows only its own"
            )
    return lines


def _old_rules(family: int) -> int | None:
    """How many; None where there are tables, and no tool to look into them."""
    names = _OLD_TABLES[family]
    try:
        if not names.read_text().strip():
            return 0
    except OSError:
        return 0
    try:
        dump = commands.run([f"{iptables.TOOL[family]}-legacy-save"])
    except EnvironmentFailureError:
        return None
    return sum(line.startswith("-A ") for line in dump.splitlines())
