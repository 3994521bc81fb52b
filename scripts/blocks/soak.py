"""What `scripts/soak` found last (bench/results/soak.json: its result without the samples)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from scripts.blocks.tables import table

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "soak.json"
MB = 2**20
KB = 2**10
MEASURES = {
    "pss_own": ("memory of its own, all processes", MB, "MB"),
    "pss": ("the same with its part of what is shared (PSS)", MB, "MB"),
    "supervisor_by_age": ("the supervisor's own, by its age", MB, "MB"),
    "worker_by_age": ("a worker's own, by its age", MB, "MB"),
    "signer_by_age": ("the signer's own, by its age", MB, "MB"),
    "descriptors": ("descriptors", 1, ""),
    "threads": ("threads", 1, ""),
    "processes": ("processes", 1, ""),
    "conntrack": ("entries of connection tracking", 1, ""),
    "sets": ("elements in the sets of our nft table", 1, ""),
    "sockets": ("TCP sockets of the kernel", 1, ""),
    "sockets_tw": ("of connections that are over (TIME_WAIT)", 1, ""),
    "sessions": ("sessions open", 1, ""),
    "state_octets": ("files of the state directory", KB, "KB"),
}
"""Measure -> what it is called, what one unit is, and the unit's name."""


def run() -> str:
    """What ran, on what machine, and what became of the mail."""
    found = _found()
    machine, mails, faults = found["machine"], found["mails"], found["faults"]
    postfix, raw = mails["postfix"], mails["raw"]
    ended = "" if found["finished"] else f" of {found['minutes_wanted']:g} (it has not come to its end)"
    share = "" if found["cpu_share"] is None else f"; {found['cpu_share']:.0%} of one processor on average"
    words = (
        f"Seed {found['seed']}, {found['minutes']:g} minutes{ended}, {sum(faults.values())} faults of "
        f"{len(faults)} kinds, on {machine['cpus']} processors ({machine['cpu']}), "
        f"Linux {machine['kernel']}, Python {machine['python']}, {machine.get('form', 'source')} form"
        f"{share}. Faults that could not be undone: "
        f"{'; '.join(found['faults_failed']) or 'none'}."
    )
    rows = [
        ("Postfix to Postfix", postfix["mails"], postfix["deliveries"], *_harm(postfix)),
        ("raw sessions", raw["mails"], raw["mails"], *_harm(raw)),
    ]
    heads = ("", "mails", "deliveries", "lost", "doubled", "altered", "in doubt")
    seen = (
        f"{mails['dark'] + mails['clear']} connections were seen on the wire, {mails['dark']} of them "
        f"encrypted. {mails['broken']} raw sessions broke, and of {mails['probes']} probes "
        f"{mails['probes_failed']} were not greeted."
    )
    return f"{words}\n\n{table(heads, rows)}\n\n{seen}"


def measured() -> str:
    """Each measure of both gateways."""
    rows = {(row["gateway"], row["measure"]): row for row in _found()["slopes"]}
    heads = (
        "",
        "a: first round",
        "second",
        "an hour",
        "b: first round",
        "second",
        "an hour",
        "allowed",
        "",
    )
    return table(heads, (_line(name, rows["a", name], rows["b", name]) for name in MEASURES))


def _line(name: str, a: dict[str, Any], b: dict[str, Any]) -> list[object]:
    words, unit, label = MEASURES[name]
    digits = 1 if unit > 1 else 0
    cells: list[object] = [f"{words}, {label}" if label else words]
    for one in (a, b):
        cells += [f"{one[key] / unit:.{digits}f}" for key in ("first", "last")]
        cells.append(f"{one['per_hour'] / unit:+.{digits + 1}f}")
    verdicts = {one["verdict"] for one in (a, b)}
    allowed = min(one["allowed"] for one in (a, b)) / unit
    return [*cells, f"{allowed:.{digits}f}", " / ".join(sorted(verdicts))]


def _harm(one: dict[str, Any]) -> list[int]:
    return [one[name] for name in ("lost", "doubled", "altered", "in_doubt")]


def _found() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text())
    return found
