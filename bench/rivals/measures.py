"""The measurements: rounds of all variants alternate, and each turn begins with another one.

Each keeps to its part of the time and ends with the turns that it has. Counterparts: `load`, `delivery`,
`driver` and `holding` measure once, `comparison` makes figures of it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import delivery, load
from bench.clock import Budget
from bench.planes import Plane, in_turn
from bench.rivals import comparison, driver, holding
from bench.rivals.postfix import Arrivals
from bench.rivals.variants import Rival

Json = dict[str, Any]
KB: Final = 1024
MB: Final = 1024 * KB
PARALLEL: Final = (1, 20, 200)
MAIL_OCTETS: Final = 4 * KB
BULK_OCTETS: Final = 10 * MB
BULK_PARALLEL: Final = 4
LEAST_SESSIONS: Final = 6
PACED_RTT_MS: Final = 20
STORING_IDLE_SESSIONS: Final = 80
"""Postfix serves 100 clients at a time as it comes, each with a process."""
DELIVERY_SIZES: Final = {"4KB": MAIL_OCTETS, "1MB": MB}
LARGE_RTT_MS: Final = 80
"""The only line over which large mails are timed: that takes seconds each."""
FAILED_SECONDS: Final = 60.0
LEARN_SESSIONS: Final = 320
LEARN_SECONDS: Final = 30.0
_DEAD_END: Final = re.compile(r"dead-end .*\bto=(\S+)")


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how often."""

    total_seconds: float
    idle_sessions: int
    baseline_seconds: float
    round_seconds: float
    rounds: int
    bulk_rounds: int
    paced_seconds: float
    paced_turns: int
    pairs_by_rtt: dict[int, int]
    parts: dict[str, float]
    """Seconds of each measurement at most."""
    held: tuple[int, ...]
    """Sessions open in the growth plot."""
    peers: tuple[int, ...]


FULL: Final = Scale(
    total_seconds=465,
    idle_sessions=1000,
    baseline_seconds=2.0,
    round_seconds=1.4,
    rounds=4,
    bulk_rounds=3,
    paced_seconds=6.0,
    paced_turns=2,
    pairs_by_rtt={20: 5, 80: 5, 200: 2},
    parts={"idle": 50, "sessions": 105, "bulk": 20, "latency": 50, "delivery": 75, "growth": 180},
    held=(10, 100, 1000, 5000, 20_000),
    peers=(10, 100, 1000, 10_000, 100_000, 1_000_000),
)
QUICK: Final = Scale(
    total_seconds=160,
    idle_sessions=100,
    baseline_seconds=1.0,
    round_seconds=0.6,
    rounds=2,
    bulk_rounds=1,
    paced_seconds=2.0,
    paced_turns=1,
    pairs_by_rtt={20: 1, 80: 1, 200: 1},
    parts={"idle": 25, "sessions": 30, "bulk": 8, "latency": 15, "delivery": 20, "growth": 60},
    held=(10, 100, 1000),
    peers=(10, 100, 1000, 10_000),
)


@dataclass
class Race:
    """What is needed to measure, and what has been measured."""

    planes: dict[Rival, Plane]
    scale: Scale
    budget: Budget
    program: Path
    results: Json = field(default_factory=dict)
    rows: list[Json] = field(default_factory=list)

    def learn_dead_ends(self) -> None:
        """Sessions until the gateway has found that none of the servers has anything to offer."""
        plane = self.planes[Rival.DEAD_END]
        (gateway,) = plane.gateways
        deadline = time.monotonic() + LEARN_SECONDS
        while len(set(_DEAD_END.findall(gateway.log.read_text()))) < len(plane.destinations):
            if time.monotonic() > deadline:
                raise SystemExit("bench: the gateway does not find its dead ends")
            self.drive(Rival.DEAD_END, parallel=16, sessions=LEARN_SESSIONS, octets=MAIL_OCTETS)

    def drive(self, variant: Rival, *, parallel: int, sessions: int, octets: int) -> load.Round:
        """A round is over when every mail has arrived."""
        plane = self.planes[variant]
        if not variant.made.stores:
            return load.drive(plane, self.program, parallel=parallel, sessions=sessions, octets=octets)
        with Arrivals(plane) as arrivals:
            return load.drive(
                plane, self.program, parallel=parallel, sessions=sessions, octets=octets, until=arrivals.wait
            )


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


# --- Memory ----------------------------------------------------------------------------------------------


def idle_memory(race: Race) -> None:
    """`idle_bytes`: PSS of each node's processes per open session."""
    found: Json = {}
    for variant, plane in race.planes.items():
        nodes = variant.made.nodes
        sessions = race.scale.idle_sessions
        if variant.made.stores:
            # The sender's sessions end at the first relay.
            nodes, sessions = nodes[:1], min(sessions, STORING_IDLE_SESSIONS)
        if nodes:
            every = holding.memory(plane, nodes, sessions)
            race.rows += [{"kind": "idle", **asdict(one)} for one in every]
            found[variant.value] = {one.node: round(one.octets_per_session) for one in every}
            say(f"idle {variant.value}: {found[variant.value]}")
    race.results["idle_bytes"] = found


