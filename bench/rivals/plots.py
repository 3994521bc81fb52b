"""Figures -> SVG. Pure: a report goes in, named pictures come out; the machine stands under each.

Text stays text, so that the pictures can be read, searched and compared.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.rivals.variants import Rival

Json = dict[str, Any]
COLOURS: Final = {
    Rival.DIRECT: "#8c959f",
    Rival.HAPROXY: "#bf8700",
    Rival.CLEAR: "#54aeff",
    Rival.STUNNEL: "#cf222e",
    Rival.POSTFIX: "#8250df",
    Rival.CHANNEL: "#0550ae",
    Rival.DEAD_END: "#4ac26b",
}
HASH_SALT: Final = "nightmail"
"""So that the same figures give the same file."""
NARROW: Final = (7.0, 4.2)
WIDE: Final = (11.0, 4.2)


def pictures(found: Json) -> dict[str, str]:
    """Name -> SVG, of what was measured."""
    drawn: dict[str, tuple[tuple[float, float], Callable[[Figure, Json], None]]] = {
        "sessions": (WIDE, _sessions),
        "bulk": (WIDE, _bulk_and_memory),
        "latency": (NARROW, _latency),
        "delivery": (WIDE, _delivery),
        "growth": (WIDE, _growth),
    }
    return {name: _svg(size, draw, found) for name, (size, draw) in drawn.items() if found.get(name)}


def under(machine: Json) -> str:
    """The line under every picture."""
    return (
        f"{machine['cpus']} CPUs ({machine['cpu']}), Linux {machine['kernel']}, Python {machine['python']},"
        f" load {machine['load_average_at_start']} at the start"
    )


def _svg(size: tuple[float, float], draw: Callable[[Figure, Json], None], found: Json) -> str:
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": HASH_SALT, "font.size": 9}):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure, found)
        figure.supxlabel(under(found["machine"]), fontsize=7, color="#656d76")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _bars(axes: Axes, groups: list[str], heights: dict[Rival, list[float | None]]) -> None:
    width = 0.8 / len(heights)
    for place, (variant, values) in enumerate(heights.items()):
        at = [group + (place - (len(heights) - 1) / 2) * width for group in range(len(groups))]
        shown = [value or 0.0 for value in values]
        axes.bar(at, shown, width, color=COLOURS[variant], label=variant.value)
    axes.set_xticks(range(len(groups)), groups)
    axes.grid(axis="y", alpha=0.3)


def _by_variant(entries: list[Json], key: str) -> dict[Rival, list[float | None]]:
    return {
        variant: [entry[key][variant.value]["median"] for entry in entries]
        for variant in Rival
        if variant.value in entries[0][key]
    }


def _sessions(figure: Figure, found: Json) -> None:
    rates, cpu = figure.subplots(1, 2)
    loads = found["sessions"]
    groups = [f"{load} parallel" for load in loads]
    _bars(rates, groups, _by_variant(list(loads.values()), "sessions_per_second"))
    rates.set(title="sessions per second, 4 KB mails", yscale="log")
    _bars(cpu, groups, _by_variant(list(loads.values()), "cpu_ms_per_session"))
    cpu.set(title="CPU per session, whole machine, ms")
    cpu.legend()


def _bulk_and_memory(figure: Figure, found: Json) -> None:
    bulk, memory = figure.subplots(1, 2)
    _bars(bulk, ["10 MB mails, 4 parallel"], _by_variant([found["bulk"]], "megabytes_per_second"))
    bulk.set(title="MB per second")
    bulk.legend()
    if not found.get("idle_bytes"):
        return
    used = {Rival(name): max(nodes.values()) / 1000 for name, nodes in found["idle_bytes"].items()}
    _bars(memory, ["per idle session, the larger node"], {name: [value] for name, value in used.items()})
    memory.set(title="memory, KB", yscale="log")
    memory.legend()


def _latency(figure: Figure, found: Json) -> None:
    axes = figure.subplots()
    measured = found["latency"]
    for name, one in measured["by_variant"].items():
        points = [(value, share) for share, value in enumerate(one["percentiles_ms"], 1) if value is not None]
        axes.plot(*zip(*points, strict=True), color=COLOURS[Rival(name)], label=name)
    axes.set(
        title=f"time of a session at {measured['sessions_per_second']:.0f} a second,"
        f" {measured['rtt_ms']} ms round trip",
        xlabel="ms",
        ylabel="% of the sessions",
        xscale="log",
    )
    axes.grid(alpha=0.3)
    axes.legend()


def _delivery(figure: Figure, found: Json) -> None:
    measured = found["delivery"]
    sizes = sorted({size for by_size in measured.values() for size in by_size}, reverse=True)
    for axes, size in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
        entries = {rtt: by_size[size] for rtt, by_size in measured.items() if size in by_size}
        _bars(axes, [f"{rtt} ms" for rtt in entries], _by_variant(list(entries.values()), "seconds"))
        axes.set(title=f"time to delivery of a mail of {size}, s", xlabel="round trip")
    axes.legend()


def _growth(figure: Figure, found: Json) -> None:
    growth = found["growth"]
    cpu, memory, peers = figure.subplots(1, 3)
    curve = growth["sessions"]["curve"]
    held = [one["sessions"] for one in curve]
    cpu.plot(
        held,
        [one["cpu_ms_per_session"] for one in curve],
        "o-",
        color=COLOURS[Rival.CHANNEL],
        label="channel",
    )
    direct = [one["direct_cpu_ms_per_session"] for one in curve]
    cpu.plot(held, direct, "o-", color=COLOURS[Rival.DIRECT], label="direct")
    by_workers = growth["workers"]["curve"]
    for one in by_workers:
        words = f"{one['workers']} worker(s), none open"
        cpu.axhline(
            one["cpu_ms_per_session"], ls=":" if one["workers"] == 1 else "--", c="#656d76", label=words
        )
    cpu.set(title="CPU of one more session, ms", xlabel="sessions open", xscale="log", ylim=(0, None))
    cpu.legend(fontsize=7)
    without = growth["sessions"]["octets_without"]
    grown = [max(one["octets"] - without, 1) / 1e6 for one in curve]
    memory.plot(held, grown, "o-", color=COLOURS[Rival.CHANNEL])
    memory.set(title="memory of the sending gateway, MB", xlabel="sessions open", xscale="log", yscale="log")
    known = [one["peers"] for one in growth["peers"]["curve"]]
    for key, words in (("look_up_us", "known"), ("unknown_us", "unknown")):
        peers.plot(known, [one[key] for one in growth["peers"]["curve"]], "o-", label=words)
    peers.set(title="look-up of a peer, us", xlabel="peers remembered", xscale="log", ylim=(0, None))
    peers.legend()
    for axes in (cpu, memory, peers):
        axes.grid(alpha=0.3)
