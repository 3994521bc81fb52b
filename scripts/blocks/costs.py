"""What `scripts/bench` measured last (bench/results/costs.json, rivals.json), and what `bench.bars` wants."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import bars, report
from bench.rivals.report import label
from scripts.blocks.tables import table

RESULTS = Path(__file__).parents[2] / "bench" / "results"


def reached() -> str:
    """Our own four measurements, the headline of each."""
    return _bars(bars.of_our_own(_found("costs")))


def page() -> str:
    """What the run printed, whole."""
    return f"```text\n{report.text(_found('costs'))}\n```"


def machine() -> str:
    """Whose figures these are."""
    found = _found("rivals")
    described = found["machine"]
    other = max(found["sessions"][parallel]["strangers_share"]["median"] for parallel in bars.PARALLEL)
    return (
        f"{described['cpus']} CPUs ({described['cpu']}), Linux {described['kernel']}, Python "
        f"{described['python']}; other work took {other:.2f} of the CPUs meanwhile. Ratios are of pairs "
        "taken one right after the other."
    )


def rivals_load() -> str:
    """Many sessions at a time."""
    found = _found("rivals")
    by_parallel = found["sessions"]
    heads = ["4 KB mails", *(f"sessions/s at {parallel}" for parallel in by_parallel)]
    heads += [f"CPU ms per session at {parallel}" for parallel in bars.PARALLEL] + [
        "octets of an idle session"
    ]
    rows: list[list[object]] = []
    for variant in by_parallel["1"]["sessions_per_second"]:
        rates = [f"{entry['sessions_per_second'][variant]['median']:.0f}" for entry in by_parallel.values()]
        cpu = [f"{by_parallel[each]['cpu_ms_per_session'][variant]['median']:.2f}" for each in bars.PARALLEL]
        idle = " and ".join(f"{octets:,}" for octets in found["idle_bytes"].get(variant, {}).values())
        rows.append([label(variant), *rates, *cpu, idle])
    return table(heads, rows)


def rivals_time() -> str:
    """A session's time, a mail's, and large mails."""
    found = _found("rivals")
    latency = found["latency"]
    lines = [(rtt, size) for rtt, sizes in found["delivery"].items() for size in sizes]
    rate = latency["sessions_per_second"]
    heads = ["", f"p50, p99 of a session at {rate:.0f}/s and {latency['rtt_ms']} ms, ms", "bulk MB/s"]
    heads += [f"{size} at {rtt} ms, ms" for rtt, size in lines]
    rows: list[list[object]] = []
    for variant, one in latency["by_variant"].items():
        times = ", ".join("never" if one[key] is None else f"{one[key]:.0f}" for key in ("p50_ms", "p99_ms"))
        bulk = f"{found['bulk']['megabytes_per_second'][variant]['median']:.0f}"
        seconds = [found["delivery"][rtt][size]["seconds"][variant]["median"] for rtt, size in lines]
        rows.append([label(variant), times, bulk, *(f"{1000 * each:.0f}" for each in seconds)])
    return table(heads, rows)


def rivals_bars() -> str:
    """Beside the others: what was wanted, what was reached."""
    return _bars(bars.beside_rivals(_found("rivals")))


def growth() -> str:
    """How cost grows, curve by curve: of a run of that alone, where the last one was."""
    found = _found("growth" if (RESULTS / "growth.json").exists() else "rivals")["growth"]
    peers = table(
        ("peers remembered", "look-up, us", "of a stranger, us", "opening the file, ms", "file, MB"),
        (
            (
                f"{one['peers']:,}",
                f"{one['look_up_us']:.1f}",
                f"{one['unknown_us']:.1f}",
                f"{one['opening_ms']:.1f}",
                f"{one['file_octets'] / 1e6:.1f}",
            )
            for one in found["peers"]["curve"]
        ),
    )
    without = found["sessions"]["octets_without"]
    heads = ("sessions open", "CPU ms of one more through the channel", "direct", "CPUs at rest")
    sessions = table(
        (*heads, "memory of the sending gateway, MB more"),
        (
            (
                f"{one['sessions']:,}",
                f"{one['cpu_ms_per_session']:.2f}",
                f"{one['direct_cpu_ms_per_session']:.2f}",
                f"{one['idle_cpu_per_second']:.3f}",
                f"{(one['octets'] - without) / 1e6:.1f}",
            )
            for one in found["sessions"]["curve"]
        ),
    )
    workers = table(
        ("workers", "sessions/s at 200 parallel", "CPU ms per session"),
        (
            (one["workers"], f"{one['sessions_per_second']:.0f}", f"{one['cpu_ms_per_session']:.2f}")
            for one in found["workers"]["curve"]
        ),
    )
    return "\n\n".join((peers, sessions, workers, _bars(bars.of_growth(found))))


def _bars(reached: Iterable[bars.Bar]) -> str:
    rows = []
    for bar in (each.as_json() for each in reached):
        wanted = bar["wanted"].replace("<=", "at most").replace(">=", "at least")
        got = "not measured" if bar["reached"] is None else _short(bar["reached"])
        rows.append((bar["what"], wanted, got, _verdict(bar["holds"])))
    return table(("bar", "wanted", "reached", ""), rows)


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.4g}"


def _verdict(holds: bool) -> str:
    return "holds" if holds else "**missed**"


def _found(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found
