"""The four measurements: which rounds, in which order, and the figures that come of them.

Rounds of all variants alternate, and each turn begins with another variant, so that what the machine does
otherwise meets all of them alike. Each scenario keeps to its budget: when that is spent it ends with the
pairs that it has. Counterparts: `load`, `delivery` and `idle` measure once, `figures` compares.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import delivery, figures, idle, load
from bench.clock import Budget
from bench.planes import Plane, Variant, in_turn

Json = dict[str, Any]
KB: Final = 1024
MB: Final = 1024 * KB
MAIL_OCTETS: Final = 4 * KB
BULK_OCTETS: Final = 10 * MB
BULK_PARALLEL: Final = 4
PARALLEL: Final = (20, 200)
DELIVERY_SIZES: Final = {"1KB": KB, "100KB": 100 * KB, "1MB": MB, "10MB": 10 * MB}
WARM_SESSIONS: Final = 320
LONG_LINE_MS: Final = 80


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how often."""

    total_seconds: float
    round_seconds: float
    rounds: int
    bulk_rounds: int
    pairs_by_rtt: dict[int, int]
    idle_sessions: int
    idle_baseline_seconds: float
    sessions_budget: float
    bulk_budget: float
    delivery_budget: float


FULL: Final = Scale(
    total_seconds=690,
    round_seconds=3.0,
    rounds=8,
    bulk_rounds=6,
    pairs_by_rtt={0: 20, 20: 10, 80: 20},
    idle_sessions=2000,
    idle_baseline_seconds=4.0,
    sessions_budget=190,
    bulk_budget=70,
    delivery_budget=330,
)
QUICK: Final = Scale(
    total_seconds=105,
    round_seconds=1.2,
    rounds=3,
    bulk_rounds=2,
    pairs_by_rtt={0: 5, 80: 3},
    idle_sessions=500,
    idle_baseline_seconds=2.0,
    sessions_budget=42,
    bulk_budget=18,
    delivery_budget=38,
)


@dataclass
class Bench:
    """What is needed to measure, and what has been measured."""

    planes: dict[Variant, Plane]
    scale: Scale
    budget: Budget
    program: Path
    results: Json = field(default_factory=dict)
    rows: list[Json] = field(default_factory=list)

    def say(self, text: str) -> None:
        print(f"bench: {text}", file=sys.stderr, flush=True)

    def measure_anyway(self) -> load.Anyway:
        """Right before the rounds that it is taken off from."""
        found = load.anyway(self.planes[Variant.DIRECT], self.program, self.scale.idle_baseline_seconds)
        self.results["anyway"] = asdict(found)
        return found


# --- Memory ----------------------------------------------------------------------------------------------


def idle_memory(bench: Bench) -> None:
    """`idle_bytes`: PSS per open session of one gateway; of the channel's two, the larger."""
    found: Json = {}
    with load.sinks(bench.planes.values()):
        for variant in (Variant.CLEAR, Variant.CHANNEL):
            for one in idle.measure(bench.planes[variant], bench.scale.idle_sessions):
                bench.say(
                    f"idle {variant.value} {one.gateway}: {one.octets_per_session:.0f} octets a session"
                )
                bench.rows.append({"kind": "idle", **asdict(one)})
                found[f"{variant.value}_{one.gateway}"] = round(one.octets_per_session)
    bench.results["idle_bytes"] = {
        "clear": found["clear_gw-a"],
        "channel": max(found["channel_gw-a"], found["channel_gw-b"]),
        "channel_sending": found["channel_gw-a"],
        "channel_receiving": found["channel_gw-b"],
        "sessions": bench.scale.idle_sessions,
    }


# --- Sessions and bulk -----------------------------------------------------------------------------------


def sessions(bench: Bench) -> None:
    """Many small mails: `cpu_ms_added` and `ratios.sessions_*`; their headline is the worse of the loads."""
    with load.sinks(bench.planes.values()):
        anyway = bench.measure_anyway()
        by_parallel = {}
        for parallel in PARALLEL:
            budget = bench.budget.part(bench.scale.sessions_budget / len(PARALLEL))
            turns = _turns(bench, budget, parallel, MAIL_OCTETS, bench.scale.rounds, anyway)
            by_parallel[str(parallel)] = _session_figures(turns, anyway)
    bench.results["sessions"] = by_parallel
    worst = {
        key: max(
            (entry["cpu_ms_added"][key] for entry in by_parallel.values()), key=lambda one: one["median"]
        )
        for key in ("clear", "channel_per_gateway")
    }
    bench.results["cpu_ms_added"] = {key: one["median"] for key, one in worst.items()}
    for key in ("sessions_clear_vs_direct", "sessions_channel_vs_direct"):
        medians = [entry["ratios"][key]["median"] for entry in by_parallel.values()]
        bench.results.setdefault("ratios", {})[key] = min(medians)


