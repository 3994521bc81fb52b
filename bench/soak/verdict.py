"""The record of a run, finished or not -> slopes, verdicts and the whole result. Pure.

What grows is seen in the samples of calm moments: no fault under way or just over, and the first minutes left
out. A run is the same twice: with every fault, then without those that end processes, and both again. So like
is compared with like, as rivers are from year to year (the seasonal Kendall slope of Hirsch, Slack and Smith,
1982): the slope is the median of those of all pairs of samples from the same tenth of the two rounds.

A measure is flat if along that slope it has grown, over the time that was looked at, by no more than a tenth
of its median or than what is named here, whichever is more. To shrink is to be flat. Memory is also looked at
by the age of each process, since a process that was killed takes its leak along: pairs are then of samples of
one and the same process, and the growth is that of an hour of its life.

Processes that were told to end, and carry their last sessions, are no part of what may grow: see `ending`.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from bench.soak import ending

Record = dict[str, Any]
Point = tuple[float, float]
"""Seconds, and what was seen."""

WARM_UP_SECONDS: Final = 600.0
WARM_UP_SHARE: Final = 0.2
"""Of a run that is too short for ten minutes of it to be left out."""
YOUNG_SECONDS: Final = 900.0
"""A process is not judged before this age: a worker looks for cycles after `limits.GC_OBJECTS` new objects,
and at this load has made as many after some ten minutes."""
ROLES: Final = ("supervisor", "worker", "signer")
NOBODY: Final[Record] = {"role": "signer", "started": 0, "pid": 0}
HOUR: Final = 3600.0
SHARE: Final = 0.1
LEAST_PAIRS: Final = 20
MB: Final = 2**20

SLACK: Final[dict[str, float]] = {
    "pss_own": 2 * MB,
    "pss": 4 * MB,
    "descriptors": 8,
    "threads": 2,
    "processes": 1,
    "conntrack": 30,
    # One for each connection of a quarter of an hour, 1.6 a second, and none after the table was made anew.
    "sets": 1500,
    "sockets": 20,
    "sockets_tw": 20,
    "sessions": 5,
    # SQLite's log, which is written from its beginning again at 4 MB, and deleted with the last reader's end.
    "state_octets": 4.5 * MB,
}
"""Measure of a gateway -> growth that is nobody's concern, whatever the median."""
ROUNDS: Final = 2
"""Of a run: each has a stretch with every fault and one that spares the processes."""
SEASONS: Final = 10
"""Parts of a round; pairs are of samples from the same one."""
MEMORY_BY_AGE: Final = MB
"""Octets in an hour of one process."""


class Verdict(enum.Enum):
    """What can be said of one measure."""

    FLAT = "flat"
    GROWS = "grows"
    TOO_FEW = "too few samples"


@dataclass(frozen=True, slots=True)
class Line:
    """One measure of one gateway. `growth` is along the slope, over the time that was looked at."""

    gateway: str
    measure: str
    pairs: int
    first: float
    median: float
    last: float
    per_hour: float
    growth: float
    allowed: float

    @property
    def verdict(self) -> Verdict:
        if self.pairs < LEAST_PAIRS:
            return Verdict.TOO_FEW
        return Verdict.FLAT if self.growth <= self.allowed else Verdict.GROWS


def slopes(lives: Iterable[Sequence[Point]], apart: float = 0.0) -> list[float]:
    """Of all pairs within one life each that are more than `apart` seconds from each other. (Their median is
    Theil and Sen's slope.)"""
    return [
        (late[1] - early[1]) / (late[0] - early[0])
        for points in lives
        for number, early in enumerate(points)
        for late in points[number + 1 :]
        if late[0] > early[0] + apart
    ]


def seasons(points: Sequence[Point], round_seconds: float) -> list[list[Point]]:
    """The points of each tenth of a round, of all rounds together."""
    found: dict[int, list[Point]] = defaultdict(list)
    for point in points:
        found[int(point[0] % round_seconds / round_seconds * SEASONS)].append(point)
    return list(found.values())


def line(gateway: str, measure: str, points: Sequence[Point], seconds: float) -> Line:
    """One measure over the time of a run of so many seconds; first and last are the medians of the rounds."""
    values = [value for _, value in points] or [0.0]
    round_seconds = seconds / ROUNDS
    found = slopes(seasons(points, round_seconds), round_seconds / 2)
    rise = median(found or [0.0])
    span = points[-1][0] - points[0][0] if points else 0.0
    early = [value for at, value in points if at < round_seconds]
    late = [value for at, value in points if at >= round_seconds]
    return Line(
        gateway=gateway,
        measure=measure,
        pairs=len(found),
        first=median(early or values),
        median=median(values),
        last=median(late or values),
        per_hour=rise * HOUR,
        growth=rise * span,
        allowed=max(SLACK[measure], SHARE * median(values)),
    )


def line_by_age(gateway: str, role: str, lives: Sequence[Sequence[Point]]) -> Line:
    """Own memory of all processes of one kind, by age; first and last are medians of each life's ends."""
    values = [value for points in lives for _, value in points]
    found = slopes(lives)
    rise = median(found or [0.0])
    return Line(
        gateway=gateway,
        measure=f"{role}_by_age",
        pairs=len(found),
        first=median([points[0][1] for points in lives] or [0.0]),
        median=median(values or [0.0]),
        last=median([points[-1][1] for points in lives] or [0.0]),
        per_hour=rise * HOUR,
        growth=rise * HOUR,
        allowed=max(MEMORY_BY_AGE, SHARE * median(values or [0.0])),
    )


