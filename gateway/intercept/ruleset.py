"""Config and slots -> every rule, route and routing rule that we put into the kernel, and their inverse.

Pure, but for reading the templates that ship with the package. No other file spells a rule: the words are
in `iptables/` at the top of the source tree (in an installed package: `templates/` beside this file).
Counterpart: `kernel`, which carries these texts to the kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Final

from gateway.config import Config
from gateway.errors import EnvironmentFailureError, LocalMisuseError
from gateway.intercept.marks import SLOTS, MarkBits, Verdict
from gateway.policy import limits

NFT_TABLE: Final = "nightmail"
CHAIN_PREFIX: Final = "NIGHTMAIL-"
RULE_PRIORITY: Final = 25
"""Of our routing rules: behind `local` (0), before whatever the site routes by."""
FAMILIES: Final = (4, 6)
LOOPBACK: Final = "lo"

_TABLE_LINE = re.compile(r"\*(\w+)$")
_JUMP = re.compile(rf"-A (?!{CHAIN_PREFIX})\S+ .*-j {CHAIN_PREFIX}\S+$")
_INSERT = re.compile(r"-I (\S+) 1 ")
_COUNTERS = re.compile(r"^\[\d+:\d+\] ")
_GATE_CHAIN: Final = f"{CHAIN_PREFIX}GATE"
_PASSED_CHAIN: Final = f"{CHAIN_PREFIX}PASSED"
_GATE_LINE: Final = "# $gate"


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker's place: its bits in the mark, its queue and its listener's port."""

    index: int
    queue: int
    port: int


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """`ip rule`: what comes in by this interface with all bits of this mark is looked up in our table.

    What starts here comes, in the words of routing, by lo.

    Bound to the interface, so that neither a reverse-path check by mark (src_valid_mark) nor an answer
    that reflects the mark (fwmark_reflect) ever meets our table.
    """

    family: int
    interface: str
    mark: int
    table: int
    priority: int = RULE_PRIORITY


@dataclass(frozen=True, slots=True)
class LocalRoute:
    """`ip route`: everything in this table is delivered here."""

    family: int
    table: int


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All that stands in the kernel for one configuration and its slots, the gate's queues aside."""

    iptables: Mapping[int, str]  # by family; without the gate's rules
    nft: str
    policy_rules: tuple[PolicyRule, ...]
    routes: tuple[LocalRoute, ...]
    slots: tuple[Slot, ...]

    def restore_text(self, family: int, live_queues: Iterable[int]) -> str:
        """Input of iptables-restore: our chains filled, jumps as they should be found afterwards."""
        return self.iptables[family].replace(_GATE_LINE, "\n".join(gate_rules(live_queues)))


def slots_of(config: Config, first: int = 0) -> tuple[Slot, ...]:
    """The slots of one generation of workers, counted from `first`. Raises LocalMisuseError beyond 32."""
    if first + config.workers > SLOTS:
        raise LocalMisuseError(f"{config.workers} workers from slot {first}: there are {SLOTS}")
    return tuple(
        Slot(i, config.first_queue + i, config.first_listen_port + i)
        for i in range(first, first + config.workers)
    )


def slots_to_render(config: Config, in_use: Iterable[Slot]) -> tuple[Slot, ...]:
    """The slots that the rules should know: those in use, and room for a running and a draining generation.

    So that a reload finds all that it needs, and the nft table need not be replaced under traffic.
    """
    known = {slot.index: slot for slot in in_use}
    for index in range(min(2 * config.workers, SLOTS)):
        known.setdefault(index, Slot(index, config.first_queue + index, config.first_listen_port + index))
    return tuple(known[index] for index in sorted(known))


def free_slot(workers: int, taken: set[int]) -> int:
    """The first of as many neighbouring slots as the workers need, none of them in `taken`.

    The lowest one: so a reload and the next one take turns in two halves. Raises EnvironmentFailureError.
    """
    for first in range(SLOTS - workers + 1):
        if taken.isdisjoint(range(first, first + workers)):
            return first
    raise EnvironmentFailureError(
        f"no room for {workers} workers beside {len(taken)} that finish their sessions; try again later"
    )


def render(config: Config, slots: Sequence[Slot]) -> RuleSet:
    """The whole rule set. `slots` may hold those of a draining generation beside the running one's."""
    bits = MarkBits(config.marks.mask)
    interfaces = list(dict.fromkeys(config.inside + config.outside))
    values = _values(config, bits, interfaces)
    return RuleSet(
        iptables={
            family: _filled(
                f"router.v{family}.rules",
                values,
                [
                    [{"interface": name} for name in interfaces],
                    [{"never": str(net)} for net in config.never if net.version == family],
                ],
            )
            for family in FAMILIES
        },
        nft=_filled(
            "router.nft",
            values,
            [
                [{"slot_take": hex(bits.take(slot.index)), "slot_port": str(slot.port)} for slot in slots],
            ],
        ),
        policy_rules=tuple(
            PolicyRule(family, name, mark, config.table)
            for family in FAMILIES
            for name, mark in [*((name, bits.taken) for name in interfaces), (LOOPBACK, bits.turned)]
        ),
        routes=tuple(LocalRoute(family, config.table) for family in FAMILIES),
        slots=tuple(slots),
    )