def bulk(bench: Bench) -> None:
    """Few large mails: `ratios.bulk_channel_vs_direct`."""
    with load.sinks(bench.planes.values()):
        budget = bench.budget.part(bench.scale.bulk_budget)
        anyway = bench.measure_anyway()
        turns = _turns(bench, budget, BULK_PARALLEL, BULK_OCTETS, bench.scale.bulk_rounds, anyway)
    rates = {v: [turn[v].megabytes_per_second for turn in turns] for v in Variant}
    cpu = {v: [turn[v].cpu_ms(anyway) / (BULK_OCTETS / 1e6) for turn in turns] for v in Variant}
    quotients = {
        f"{v.value}_vs_direct": figures.ratios(rates[v], rates[Variant.DIRECT])
        for v in (Variant.CLEAR, Variant.CHANNEL)
    }
    bench.results["bulk"] = {
        "megabytes_per_second": {v.value: figures.summary(rates[v]).as_json() for v in Variant},
        "ratios": {key: one.as_json() for key, one in quotients.items()},
        "cpu_ms_per_megabyte_added": {
            "clear": figures.differences(cpu[Variant.CLEAR], cpu[Variant.DIRECT]).as_json(),
            "channel_per_gateway": figures.differences(
                cpu[Variant.CHANNEL], cpu[Variant.DIRECT], share=0.5
            ).as_json(),
        },
    }
    ratios = bench.results.setdefault("ratios", {})
    ratios["bulk_clear_vs_direct"] = quotients["clear_vs_direct"].median
    ratios["bulk_channel_vs_direct"] = quotients["channel_vs_direct"].median


def _turns(
    bench: Bench, budget: Budget, parallel: int, octets: int, count: int, anyway: load.Anyway
) -> list[dict[Variant, load.Round]]:
    """Turns of one round each; at least one, however little time there is."""

    def drive(variant: Variant, sessions: int) -> load.Round:
        return load.drive(
            bench.planes[variant], bench.program, parallel=parallel, sessions=sessions, octets=octets
        )

    least = 2 * parallel
    warm = WARM_SESSIONS if octets <= MAIL_OCTETS else least
    amounts = {}
    for variant in bench.planes:
        first = drive(variant, max(warm, parallel))
        amounts[variant] = max(least, int(first.sessions_per_second * bench.scale.round_seconds))
    turns: list[dict[Variant, load.Round]] = []
    longest = 0.0
    while len(turns) < count and (not turns or budget.allows(longest)):
        before = budget.left
        turn = {variant: drive(variant, amounts[variant]) for variant in in_turn(bench.planes, len(turns))}
        turns.append(turn)
        longest = max(longest, before - budget.left)
        for variant in bench.planes:
            bench.rows.append(_row(turn[variant], len(turns), anyway))
        told = ", ".join(f"{v.value} {_told(turn[v])}" for v in bench.planes)
        bench.say(f"{parallel} parallel, {octets // KB} KB, turn {len(turns)}: {told}")
    return turns


def _told(one: load.Round) -> str:
    if one.octets > MAIL_OCTETS:
        return f"{one.megabytes_per_second:.0f} MB/s"
    return f"{one.sessions_per_second:.0f}/s"


def _row(one: load.Round, turn: int, anyway: load.Anyway) -> Json:
    return {
        "kind": "load",
        "turn": turn,
        **{key: round(value, 4) if isinstance(value, float) else value for key, value in asdict(one).items()},
        "sessions_per_second": round(one.sessions_per_second, 2),
        "cpu_ms_per_session": round(one.cpu_ms(anyway), 4),
    }


