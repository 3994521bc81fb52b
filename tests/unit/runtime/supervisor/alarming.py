"""The part of a daemon that tells alarms, with a log and a memory on disk, and real children."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from gateway.config import Config
from gateway.errors import Reason
from gateway.observe.counters import Alarm
from gateway.observe.log import Log, LogSink
from gateway.peers.alarm_store import AlarmStore
from gateway.peers.database import Database
from gateway.runtime.supervisor.alarms_out import AlarmsOut

NOW = 1_800_000_000
ALARM = Alarm(Reason.OFFER_MISSING, "192.0.2.7:25", NOW, "dials=1", 2, "keyword-masked")
PATIENCE = 60


class Out:
    """One site's."""

    def __init__(self, folder: Path, **keys: object) -> None:
        self.folder = folder
        self.now = float(NOW)
        self.database = Database(folder / "peers.db")
        self.log = Log(LogSink.to_file(folder / "log"))
        self.config = Config(**keys)  # type: ignore[arg-type]

    def start(self) -> AlarmsOut:
        made = AlarmsOut(self.config, self.log, lambda: AlarmStore(self.database), lambda: self.now)
        made.open()
        return made

    def told(self) -> str:
        self.log.flush()
        return (self.folder / "log").read_text()

    def close(self) -> None:
        self.log.close()
        self.database.close()


def script(folder: Path, text: str) -> str:
    path = folder / "tell"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await work()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded())


def rung(out: Out, *alarms: Alarm) -> None:
    """One daemon's life: it tells these, and ends in order."""

    async def work() -> None:
        telling = out.start()
        for alarm in alarms:
            telling.ring(alarm)
        await telling.close()

    run(work)


async def eventually(condition: Callable[[], bool]) -> None:
    """A child says what it does in a file, which tells nobody of a change."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)
