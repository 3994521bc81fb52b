"""How cost grows: with sessions that are open, with workers, with peers that are remembered.

Sessions are held open by the driver and do nothing while a load runs beside them, with gateways and without;
the gateways have more workers than by default, so that no one of them holds them all. Peers are written by
the product's own store, many in a transaction, and looked up as a worker does it, past its short cache.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final

from bench import idle, load, meter, planes
from bench.clock import Budget
from bench.planes import Plane, Variant
from bench.rivals import comparison, holding, room
from bench.rivals.measures import MAIL_OCTETS, Scale, say
from bench.rivals.variants import replaced
from gateway.peers.database import Answer, Database
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.store import PinStore
from gateway.policy import limits

Json = dict[str, Any]
HELD_WORKERS: Final = 4
HELD_PARALLEL: Final = 20
WORKERS: Final = (1, 2)
WORKERS_PARALLEL: Final = 200
TURNS: Final = 2
ROOM_LEFT: Final = 1000
"""Fewer find room in memory that the load beside them has used and let go, so what they need is not seen."""
HELD_BY_ONE: Final = 5000
"""Sessions in one driver at most: a process has so many descriptors."""
DESCRIPTORS: Final = 262_144
"""In each process: as the package's unit allows the service."""
IDLE_SECONDS: Final = 1.0
LOOK_UPS: Final = 2000
LOOK_UP_ROUNDS: Final = 5
PEERS_PER_TRANSACTION: Final = 20_000
WRITE_SECONDS_EACH: Final = 6e-5
"""To write a peer takes less; so that a step is only begun when there is time for it."""
SEED: Final = 25
OPEN_SECONDS_EACH: Final = 0.005
"""To open a session, with gateways and without, until it is measured."""


def growth(scale: Scale, budget: Budget) -> Json:
    """`growth`: `peers`, `workers` and `sessions`, each with its curve."""
    whole = budget.part(scale.parts["growth"])
    found: Json = {"peers": peers(scale, whole.part(whole.left * 0.5))}
    allowed = room.descriptors(DESCRIPTORS)
    with contextlib.ExitStack() as stack:
        by_workers = {count: _standing(stack, count)[Variant.CHANNEL] for count in WORKERS}
        held = _standing(stack, HELD_WORKERS, Variant.DIRECT)
        for plane in by_workers.values():
            stack.enter_context(load.sink(plane))
        for plane in held.values():
            # One process would run out of descriptors.
            for address in plane.destinations:
                stack.enter_context(load.sink(plane, address))
        program = load.esmtp_source(held[Variant.DIRECT].folder)
        anyway = load.anyway(held[Variant.DIRECT], program, IDLE_SECONDS)
        found["workers"] = workers(by_workers, program, anyway, scale)
        found["sessions"] = sessions(held, program, anyway, scale, whole, allowed)
    return found


def _standing(stack: contextlib.ExitStack, workers: int, *more: Variant) -> dict[Variant, Plane]:
    owner = f"growth{workers}"
    return stack.enter_context(
        planes.standing(
            owner,
            [*more, Variant.CHANNEL],
            change=lambda _, text: replaced(text, "[daemon]", f"[daemon]\nworkers = {workers}"),
        )
    )


# --- Workers ---------------------------------------------------------------------------------------------


def workers(by_workers: dict[int, Plane], program: Path, anyway: load.Anyway, scale: Scale) -> Json:
    """The same load on one and on two workers per gateway."""
    rounds: dict[int, list[load.Round]] = {count: [] for count in by_workers}
    amounts = {}
    for count, plane in by_workers.items():
        first = _drive(plane, program, WORKERS_PARALLEL, 2 * WORKERS_PARALLEL)
        amounts[count] = max(2 * WORKERS_PARALLEL, int(first.sessions_per_second * scale.round_seconds))
    for _ in range(TURNS):
        for count, plane in by_workers.items():
            rounds[count].append(_drive(plane, program, WORKERS_PARALLEL, amounts[count]))
    curve = [
        {
            "workers": count,
            "sessions_per_second": round(statistics.median(one.sessions_per_second for one in several), 1),
            "cpu_ms_per_session": round(statistics.median(one.cpu_ms(anyway) for one in several), 4),
        }
        for count, several in rounds.items()
    ]
    say(f"workers: {curve}")
    return {
        "parallel": WORKERS_PARALLEL,
        "curve": curve,
        "cpu_2_vs_1": curve[1]["cpu_ms_per_session"] / curve[0]["cpu_ms_per_session"],
    }


def _drive(plane: Plane, program: Path, parallel: int, count: int) -> load.Round:
    return load.drive(plane, program, parallel=parallel, sessions=count, octets=MAIL_OCTETS)