def reduced(gateway: Record) -> dict[str, float]:
    """One gateway's sample -> the measures that are judged."""
    staying = [one for one in gateway["processes"] if not ending.is_told(one)]
    found = {name: sum(one[name] for one in staying) for name in ("pss_own", "pss", "descriptors", "threads")}
    found["processes"] = len(staying)
    found["conntrack"] = gateway["conntrack"]
    found["sets"] = sum(gateway["sets"].values())
    found["sockets"] = gateway["sockets"].get("alloc", 0)
    found["sockets_tw"] = gateway["sockets"].get("tw", 0)
    found["sessions"] = gateway["sessions"] or 0
    found["state_octets"] = gateway["state_octets"]
    return found


def lines(samples: Sequence[Record], seconds: float) -> list[Line]:
    """Every measure of both gateways; `seconds`: how long the run is meant to be."""
    from_second = min(WARM_UP_SECONDS, WARM_UP_SHARE * seconds)
    calm = [one for one in samples if one["calm"] and one["at"] >= from_second]
    found = []
    for letter in ("a", "b"):
        seen = [(one["at"], reduced(one["gateways"][letter])) for one in calm]
        found += [line(letter, name, [(at, values[name]) for at, values in seen], seconds) for name in SLACK]
        found += [line_by_age(letter, role, lives(samples, letter, role)) for role in ROLES]
    return found


def lives(samples: Sequence[Record], letter: str, role: str) -> list[list[Point]]:
    """Of each process of this kind: own memory by age in calm moments, once it is no longer young.

    The age is counted from its first sample. A supervisor that loads the program anew begins another life, by
    the signer that it starts then.
    """
    born: dict[tuple[int, ...], float] = {}
    found: dict[tuple[int, ...], list[Point]] = defaultdict(list)
    for one in samples:
        processes = one["gateways"][letter]["processes"]
        signer = max(
            (each["started"], each["pid"]) for each in [*processes, NOBODY] if each["role"] == "signer"
        )
        for process in processes:
            if process["role"] != role:
                continue
            key = (process["pid"], process["started"], *(signer if role == "supervisor" else ()))
            age = one["at"] - born.setdefault(key, one["at"])
            if one["calm"] and age >= YOUNG_SECONDS:
                found[key].append((age, process["pss_own"]))
    return list(found.values())


def result(records: Sequence[Record]) -> Record:
    """The whole result of a run, from its record; of one that was killed, what can be said."""
    begin = next(one for one in records if one["kind"] == "begin")
    samples = [one for one in records if one["kind"] == "sample"]
    faults = [one for one in records if one["kind"] == "fault"]
    mail = next((one for one in reversed(records) if one["kind"] == "account"), {})
    end = next((one for one in records if one["kind"] == "end"), None)
    last = next((one for one in records if one["kind"] == "last"), None)
    seconds = samples[-1]["at"] if samples else 0.0
    judged = lines(samples, 60 * begin["minutes"])
    failed = [f"{one['name']}: {one['error'].splitlines()[0]}" for one in faults if one["error"]]
    finished = end is not None and not end["broken_off"]
    harmed = harm(mail)
    told = ending.account(samples, last if finished else None)
    flat = all(each.verdict is Verdict.FLAT for each in judged)
    return {
        "seed": begin["seed"],
        "minutes": round(seconds / 60, 1),
        "minutes_wanted": begin["minutes"],
        "machine": begin["machine"],
        "finished": finished,
        "mails": {name: value for name, value in mail.items() if name not in ("kind", "at")},
        "harm": harmed,
        "faults": dict(sorted(Counter(one["name"] for one in faults).items())),
        "faults_failed": failed,
        "cpu_share": round(end["cpu_seconds"] / end["at"], 3) if end else None,
        "slopes": [_as_json(each) for each in judged],
        "ending": told,
        "flat": flat,
        "holds": finished and not harmed and not failed and flat and not told["endless"],
        "samples": samples,
    }


def _as_json(one: Line) -> Record:
    numbers = {
        name: round(getattr(one, name), 2)
        for name in ("first", "median", "last", "per_hour", "growth", "allowed")
    }
    head = {"gateway": one.gateway, "measure": one.measure, "pairs": one.pairs}
    return {**head, **numbers, "verdict": one.verdict.value}


def harm(mail: Record) -> list[str]:
    """What must not be, in words; a run without an account has none to show. What has not come is lost only
    in the last account, which says what is still queued."""
    if not mail:
        return ["no account of the mail"]
    found = []
    for kind in ("postfix", "raw"):
        for what in ("lost", "doubled", "altered", "strangers"):
            if mail[kind].get(what) and (what != "lost" or "queued" in mail):
                found.append(f"{kind}: {mail[kind][what]} {what}")
        if not mail[kind]["mails"]:
            found.append(f"{kind}: no mail")
    if not mail["dark"]:
        found.append("no session was encrypted")
    return found
