"""Alarms to people: by a command, or by a mail to the postmaster. One at a time, never in anybody's way.

The bell has decided that it rings; here it is told, each way at most once a day for each cause, over restarts
too: a command that fails for ever must not have the postmaster written to at each start.
No shell is used, a command gets its time and no more. Its failure is told once, and what has failed is tried
again for as long as the same alarm would not ring again by itself.
Counterparts: `observe.counters.AlarmBell`, `peers.alarm_store`, `alarm_text`, `alarm_mail`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gateway.config import Config
from gateway.errors import EnvironmentFailureError, Reason
from gateway.observe.counters import OF_CLIENTS, Alarm
from gateway.observe.log import Level, Log
from gateway.peers.alarm_store import AlarmStore, Cause
from gateway.peers.sources import Beginnings, beginnings
from gateway.policy import limits
from gateway.runtime.bug import Bug
from gateway.runtime.supervisor import alarm_mail
from gateway.runtime.supervisor.alarm_text import environment, facts, mail
from gateway.runtime.supervisor.lasting import lasts


def _crowds(alarm: Alarm, others: Iterable[Alarm], most: int) -> bool:
    """Whether it is one of very many about clients: they leave half of each place to what they would hide,
    and those of one network most of their half to those of others."""
    if alarm.reason not in OF_CLIENTS:
        return False
    networks = [_network(one) for one in others if one.reason in OF_CLIENTS]
    of_network = max(1, most // limits.ALARMS_OF_NETWORK_ONE_IN)
    return 2 * (len(networks) + 1) > most or networks.count(_network(alarm)) >= of_network


def _network(alarm: Alarm) -> Beginnings:
    with contextlib.suppress(ValueError):  # a worker tells the subject, of whom others may have taken hold
        return beginnings(alarm.subject)
    return (alarm.subject,)


@dataclass(frozen=True, slots=True)
class _Child:
    """What is run for one alarm."""

    words: tuple[str, ...]
    stdin: bytes


@dataclass(frozen=True, slots=True)
class _Telling:
    """One alarm that may be told. `last`: of those that may within an hour."""

    alarm: Alarm
    last: bool


@dataclass(slots=True)
class _Way:
    """How alarms leave, and what of them it has not taken yet, which is tried again when it is `due`."""

    by: str
    child: Callable[[_Telling], _Child]
    untold: deque[_Telling] = field(default_factory=lambda: deque(maxlen=limits.ALARMS_WAITING))
    failed: bool = False
    pause: float = 0.0
    due: float = math.inf

    def put_off(self, telling: _Telling, now: float) -> None:
        if not _crowds(telling.alarm, (one.alarm for one in self.untold), limits.ALARMS_WAITING):
            self.untold.append(telling)
        if self.due == math.inf:
            self.pause = limits.ALARM_PAUSE_SECONDS
            self.due = now + self.pause

    def put_off_again(self, now: float) -> None:
        """The first of them, behind the others; the pause doubles."""
        self.untold.rotate(-1)
        self.pause = min(2 * self.pause, limits.ALARM_PAUSE_MOST_SECONDS)
        self.due = now + self.pause

    def works(self) -> None:
        self.failed = False
        self.due = -math.inf if self.untold else math.inf


class AlarmsOut:
    """`store` answers where it is kept what was sent, or None where there is no such place."""

    def __init__(
        self,
        config: Config,
        log: Log,
        store: Callable[[], AlarmStore | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._log = log
        self._store = store
        self._clock = clock
        self._again_seconds = config.alarm_again_hours * limits.HOUR_SECONDS
        self._waiting: deque[Alarm] = deque(maxlen=limits.ALARMS_WAITING)
        self._lately: deque[tuple[float, Alarm]] = deque(maxlen=limits.ALARMS_OUT_PER_HOUR)
        self._too_many_told = False
        self._ways: list[_Way] = []
        if config.alarm_command:
            self._ways.append(_Way("command", self._command))
        if config.alarm_mail_to:
            self._ways.append(_Way("mail", self._mail))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rung = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None

    def ring(self, alarm: Alarm) -> None:
        """Tell it as soon as possible. From any thread; never waits, never raises."""
        if not self._ways or _crowds(alarm, tuple(self._waiting), limits.ALARMS_WAITING):
            return
        self._waiting.append(alarm)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._rung.set)

    def open(self) -> None:
        """Tell from now on, first what has rung by now."""
        self._loop = asyncio.get_running_loop()
        self._rung.set()
        self._telling = asyncio.create_task(lasts(self._tell_all, self._failed))

    async def close(self) -> None:
        """What waits gets some seconds; what is running then is killed."""
        if self._telling is None:
            return
        self._loop = None
        self._rung.set()
        done, _ = await asyncio.wait({self._telling}, timeout=limits.ALARMS_CLOSE_SECONDS)
        if not done:
            self._telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._telling
        if waiting := len(self.untold()):
            self._log.fact("alarms", "not-told", level=Level.ERROR, waiting=waiting)

    def untold(self) -> list[Alarm]:
        """What has not gone each way: for the daemon after a reload, which tries all ways with it."""
        put_off = (telling.alarm for way in self._ways for telling in way.untold)
        return list(dict.fromkeys([*put_off, *self._waiting]))

    async def try_out(self) -> dict[str, str]:
        """An alarm that is none, by all ways at once, whatever went out or failed before: why each of them
        failed, or an empty word. What waits for a way that works goes now."""
        alarm = Alarm(Reason.TRIAL, "alarms", int(self._clock()), "`nightmail ring` asked for it")
        children = [way.child(_Telling(alarm, last=False)) for way in self._ways]
        troubles = await asyncio.gather(*(_run(child, environment(alarm)) for child in children))
        for way, trouble in zip(self._ways, troubles, strict=True):
            self._say_how(way, alarm, trouble)
            if not trouble:
                way.works()
        self._rung.set()
        return {way.by: trouble for way, trouble in zip(self._ways, troubles, strict=True)}

    def _failed(self, error: Exception) -> None:
        """A bug of ours: it costs the alarm that it was about, which the log has, and no other one."""
        self._log.fact("alarms", "failed", level=Level.ERROR, detail=Bug.of(error).detail)
        self._rung.set()

    async def _tell_all(self) -> None:
        while True:
            await self._rung_or_due()
            while self._waiting:
                await self._tell(self._waiting.popleft())
            if self._loop is None:
                return
            for way in self._ways:
                if way.due <= self._loop.time():
                    await self._try_again(way)

    async def _rung_or_due(self) -> None:
        due = min((way.due for way in self._ways), default=math.inf)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(None if due == math.inf else due):
                await self._rung.wait()
        self._rung.clear()

    async def _tell(self, alarm: Alarm) -> None:
        ways = [way for way in self._ways if not self._went_lately(way, alarm)]
        if not ways or not self._fits_in_hour(alarm):
            return
        telling = _Telling(alarm, last=self._is_hour_full(self._clock()))
        try:
            for way in ways:
                if not await self._goes(way, telling):
                    way.put_off(telling, asyncio.get_running_loop().time())
        except asyncio.CancelledError:
            self._waiting.appendleft(alarm)
            raise

    async def _try_again(self, way: _Way) -> None:
        """What it has not taken, until one of them fails once more."""
        while way.untold:
            alarm = way.untold[0].alarm
            if self._clock() - alarm.at >= self._again_seconds:
                told = {"by": way.by, "subject": alarm.subject, "detail": "given up"}
                self._log.fact("alarms", "not-told", level=Level.ERROR, reason=alarm.reason, **told)
            elif not await self._goes(way, way.untold[0]):
                way.put_off_again(asyncio.get_running_loop().time())
                return
            way.untold.popleft()
        way.due = math.inf

    async def _goes(self, way: _Way, telling: _Telling) -> bool:
        """A failure is told once, until it has worked again."""
        trouble = await _run(way.child(telling), environment(telling.alarm))
        if trouble:
            if not way.failed:
                way.failed = True
                self._say_how(way, telling.alarm, trouble)
            return False
        way.works()
        self._note(way, telling.alarm)
        self._say_how(way, telling.alarm, "")
        return True

    def _say_how(self, way: _Way, alarm: Alarm, trouble: str) -> None:
        if trouble:
            self._log.fact("alarms", "failed", level=Level.ERROR, by=way.by, detail=trouble)
        else:
            self._log.fact("alarms", "told", by=way.by, reason=alarm.reason, subject=alarm.subject)

    def _went_lately(self, way: _Way, alarm: Alarm) -> bool:
        """Within a day, this way."""
        before, store = None, self._store()
        # Trouble with the file has an alarm of its own; better told twice than not.
        with contextlib.suppress(EnvironmentFailureError):
            before = store.sent_at(_sent(way, alarm)) if store is not None else None
        return before is not None and 0 <= int(self._clock()) - before < self._again_seconds

    def _fits_in_hour(self, alarm: Alarm) -> bool:
        """Whether it is not one of very many."""
        now, most = int(self._clock()), limits.ALARMS_OUT_PER_HOUR
        lately = [told for at, told in self._lately if 0 <= now - at < limits.HOUR_SECONDS]
        if self._is_hour_full(now) or _crowds(alarm, lately, most):
            if not self._too_many_told:
                self._too_many_told = True
                told = f"more than {most} within an hour, or too many about clients; the log has them all"
                self._log.fact("alarms", "not-told", level=Level.NOTICE, detail=told)
            return False
        self._too_many_told = False
        self._lately.append((now, alarm))
        return True

    def _is_hour_full(self, now: float) -> bool:
        full = len(self._lately) == limits.ALARMS_OUT_PER_HOUR
        return full and 0 <= now - self._lately[0][0] < limits.HOUR_SECONDS

    def _note(self, way: _Way, alarm: Alarm) -> None:
        """It has gone this way, and need not again for a day. What has not is told again after a restart."""
        store = self._store()
        with contextlib.suppress(EnvironmentFailureError):
            if store is not None:
                store.note(_sent(way, alarm), int(self._clock()), self._again_seconds)

    def _command(self, telling: _Telling) -> _Child:
        octets = json.dumps(facts(telling.alarm), sort_keys=True).encode() + b"\n"
        return _Child(self._config.alarm_command, octets)

    def _mail(self, telling: _Telling) -> _Child:
        config = self._config
        words: tuple[str, ...] = (str(config.alarm_sendmail), "-i", config.alarm_mail_to)
        if config.alarm_server is not None:
            # A process too, so that whatever a mail server does with its time has the same end.
            host, port = config.alarm_server
            module = alarm_mail.__name__
            words = (sys.executable, "-P", "-m", module, host, str(port), config.alarm_mail_to)
        text = mail(telling.alarm, config.alarm_mail_to, config.alarm_again_hours, last_of_hour=telling.last)
        return _Child(words, text)


def _sent(way: _Way, alarm: Alarm) -> Cause:
    return (alarm.reason, f"{alarm.subject} by {way.by}")


# --- How it is run ---------------------------------------------------------------------------------------


async def _run(child: _Child, variables: dict[str, str]) -> str:
    """Why it failed, in one line; empty if it did not. It and all of its group are gone at its time's end."""
    try:
        words = _Words()
    except OSError as error:  # no descriptor is left
        return f"{child.words[0]}: {error.strerror}"
    try:
        process = await _start(child, variables, words.inlet)
    except (OSError, ValueError) as error:
        words.close()
        return f"{child.words[0]}: {getattr(error, 'strerror', None) or error}"
    try:
        async with asyncio.timeout(limits.ALARM_COMMAND_SECONDS):
            status = await process.wait()
    except TimeoutError:
        return f"{child.words[0]}: not done within {limits.ALARM_COMMAND_SECONDS:g} s, killed"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        said = words.close()
    if status == 0:
        return ""
    how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
    return f"{child.words[0]}: {how}{': ' if said else ''}{said}"