# --- Sessions held open ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Level:
    """What was measured with so many sessions open."""

    held: int
    cpu_ms_per_session: float
    direct_cpu_ms_per_session: float
    idle_cpu_per_second: float
    octets: int
    """PSS of the sending gateway's processes."""
    by_worker: dict[str, list[int]]
    """Of these sessions, in each gateway."""
    resumed_share: float
    """Of the load's sessions: those that went on from a ticket, and were so much cheaper."""
    opening_seconds: float
    """To open those that were not open at the level before it, with gateways and without."""

    def as_json(self) -> Json:
        return {
            "sessions": self.held,
            "cpu_ms_per_session": round(self.cpu_ms_per_session, 4),
            "direct_cpu_ms_per_session": round(self.direct_cpu_ms_per_session, 4),
            "idle_cpu_per_second": round(self.idle_cpu_per_second, 4),
            "octets": self.octets,
            "by_worker": self.by_worker,
            "resumed_share": round(self.resumed_share, 4),
            "opening_seconds": round(self.opening_seconds, 1),
        }


def sessions(
    held: dict[Variant, Plane],
    program: Path,
    anyway: load.Anyway,
    scale: Scale,
    budget: Budget,
    allowed: int,
) -> Json:
    """Levels as far as time and room allow: opening takes longest, and is not measured."""
    channel = held[Variant.CHANNEL]
    amounts = {}
    for variant, plane in held.items():
        first = _drive(plane, program, HELD_PARALLEL, 10 * HELD_PARALLEL)
        amounts[variant] = max(5 * HELD_PARALLEL, int(first.sessions_per_second * scale.round_seconds))
    holding.settle(channel, 0)
    without = idle.pss(channel.gateway_pids("gw-a"))
    levels: list[Level] = []
    with contextlib.ExitStack() as stack:
        crowd = Crowd(held, stack, budget, allowed)
        for target in scale.held:
            if words := crowd.lacks(target):
                say(f"{target} sessions are not held: {words}")
                break
            crowd.grow(target)
            levels.append(_level(held, program, anyway, amounts, crowd))
            say(f"growth: {levels[-1].as_json()}")
    if len(levels) < 2:
        raise SystemExit("bench: too few sessions can be held here to tell how cost grows")
    return _sessions_found(levels, without)


class Crowd:
    """The sessions that are held, and what they have taken so far."""

    def __init__(
        self, held: dict[Variant, Plane], stack: contextlib.ExitStack, budget: Budget, allowed: int
    ) -> None:
        self.taken = room.Taken()
        self.by_worker: dict[str, list[int]] = {}
        self.opening_seconds = 0.0
        """Of the last time that it grew."""
        self._held, self._stack, self._budget, self._allowed = held, stack, budget, allowed
        self._seconds_each = OPEN_SECONDS_EACH
        self._free_at_first = room.free_octets()

    def lacks(self, target: int) -> str:
        """What keeps it from growing so far, in words; nothing: it can."""
        if words := room.lack(target, self.taken, self._allowed, room.free_octets()):
            return f"no room: {words}"
        more = target - self.taken.sessions
        if self.taken.sessions and not self._budget.allows(more * self._seconds_each):
            return (
                f"no time: to open them takes {more * self._seconds_each:.0f} s of {self._budget.left:.0f} s"
            )
        return ""

    def grow(self, target: int) -> None:
        more = target - self.taken.sessions
        before = self._budget.left
        for plane in self._held.values():
            for part in parts(more, self._allowed):
                self._stack.enter_context(holding.held(plane, part, sources=plane.holders))
        channel = self._held[Variant.CHANNEL]
        holding.settle(channel, target)
        self.by_worker = holding.by_worker(channel)
        octets = max(0, self._free_at_first - room.free_octets())
        self.taken = room.Taken(target, room.busiest(self.by_worker.values()), octets)
        self.opening_seconds = before - self._budget.left
        if more >= room.TELLING:
            self._seconds_each = self.opening_seconds / more


def parts(sessions: int, allowed: int) -> list[int]:
    """So many sessions as drivers may hold each, with so many descriptors allowed."""
    most = min(HELD_BY_ONE, allowed - limits.DESCRIPTORS_KEPT)
    whole, rest = divmod(sessions, most)
    return [most] * whole + [rest] * (rest > 0)


