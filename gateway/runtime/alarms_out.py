"""Alarms to people: by a command, or by a mail to the postmaster. One at a time, never in anybody's way.

The bell has decided that it rings; here it is told, at most once a day for each cause, over restarts too.
Every value is escaped and bounded before it leaves, for what a peer says may stand in it. No shell is used, a
command gets its time and no more, and its failure is told once.
Counterparts: `observe.counters.AlarmBell`, `peers.alarm_store`, `alarm_mail`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import Final

from gateway import __version__
from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.observe.counters import Alarm
from gateway.observe.log import Level, Log, printable
from gateway.peers.alarm_store import AlarmStore
from gateway.policy import limits
from gateway.runtime import alarm_mail

_KEPT_VARIABLES: Final = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ")


@dataclass(frozen=True, slots=True)
class _Child:
    """What is run for one alarm."""

    by: str
    words: tuple[str, ...]
    stdin: bytes


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
        self._lately: deque[float] = deque(maxlen=limits.ALARMS_OUT_PER_HOUR)
        self._too_many_told = False
        self._failed: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rung = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None

    def ring(self, alarm: Alarm) -> None:
        """Tell it as soon as possible. From any thread; never waits, never raises."""
        if not (self._config.alarm_command or self._config.alarm_mail_to):
            return
        self._waiting.append(alarm)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._rung.set)

    def open(self) -> None:
        """Tell from now on, first what has rung by now."""
        self._loop = asyncio.get_running_loop()
        self._rung.set()
        self._telling = asyncio.create_task(self._tell_all())

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
            self._log.fact("alarms", "not-told", level=Level.ERROR, waiting=len(self._waiting))

    async def _tell_all(self) -> None:
        while True:
            await self._rung.wait()
            self._rung.clear()
            while self._waiting:
                await self._tell(self._waiting.popleft())
            if self._loop is None:
                return

    async def _tell(self, alarm: Alarm) -> None:
        if not self._may_be_told(alarm):
            return
        for child in self._children(alarm):
            trouble = await _run(child, _environment(alarm))
            if not trouble:
                self._failed.discard(child.by)
                self._log.fact("alarms", "told", by=child.by, reason=alarm.reason, subject=alarm.subject)
            elif child.by not in self._failed:
                self._failed.add(child.by)
                self._log.fact("alarms", "failed", level=Level.ERROR, by=child.by, detail=trouble)

    def _may_be_told(self, alarm: Alarm) -> bool:
        """Not told within a day, and not one of very many. Notes that it is told now."""
        cause, now, before = (alarm.reason, alarm.subject), int(self._clock()), None
        store = self._store()
        # Trouble with the file has an alarm of its own; better told twice than not.
        with contextlib.suppress(EnvironmentFailureError):
            before = store.sent_at(cause) if store is not None else None
        if before is not None and 0 <= now - before < self._again_seconds:
            return False
        if not self._is_within_the_hour(now):
            return False
        with contextlib.suppress(EnvironmentFailureError):
            if store is not None:
                store.note(cause, now, self._again_seconds)
        return True

    def _is_within_the_hour(self, now: int) -> bool:
        full = len(self._lately) == limits.ALARMS_OUT_PER_HOUR
        if full and 0 <= now - self._lately[0] < limits.HOUR_SECONDS:
            if not self._too_many_told:
                self._too_many_told = True
                told = f"more than {limits.ALARMS_OUT_PER_HOUR} within an hour; the log has them all"
                self._log.fact("alarms", "not-told", level=Level.NOTICE, detail=told)
            return False
        self._too_many_told = False
        self._lately.append(now)
        return True

    def _children(self, alarm: Alarm) -> Iterator[_Child]:
        config = self._config
        if config.alarm_command:
            octets = json.dumps(facts(alarm), sort_keys=True).encode() + b"\n"
            yield _Child("command", config.alarm_command, octets)
        if config.alarm_mail_to:
            words: tuple[str, ...] = (str(config.alarm_sendmail), "-i", config.alarm_mail_to)
            if config.alarm_server is not None:
                # A process too, so that whatever a mail server does with its time has the same end.
                host, port = config.alarm_server
                words = (
                    sys.executable,
                    "-P",
                    "-m",
                    alarm_mail.__name__,
                    host,
                    str(port),
                    config.alarm_mail_to,
                )
            yield _Child("mail", words, mail(alarm, config.alarm_mail_to, config.alarm_again_hours))


# --- What is told ----------------------------------------------------------------------------------------


def facts(alarm: Alarm) -> dict[str, str | int]:
    """For a program; all texts are printable ASCII of a bounded length."""
    return {
        "reason": alarm.reason.value,
        "subject": printable(alarm.subject),
        "detail": printable(alarm.detail),
        "likely": printable(alarm.likely),
        "at": alarm.at,
        "unheard": alarm.suppressed,
        "gateway": printable(platform.node()),
        "version": __version__,
    }


def mail(alarm: Alarm, to: str, again_hours: int) -> bytes:
    """To the postmaster, as any other mail of this machine. It tells of servers, never of people."""
    told = facts(alarm)
    message = EmailMessage()
    message["From"] = f"Nightmail <{to}>"
    message["To"] = to
    message["Subject"] = f"Nightmail on {told['gateway']}: {told['reason']} {told['subject']}"
    message["Date"] = format_datetime(datetime.fromtimestamp(alarm.at, UTC))
    message["Message-ID"] = make_msgid(domain=to.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    rows = {
        "what": told["reason"],
        "about": told["subject"],
        "when": datetime.fromtimestamp(alarm.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "likely": told["likely"],
        "detail": told["detail"],
        "gateway": f"{told['gateway']}, nightmail {__version__}",
    }
    lines = ["The mail gateway has rung an alarm.", ""]
    lines += [f"{name + ':':9} {value}" for name, value in rows.items() if value]
    if alarm.suppressed:
        lines.append(f"{'and:':9} {alarm.suppressed} times since the last time that it was told")
    lines += [
        "",
        "What it means and what to do stands in docs/messages.md (/usr/share/doc/nightmail),",
        "under the word behind 'what'.",
        "`nightmail status` on the gateway says how it is now.",
        f"The same alarm about the same is told again after {again_hours} hours at the earliest.",
    ]
    message.set_content("\n".join(lines) + "\n", cte="7bit")
    return message.as_bytes()


def _environment(alarm: Alarm) -> dict[str, str]:
    """Little of ours, and the alarm."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return kept | {f"NIGHTMAIL_{name.upper()}": str(value) for name, value in facts(alarm).items()}


# --- How it is run ---------------------------------------------------------------------------------------


async def _run(child: _Child, environment: dict[str, str]) -> str:
    """Why it failed, in one line; empty if it did not. It and all of its group are gone at its time's end."""
    words = _Words()
    try:
        process = await _start(child, environment, words.inlet)
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


async def _start(child: _Child, environment: dict[str, str], stderr: int) -> asyncio.subprocess.Process:
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
            env=environment,
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