async def _start(child: _Child, variables: dict[str, str], stderr: int) -> asyncio.subprocess.Process:
    """Its input lies in a memory file: whether it reads that or not, nobody has to write to it."""
    stdin = os.memfd_create("nightmail-alarm")
    try:
        os.write(stdin, child.stdin)
        os.lseek(stdin, 0, os.SEEK_SET)
        return await asyncio.create_subprocess_exec(
            *child.words,
            stdin=stdin,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=stderr,
            env=variables,
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(stdin)


class _Words:
    """What a child says on its standard error: the beginning is kept, the rest is read and dropped.

    A pipe of our own: that of a subprocess transport would have to be waited for until all of the child's
    children have let go of it, which may be never.
    """

    def __init__(self) -> None:
        self._outlet, self.inlet = os.pipe()
        os.set_blocking(self._outlet, False)
        self._kept = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._outlet, self._read)

    def close(self) -> str:
        """In one line: what has been said by now."""
        os.close(self.inlet)
        self._read()
        self._loop.remove_reader(self._outlet)
        os.close(self._outlet)
        return " ".join(self._kept.decode("latin-1").split())

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            octets = os.read(self._outlet, limits.READ_OCTETS)
            self._kept += octets[: limits.ENV_TEXT_OCTETS - len(self._kept)]