def _level(
    held: dict[Variant, Plane],
    program: Path,
    anyway: load.Anyway,
    amounts: dict[Variant, int],
    crowd: Crowd,
) -> Level:
    idle_cpu = meter.idle_cpu_per_second(IDLE_SECONDS)
    meanwhile = load.Anyway(idle_cpu, anyway.launch_seconds)
    cpu: dict[Variant, list[float]] = {variant: [] for variant in held}
    before = _begun_and_resumed(held[Variant.CHANNEL])
    for _ in range(TURNS):
        for variant, plane in held.items():
            cpu[variant].append(_drive(plane, program, HELD_PARALLEL, amounts[variant]).cpu_ms(meanwhile))
    holding.settle(held[Variant.CHANNEL], crowd.taken.sessions)
    begun, resumed = (
        now - was for now, was in zip(_begun_and_resumed(held[Variant.CHANNEL]), before, strict=True)
    )
    return Level(
        crowd.taken.sessions,
        statistics.median(cpu[Variant.CHANNEL]),
        statistics.median(cpu[Variant.DIRECT]),
        idle_cpu,
        idle.pss(held[Variant.CHANNEL].gateway_pids("gw-a")),
        crowd.by_worker,
        resumed / max(1, begun),
        crowd.opening_seconds,
    )


def _begun_and_resumed(channel: Plane) -> tuple[int, int]:
    """By the sending gateway's account."""
    sending = channel.gateways[0]
    return holding.tally(sending, "sessions-begun") or 0, holding.tally(sending, "resumed") or 0


def _sessions_found(levels: list[Level], without: int) -> Json:
    counts = [level.held for level in levels]
    tall = [level for level in levels if level.held >= ROOM_LEFT]
    tall = tall if len(tall) > 1 else levels[-2:]
    return {
        "parallel": HELD_PARALLEL,
        "workers": HELD_WORKERS,
        "octets_without": without,
        "curve": [level.as_json() for level in levels],
        "cpu_exponent": comparison.exponent(counts, [level.cpu_ms_per_session for level in levels]),
        "memory_exponent": comparison.exponent(
            [level.held for level in tall], [max(1, level.octets - without) for level in tall]
        ),
    }


# --- Peers remembered --------------------------------------------------------------------------------------


class OneTransaction(Database):
    """The product's database, with writes that are one transaction until `commit`."""

    def write(self, work: Callable[[Connection], Answer]) -> Answer:
        return self.read(work)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        self.read(lambda connection: connection.execute("BEGIN IMMEDIATE"))
        yield
        self.read(lambda connection: connection.execute("COMMIT"))


def peers(scale: Scale, budget: Budget) -> Json:
    """Microseconds of a look-up, for a peer that is known and for one that is not; the file's size."""
    curve: list[Json] = []
    written = 0
    with tempfile.TemporaryDirectory(prefix="nightmail-bench-") as folder:
        path = Path(folder) / "peers.db"
        for target in scale.peers:
            if curve and not budget.allows((target - written) * WRITE_SECONDS_EACH):
                say(f"no time for {target} peers")
                break
            began = time.monotonic()
            fill(path, written, target)
            seconds = time.monotonic() - began
            written = target
            curve.append({"peers": target, "filled_seconds": round(seconds, 2)} | look_ups(path, target))
            say(f"growth: {curve[-1]}")
    first, last = curve[0]["look_up_us"], curve[-1]["look_up_us"]
    return {"curve": curve, "look_up_most_vs_fewest": last / first}


def fill(path: Path, first: int, last: int) -> None:
    """Peers number `first` up to, but without, `last`."""
    now = int(time.time())
    database = OneTransaction(path)
    store = PinStore(database)
    try:
        for begin in range(first, last, PEERS_PER_TRANSACTION):
            with database.together():
                for number in range(begin, min(begin + PEERS_PER_TRANSACTION, last)):
                    peer = MetPeer(number.to_bytes(32, "big"), now // 86400, True)
                    store.remember(destination(number), peer, now)
    finally:
        database.close()


def destination(number: int) -> Destination:
    return Destination(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 25)


def look_ups(path: Path, count: int) -> Json:
    choose = random.Random(SEED)
    known = [destination(choose.randrange(count)) for _ in range(LOOK_UPS)]
    strange = [Destination(f"192.0.2.{number % 250}", 25) for number in range(LOOK_UPS)]
    began = time.monotonic()
    store = PinStore.read_only(path)
    opened = time.monotonic() - began
    try:
        assert all(store.lookup(one) for one in known), "a peer that was written is not found"
        assert not store.lookup(strange[0])
        return {
            "look_up_us": round(_microseconds(store, known), 2),
            "unknown_us": round(_microseconds(store, strange), 2),
            "opening_ms": round(opened * 1000, 2),
            "file_octets": path.stat().st_size,
        }
    finally:
        store.close()


def _microseconds(store: PinStore, asked: list[Destination]) -> float:
    rounds = []
    for _ in range(LOOK_UP_ROUNDS):
        began = time.perf_counter()
        for one in asked:
            store.lookup(one)
        rounds.append((time.perf_counter() - began) / len(asked) * 1e6)
    # Whatever else the machine does makes a round longer, never shorter.
    return min(rounds)