def _session_figures(turns: list[dict[Variant, load.Round]], anyway: load.Anyway) -> Json:
    rates = {v: [turn[v].sessions_per_second for turn in turns] for v in Variant}
    cpu = {v: [turn[v].cpu_ms(anyway) for turn in turns] for v in Variant}
    own = {v: [turn[v].gateway_seconds / turn[v].sessions * 1000 for turn in turns] for v in Variant}
    direct = Variant.DIRECT
    return {
        "sessions_per_second": {v.value: figures.summary(rates[v]).as_json() for v in Variant},
        "cpu_ms_per_session": {v.value: figures.summary(cpu[v]).as_json() for v in Variant},
        "cpu_ms_added": {
            "clear": figures.differences(cpu[Variant.CLEAR], cpu[direct]).as_json(),
            "channel_per_gateway": figures.differences(
                cpu[Variant.CHANNEL], cpu[direct], share=0.5
            ).as_json(),
        },
        "gateway_process_ms": {
            "clear": figures.summary(own[Variant.CLEAR]).as_json(),
            "channel_per_gateway": figures.summary([value / 2 for value in own[Variant.CHANNEL]]).as_json(),
        },
        "ratios": {
            f"sessions_{v.value}_vs_direct": figures.ratios(rates[v], rates[direct]).as_json()
            for v in (Variant.CLEAR, Variant.CHANNEL)
        },
        "strangers_share": figures.summary(
            [one.stranger_seconds / one.seconds for turn in turns for one in turn.values()]
        ).as_json(),
    }


# --- Time to delivery ------------------------------------------------------------------------------------


def delivery_time(bench: Bench) -> None:
    """One mail at a time over lines of several lengths: `ratios.time_80ms_channel_vs_direct`."""
    bodies = {name: delivery.body_of(octets) for name, octets in DELIVERY_SIZES.items()}
    whole = bench.budget.part(bench.scale.delivery_budget)
    found: Json = {}
    rtts = list(bench.scale.pairs_by_rtt)
    weights = {rtt: _weight(bench, rtt) for rtt in rtts}
    with load.sinks(bench.planes.values()):
        try:
            for rtt in rtts:
                left = sum(weights[other] for other in rtts[rtts.index(rtt) :])
                budget = whole.part(whole.left * weights[rtt] / left)
                found[str(rtt)] = _at_rtt(bench, budget, rtt, bodies)
        finally:
            for plane in bench.planes.values():
                delivery.set_rtt(plane, 0)
    bench.results["delivery"] = found
    long_line = found.get(str(LONG_LINE_MS))
    if long_line is not None:
        bench.results.setdefault("ratios", {})["time_80ms_channel_vs_direct"] = {
            name: long_line["by_size"][name]["ratios"]["channel_vs_direct"]["median"] for name in bodies
        }


def _weight(bench: Bench, rtt: int) -> float:
    """The time that mails at this distance take, about: a dozen round trips, and the octets."""
    return bench.scale.pairs_by_rtt[rtt] * (0.3 + 0.04 * rtt)


def _at_rtt(bench: Bench, budget: Budget, rtt: int, bodies: dict[str, bytes]) -> Json:
    for plane in bench.planes.values():
        delivery.set_rtt(plane, rtt)
    line = delivery.ceiling(bench.planes[Variant.DIRECT], rtt)
    bench.say(
        f"{rtt} ms: plain TCP {line.megabytes_per_second:.0f} MB/s, first 10 MB {line.cold_seconds:.2f} s"
    )
    for variant in bench.planes:  # the way to the other gateway, and the first meeting with it
        delivery.deliver(bench.planes[variant], bodies["1KB"], rtt, KB, 0)
    times: dict[str, dict[Variant, list[float]]] = {name: {v: [] for v in Variant} for name in bodies}
    longest = 0.0
    pair = 0
    while pair < bench.scale.pairs_by_rtt[rtt] and (not pair or budget.allows(longest)):
        before = budget.left
        for name, octets in DELIVERY_SIZES.items():
            for variant in in_turn(bench.planes, pair):
                one = delivery.deliver(bench.planes[variant], bodies[name], rtt, octets, pair)
                times[name][variant].append(one.seconds)
                bench.rows.append({"kind": "delivery", "turn": pair + 1, **asdict(one)})
        pair += 1
        longest = max(longest, before - budget.left)
    bench.say(f"{rtt} ms: {pair} pairs of each size")
    return {"plain_tcp": asdict(line), "by_size": {name: _delivery_figures(times[name]) for name in bodies}}


def _delivery_figures(times: dict[Variant, list[float]]) -> Json:
    return {
        "seconds": {v.value: figures.summary(times[v]).as_json() for v in Variant},
        "ratios": {
            f"{v.value}_vs_direct": figures.ratios(times[v], times[Variant.DIRECT]).as_json()
            for v in (Variant.CLEAR, Variant.CHANNEL)
        },
    }


SCENARIOS: Final[dict[str, Callable[[Bench], None]]] = {
    # Memory first: it wants daemons that have carried nothing yet.
    "idle": idle_memory,
    "sessions": sessions,
    "bulk": bulk,
    "delivery": delivery_time,
}
