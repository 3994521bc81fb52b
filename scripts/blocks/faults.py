"""What `scripts/chaos --json` measured last (bench/results/chaos.json), beside what each fault does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.chaos.faults import FAULTS
from scripts.blocks.tables import table

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "chaos.json"


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
        f"Linux {machine['kernel']}, Python {machine['python']}; "
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


def _found() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text())
    return found


def _line(row: dict[str, Any]) -> list[object]:
    counts = [row[key] for key in ("mails", "lost", "doubled", "altered", "in_doubt", "clear")]
    gaps = [f"{row['gap_s']:.2f}", f"{row['slowest_s']:.2f}"]
    return [f"`{row['name']}`", *gaps, row["broken"], *counts, ", ".join(row["rang"]) or "nothing"]
