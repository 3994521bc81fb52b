"""What `scripts/bench` measured last (bench/results/costs.json and rivals.json), beside what was wanted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import report
from bench.rivals.report import label
from scripts.blocks.tables import table

RESULTS = Path(__file__).parents[2] / "bench" / "results"
PARALLEL = ("20", "200")
WANTED_MS = {"clear": 0.8, "channel_per_gateway": 1.3}
WANTED_BULK = 0.4
WANTED_IDLE_OCTETS = 60_000
WANTED_DELIVERY = 1.03
WORDS = {"clear": "by a gateway in clear", "channel_per_gateway": "by each gateway in the channel"}
SIZES = ("1KB", "100KB", "1MB", "10MB")
GROWTH = ("exponent of all CPU", "exponent of memory", "CPU per session, 2 workers", "peers' look-up")
"""How the bars of how cost grows begin."""


def reached() -> str:
    """Our own four measurements, the headline of each."""
    found = _found("costs")
    return table(("", "wanted", "reached", ""), _headlines(found))


def page() -> str:
    """What the run printed, whole."""
    return f"```text\n{report.text(_found('costs'))}\n```"


def machine() -> str:
    """Whose figures these are."""
    found = _found("rivals")
    described = found["machine"]
    other = max(found["sessions"][parallel]["strangers_share"]["median"] for parallel in PARALLEL)
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
    heads += [f"CPU ms per session at {parallel}" for parallel in PARALLEL] + ["octets of an idle session"]
    rows: list[list[object]] = []
    for variant in by_parallel["1"]["sessions_per_second"]:
        rates = [f"{entry['sessions_per_second'][variant]['median']:.0f}" for entry in by_parallel.values()]
        cpu = [f"{by_parallel[each]['cpu_ms_per_session'][variant]['median']:.2f}" for each in PARALLEL]
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
    return _bars([bar for bar in _found("rivals")["bars"] if not bar["what"].startswith(GROWTH)])


def growth() -> str:
    """How cost grows, curve by curve."""
    found = _found("rivals")["growth"]
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
    bars = _bars([bar for bar in _found("rivals")["bars"] if bar["what"].startswith(GROWTH)])
    return "\n\n".join((peers, sessions, workers, bars))


def _headlines(found: dict[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    for key, most in WANTED_MS.items():
        medians = [found["sessions"][each]["cpu_ms_added"][key]["median"] for each in PARALLEL]
        shown = " and ".join(f"{each:.2f}" for each in medians)
        what = f"CPU added to a session {WORDS[key]}, at 20 and 200 parallel"
        yield what, f"at most {most:g} ms", f"{shown} ms", _verdict(max(medians) <= most)
    bulk = found["bulk"]["ratios"]["channel_vs_direct"]["median"]
    yield (
        "bulk through the channel, of direct",
        f"at least {WANTED_BULK:g}",
        f"{bulk:.2f}",
        _verdict(bulk >= WANTED_BULK),
    )
    idle = found["idle_bytes"]
    most_idle = max(idle["clear"], idle["channel_sending"], idle["channel_receiving"])
    shown = f"{idle['clear']:,} in clear, {idle['channel_sending']:,} and {idle['channel_receiving']:,}"
    wanted = f"at most {WANTED_IDLE_OCTETS:,} octets"
    yield "memory of an idle session", wanted, shown, _verdict(most_idle <= WANTED_IDLE_OCTETS)
    by_size = found["delivery"]["80"]["by_size"]
    for size in SIZES:
        ratio = by_size[size]["ratios"]["channel_vs_direct"]
        what = f"delivery of {size} over 80 ms, channel to direct, {ratio['count']} pairs"
        verdict = _verdict(ratio["median"] <= WANTED_DELIVERY)
        yield what, f"at most {WANTED_DELIVERY:g}", f"{ratio['median']:.3f}", verdict


def _bars(bars: list[dict[str, Any]]) -> str:
    rows = []
    for bar in bars:
        wanted = bar["wanted"].replace("<=", "at most").replace(">=", "at least")
        got = "not measured" if bar["reached"] is None else _short(bar["reached"])
        rows.append((bar["what"], wanted, got, _verdict(bar["holds"])))
    return table(("bar", "wanted", "reached", ""), rows)


def _short(figure: float) -> str:
    return f"{figure:,.0f}" if figure >= 1000 else f"{figure:.3g}" if figure < 1 else f"{figure:.2f}"


def _verdict(holds: bool) -> str:
    return "holds" if holds else "**missed**"


def _found(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found
