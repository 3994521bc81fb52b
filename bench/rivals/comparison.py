"""Rounds and times -> figures and ratios; `bench.bars` judges these. Pure: no clock, no network.

Ratios are of pairs that were taken one right after the other, and the median of the pairs is what counts
(`bench.figures`). Where one ratio stands for several loads it is the worst of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bench import bars, figures
from bench.load import Anyway, Round
from bench.rivals.variants import Rival

Json = dict[str, Any]
Turn = Mapping[Rival, Round]


# --- Sessions and bulk -----------------------------------------------------------------------------------


def session_figures(turns: Sequence[Turn], anyway: Anyway) -> Json:
    """One load's rates and CPU by variant, and the pairs that the ratios are made of."""
    present = list(turns[0])
    rates = {one: [turn[one].sessions_per_second for turn in turns] for one in present}
    cpu = {one: [turn[one].cpu_ms(anyway) for turn in turns] for one in present}
    found: Json = {
        "sessions_per_second": {one.value: figures.summary(rates[one]).as_json() for one in present},
        "cpu_ms_per_session": {one.value: figures.summary(cpu[one]).as_json() for one in present},
        "ratios": _pairs(rates, cpu),
        "strangers_share": figures.summary(
            [one.stranger_seconds / one.seconds for turn in turns for one in turn.values()]
        ).as_json(),
    }
    if Rival.DIRECT in present:
        found["cpu_ms_added"] = {
            one.value: figures.differences(cpu[one], cpu[Rival.DIRECT]).as_json()
            for one in present
            if one is not Rival.DIRECT
        }
    return found


def _pairs(rates: Mapping[Rival, list[float]], cpu: Mapping[Rival, list[float]]) -> Json:
    wanted = {
        "sessions_channel_vs_stunnel": (rates, Rival.CHANNEL, Rival.STUNNEL),
        "sessions_channel_vs_postfix_tls": (rates, Rival.CHANNEL, Rival.POSTFIX),
        "sessions_clear_vs_haproxy": (rates, Rival.CLEAR, Rival.HAPROXY),
        "cpu_channel_vs_stunnel": (cpu, Rival.CHANNEL, Rival.STUNNEL),
        "cpu_channel_vs_postfix_tls": (cpu, Rival.CHANNEL, Rival.POSTFIX),
        "cpu_clear_vs_haproxy": (cpu, Rival.CLEAR, Rival.HAPROXY),
        "cpu_dead_end_vs_direct": (cpu, Rival.DEAD_END, Rival.DIRECT),
    }
    return {
        name: figures.ratios(values[upper], values[lower]).as_json()
        for name, (values, upper, lower) in wanted.items()
        if upper in values and lower in values and all(values[lower])
    }


def bulk_figures(turns: Sequence[Turn]) -> Json:
    present = list(turns[0])
    rates = {one: [turn[one].megabytes_per_second for turn in turns] for one in present}
    quotients = {
        f"channel_vs_{other.value}": figures.ratios(rates[Rival.CHANNEL], rates[other]).as_json()
        for other in present
        if other is not Rival.CHANNEL and Rival.CHANNEL in present
    }
    return {
        "megabytes_per_second": {one.value: figures.summary(rates[one]).as_json() for one in present},
        "ratios": quotients,
    }


# --- Time ------------------------------------------------------------------------------------------------


def percentile(seconds: Sequence[float | None], share: float) -> float | None:
    """The nearest rank; None (a session that failed) is longer than any. Raises ValueError for nothing."""
    if not seconds:
        raise ValueError("no sessions")
    ordered = sorted(math.inf if one is None else one for one in seconds)
    found = ordered[max(0, math.ceil(share * len(ordered)) - 1)]
    return None if math.isinf(found) else found


def time_figures(seconds: Sequence[float | None]) -> Json:
    return {
        "p50_ms": _ms(percentile(seconds, 0.5)),
        "p99_ms": _ms(percentile(seconds, 0.99)),
        "sessions": len(seconds),
        "failed": sum(one is None for one in seconds),
        "percentiles_ms": [_ms(percentile(seconds, share / 100)) for share in range(1, 101)],
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def delivery_figures(times: Mapping[Rival, Sequence[float]]) -> Json:
    direct = times.get(Rival.DIRECT)
    found: Json = {"seconds": {one.value: figures.summary(times[one]).as_json() for one in times}}
    if direct is not None:
        found["ratios"] = {
            f"{one.value}_vs_direct": figures.ratios(times[one], direct).as_json()
            for one in times
            if one is not Rival.DIRECT
        }
    return found


# --- All together ----------------------------------------------------------------------------------------


def ratios(results: Json) -> Json:
    """The run's ratios, of what was measured."""
    found: Json = {}
    loads = results.get("sessions", {})
    if loads:
        found["sessions_channel_vs_stunnel"] = {
            load: _median(entry["ratios"], "sessions_channel_vs_stunnel") for load, entry in loads.items()
        }
        found["sessions_channel_vs_postfix_tls"] = _worst(loads, "sessions_channel_vs_postfix_tls", min)
        for name in ("cpu_channel_vs_stunnel", "cpu_clear_vs_haproxy", "cpu_dead_end_vs_direct"):
            busy = {load: loads[load] for load in bars.PARALLEL if load in loads}
            found[name] = _worst(busy, name, max)
    if "bulk" in results:
        for other in ("stunnel", "direct"):
            found[f"bulk_channel_vs_{other}"] = _median(results["bulk"]["ratios"], f"channel_vs_{other}")
    latency = results.get("latency", {}).get("by_variant", {})
    if {"channel", "direct"} <= set(latency):
        ours, direct = latency["channel"]["p99_ms"], latency["direct"]["p99_ms"]
        found["p99_channel_vs_direct"] = ours / direct if ours and direct else None
    for rtt, entry in results.get("delivery", {}).items():
        found[f"time_{rtt}ms_channel_vs_direct"] = {
            size: _median(one.get("ratios", {}), "channel_vs_direct") for size, one in entry.items()
        }
    return found


def cpu_ms_added(results: Json) -> Json:
    """By one gateway to a session, the worse of the busy loads."""
    loads = [results["sessions"][load] for load in bars.PARALLEL if load in results.get("sessions", {})]
    found = {}
    for variant, share, name in (
        ("clear", 1.0, "clear"),
        ("channel", 0.5, "channel_per_gateway"),
        ("dead-end", 1.0, "dead_end"),
    ):
        every = [entry["cpu_ms_added"] for entry in loads if variant in entry["cpu_ms_added"]]
        medians = [one[variant]["median"] * share for one in every]
        if medians:
            found[name] = round(max(medians), 6)
    return found


def _median(entries: Json, name: str) -> float | None:
    return entries[name]["median"] if name in entries else None


def _worst(loads: Json, name: str, choose: Any) -> float | None:
    medians = [entry["ratios"][name]["median"] for entry in loads.values() if name in entry["ratios"]]
    return choose(medians) if medians else None


# --- Curves ----------------------------------------------------------------------------------------------


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Of the power law through the ends of a curve: 0 flat, 1 linear. Costs must be above 0."""
    if len(sizes) < 2 or sizes[0] == sizes[-1]:
        raise ValueError("no curve")
    return math.log(costs[-1] / costs[0]) / math.log(sizes[-1] / sizes[0])
