"""CPU seconds of the whole machine while something runs, without what strangers used meanwhile.

/proc/stat counts everything: kernel, softirq, the load generator. On a machine with other work that is not
ours alone, so what processes outside our own tree used is taken off again. A process's time goes to its
parent when it has ended and been waited for, so the sum over the living, children's time included, loses
nothing. Kernel threads are never strangers: they carry our packets.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")
KTHREADD: Final = 2
BUSY_FIELDS: Final = (0, 1, 2, 5, 6)
"""user, nice, system, irq, softirq of proc(5)'s cpu line; guest time is part of user."""
SOFTIRQ_FIELD: Final = 6
STEAL_FIELD: Final = 7


@dataclass(frozen=True, slots=True)
class Reading:
    """Seconds since some start."""

    wall: float
    busy: float
    softirq: float
    steal: float
    strangers: float


@dataclass(frozen=True, slots=True)
class Used:
    """Between two readings."""

    wall: float
    cpu: float
    """All CPU seconds but the strangers'."""
    softirq: float
    steal: float
    strangers: float


def begin() -> Reading:
    """Looking takes some milliseconds itself: strangers first, so that it is no part of what begins."""
    strangers = _strangers()
    return _reading(strangers)


def end() -> Reading:
    """As `begin`, the other way round."""
    return replace(_reading(0.0), strangers=_strangers())


def _reading(strangers: float) -> Reading:
    fields = [int(word) / TICKS for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return Reading(
        time.monotonic(),
        sum(fields[i] for i in BUSY_FIELDS),
        fields[SOFTIRQ_FIELD],
        fields[STEAL_FIELD],
        strangers,
    )


def between(first: Reading, last: Reading) -> Used:
    strangers = max(0.0, last.strangers - first.strangers)
    busy = last.busy - first.busy
    return Used(
        last.wall - first.wall,
        max(0.0, busy - strangers),
        last.softirq - first.softirq,
        last.steal - first.steal,
        strangers,
    )


def idle_cpu_per_second(seconds: float) -> float:
    """What the machine uses with everything started and nothing to do, strangers not counted."""
    first = begin()
    time.sleep(seconds)
    used = between(first, end())
    return used.cpu / used.wall


def process_seconds(pids: Iterable[int]) -> float:
    """CPU seconds that these processes (all their threads) have run so far, to the nanosecond."""
    total = 0
    for pid in pids:
        # A tool that a daemon runs now and then is gone soon.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def _strangers() -> float:
    parents: dict[int, int] = {}
    used: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            text = Path(f"/proc/{name}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = text[text.rindex(")") + 2 :].split()
        parents[int(name)] = int(fields[1])
        used[int(name)] = sum(int(word) for word in fields[11:15])
    ours = os.getpid()

    def is_stranger(pid: int) -> bool:
        while pid > 1:
            if pid in (ours, KTHREADD):
                return False
            pid = parents.get(pid, 0)
        return True

    return sum(ticks for pid, ticks in used.items() if is_stranger(pid)) / TICKS
