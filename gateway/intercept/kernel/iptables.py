"""The rules of iptables, both families, and the gate in them; what they have counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from gateway.errors import EnvironmentFailureError
from gateway.intercept import dump
from gateway.intercept.kernel.commands import run, run_together, succeeds
from gateway.intercept.kernel.routing import families, spoken
from gateway.intercept.objects import CHAIN_PREFIX, IptablesRules, KernelObject, render_gate
from gateway.policy import limits

TOOL: Final = {4: "iptables", 6: "ip6tables"}
_SAVE: Final = {family: [f"{tool}-save"] for family, tool in TOOL.items()}


class Iptables:
    """Ours by the prefix of our chains. The gate sends SYNs to the `live` queues."""

    of: tuple[type[KernelObject], ...] = (IptablesRules,)
    numbered = True

    def __init__(self) -> None:
        self.live: tuple[int, ...] = ()
        self.counted: int | None = None
        """By the counters that the last `mend` has set to nothing: SYNs that had passed the gate unmarked."""

    def missing(self, wanted: Sequence[IptablesRules]) -> list[str]:
        return self._missing(_looked_at(_here(wanted)))

    def surplus(self, wanted: Sequence[IptablesRules]) -> list[str]:
        lines: list[str] = []
        for rules in _here(wanted):
            expected = self._expected(rules)
            present = dump.own_lines(_save(rules.family))
            lines += [f"{TOOL[rules.family]} {line}" for line in present if line not in expected]
        return lines

    def put(self, wanted: Sequence[IptablesRules]) -> None:
        for rules in _here(wanted):
            text = rules.restore_text(self.live)
            run(_restore(rules.family), dump.with_withdrawal(text, _save(rules.family)))

    def mend(self, wanted: Sequence[IptablesRules]) -> list[str]:
        """One look, both families at once, and what it saw is what the next tool has to know.

        Who takes ours away is often not done yet, table by table: then the tool fails at what is gone since
        the look, and it is looked at again. Raises EnvironmentFailureError where that is no help either.
        """
        gone: list[str] = []
        self.counted = None
        for tries_left in reversed(range(limits.RULES_MEND_TRIES)):
            looks = _looked_at(_here(wanted))
            missing = self._missing(looks)
            if not missing:
                break
            gone += [line for line in missing if line not in gone]
            # What could be put back in an earlier try counts from nothing again.
            said = sum(sum(dump.passed_counts(look).values()) for _, look in looks)
            self.counted = max(said, self.counted or 0)
            try:
                self._put_back(looks)
                break
            except EnvironmentFailureError:
                if not tries_left:
                    raise
        return gone

    def take_away(self) -> None:
        for family in spoken():
            text = dump.removal_text(_save(family))
            if text:
                run(_restore(family), text)

    def swap_gate(self, live: Iterable[int]) -> None:
        """Send SYNs to these queues from now on (to none: everything passes). One transaction a family."""
        self.live = tuple(live)
        text = render_gate(self.live)
        run_together([(_restore(family), text) for family in families()])

    def _put_back(self, looks: Sequence[tuple[IptablesRules, str]]) -> None:
        run_together(
            [
                (_restore(rules.family), dump.with_withdrawal(rules.restore_text(self.live), look))
                for rules, look in looks
            ]
        )

    def _missing(self, looks: Sequence[tuple[IptablesRules, str]]) -> list[str]:
        lines: list[str] = []
        for rules, look in looks:
            present = frozenset(dump.own_lines(look))
            lines += [f"{TOOL[rules.family]} {line}" for line in self._expected(rules) if line not in present]
        return lines

    def _expected(self, rules: IptablesRules) -> list[str]:
        return dump.expected_lines(rules.restore_text(self.live))


def gate_counts() -> dict[str, int]:
    """SYNs that reached the gate, by interface, both families; starts anew when the rules are applied."""
    return _summed("raw", dump.gate_counts)


def passed_counts() -> dict[str, int]:
    """SYNs that went on behind the gate unmarked; the kernel counts on while no daemon runs."""
    return _summed("mangle", dump.passed_counts)


def complaint(rules: IptablesRules) -> str | None:
    """Why iptables or the kernel would not take these, in one line; None if they would. Changes nothing."""
    try:
        run([*_restore(rules.family), "--test"], rules.restore_text(()))
    except EnvironmentFailureError as error:
        return str(error)
    return None


def name_bridged_frames() -> None:
    """Put in a rule whose match is of bridged frames, and take it out again.

    The kernel then loads br_netfilter by itself, also for a process that may load no module. No packet
    meets it: nothing leads to its chain. Raises EnvironmentFailureError.
    """
    chain = f"{CHAIN_PREFIX}BRIDGED"
    there = f":{chain} - [0:0]\n-A {chain} -m physdev --physdev-is-in -j RETURN"
    for lines in (there, f"-F {chain}\n-X {chain}"):
        run(_restore(4), f"*raw\n{lines}\nCOMMIT\n")


def is_in_ipset(name: str, address: str) -> bool:
    """Whether the kernel's set has this address; False also where it, or the tool, is not there."""
    try:
        return succeeds(["ipset", "-q", "test", name, address])
    except EnvironmentFailureError:
        return False


def lacks_ipset(name: str) -> bool:
    """Whether the kernel has no set of this name; False also where there is no tool that could tell."""
    try:
        return not succeeds(["ipset", "-q", "list", "-t", name])
    except EnvironmentFailureError:
        return False


def is_legacy(family: int) -> bool:
    """Whether the tool of this family keeps its rules in the old tables, outside of nftables."""
    return "legacy" in run([f"{TOOL[family]}-restore", "--version"])


def _summed(table: str, read: Callable[[str], dict[str, int]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for family in families():
        for interface, count in read(run([f"{TOOL[family]}-save", "-c", "-t", table])).items():
            counts[interface] = counts.get(interface, 0) + count
    return counts


def _here(wanted: Sequence[IptablesRules]) -> list[IptablesRules]:
    spoken = families()
    return [rules for rules in wanted if rules.family in spoken]


def _looked_at(wanted: Sequence[IptablesRules]) -> list[tuple[IptablesRules, str]]:
    """Each with what stands in its family, counters and all."""
    return list(
        zip(wanted, run_together([([*_SAVE[rules.family], "-c"], "") for rules in wanted]), strict=True)
    )


def _save(family: int) -> str:
    return run(_SAVE[family])


def _restore(family: int) -> list[str]:
    return [f"{TOOL[family]}-restore", "--noflush", "-w", str(limits.RULES_LOCK_SECONDS)]
