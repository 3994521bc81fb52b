"""Config and slots -> every rule, route and switch that we put into the kernel.

Pure, but for reading the templates that ship with the package. No other file spells a rule: the words are
in `iptables/` at the top of the source tree (in an installed package: `templates/` beside this file).
Counterparts: `placements`, which says what this configuration's placement needs; `kernel`, which carries the
objects to the kernel.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from ipaddress import ip_address
from pathlib import Path
from string import Template
from typing import TypeVar

from gateway.config import Config, Network
from gateway.errors import EnvironmentFailureError, LocalMisuseError
from gateway.intercept.marks import SLOTS, MarkBits, Verdict
from gateway.intercept.objects import GATE_LINE, IptablesRules, KernelObject, NftTable, element_query
from gateway.intercept.placements import layout_of
from gateway.intercept.pulse import PULSE_PORT
from gateway.policy import limits
from gateway.policy.ignored_offers import TURN_BITS

_Kind = TypeVar("_Kind")
_Records = Sequence[Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Slot:
    """One worker's place: its bits in the mark, its queue and its listener's port."""

    index: int
    queue: int
    port: int


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All that stands in the kernel for one configuration and its slots, the gate's queues aside."""

    objects: tuple[KernelObject, ...]
    slots: tuple[Slot, ...]

    def of(self, kind: type[_Kind]) -> tuple[_Kind, ...]:
        """Its objects of one kind, in their order."""
        return tuple(each for each in self.objects if isinstance(each, kind))


def slots_of(config: Config, first: int = 0) -> tuple[Slot, ...]:
    """The slots of one generation of workers, counted from `first`. Raises LocalMisuseError beyond 32."""
    if first + config.workers > SLOTS:
        raise LocalMisuseError(f"{config.workers} workers from slot {first}: there are {SLOTS}")
    return all_slots(config)[first : first + config.workers]


def all_slots(config: Config) -> tuple[Slot, ...]:
    """Whether anybody uses them or not."""
    return tuple(Slot(i, config.first_queue + i, config.first_listen_port + i) for i in range(SLOTS))


def slots_to_render(config: Config, in_use: Iterable[Slot]) -> tuple[Slot, ...]:
    """The slots that the rules should know: all there are, so that a reload finds what it needs, and the nft
    table, which remembers connections, need not be replaced under traffic.

    Where a slot costs something, only those in use, and room for a running and a draining generation.
    """
    known = {slot.index: slot for slot in in_use}
    for index in range(SLOTS if layout_of(config).has_every_slot else min(2 * config.workers, SLOTS)):
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


def slots_with_room(config: Config, taken: set[int]) -> tuple[Slot, ...]:
    """Those of a generation, none of them in `taken`: as many as the workers need, or else the most that are
    in a row. Raises EnvironmentFailureError where none is left."""
    for workers in range(config.workers, 1, -1):
        with contextlib.suppress(EnvironmentFailureError):
            return slots_of(replace(config, workers=workers), free_slot(workers, taken))
    return slots_of(replace(config, workers=1), free_slot(1, taken))


def render(config: Config, slots: Sequence[Slot]) -> RuleSet:
    """The whole rule set. `slots` may hold those of a draining generation beside the running one's."""
    layout = layout_of(config)
    bits = MarkBits(config.marks.mask)
    chains = ", ".join(f"{bits.take(slot.index):#x} : jump taking_{slot.port}" for slot in slots)
    values = {**_values(config, bits), **layout.values, "slot_chains": chains}
    repeated = {name: [{name: one} for one in several] for name, several in layout.repeated.items()}
    in_slots = [{"slot_take": hex(bits.take(slot.index)), "slot_port": str(slot.port)} for slot in slots]
    repeated |= {name: _of_family(config.always, int(name[-1]), name) for name in ("always4", "always6")}
    tables = [
        NftTable(
            _filled(template, values, {**repeated, "slot_take": in_slots, "slot_port": in_slots}), family
        )
        for family, template in layout.nft.items()
    ]
    rules = []
    for family, template in layout.iptables.items():
        listed = _exceptions(config, family)
        rules.append(IptablesRules(family, _filled(template, values, {**repeated, **listed})))
    return RuleSet((*layout.objects, *tables, *rules), tuple(slots))


