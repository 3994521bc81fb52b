"""What a running daemon shows of itself beyond its log: sessions by day, and what it is made of.

One object, so that the supervisor has one line for each turn of its own life. Never on the data path.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Callable
from functools import lru_cache
from importlib import metadata
from typing import Any, Final

from gateway import __version__
from gateway.observe.counters import Snapshot
from gateway.peers.day_store import DayStore
from gateway.runtime.days import Days

_LIBRARIES: Final = ("cryptography", "pynacl", "netfilterqueue", "pyroute2", "uvloop")


class Seeing:
    """`counters` are those of all workers; `days` answers where sessions by day are kept, if anywhere."""

    def __init__(
        self,
        counters: Callable[[], Snapshot],
        days: Callable[[], DayStore | None],
        trouble: Callable[[str], None],
    ) -> None:
        self._counters = counters
        self._days = Days(days, trouble)
        self._days.begin(counters())
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._keeping = asyncio.create_task(self._days.keep(self._counters))

    def look(self) -> None:
        """The last look, while the counters are still whole: at a stop, and before a hand-over."""
        self._days.note(self._counters())
        self._days.write()

    async def close(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping

    def as_json(self) -> dict[str, Any]:
        """For `status`."""
        return {**self._days.as_json(self._counters()), "versions": versions()}


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Of the program as it was loaded, and of what it stands on."""
    return {
        "nightmail": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        **{name: metadata.version(name) for name in _LIBRARIES},
    }