def gate_rules(live_queues: Iterable[int]) -> list[str]:
    """Rules of the gate chain: SYNs to the live queues, or none where nobody lives.

    The kernel balances over one contiguous run and by a hash of the addresses. With a hole in the run, the
    longest part serves: splitting further would need a second hash that sends a retransmitted SYN to the
    worker that holds the first one, and iptables has none for both families. It lasts as long as the dead
    worker's successor takes to bind its queue again.
    """
    run = _longest_run(sorted(set(live_queues)))
    if not run:
        return []
    where = f"--queue-num {run[0]}" if len(run) == 1 else f"--queue-balance {run[0]}:{run[-1]}"
    return [f"-A {_GATE_CHAIN} -p tcp -j NFQUEUE {where} --queue-bypass"]


def render_gate(live_queues: Iterable[int]) -> str:
    """Input of iptables-restore, the same for both families, that swaps the gate chain and nothing else."""
    return "\n".join(["*raw", f":{_GATE_CHAIN} - [0:0]", *gate_rules(live_queues), "COMMIT", ""])


# --- The kernel's own words: what iptables-save prints -----------------------------------------------


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
    """From `iptables-save -c -t raw`: SYNs that reached the gate, by interface."""
    return _counts(dump, _GATE_CHAIN)


def passed_counts(dump: str) -> dict[str, int]:
    """From `iptables-save -c -t mangle`: SYNs that went on behind the gate unmarked, by interface."""
    return _counts(dump, _PASSED_CHAIN)


def _counts(dump: str, chain: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    pattern = rf"\[(\d+):\d+\] -A {CHAIN_PREFIX}PREROUTING -i (\S+) .*-j {chain}$"
    for match in re.finditer(pattern, dump, re.MULTILINE):
        counts[match[2]] = counts.get(match[2], 0) + int(match[1])
    return counts


def reset_query(kind: str, server: str, client: str) -> list[str]:
    """A command that succeeds if `server` has lately reset a connection of `client`: "plain", with a TTL with
    which it also begins connections; "odd", with another one."""
    family = 6 if ":" in server else 4
    where = f"{{ {server} . {client} }}"
    return ["nft", "get", "element", "inet", NFT_TABLE, f"{kind}_resets{family}", where]


# --- Filling templates -------------------------------------------------------------------------------


def _values(config: Config, bits: MarkBits, interfaces: Sequence[str]) -> dict[str, str]:
    return {
        "ports": ",".join(str(port) for port in config.ports),
        "interfaces": ", ".join(f'"{name}"' for name in interfaces),
        "zone": str(config.zone),
        "mask": hex(bits.mask),
        "rest": hex(bits.rest),
        "taken": hex(bits.taken),
        "turned": hex(bits.turned),
        "dialled": hex(bits.dialled),
        "accepted": hex(bits.accepted),
        "refuse": hex(bits.answer(Verdict.REFUSE)),
        "host_unreachable": hex(bits.answer(Verdict.HOST_UNREACHABLE)),
        "net_unreachable": hex(bits.answer(Verdict.NET_UNREACHABLE)),
        "admin_prohibited": hex(bits.answer(Verdict.ADMIN_PROHIBITED)),
        "taken_connections": str(limits.TAKEN_CONNECTIONS),
        "taken_opening_seconds": str(limits.TAKEN_OPENING_SECONDS),
        "taken_idle_seconds": str(limits.TAKEN_IDLE_SECONDS),
        "ttl_kept_seconds": str(limits.TTL_KEPT_SECONDS),
        "resets_kept_seconds": str(limits.RESETS_KEPT_SECONDS),
        "ttl_servers": str(limits.TTL_SERVERS),
    }


def _filled(template: str, values: Mapping[str, str], groups: Sequence[Sequence[Mapping[str, str]]]) -> str:
    """The template without its comments; a line with a group's placeholder once for each of its records."""
    names = {"interface": 0, "never": 1} if template.endswith(".rules") else {"slot_take": 0, "slot_port": 0}
    out: list[str] = []
    for line in template_text(template).splitlines():
        if line.strip() == _GATE_LINE:
            out.append(_GATE_LINE)
            continue
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        used = {names[name] for name in Template(line).get_identifiers() if name in names}
        records: Sequence[Mapping[str, str]] = groups[used.pop()] if used else [{}]
        out += [Template(line).substitute(values, **record) for record in records]
    return "\n".join(out) + "\n"


def template_text(name: str) -> str:
    """A template's text, from the package or from a source tree."""
    packaged: Traversable = files("gateway.intercept") / "templates" / name
    if packaged.is_file():
        return packaged.read_text()
    return (Path(__file__).parents[2] / "iptables" / name).read_text()


def _longest_run(numbers: Sequence[int]) -> list[int]:
    best: list[int] = []
    run: list[int] = []
    for number in numbers:
        run = [*run, number] if run and number == run[-1] + 1 else [number]
        if len(run) > len(best):
            best = run
    return best


# --- Reading dumps -----------------------------------------------------------------------------------

_Present = tuple[list[str], list[str]]
"""Of one table: our chains, and the jumps to them."""


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