# --- Sessions and bulk -----------------------------------------------------------------------------------


def sessions(race: Race) -> None:
    race.learn_dead_ends()
    anyway = load.anyway(race.planes[Rival.DIRECT], race.program, race.scale.baseline_seconds)
    race.results["anyway"] = asdict(anyway)
    found: Json = {}
    for place, parallel in enumerate(PARALLEL):
        budget = race.budget.part(race.scale.parts["sessions"] / len(PARALLEL))
        rounds = race.scale.rounds if place else max(2, race.scale.rounds // 2)
        turns = _turns(race, budget, parallel, MAIL_OCTETS, rounds, 2 * parallel)
        found[str(parallel)] = comparison.session_figures(turns, anyway)
        race.rows += _rows(turns, anyway)
    race.results["sessions"] = found


def bulk(race: Race) -> None:
    budget = race.budget.part(race.scale.parts["bulk"])
    turns = _turns(race, budget, BULK_PARALLEL, BULK_OCTETS, race.scale.bulk_rounds, BULK_PARALLEL)
    race.results["bulk"] = comparison.bulk_figures(turns)
    race.rows += _rows(turns, None)


def _turns(
    race: Race, budget: Budget, parallel: int, octets: int, count: int, warm: int
) -> list[dict[Rival, load.Round]]:
    """At least one turn, however little time there is."""
    least = max(warm, LEAST_SESSIONS)
    amounts = {}
    for variant in race.planes:
        first = race.drive(variant, parallel=parallel, sessions=least, octets=octets)
        amounts[variant] = max(least, int(first.sessions_per_second * race.scale.round_seconds))
    turns: list[dict[Rival, load.Round]] = []
    longest = 0.0
    while len(turns) < count and (not turns or budget.allows(longest)):
        before = budget.left
        turns.append(
            {
                variant: race.drive(variant, parallel=parallel, sessions=amounts[variant], octets=octets)
                for variant in in_turn(race.planes, len(turns))
            }
        )
        longest = max(longest, before - budget.left)
        say(f"{parallel} parallel, {octets // KB} KB, turn {len(turns)}: {_told(race, turns[-1])}")
    return turns


def _told(race: Race, turn: dict[Rival, load.Round]) -> str:
    return ", ".join(
        f"{variant.value} {turn[variant].megabytes_per_second:.0f} MB/s"
        if turn[variant].octets > MAIL_OCTETS
        else f"{variant.value} {turn[variant].sessions_per_second:.0f}/s"
        for variant in race.planes
    )


def _rows(turns: list[dict[Rival, load.Round]], anyway: load.Anyway | None) -> list[Json]:
    rows = []
    for number, turn in enumerate(turns):
        for one in turn.values():
            row: Json = {"kind": "load", "turn": number + 1} | {
                key: round(value, 4) if isinstance(value, float) else value
                for key, value in asdict(one).items()
            }
            if anyway is not None:
                row["cpu_ms_per_session"] = round(one.cpu_ms(anyway), 4)
            rows.append(row)
    return rows


# --- Time of a session under load --------------------------------------------------------------------------


def latency(race: Race) -> None:
    """Open loop, at half of what the channel can carry, over a line of 20 ms."""
    budget = race.budget.part(race.scale.parts["latency"])
    set_rtt(race, PACED_RTT_MS)
    rate = _half_of_top_rate(race)
    times: dict[Rival, list[float | None]] = {variant: [] for variant in race.planes}
    longest, turn = 0.0, 0
    while turn < race.scale.paced_turns and (not turn or budget.allows(longest)):
        before = budget.left
        for variant in in_turn(race.planes, turn):
            times[variant] += paced(race.planes[variant], variant, rate, race.scale.paced_seconds, turn)
        turn += 1
        longest = max(longest, before - budget.left)
    set_rtt(race, 0)
    found = {variant.value: comparison.time_figures(times[variant]) for variant in race.planes}
    race.results["latency"] = {"rtt_ms": PACED_RTT_MS, "sessions_per_second": rate, "by_variant": found}
    told = ", ".join(f"{name} {one['p50_ms']}/{one['p99_ms']}" for name, one in found.items())
    say(f"{rate:.0f} sessions/s at {PACED_RTT_MS} ms, p50/p99 ms: {told}")


def _half_of_top_rate(race: Race) -> float:
    """Over the same line: what carries packets over it takes its part of the machine as well, and a rate from
    without it would be more than half of what can be carried here."""
    parallel = PARALLEL[-1]
    rounds = [
        race.drive(Rival.CHANNEL, parallel=parallel, sessions=4 * parallel, octets=MAIL_OCTETS)
        for _ in range(2)
    ]
    return rounds[-1].sessions_per_second / 2


def paced(plane: Plane, variant: Rival, rate: float, seconds: float, seed: int) -> list[float | None]:
    """Each session's seconds from when it was due to the receiver's answer; None for one that failed."""
    words = ["pace", "--rate", str(rate), "--seconds", str(seconds), "--seed", str(seed)]
    command = holding.driver(plane, *words, *plane.destinations)
    log = plane.folder / "driver.log"
    with log.open("ab") as complaints:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, text=True
        )
    try:
        if variant.made.stores:
            return _arrived(plane, process)
        said, _ = process.communicate(timeout=seconds + FAILED_SECONDS)
        return [took for _, _, took in _sessions(plane, said)]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _arrived(plane: Plane, process: subprocess.Popen[str]) -> list[float | None]:
    with Arrivals(plane) as arrivals, ThreadPoolExecutor(1) as reader:
        assert process.stdout is not None
        whole = reader.submit(process.stdout.read)
        while not whole.done():
            arrivals.come(len(arrivals.seen) + 1, 0.2)
        sessions = _sessions(plane, whole.result())
        arrivals.come(len(sessions), driver.REST_SECONDS)
        process.wait()
    at = {to: when for when, to in arrivals.seen}
    return [
        at[f"b{number}@b.test"] - due if f"b{number}@b.test" in at else None for number, due, _ in sessions
    ]


