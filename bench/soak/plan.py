"""A seed -> which fault comes when. Pure.

Faults are drawn as cards are: each comes once, in a random order, before any of them comes again. In every
other stretch only such come as leave the processes of the daemon alive: what a process loses in hours shows
only in one that lives.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

STRETCHES: Final = 4
"""Of a run: with every fault, without those that end processes, and both again."""
REST_SECONDS: Final = (30.0, 60.0)
"""Between the end of a fault and the next one."""
ENDERS: Final = (
    "-killed",
    "-terminated",
    "memory-limit",
    "-read-only",
    "power-loss",
    "-off-and-on",
    "upgrade",
    "-stopped",
    "loop-blocked",
    "rules-down",
)
"""In the names of faults that end a process of the daemon; one that hangs is ended by the supervisor."""


@dataclass(frozen=True, slots=True)
class Strike:
    """One fault, and how many seconds nothing happens before it."""

    name: str
    rest: float


def ends_processes(name: str) -> bool:
    return any(part in name for part in ENDERS)


def lets_live(at: float, seconds: float) -> bool:
    """Whether the stretch at this moment of a run of so many seconds spares the processes."""
    return bool(int(at / seconds * STRETCHES) % 2)


class Plan:
    """What comes next, by the seed alone and by when one asks."""

    def __init__(self, names: Sequence[str], seed: int, seconds: float) -> None:
        self._random = random.Random(seed)
        self._seconds = seconds
        sparing = [name for name in names if not ends_processes(name)]
        self._all = self._cards(list(names))
        self._sparing = self._cards(sparing or list(names))

    def next(self, at: float) -> Strike:
        """`at`: seconds since the beginning, when the last fault had been undone."""
        rest = self._random.uniform(*REST_SECONDS)
        sparing = lets_live(min(at + rest, self._seconds - 1), self._seconds)
        return Strike(next(self._sparing if sparing else self._all), rest)

    def _cards(self, names: list[str]) -> Iterator[str]:
        while True:
            yield from self._random.sample(names, len(names))
