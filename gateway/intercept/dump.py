"""What iptables-save prints: which lines of it are ours, what it counted, and how to take ours out.

Pure. Must never take a line for ours that is not: the chains' prefix decides, in a jump as in a name.
Counterparts: `objects`, whose texts are compared with it; `kernel.iptables`, which runs the tools.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from gateway.intercept.objects import CHAIN_PREFIX

_TABLE_LINE = re.compile(r"\*(\w+)$")
_JUMP = re.compile(rf"-A (?!{CHAIN_PREFIX})\S+ .*-j {CHAIN_PREFIX}\S+$")
_INSERT = re.compile(r"-I (\S+) 1 ")
_COUNTERS = re.compile(r"^\[\d+:\d+\] ")
_GATE_CHAIN: Final = f"{CHAIN_PREFIX}GATE"
_PASSED_CHAIN: Final = f"{CHAIN_PREFIX}PASSED"
_Present = tuple[list[str], list[str]]
"""Of one table: our chains, and the jumps to them."""


def expected_lines(restore_text: str) -> list[str]:
    """Our rules as iptables-save shows them, each behind its table's name, sorted."""
    return sorted(
        f"{table} " + _INSERT.sub(r"-A \1 ", line)
        for table, line in _rules(restore_text)
        if line.startswith(("-A ", "-I "))
    )


def own_lines(dump: str) -> list[str]:
    """Our rules and jumps in an iptables-save dump (with or without counters), in the same form."""
    return sorted(f"{table} {line}" for table, line in _rules(dump) if _is_ours(line))


def with_withdrawal(restore_text: str, dump: str) -> str:
    """`restore_text`, preceded in each table by the removal of our jumps and stale chains in `dump`.

    One iptables-restore of it is one transaction for each table, whatever stood there before.
    """
    present = _present(dump)
    out: list[str] = []
    wanted: set[str] = set()
    table = ""
    pending = False
    for line in restore_text.splitlines():
        match = _TABLE_LINE.match(line)
        if match:
            table, pending = match[1], True
        elif pending and not line.startswith((":", "#")):
            out += _withdrawal(present.get(table, ([], [])), keep=wanted)
            pending, wanted = False, set()
        if line.startswith(":"):
            wanted.add(line[1:].split()[0])
        out.append(line)
    named = {table for table, _ in _rules(restore_text)}
    stale = {table: ours for table, ours in present.items() if table not in named}
    return "\n".join(out) + "\n" + _removal(stale)


def removal_text(dump: str) -> str:
    """Input of iptables-restore that takes out all that is ours in `dump`; empty if nothing is.

    The gate goes first, so that no SYN is taken that the other tables no longer know.
    """
    return _removal(_present(dump))


def gate_counts(dump: str) -> dict[str, int]:
    """From `iptables-save -c -t raw`: SYNs that reached the gate, by interface.

    One that SYNs leave by is told as "-o eth0", all but the loopback as "! -i lo" and "! -o lo".
    """
    return _counts(dump, _GATE_CHAIN)


def passed_counts(dump: str) -> dict[str, int]:
    """From `iptables-save -c -t mangle`: SYNs that went on behind the gate unmarked, by interface."""
    return _counts(dump, _PASSED_CHAIN)


def _counts(dump: str, chain: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    pattern = rf"\[(\d+):\d+\] -A {CHAIN_PREFIX}(?:PREROUTING|OUTPUT) ((?:! )?-[io] \S+) .*-j {chain}$"
    for match in re.finditer(pattern, dump, re.MULTILINE):
        interface = match[2].removeprefix("-i ")
        counts[interface] = counts.get(interface, 0) + int(match[1])
    return counts


def _rules(text: str) -> Iterator[tuple[str, str]]:
    """(table, line without counters) of every line in a table."""
    table = ""
    for raw in text.splitlines():
        line = _COUNTERS.sub("", raw)
        match = _TABLE_LINE.match(line)
        if match:
            table = match[1]
        elif line.startswith(("-", ":")):
            yield table, line


def _is_ours(line: str) -> bool:
    return line.startswith(f"-A {CHAIN_PREFIX}") or bool(_JUMP.match(line))


def _present(dump: str) -> dict[str, _Present]:
    present: dict[str, _Present] = {}
    for table, line in _rules(dump):
        chains, jumps = present.setdefault(table, ([], []))
        if line.startswith(f":{CHAIN_PREFIX}"):
            chains.append(line[1:].split()[0])
        elif _JUMP.match(line):
            jumps.append(line)
    return present


def _removal(present: Mapping[str, _Present]) -> str:
    out: list[str] = []
    for table in sorted(present, key=lambda name: name != "raw"):
        lines = _withdrawal(present[table], keep=set())
        if lines:
            out += [f"*{table}", *lines, "COMMIT"]
    return "\n".join([*out, ""]) if out else ""


def _withdrawal(present: _Present, keep: set[str]) -> list[str]:
    chains, jumps = present
    return [
        *(line.replace("-A ", "-D ", 1) for line in jumps),
        *(f"-F {chain}" for chain in chains),
        *(f"-X {chain}" for chain in chains if chain not in keep),
    ]
