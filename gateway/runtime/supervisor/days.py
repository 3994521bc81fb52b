"""Sessions of today and of this week, kept over restarts: the workers' counters, cut by day.

The counters of a daemon only rise, and die with it; what they have risen by since the last look is added to
the day of that look, and written every few seconds. Counterparts: `pool` (whose counters), `peers.day_store`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from gateway.errors import EnvironmentFailureError
from gateway.observe.counters import Snapshot
from gateway.peers.day_store import Days as Counts
from gateway.peers.day_store import DayStore, Kind
from gateway.policy import limits


class Days:
    """`store` answers where they are kept, or None where there is no such place; `trouble` is told why."""

    def __init__(
        self,
        store: Callable[[], DayStore | None],
        trouble: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._trouble = trouble
        self._clock = clock
        self._seen: Counter[Kind] = Counter()
        self._week: Counts = {}
        """What was read on this day and what came since; so the disk is asked once a day."""
        self._read_on = -1
        self._unwritten: Counts = {}

    def begin(self, counters: Snapshot) -> None:
        """What the counters say now was counted by the daemon that this process was before."""
        self._seen = _kinds(counters)
        self._read()

    async def keep(self, counters: Callable[[], Snapshot]) -> None:
        """For ever: look and write."""
        while True:
            await asyncio.sleep(limits.DAYS_WRITE_SECONDS)
            self.note(counters())
            self.write()

    def note(self, counters: Snapshot) -> None:
        """What they have risen by belongs to today."""
        now, today = _kinds(counters), self._today()
        if today != self._read_on:
            # Not always the next one: a clock that was wrong at the start is set right later.
            self._read()
        risen = now - self._seen  # drops what has not
        self._seen = now
        if risen:
            self._week.setdefault(today, Counter()).update(risen)
            self._unwritten.setdefault(today, Counter()).update(risen)
        for day in [day for day in self._week if not self._in_week(day)]:
            del self._week[day]

    def _read(self) -> None:
        """The week as it is on disk, and what is still to be written."""
        self._read_on = self._today()
        store = self._store()
        if store is None:
            return
        try:
            week = store.since(self._read_on - limits.DAYS_IN_WEEK + 1)
        except EnvironmentFailureError as error:
            self._trouble(str(error))
            return
        for day, counts in self._unwritten.items():
            week.setdefault(day, Counter()).update(counts)
        self._week = week

    def write(self) -> None:
        """What is new. What cannot be written is told, and tried again with the next one."""
        store = self._store()
        if store is None or not self._unwritten:
            return
        try:
            store.add(self._unwritten, self._today())
        except EnvironmentFailureError as error:
            self._trouble(str(error))
        else:
            self._unwritten = {}

    def as_json(self, counters: Snapshot) -> dict[str, Any]:
        """For `status`: {"today": ..., "week": ...}, each in the form of a snapshot's "decided"."""
        self.note(counters)
        return told(self._week, self._today())

    def _today(self) -> int:
        return int(self._clock()) // limits.DAY_SECONDS

    def _in_week(self, day: int) -> bool:
        return 0 <= self._today() - day < limits.DAYS_IN_WEEK


def told(days: Counts, today: int) -> dict[str, Any]:
    """The counts of today and of the week that ends today."""
    week: Counter[Kind] = Counter()
    for day, counts in days.items():
        if 0 <= today - day < limits.DAYS_IN_WEEK:
            week.update(counts)
    return {"today": _decided(days.get(today, Counter())), "week": _decided(week)}


def _kinds(counters: Snapshot) -> Counter[Kind]:
    return Counter(
        {
            Kind(direction, kind == "upgraded", reason): count
            for direction, kinds in counters["decided"].items()
            for kind, reasons in kinds.items()
            for reason, count in reasons.items()
        }
    )


def _decided(counts: Counter[Kind]) -> dict[str, dict[str, dict[str, int]]]:
    found: dict[str, dict[str, dict[str, int]]] = {
        direction: {"upgraded": {}, "clear": {}} for direction in ("out", "in")
    }
    for kind, count in sorted(counts.items()):
        found[kind.direction]["upgraded" if kind.protected else "clear"][kind.reason] = count
    return found
