"""What `nightmail up` would change now, told before: a line for each thing, and all of it in one sentence.

Changes nothing. Counterpart: `lifecycle`, which does it.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.config import Config
from gateway.intercept import kernel, ruleset
from gateway.operator import service as systemd
from gateway.operator.doctor import filters
from gateway.operator.lifecycle import missing_folders, queues, queues_of_daemon, said, to_do, up_word
from gateway.operator.service import Service
from gateway.operator.status import is_running
from gateway.policy import limits
from gateway.runtime.confinements import SIGNER

STAYS: Final = "(stays)"
"""Behind a line of a plan: `down` leaves this where it is."""
_OURS_AWAY: Final = "remove"
_KINDS: Final[dict[str, tuple[re.Pattern[str], str, str]]] = {
    "rules": (re.compile(r"ip6?tables "), "rule of iptables", "rules of iptables"),
    "nft_tables": (re.compile(r"nft \w+ (\w+ \w+)"), "table of nft", "tables of nft"),
    "routing_rules": (re.compile(r"ip -\d rule "), "routing rule", "routing rules"),
    "routes": (re.compile(r"ip -\d route "), "route", "routes"),
    "switches": (re.compile(r"sysctl "), "switch of the kernel", "switches of the kernel"),
    "bridge_steps": (re.compile(r"(?:ip link|bridge) "), "step at the bridge", "steps at the bridge"),
    "files": (re.compile(r"(?:file|folder|socket) "), "file or folder", "files and folders"),
}
"""Whatever a line of a plan may be about: how it begins behind its first word, and how it is called."""
_LEFT: Final = " of ours that other settings or versions have left"
_TURNED: Final = ("switches",)
"""Kinds that are there before, and have another value afterwards."""
_TABLE: Final = re.compile(r"(ip6?tables \w+) ")


@dataclass(frozen=True, slots=True)
class Plan:
    """One line for each thing that `up` would change; `remarks`: what stands in mail's way."""

    rules: list[str] = field(default_factory=list)
    """Rules, routes, interfaces and switches of the kernel."""
    files: list[str] = field(default_factory=list)
    services: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def changes(self) -> list[str]:
        return [*self.rules, *self.files, *self.services]


def plan(config: Config, service: Service | None = None, *, until_reboot: bool = False) -> Plan:
    """Takes a resolved configuration. `service`: the one that runs by it, where there is one."""
    rules = ruleset.render(config, ruleset.slots_to_render(config, ()))
    starts, enables = to_do(config, service, until_reboot)
    return Plan(
        kernel.plan(config, rules, queues_of_daemon(config) or queues(config)),
        [*_word_files(config, until_reboot), *(_daemon_files(config) if starts else ())],
        [f"{word:8}service {systemd.UNIT}" for word, so in (("start", starts), ("enable", enables)) if so],
        [
            *kernel.remarks(config),
            *filter(None, [kernel.table_refusal(config)]),
            *kernel.notes(),
            *_users(config),
            *_firewall(config),
            *_nobody(config, starts),
        ],
    )


def _nobody(config: Config, starts: bool) -> Iterator[str]:
    """Rules alone protect nothing."""
    if not starts and not is_running(config.control_socket):
        yield "no daemon is running, and `up` starts none here: mail passes in clear until `nightmail run`"


def _firewall(config: Config) -> Iterator[str]:
    """Rules of others that mail would meet; `up` changes none of them."""
    for one in filters.hindrances(config):
        yield f"{one.what}; {one.why}; what mends it: {one.mend}"


def _users(config: Config) -> Iterator[str]:
    """The package makes them; `up` makes none."""
    for number, name in enumerate((config.user, config.user + SIGNER)):
        try:
            pwd.getpwnam(name)
        except KeyError:
            yield f"there is no user {name}; the process takes the number {limits.SPARE_USER + number}"


def _word_files(config: Config, until_reboot: bool) -> list[str]:
    lines = [f"add     folder {folder} {STAYS}" for folder in reversed(missing_folders(config))]
    word = said(config)
    if not config.wanted_file.exists() or up_word(word, until_reboot) != word:
        told = "up, until the next boot" if until_reboot else "up"
        lines.append(f"write   file {config.wanted_file}: {told} {STAYS}")
    return lines


def _daemon_files(config: Config) -> list[str]:
    """What a daemon makes at its start; its sockets go when it ends, its folder of /run with the service."""
    memory = config.pins_file
    locks = [path.with_name(f"{path.name}.lock") for path in (config.identity_file, memory)]
    kept = [config.identity_file, memory, *locks, *([config.log_file] if config.log_file else [])]
    besides = [memory.with_name(memory.name + ending) for ending in ("-wal", "-shm")]
    besides.append(config.rules_lock)
    sockets = [config.control_socket]
    if isinstance(config.metrics_listen, Path):
        sockets.append(config.metrics_listen)
    return [
        *(f"add     file {path} {STAYS}" for path in kept if not path.exists()),
        *(f"add     file {path}" for path in besides if not path.exists()),
        *([] if config.run_dir.exists() else [f"add     folder {config.run_dir}"]),
        *(f"add     socket {path}" for path in sockets),
    ]


# --- In one sentence ---------------------------------------------------------------------------------


def told(plan: Plan) -> Iterator[str]:
    """Lines for a person: all there is to change, that in one sentence, and what stands in mail's way."""
    yield from plan.changes
    yield summary(plan)
    yield from (f"note: {remark}" for remark in plan.remarks)


def summary(plan: Plan) -> str:
    if not plan.changes:
        return "nothing to change: all rules are in place"
    adds, removes = counted(plan.changes, removed=False), counted(plan.changes, removed=True)
    turned = {kind: adds.pop(kind) for kind in _TURNED if kind in adds}
    each = (("add", adds, ""), ("turn", turned, ""), ("remove", removes, _LEFT))
    does = [f"{verb} {_listed(counts)}{whose}" for verb, counts, whose in each if counts]
    verbs = [line.split()[0] for line in plan.services]
    if verbs:
        does.append(f"{' and '.join(verbs)} {systemd.UNIT}")
    return f"in all: `up` would {', '.join(does)}; nothing of yours is removed"


def counted(changes: Iterable[str], *, removed: bool) -> dict[str, int]:
    """How many of each kind would be added (or changed), or removed; kinds without any are left out."""
    lines = [line.split(maxsplit=1) for line in changes]
    bodies = [body for verb, body in lines if (verb == _OURS_AWAY) is removed]
    counts: dict[str, int] = {}
    for kind, (begins, _, _) in _KINDS.items():
        found = [match for body in bodies if (match := begins.match(body))]
        # Of nft the tables are counted, not what stands in them.
        counts[kind] = len({match[1] for match in found}) if begins.groups else len(found)
    counts["tables"] = len({match[1] for body in bodies if (match := _TABLE.match(body))})
    return {kind: count for kind, count in counts.items() if count}


def _listed(counts: dict[str, int]) -> str:
    words = []
    for kind, (_, one, many) in _KINDS.items():
        if count := counts.get(kind):
            where = f" in {counts['tables']} table{'s'[: counts['tables'] > 1]}" if kind == "rules" else ""
            words.append(f"{count} {one if count == 1 else many}{where}")
    return ", ".join(words)


def as_json(plan: Plan) -> dict[str, Any]:
    return {
        "rules": plan.rules,
        "files": plan.files,
        "services": plan.services,
        "remarks": plan.remarks,
        "summary": {
            "told": summary(plan),
            "adds": counted(plan.changes, removed=False),
            "removes": counted(plan.changes, removed=True),
        },
    }
