"""The record of a run, finished or not -> slopes, verdicts and the whole result. Pure.

What grows is seen in the samples of calm moments: no fault under way or just over, and the first minutes left
out. The slope is Theil and Sen's, the median of the slopes of all pairs, which a few odd samples do not move.

A measure is flat if along that slope it has grown, over the time that was looked at, by no more than a tenth
of its median or than what is named here, whichever is more. To shrink is to be flat. Memory is also looked at
by the age of each process, since a process that was killed takes its leak along: pairs are then of samples of
one and the same process, and the growth is that of an hour of its life.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

Record = dict[str, Any]
Point = tuple[float, float]
"""Seconds, and what was seen."""

WARM_UP_SECONDS: Final = 600.0
WARM_UP_SHARE: Final = 0.2
"""Of a run that is too short for ten minutes of it to be left out."""
YOUNG_SECONDS: Final = 300.0
"""A process is not judged before this age."""
ROLES: Final = ("supervisor", "worker", "signer")
HOUR: Final = 3600.0
SHARE: Final = 0.1
LEAST_POINTS: Final = 8
MB: Final = 2**20

SLACK: Final[dict[str, float]] = {
    "pss_own": 2 * MB,
    "pss": 4 * MB,
    "descriptors": 8,
    "threads": 2,
    "processes": 1,
    "conntrack": 30,
    "sets": 20,
    "sockets": 20,
    "sockets_tw": 20,
    "sessions": 5,
    "state_octets": MB / 2,
}
"""Measure of a gateway -> growth that is nobody's concern, whatever the median."""
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
    points: int
    first: float
    median: float
    last: float
    per_hour: float
    growth: float
    allowed: float

    @property
    def verdict(self) -> Verdict:
        if self.points < LEAST_POINTS:
            return Verdict.TOO_FEW
        return Verdict.FLAT if self.growth <= self.allowed else Verdict.GROWS


def slope(lives: Iterable[Sequence[Point]]) -> float:
    """Theil and Sen's, of pairs within one life each; 0 where there is no pair."""
    found = [
        (late[1] - early[1]) / (late[0] - early[0])
        for points in lives
        for number, early in enumerate(points)
        for late in points[number + 1 :]
        if late[0] > early[0]
    ]
    return median(found) if found else 0.0


def line(gateway: str, measure: str, points: Sequence[Point]) -> Line:
    """One measure over the time of the run; first and last are the medians of the outer thirds."""
    values = [value for _, value in points] or [0.0]
    rise = slope([points])
    span = points[-1][0] - points[0][0] if points else 0.0
    third = max(1, len(values) // 3)
    return Line(
        gateway=gateway,
        measure=measure,
        points=len(points),
        first=median(values[:third]),
        median=median(values),
        last=median(values[-third:]),
        per_hour=rise * HOUR,
        growth=rise * span,
        allowed=max(SLACK[measure], SHARE * median(values)),
    )


def line_by_age(gateway: str, role: str, lives: Sequence[Sequence[Point]]) -> Line:
    """Own memory of all processes of one kind, by age; first and last are medians of each life's ends."""
    values = [value for points in lives for _, value in points]
    rise = slope(lives)
    return Line(
        gateway=gateway,
        measure=f"{role}_by_age",
        points=len(values),
        first=median([points[0][1] for points in lives] or [0.0]),
        median=median(values or [0.0]),
        last=median([points[-1][1] for points in lives] or [0.0]),
        per_hour=rise * HOUR,
        growth=rise * HOUR,
        allowed=max(MEMORY_BY_AGE, SHARE * median(values or [0.0])),
    )


def reduced(gateway: Record) -> dict[str, float]:
    """One gateway's sample -> the measures that are judged."""
    found = {name: gateway[name] for name in ("pss_own", "pss", "descriptors", "threads", "conntrack")}
    found["processes"] = len(gateway["processes"])
    found["sets"] = sum(gateway["sets"].values())
    found["sockets"] = gateway["sockets"].get("alloc", 0)
    found["sockets_tw"] = gateway["sockets"].get("tw", 0)
    found["sessions"] = gateway["sessions"] or 0
    found["state_octets"] = gateway["state_octets"]
    return found


def lines(samples: Sequence[Record], seconds: float) -> list[Line]:
    """Every measure of both gateways; `seconds`: how long the run was."""
    from_second = min(WARM_UP_SECONDS, WARM_UP_SHARE * seconds)
    calm = [one for one in samples if one["calm"] and one["at"] >= from_second]
    found = []
    for letter in ("a", "b"):
        seen = [(one["at"], reduced(one["gateways"][letter])) for one in calm]
        found += [line(letter, name, [(at, values[name]) for at, values in seen]) for name in SLACK]
        found += [line_by_age(letter, role, lives(calm, letter, role)) for role in ROLES]
    return found


def lives(samples: Sequence[Record], letter: str, role: str) -> list[list[Point]]:
    """Of each process of this kind: own memory by age, once it is no longer young."""
    found: dict[tuple[int, int], list[Point]] = defaultdict(list)
    for one in samples:
        for process in one["gateways"][letter]["processes"]:
            if process["role"] == role and process["age"] >= YOUNG_SECONDS:
                found[process["pid"], process["started"]].append((process["age"], process["pss_own"]))
    return list(found.values())


def result(records: Sequence[Record]) -> Record:
    """The whole result of a run, from its record; of one that was killed, what can be said."""
    begin = next(one for one in records if one["kind"] == "begin")
    samples = [one for one in records if one["kind"] == "sample"]
    faults = [one for one in records if one["kind"] == "fault"]
    mail = next((one for one in reversed(records) if one["kind"] == "account"), {})
    end = next((one for one in records if one["kind"] == "end"), None)
    seconds = samples[-1]["at"] if samples else 0.0
    judged = lines(samples, seconds)
    failed = [f"{one['name']}: {one['error']}" for one in faults if one["error"]]
    finished = end is not None and not end["broken_off"]
    harmed = harm(mail)
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
        "flat": flat,
        "holds": finished and not harmed and not failed and flat,
        "samples": samples,
    }


def _as_json(one: Line) -> Record:
    numbers = {
        name: round(getattr(one, name), 2)
        for name in ("first", "median", "last", "per_hour", "growth", "allowed")
    }
    head = {"gateway": one.gateway, "measure": one.measure, "points": one.points}
    return {**head, **numbers, "verdict": one.verdict.value}


def harm(mail: Record) -> list[str]:
    """What must not be, in words; a run without an account has none to show."""
    if not mail:
        return ["no account of the mail"]
    found = []
    for kind in ("postfix", "raw"):
        for what in ("lost", "doubled", "altered", "strangers"):
            if mail[kind].get(what):
                found.append(f"{kind}: {mail[kind][what]} {what}")
        if not mail[kind]["mails"]:
            found.append(f"{kind}: no mail")
    if not mail["dark"]:
        found.append("no session was encrypted")
    return found