def reset_query(kind: str, server: str, client: str) -> list[str]:
    """A command that succeeds if `server` has lately reset a connection of `client`: "plain", with a TTL with
    which it also begins connections; "odd", with another one. Raises ValueError for what is no address: nft
    would read it as commands."""
    family = 6 if ":" in server else 4
    if "%" in server + client:  # behind it ip_address takes anything
        raise ValueError("an address with a scope")
    where = f"{{ {ip_address(server)} . {ip_address(client)} }}"
    return element_query(f"{kind}_resets{family}", where)


# --- Exceptions --------------------------------------------------------------------------------------


def _exceptions(config: Config, family: int) -> dict[str, _Records]:
    """What the lines with $from_always, $to_always, $from_never and $to_never stand once for."""
    sets = [one.name for one in config.never_ipsets if one.family == family]
    listed: dict[str, tuple[Sequence[Network], Sequence[str]]] = {
        "always": (config.always, ()),
        "never": (config.never, sets),
    }
    found: dict[str, _Records] = {}
    for name, (networks, names) in listed.items():
        here = [net for net in networks if net.version == family]
        for way, option, end in (("from", "-s", "src"), ("to", "-d", "dst")):
            key = f"{way}_{name}"
            matches = [_match(option, net) for net in here]
            found[key] = [
                {key: one} for one in (*matches, *(f"-m set --match-set {set_} {end}" for set_ in names))
            ]
    return found


def _match(option: str, network: Network) -> str:
    """As iptables-save shows it: whoever is in all of a family needs no match."""
    return f"{option} {network}" if network.prefixlen else ""


def _of_family(networks: Iterable[Network], family: int, name: str) -> list[dict[str, str]]:
    return [{name: str(net)} for net in networks if net.version == family]


# --- Filling templates -------------------------------------------------------------------------------


def _values(config: Config, bits: MarkBits) -> dict[str, str]:
    return {
        "ports": ",".join(str(port) for port in config.ports),
        "zone": str(config.zone),
        "mask": hex(bits.mask),
        "rest": hex(bits.rest),
        "taken": hex(bits.taken),
        "turned": hex(bits.turned),
        "dialled": hex(bits.dialled),
        "accepted": hex(bits.accepted),
        "spared": hex(bits.spared),
        "vouched": hex(bits.vouched),
        "known": hex(bits.known),
        "kinds": hex(bits.kinds),
        "pulse_port": str(PULSE_PORT),
        "vouched_milliseconds": str(limits.VOUCHED_MILLISECONDS),
        "dead_ends": str(limits.DEAD_ENDS),
        "resting": str(limits.RESTING),
        "unanswered_seconds": str(limits.UNANSWERED_SECONDS),
        "met_seconds": str(limits.MET_SECONDS),
        "turn_bits": hex(TURN_BITS),
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


def _filled(template: str, values: Mapping[str, str], repeated: Mapping[str, _Records]) -> str:
    """The template without its comments; a line with a repeated placeholder once for each of its records."""
    out: list[str] = []
    for line in template_text(template).splitlines():
        if line.strip() == GATE_LINE:
            out.append(GATE_LINE)
            continue
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        used = [name for name in Template(line).get_identifiers() if name in repeated]
        records: _Records = repeated[used[0]] if used else [{}]
        # A match may be empty.
        out += [Template(line).substitute(values, **record).replace("  -j", " -j") for record in records]
    return "\n".join(out) + "\n"


def template_text(name: str) -> str:
    """A template's text, from the package or from a source tree."""
    packaged: Traversable = files("gateway.intercept") / "templates" / name
    if packaged.is_file():
        return packaged.read_text()
    return (Path(__file__).parents[2] / "iptables" / name).read_text()
