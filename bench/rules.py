"""What our rules cost a packet on a router: `python -m bench.rules [--rules] [--against REV] [--json]`.

Routers stand side by side, each with another part of what `nightmail up` puts into the kernel, and packets of
whole sessions to a remembered dead end are sent through all of them in turn, on one CPU. A figure is what is
added to a router without any rule in the same turn, the median of the turns: in microseconds of a session
(forty packets, its conntrack entry made and ended), and in nanoseconds of a packet to the server and from it.
Needs root; hardly minds other work on the machine. Counterpart: `flood`, which sends.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

from bench import flood
from bench.flood import Took
from gateway.config import Config
from gateway.intercept import kernel, ruleset
from gateway.intercept.kernel.iptables import Iptables
from gateway.intercept.kernel.routing import Routing
from gateway.intercept.objects import IptablesRules, LocalRoute, NftTable, PolicyRule, Sysctl
from gateway.intercept.ruleset import RuleSet
from gateway.lab import network

CONFIG: Final = Config(inside=("lan",), outside=("wan",))
NOTHING: Final = "no rules, no conntrack"
TRACKED: Final = "table inet tracked { chain unused { ct mark 0 accept; }; }"
"""Makes the kernel track connections, and stands at no hook."""
ROUTING: Final = (PolicyRule, LocalRoute)
DEAD_END_SECONDS: Final = 3600
TURNS: Final = 60
ANOTHERS_OCTETS: Final = 4 << 20


EMPTY: Final = RuleSet((), ())


@dataclass(frozen=True, slots=True)
class Variant:
    """What stands in one router."""

    name: str
    rules: RuleSet = EMPTY
    tracks: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.rules", description="What our rules cost a packet.")
    parser.add_argument("--rules", action="store_true", help="each rule that a packet meets left out, too")
    parser.add_argument("--against", metavar="REV", help="only the rules, and those of another revision")
    parser.add_argument("--family", type=int, choices=(4, 6), default=4)
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--cold", action="store_true", help="other data in the caches before each 64 packets")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    asked = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    variants = list(against(asked.against) if asked.against else parts())
    if asked.rules:
        variants += without_each_rule()
    added = measure(variants, asked.family, asked.turns, let_others_run if asked.cold else int)
    if asked.json:
        print(json.dumps(added))
        return 0
    print(f"{'added to ' + NOTHING:76}   us/session   ns to server, from it")
    for name, figures in added.items():
        print(f"{name:76} {'  '.join(map(_shown, figures))}")
    return 0


def _shown(figure: Sequence[float]) -> str:
    low, middle, high = figure
    digits = 2 if middle < 100 else 0
    return f"{middle:7.{digits}f} [{low:.{digits}f}-{high:.{digits}f}]"


# --- What stands in the routers -----------------------------------------------------------------------


def rendered() -> RuleSet:
    """As the daemon puts them in."""
    return ruleset.render(CONFIG, ruleset.slots_to_render(CONFIG, ruleset.slots_of(CONFIG)))


def parts() -> Iterator[Variant]:
    """By kind, and then all but one of the places at which a packet is looked at."""
    whole = rendered()
    yield Variant("conntrack alone", tracks=True)
    yield Variant("routing rules alone", _only(whole, *ROUTING))
    yield Variant("routing rules and the switch", _only(whole, *ROUTING, Sysctl))
    yield Variant("the switch alone", _only(whole, Sysctl))
    yield Variant("iptables alone, and conntrack", _only(whole, IptablesRules))
    yield Variant("nft alone, and conntrack", _only(whole, NftTable))
    yield Variant("all", whole)
    for chain in hooked_chains(whole):
        yield Variant(f"all but nft's {chain}", _edited(whole, NftTable, partial(_unhooked, name=chain)))
    for table in ("raw", "mangle", "filter"):
        part = _edited(whole, IptablesRules, partial(_without_table, name=table))
        yield Variant(f"all but iptables' {table}", part)


def against(revision: str) -> Iterator[Variant]:
    """Its templates, filled by this tree: a placeholder that is unknown here is an error."""

    def template_of_then(name: str) -> str:
        words = ["git", "-C", str(Path(__file__).parent), "show", f"{revision}:iptables/{name}"]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    with mock.patch.object(ruleset, "template_text", template_of_then):
        then = rendered()
    for name, rules in (("", rendered()), (f", {revision}", then)):
        yield Variant(f"iptables alone, and conntrack{name}", _only(rules, IptablesRules))
        yield Variant(f"nft alone, and conntrack{name}", _only(rules, NftTable))
        yield Variant(f"all{name}", rules)


def without_each_rule() -> Iterator[Variant]:
    """A rule that lets most packets go on is dear to leave out: then they meet the ones behind it."""
    whole = rendered()
    text = whole.of(NftTable)[0].text
    for chain in hooked_chains(whole):
        for line in _chain(text, chain).splitlines()[2:-1]:
            part = _edited(whole, NftTable, partial(_cut, line=line, behind=f"chain {chain} {{"))
            yield Variant(f"without {chain}: {line.strip()}", part)
    for line in whole.of(IptablesRules)[0].template.splitlines():
        if line.startswith("-"):
            yield Variant(f"without {line}", _edited(whole, IptablesRules, partial(_cut, line=line)))


def hooked_chains(rules: RuleSet) -> list[str]:
    text = rules.of(NftTable)[0].text
    return re.findall(r"chain (\w+) \{\n\s*type \w+ hook", text)


def _only(rules: RuleSet, *kinds: type) -> RuleSet:
    return replace(rules, objects=tuple(one for one in rules.objects if isinstance(one, kinds)))


def _edited(rules: RuleSet, kind: type, edit: Callable[[str], str]) -> RuleSet:
    def edited(one: Any) -> Any:
        if not isinstance(one, kind):
            return one
        if isinstance(one, NftTable):
            return replace(one, text=edit(one.text))
        return replace(one, template=edit(one.template)) if isinstance(one, IptablesRules) else one

    return replace(rules, objects=tuple(map(edited, rules.objects)))


def _chain(text: str, name: str) -> str:
    begin = text.index(f"chain {name} {{")
    return text[begin : text.index("}\n", text.index("\n    }", begin)) + 2]


def _unhooked(text: str, name: str) -> str:
    """No packet comes to it, and whatever names it stays right."""
    return re.sub(rf"(chain {name} \{{\n)\s*type .*\n", r"\1", text)


def _without_table(text: str, name: str) -> str:
    return re.sub(rf"(?ms)^\*{name}$.*?^COMMIT\n", "", text)


def _cut(text: str, line: str, behind: str = "") -> str:
    before, found, rest = text.partition(behind) if behind else ("", "", text)
    return before + found + rest.replace(f"{line}\n", "", 1)


# --- Measuring ----------------------------------------------------------------------------------------


def measure(
    variants: Sequence[Variant], family: int, turns: int, between: Callable[[], object]
) -> dict[str, list[tuple[float, float, float]]]:
    """By name: what is added to a session, a packet to the server, one from it; each with its middle half."""
    standing = [Variant(NOTHING), *variants]
    with flood.standing(len(standing)):
        for number, variant in enumerate(standing):
            network.inside(flood.router(number), partial(lay, variant, family))
        sender = flood.Flood(family, len(standing))
        try:
            took = flood.in_turns(sender, [one.name for one in standing], turns, between)
        finally:
            sender.close()
    plain = took[NOTHING]
    print(
        f"  a session of {NOTHING}: {statistics.median(one.session for one in plain):.1f} us", file=sys.stderr
    )
    return {one.name: _added(took[one.name], plain) for one in variants}


def lay(variant: Variant, family: int) -> None:
    if variant.tracks:
        subprocess.run(["nft", TRACKED], check=True)
    live = [slot.queue for slot in ruleset.slots_of(CONFIG)]
    if variant.rules.of(NftTable):
        kernel.KernelRules(CONFIG).apply(variant.rules, live)
        kernel.DEAD_ENDS.add([(flood.SERVER[family], flood.MAIL_PORT)], DEAD_END_SECONDS)
        return
    # What the daemon lays down always has a table, and needs it.
    Routing([CONFIG.table]).put(_only(variant.rules, *ROUTING).objects)  # type: ignore[arg-type]
    iptables = Iptables()
    iptables.live = tuple(live)
    iptables.put(variant.rules.of(IptablesRules))
    for switch in variant.rules.of(Sysctl):
        Path("/proc/sys", switch.name).write_text(switch.value)


def _added(took: Sequence[Took], plain: Sequence[Took]) -> list[tuple[float, float, float]]:
    pairs = list(zip(took, plain, strict=True))
    return [
        _spread([one.session - other.session for one, other in pairs]),
        _spread([one.to_server - other.to_server for one, other in pairs]),
        _spread([one.from_server - other.from_server for one, other in pairs]),
    ]


def _spread(figures: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(figures, n=4)
    return low, middle, high


_anothers = bytearray(ANOTHERS_OCTETS)


def let_others_run() -> None:
    """Stands for another process, whose data takes the place of the kernel's."""
    _anothers[:] = _anothers.translate(None)


if __name__ == "__main__":
    sys.exit(main())
