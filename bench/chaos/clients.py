"""The load: a new connection every 20 ms, in turn to each target, and one lasting session to each target.

`python -m bench.chaos.clients FACTS TARGET...`, in the sending mail server's namespace. A probe is greeted,
says EHLO and NOOP, and goes. A lasting session sends a mail, small or large, some times a second; when it
breaks the same mail is sent again on the next one, as every mail server does. Counterparts: `server`,
`judge`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from bench.chaos.facts import Writer
from bench.chaos.server import MARK

PATIENCE_SECONDS = 20.0
"""A client's own timer, for a greeting and for each reply. Above the kernel's fifth SYN."""
AGAIN_SECONDS = 0.1
LARGE_EVERY = 4
LINE = b"A line of seventy-six characters, as most of them are in mail that people.\r\n"


@dataclass(frozen=True, slots=True)
class Pace:
    """How much of everything; times in seconds."""

    probe_every: float | None = 0.02
    """None: no probes at all."""
    mail_every: float = 0.4
    mails_per_session: int = 30
    """Then it ends in order and another begins; at SIGUSR1 as well, so that each fault meets sessions made
    before it."""
    small_octets: int = 2_000
    large_octets: int = 60_000
    tell_every: float = 0.1


class RefusedError(Exception):
    """The other end said 4xx or 5xx."""


class Talk:
    """One SMTP client on a connection. Everything raises OSError, EOFError, TimeoutError or RefusedError."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.port: int = writer.get_extra_info("sockname")[1]

    async def reply(self) -> None:
        while True:
            line = await asyncio.wait_for(self._reader.readline(), PATIENCE_SECONDS)
            if not line.endswith(b"\r\n"):
                raise EOFError("end in the middle of a reply")
            if line[3:4] == b" ":
                break
        if line[:1] in b"45":
            raise RefusedError(line.decode(errors="replace").strip())

    async def say(self, words: bytes) -> None:
        self._writer.write(words + b"\r\n")
        await asyncio.wait_for(self._writer.drain(), PATIENCE_SECONDS)
        await self.reply()

    async def write(self, octets: bytes) -> None:
        self._writer.write(octets)
        await asyncio.wait_for(self._writer.drain(), PATIENCE_SECONDS)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._writer.transport.abort()


async def connect(target: str) -> Talk:
    return Talk(*await asyncio.wait_for(asyncio.open_connection(target, 25), PATIENCE_SECONDS))


TROUBLE = (OSError, EOFError, RefusedError, ValueError, RuntimeError)
"""RuntimeError: uvloop's word for a write on a connection that has been lost."""


@dataclass
class Load:
    """All clients of one world."""

    facts: Writer
    targets: list[str]
    pace: Pace = field(default_factory=Pace)
    under_way: dict[int, float] = field(default_factory=dict)
    """What has not ended -> when it began."""
    count: int = 0
    generation: int = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ended.set)
        loop.add_signal_handler(signal.SIGUSR1, self._renew)
        tasks = [asyncio.create_task(self._send_steadily(target)) for target in self.targets]
        tasks.append(asyncio.create_task(self._tell_time()))
        if self.pace.probe_every is not None:
            tasks.append(asyncio.create_task(self._probe_steadily(self.pace.probe_every)))
        waiting = asyncio.create_task(ended.wait())
        done, _ = await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for each in done:
            each.result()  # the load never ends by itself: what it fell over is told

    def _renew(self) -> None:
        self.generation += 1

    async def _tell_time(self) -> None:
        """So that the command knows when everything that began before a moment has ended."""
        while True:
            self.facts.tell("oldest", began=min(self.under_way.values(), default=time.monotonic()))
            await asyncio.sleep(self.pace.tell_every)

    @contextlib.contextmanager
    def _begun(self) -> Any:
        self.count += 1
        number, began = self.count, time.monotonic()
        self.under_way[number] = began
        try:
            yield began
        finally:
            del self.under_way[number]

    # --- Probes ----------------------------------------------------------------------------------------

    async def _probe_steadily(self, every: float) -> None:
        probing: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        turn = 0
        while True:
            task = asyncio.create_task(self._probe(self.targets[turn % len(self.targets)]))
            probing.add(task)
            task.add_done_callback(probing.discard)
            turn += 1
            # A late turn is not made up for: then this very process was late, and nobody's fault is measured.
            due = max(due + every, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _probe(self, target: str) -> None:
        with self._begun() as began:
            greeted, port, why, talk = None, 0, "", None
            try:
                talk = await connect(target)
                port = talk.port
                await talk.reply()
                greeted = time.monotonic()
                for words in (b"EHLO probe.a.test", b"NOOP", b"QUIT"):
                    await talk.say(words)
            except TROUBLE as error:
                why = repr(error)
            finally:
                if talk is not None:
                    talk.close()
            self.facts.tell("probe", target=target, port=port, began=began, greeted=greeted, why=why)

    # --- Sessions that last ----------------------------------------------------------------------------

    async def _send_steadily(self, target: str) -> None:
        talk: Talk | None = None
        sent, generation = 0, self.generation
        while True:
            name = f"{os.getpid()}-{target}-{sent}"
            octets = self.pace.small_octets if sent % LARGE_EVERY else self.pace.large_octets
            talk = await self._send(target, talk, name, octets)
            sent += 1
            if sent % self.pace.mails_per_session == 0 or generation != self.generation:
                generation = self.generation
                with contextlib.suppress(*TROUBLE):
                    await talk.say(b"QUIT")
                talk.close()
                talk = None
            await asyncio.sleep(self.pace.mail_every)

    async def _send(self, target: str, talk: Talk | None, name: str, octets: int) -> Talk:
        """Until it is taken; the session on which it was."""
        body = (name.encode() + b" ") + LINE * (octets // len(LINE))
        mail = MARK + f"{name} {hashlib.sha256(body).hexdigest()}".encode() + b"\r\n" + body + b"\r\n.\r\n"
        doubts: list[int] = []
        with self._begun() as began:
            while True:
                if talk is None:
                    talk = await self._open(target)
                    if talk is None:
                        await asyncio.sleep(AGAIN_SECONDS)
                        continue
                whole = False
                try:
                    for words in (b"MAIL FROM:<raw@a.test>", b"RCPT TO:<raw@b.test>", b"DATA"):
                        await talk.say(words)
                    whole = True
                    await talk.write(mail)
                    await talk.reply()
                    break
                except TROUBLE as error:
                    if whole and not isinstance(error, RefusedError):
                        doubts.append(talk.port)
                    at = time.monotonic()
                    self.facts.tell("broken", target=target, port=talk.port, at=at, why=repr(error))
                    talk.close()
                    talk = None
            ended = time.monotonic()
            self.facts.tell("mail", name=name, target=target, began=began, ended=ended, doubts=doubts)
        return talk

    async def _open(self, target: str) -> Talk | None:
        talk = None
        try:
            talk = await connect(target)
            await talk.reply()
            await talk.say(b"EHLO lasting.a.test")
        except TROUBLE:
            if talk is not None:
                talk.close()
            return None
        return talk


if __name__ == "__main__":
    uvloop.run(Load(Writer(Path(sys.argv[1])), sys.argv[2:]).run())
