"""What `scripts/chaos --json` measured last (bench/results/chaos.json), beside what each fault does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.chaos.faults import FAULTS
from scripts.blocks.tables import table

RESULTS = Path(__file__).parents[2] / "bench" / "results"
HERE = "chaos.json"
ELSEWHERE = ("chaos-bridge.json", "chaos-host.json")
BAR_SECONDS = 1.0


def measured() -> str:
    """The figures of the last recorded run, and on what machine."""
    found = _found()
    rows = {row["name"]: row for row in found["faults"]}
    heads = (
        "fault",
        "gap s",
        "one s",
        "broken",
        "mails",
        "lost",
        "doubled",
        "altered",
        "doubt",
        "clear",
        "rings",
    )
    machine = found["machine"]
    words = (
        f"{len(rows)} faults in {found['seconds']:.0f} s on {machine['cpus']} processors ({machine['cpu']}), "
        f"Linux {machine['kernel']}, Python {machine['python']}, {machine.get('form', 'source')} form; "
        f"load average at the start {machine['load_average_at_start']}."
    )
    return f"{words}\n\n{table(heads, (_line(rows[name]) for name in FAULTS if name in rows))}"


def catalogue() -> str:
    """What there is, whether it was measured or not."""
    heads = ("fault", "what it does", "how it is undone", "why it breaks sessions by itself")
    return table(heads, ((f"`{one.name}`", one.what, one.undone, one.breaks_tcp) for one in FAULTS.values()))


def put_back() -> str:
    """How long rules were not whole."""
    rows = [row for row in _found()["faults"] if "put_back_s" in row]
    return table(
        ("fault", "whole again after s"), ((f"`{row['name']}`", f"{row['put_back_s']:.2f}") for row in rows)
    )


def elsewhere() -> str:
    """The other placements: all faults of a run in one row."""
    heads = (
        "placement",
        "faults",
        "gap s, the longest",
        "over the bar",
        "lost",
        "doubled",
        "altered",
        "rules back s",
    )
    return table(heads, (_summary(_found(name)) for name in ELSEWHERE))


def _summary(found: dict[str, Any]) -> list[object]:
    rows = found["faults"]
    longest = max(rows, key=lambda row: row["gap_s"])
    over = [f"`{row['name']}` {row['gap_s']:.2f}" for row in rows if row["gap_s"] > BAR_SECONDS]
    counts = [sum(row[key] for row in rows) for key in ("lost", "doubled", "altered")]
    back = max(row.get("put_back_s", 0.0) for row in rows)
    gap = f"{longest['gap_s']:.2f} (`{longest['name']}`)"
    return [found["placement"], len(rows), gap, ", ".join(over) or "none", *counts, f"at most {back:.2f}"]


def _found(name: str = HERE) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / name).read_text())
    return found


def _line(row: dict[str, Any]) -> list[object]:
    counts = [row[key] for key in ("mails", "lost", "doubled", "altered", "in_doubt", "clear")]
    gaps = [f"{row['gap_s']:.2f}", f"{row['slowest_s']:.2f}"]
    return [f"`{row['name']}`", *gaps, row["broken"], *counts, ", ".join(row["rang"]) or "nothing"]
