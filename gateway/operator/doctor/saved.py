"""An iptables-save dump -> rules as far as it matters here: whose packets they mean, and what they do

Pure. What is not understood makes a rule narrow: one that asks for more than port, protocol and interface is
somebody's intention for some packets, and is not accused unread.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.policy import limits

_TABLE: Final = re.compile(r"\*(\w+)$")
_POLICY: Final = re.compile(r":(\S+) (\S+) \[(\d+):\d+\]")
_RULE: Final = re.compile(r"(?:\[(\d+):\d+\] )?-A (\S+) ?(.*)")
_OURS: Final = "NIGHTMAIL-"
_MATCHES_THAT_TELL: Final = frozenset({"tcp", "multiport", "comment", "conntrack", "state"})
_PORTS: Final = frozenset({"--dport", "--dports", "--destination-port", "--destination-ports", "--ports"})
_NEW: Final = frozenset({"--ctstate", "--state"})
_TAKES_TWO: Final = frozenset({"--tcp-flags"})


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `names_port`: it names one of the ports that it was asked for; `other`: only other ones."""

    family: int
    table: str
    chain: str
    number: int
    packets: int
    words: tuple[str, ...]
    target: str = ""
    names_port: bool = False
    other: bool = False
    interface: str = ""
    narrow: bool = False
    options: tuple[str, ...] = ()
    """What follows the target's name."""

    @property
    def is_ours(self) -> bool:
        return self.chain.startswith(_OURS) or self.target.startswith(_OURS)

    def __str__(self) -> str:
        return f"{self.tool} -t {self.table} -A {self.chain} {shlex.join(self.words)}"

    @property
    def tool(self) -> str:
        return "iptables" if self.family == 4 else "ip6tables"

    @property
    def removal(self) -> str:
        """A line for a shell that takes out this very rule."""
        return shlex.join([self.tool, "-t", self.table, "-D", self.chain, *self.words])

    def replaced_by(self, words: Sequence[str]) -> str:
        """A line for a shell that puts `words` in its place."""
        return shlex.join([self.tool, "-t", self.table, "-R", self.chain, str(self.number), *words])


@dataclass(frozen=True, slots=True)
class Saved:
    """One dump: rules by (table, chain), and of the kernel's own chains policy and its counter."""

    rules: dict[tuple[str, str], list[Rule]] = field(default_factory=dict)
    policies: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)

    def all(self) -> Iterator[Rule]:
        for chain in self.rules.values():
            yield from chain

    def before_ours(self, table: str, chain: str, sides: Sequence[str]) -> Iterator[Rule]:
        """Rules that a mail packet of ours meets there before our own jump, in order."""
        before: list[Rule] = []
        for rule in self.walked(table, chain, sides):
            if rule.is_ours:
                return iter(before)
            before.append(rule)
        # Ours will stand first, but for raw, where it stands last.
        return iter(before if table == "raw" else ())

    def walked(
        self, table: str, chain: str, sides: Sequence[str], jumps: int = limits.JUMPS_FOLLOWED
    ) -> Iterator[Rule]:
        """Rules that a mail packet of ours can meet there, in order, jumps followed, our own among them.

        `sides`: the interfaces by which iptables knows such packets; empty for any.
        Those that mean only others are left out; narrow ones are in.
        """
        for rule in self.rules.get((table, chain), ()):
            if rule.other or (rule.interface and sides and rule.interface not in sides):
                continue
            inner = (table, rule.target) in self.rules and not rule.is_ours
            # What a narrow jump leads to means some packets only.
            if inner and not rule.narrow and jumps:
                yield from self.walked(table, rule.target, sides, jumps - 1)
            else:
                yield rule


def parse(dump: str, family: int, ports: Sequence[int]) -> Saved:
    """Also of iptables-legacy-save."""
    saved, table = Saved(), ""
    for line in dump.splitlines():
        if match := _TABLE.match(line):
            table = match[1]
        elif match := _POLICY.match(line):
            saved.rules[table, match[1]] = []
            if match[2] != "-":
                saved.policies[table, match[1]] = (match[2], int(match[3]))
        elif match := _RULE.match(line):
            chain = saved.rules.setdefault((table, match[2]), [])
            where = (family, table, match[2], len(chain) + 1, int(match[1] or 0))
            chain.append(_rule(where, _words(match[3]), ports))
    return saved


def _words(text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError:
        return tuple(text.split())


def _rule(where: tuple[int, str, str, int, int], words: tuple[str, ...], ports: Sequence[int]) -> Rule:
    target, interface = "", ""
    options: tuple[str, ...] = ()
    names_port = other = narrow = False
    rest = list(words)
    while rest:
        word = rest.pop(0)
        value = rest[0] if rest else ""
        if word in ("-j", "-g"):
            target, options = value, tuple(rest[1:])
            break
        if word == "!":
            narrow = True
            continue
        if word == "-p":
            other = other or value not in ("tcp", "all", "6")
        elif word in _PORTS:
            names_port = _names(value, ports)
            other = other or not names_port
        elif word in ("-i", "-o"):
            interface = value
        elif word in _NEW:
            narrow = narrow or "NEW" not in value.split(",")
        elif word == "-m":
            narrow = narrow or value not in _MATCHES_THAT_TELL
        elif word == "--tcp-flags":
            narrow = narrow or "SYN" not in rest[1:2]
        elif word.startswith("-") and word != "--comment":
            narrow = True
        del rest[: 2 if word in _TAKES_TWO else 1]
    return Rule(*where, words, target, names_port, other, interface, narrow, options)


def _names(text: str, ports: Sequence[int]) -> bool:
    """Of `25`, `25,587`, `1:1023` whether one of the ports is meant."""
    for part in text.split(","):
        first, _, last = part.partition(":")
        try:
            low, high = int(first or 0), int(last or first or 0)
        except ValueError:
            return True
        if any(low <= port <= high for port in ports):
            return True
    return False
