"""What a running daemon shows of itself beyond its log: days, metrics, alarms, versions.

One object, so that the supervisor has one line for each turn of its own life. Never on the data path.
"""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from gateway import __version__
from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.observe.counters import Alarm, Snapshot
from gateway.observe.log import Level, Log
from gateway.peers.alarm_store import AlarmStore
from gateway.peers.database import Database
from gateway.peers.day_store import DayStore
from gateway.policy import limits
from gateway.runtime.supervisor.alarms_out import AlarmsOut
from gateway.runtime.supervisor.days import Days

if TYPE_CHECKING:
    from gateway.runtime.supervisor.metrics import Metrics

_LIBRARIES: Final = ("cryptography", "pynacl", "netfilterqueue", "pyroute2", "uvloop")


class Seeing:
    """`status` and `counters` are the daemon's, asked from `begin` on; `database` is its memory, if any."""

    def __init__(
        self,
        config: Config,
        log: Log,
        status: Callable[[], dict[str, Any]],
        counters: Callable[[], Snapshot],
        database: Callable[[], Database | None],
        trouble: Callable[[str], None],
    ) -> None:
        def days() -> DayStore | None:
            found = database()
            return DayStore(found) if found is not None else None

        def alarms() -> AlarmStore | None:
            found = database()
            return AlarmStore(found) if found is not None else None

        self._log = log
        self._counters = counters
        self._days = Days(days, trouble)
        self._metrics = _metrics(config, status)
        self._alarms = AlarmsOut(config, log, alarms)

    def ring(self, alarm: Alarm) -> None:
        """To the people who are to hear of it, when there is time."""
        self._alarms.ring(alarm)

    async def try_alarms(self) -> dict[str, str]:
        """By each way: why it failed, or an empty word."""
        return await self._alarms.try_out()

    def untold(self) -> list[dict[str, Any]]:
        """Alarms that people have not got yet, at a hand-over; `tell` takes them."""
        return [alarm.as_json() for alarm in self._alarms.untold()]

    def tell(self, untold: Sequence[dict[str, Any]]) -> None:
        """They have rung in the daemon before. A reason that this version does not know is left out."""
        for told in untold:
            with contextlib.suppress(ValueError):
                self._alarms.ring(Alarm.from_json(told))

    def begin(self) -> None:
        """The counters of now are counted already; whatever they rise by is new."""
        self._days.begin(self._counters())

    async def keep(self) -> None:
        """Runs until it is cancelled."""
        await self._days.keep(self._counters)

    async def open(self) -> None:
        """What cannot be shown is told in the log; mail does not wait for it."""
        self._alarms.open()
        if self._metrics is not None:
            try:
                await self._metrics.open()
            except EnvironmentFailureError as error:
                self._log.fact("metrics", "not-served", level=Level.ERROR, detail=str(error))

    async def keep_open(self) -> None:
        """Runs until it is cancelled: metrics whose socket somebody has removed are served anew."""
        while self._metrics is not None:
            await asyncio.sleep(limits.CONTROL_LOOK_SECONDS)
            if self._metrics.is_lost:
                await self._metrics.close()
                with contextlib.suppress(EnvironmentFailureError):  # its directory is not back either
                    await self._metrics.open()

    def look(self) -> None:
        """The last look, while the counters are still whole: at a stop, and before a hand-over."""
        self._days.note(self._counters())
        self._days.write()

    async def close(self) -> None:
        if self._metrics is not None:
            await self._metrics.close()
        await self._alarms.close()

    def as_json(self) -> dict[str, Any]:
        """For `status`."""
        return {**self._days.as_json(self._counters()), "versions": versions()}


def _metrics(config: Config, status: Callable[[], dict[str, Any]]) -> Metrics | None:
    """Off by default; a daemon without it does not load what it needs."""
    if config.metrics_listen is None:
        return None
    from gateway.runtime.supervisor.metrics import Metrics

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