def _sessions(plane: Plane, said: str) -> list[tuple[int, float, float | None]]:
    if not said:
        words = (plane.folder / "driver.log").read_text(errors="replace").strip().splitlines()
        raise SystemExit(f"bench: {plane.variant.value}: the driver has ended: {words[-1:]}")
    return [(number, due, took) for number, due, took in json.loads(said)]


# --- Time to delivery --------------------------------------------------------------------------------------


def set_rtt(race: Race, milliseconds: int) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda plane: delivery.set_rtt(plane, milliseconds), race.planes.values()))


def delivery_time(race: Race) -> None:
    """One mail at a time, from connect() to the receiver's answer to the final dot."""
    whole = race.budget.part(race.scale.parts["delivery"])
    bodies = {name: delivery.body_of(octets) for name, octets in DELIVERY_SIZES.items()}
    found: Json = {}
    rtts = list(race.scale.pairs_by_rtt)
    try:
        for rtt in rtts:
            left = sum(_weight(race, other) for other in rtts[rtts.index(rtt) :])
            budget = whole.part(whole.left * _weight(race, rtt) / left)
            sizes = {name: body for name, body in bodies.items() if name == "4KB" or rtt == LARGE_RTT_MS}
            found[str(rtt)] = _at_rtt(race, budget, rtt, sizes)
    finally:
        set_rtt(race, 0)
    race.results["delivery"] = found


def _weight(race: Race, rtt: int) -> float:
    """Of the time; a large mail takes as long as two small ones."""
    return race.scale.pairs_by_rtt[rtt] * rtt * (3 if rtt == LARGE_RTT_MS else 1)


def _at_rtt(race: Race, budget: Budget, rtt: int, bodies: dict[str, bytes]) -> Json:
    set_rtt(race, rtt)
    with ThreadPoolExecutor() as pool:  # the way to the other gateway, and the first meeting with it
        list(
            pool.map(
                lambda variant: delivered(race.planes[variant], variant, bodies["4KB"], rtt, 0), race.planes
            )
        )
    times: dict[str, dict[Rival, list[float]]] = {name: {one: [] for one in race.planes} for name in bodies}
    longest, pair = 0.0, 0
    while pair < race.scale.pairs_by_rtt[rtt] and (not pair or budget.allows(longest)):
        before = budget.left
        for name, body in bodies.items():
            for variant in in_turn(race.planes, pair):
                took = delivered(race.planes[variant], variant, body, rtt, pair)
                times[name][variant].append(took)
                row = {"variant": variant.value, "rtt_ms": rtt, "size": name, "seconds": round(took, 6)}
                race.rows.append({"kind": "delivery", "turn": pair + 1} | row)
        pair += 1
        longest = max(longest, before - budget.left)
    say(f"{rtt} ms: {pair} mails of each size")
    return {name: comparison.delivery_figures(times[name]) for name in bodies}


def delivered(plane: Plane, variant: Rival, body: bytes, rtt: int, pair: int) -> float:
    """Seconds until the receiver has it."""
    if not variant.made.stores:
        return delivery.deliver(plane, body, rtt, len(body), pair).seconds
    with Arrivals(plane) as arrivals:
        began = time.monotonic()
        delivery.deliver(plane, body, rtt, len(body), pair)
        arrivals.wait(1)
        return arrivals.seen[0][0] - began


MEASURES: Final[dict[str, Callable[[Race], None]]] = {
    # Memory first: it wants daemons that have carried nothing yet.
    "idle": idle_memory,
    "sessions": sessions,
    "bulk": bulk,
    "latency": latency,
    "delivery": delivery_time,
}
