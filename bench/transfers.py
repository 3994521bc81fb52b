"""Large mails, and mails over a long line, through this tree and another revision of it, side by side.

Planes of both and one without gateways take turns: a machine that gets slow is slow for all three.
Counterparts: `against` (the command), `load` and `delivery`, which measure once.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from bench import delivery, figures, load, planes
from bench.planes import Plane, Variant
from bench.revisions import standing_of
from bench.scenarios import BULK_OCTETS, BULK_PARALLEL, KB, LONG_LINE_MS, MB

Json = dict[str, Any]
BULK_TURNS: Final = 12
QUICK_BULK_TURNS: Final = 6
BULK_SESSIONS: Final = 24
"""About a second's worth."""
WARM_SESSIONS: Final = 8
DELIVERY_SIZES: Final = {"4KB": 4 * KB, "1MB": MB, "10MB": 10 * MB}
DELIVERY_TURNS: Final = 9
QUICK_DELIVERY_TURNS: Final = 5


@contextlib.contextmanager
def _standing(tree: Path) -> Iterator[dict[str, Plane]]:
    with contextlib.ExitStack() as stack:
        now = stack.enter_context(planes.standing("now", [Variant.DIRECT, Variant.CHANNEL]))
        before = stack.enter_context(standing_of(tree, [Variant.CHANNEL]))
        standing = {
            "direct": now[Variant.DIRECT],
            "now": now[Variant.CHANNEL],
            "before": before[Variant.CHANNEL],
        }
        stack.enter_context(load.sinks(standing.values()))
        yield standing


def _in_turns(names: list[str], turns: int, take: Callable[[str, int], None], what: str) -> None:
    for turn in range(turns):
        for name in planes.in_turn(names, turn):
            take(name, turn)
        print(f"bench: {what}, turn {turn + 1} of {turns}", file=sys.stderr, flush=True)


def bulk(tree: Path, *, quick: bool) -> Json:
    """Few large mails at a time: rates, and what the gateways' own processes used for a megabyte."""
    with _standing(tree) as standing:
        program = load.esmtp_source(standing["direct"].folder)
        rounds: dict[str, list[load.Round]] = {name: [] for name in standing}

        def drive(name: str, sessions: int) -> load.Round:
            return load.drive(
                standing[name], program, parallel=BULK_PARALLEL, sessions=sessions, octets=BULK_OCTETS
            )

        for name in standing:
            drive(name, WARM_SESSIONS)
        turns = QUICK_BULK_TURNS if quick else BULK_TURNS
        _in_turns(
            list(standing), turns, lambda name, _: rounds[name].append(drive(name, BULK_SESSIONS)), "bulk"
        )
    return bulk_figures(rounds)


def bulk_figures(rounds: dict[str, list[load.Round]]) -> Json:
    rates = {name: [one.megabytes_per_second for one in several] for name, several in rounds.items()}
    own = {name: [_ms_per_megabyte(one, one.gateway_seconds) for one in rounds[name]] for name in rounds}
    whole = {name: [_ms_per_megabyte(one, one.cpu_seconds) for one in rounds[name]] for name in rounds}
    return {
        "megabytes_per_second": {name: figures.summary(rates[name]).as_json() for name in rates},
        "cpu_ms_per_megabyte": {name: figures.summary(whole[name]).as_json() for name in whole},
        "gateway_process_ms_per_megabyte": {
            name: figures.summary([one / 2 for one in own[name]]).as_json() for name in ("now", "before")
        },
        "ratios": _ratios(rates),
    }


def _ms_per_megabyte(one: load.Round, seconds: float) -> float:
    return seconds * 1000 / (one.sessions * one.octets / 1e6)


def delivered(tree: Path, *, quick: bool) -> Json:
    """One mail at a time over a long line: from connect() to the answer to the final dot."""
    bodies = {name: delivery.body_of(octets) for name, octets in DELIVERY_SIZES.items()}
    turns = QUICK_DELIVERY_TURNS if quick else DELIVERY_TURNS
    found: Json = {}
    with _standing(tree) as standing:
        for plane in standing.values():
            delivery.set_rtt(plane, LONG_LINE_MS)
            delivery.deliver(plane, bodies["4KB"], LONG_LINE_MS, KB, 0)
        for size, body in bodies.items():
            seconds: dict[str, list[float]] = {name: [] for name in standing}

            def take(name: str, turn: int, body: bytes = body, to: dict[str, list[float]] = seconds) -> None:
                one = delivery.deliver(standing[name], body, LONG_LINE_MS, len(body), turn)
                to[name].append(one.seconds)

            _in_turns(list(standing), turns, take, size)
            found[size] = {
                "milliseconds": {
                    name: figures.summary([one * 1000 for one in seconds[name]]).as_json() for name in seconds
                },
                "ratios": _ratios(seconds),
            }
    return found


def _ratios(values: dict[str, list[float]]) -> Json:
    pairs = (("now", "direct"), ("before", "direct"), ("now", "before"))
    return {f"{one}_vs_{other}": figures.ratios(values[one], values[other]).as_json() for one, other in pairs}


def text(found: Json) -> Iterator[str]:
    """Lines for people, of what was measured."""
    if "bulk" in found:
        yield f"  mails of 10 MB, {BULK_PARALLEL} parallel"
        yield from _lines("MB/s", found["bulk"]["megabytes_per_second"])
        yield from _lines("CPU ms per MB, whole machine", found["bulk"]["cpu_ms_per_megabyte"])
        own = found["bulk"]["gateway_process_ms_per_megabyte"]
        yield from _lines("CPU ms per MB, one gateway's processes", own)
        yield from _lines("MB/s", found["bulk"]["ratios"])
    for size, entry in found.get("delivery", {}).items():
        yield f"  one mail of {size} at {LONG_LINE_MS} ms"
        yield from _lines("ms", entry["milliseconds"])
        yield from _lines("of the time", entry["ratios"])


def _lines(unit: str, entries: Json) -> Iterator[str]:
    for name, one in entries.items():
        band = f"{one['median']:.3f} [{one['quartile_low']:.3f}-{one['quartile_high']:.3f}]"
        yield f"    {unit + ', ' + name:50} {band}"
