"""What a running daemon shows of itself beyond its log: sessions by day, metrics, what it is made of.

One object, so that the supervisor has one line for each turn of its own life. Never on the data path.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Callable
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from gateway import __version__
from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.observe.counters import Snapshot
from gateway.observe.log import Level, Log
from gateway.peers.day_store import DayStore
from gateway.runtime.days import Days

if TYPE_CHECKING:
    from gateway.runtime.metrics import Metrics

_LIBRARIES: Final = ("cryptography", "pynacl", "netfilterqueue", "pyroute2", "uvloop")


class Seeing:
    """`status` and `counters` are the daemon's; `days` answers where sessions by day are kept, if at all."""

    def __init__(
        self,
        config: Config,
        log: Log,
        status: Callable[[], dict[str, Any]],
        counters: Callable[[], Snapshot],
        days: Callable[[], DayStore | None],
        trouble: Callable[[str], None],
    ) -> None:
        self._counters = counters
        self._days = Days(days, trouble)
        self._days.begin(counters())
        self._keeping: asyncio.Task[None] | None = None
        self._log = log
        self._metrics = _metrics(config, status)

    async def open(self) -> None:
        """What cannot be shown is told in the log; mail does not wait for it."""
        self._keeping = asyncio.create_task(self._days.keep(self._counters))
        if self._metrics is not None:
            try:
                await self._metrics.open()
            except EnvironmentFailureError as error:
                self._log.fact("metrics", "not-served", level=Level.ERROR, detail=str(error))

    def look(self) -> None:
        """The last look, while the counters are still whole: at a stop, and before a hand-over."""
        self._days.note(self._counters())
        self._days.write()

    async def close(self) -> None:
        if self._metrics is not None:
            await self._metrics.close()
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping

    def as_json(self) -> dict[str, Any]:
        """For `status`."""
        return {**self._days.as_json(self._counters()), "versions": versions()}


def _metrics(config: Config, status: Callable[[], dict[str, Any]]) -> Metrics | None:
    """Off by default; a daemon without it does not load what it needs."""
    if config.metrics_listen is None:
        return None
    from gateway.runtime.metrics import Metrics

    return Metrics(config.metrics_listen, status)


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Of the program as it was loaded, and of what it stands on."""
    return {
        "nightmail": __version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        **{name: metadata.version(name) for name in _LIBRARIES},
    }
