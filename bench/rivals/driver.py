"""Sessions from the sender's side, in a process of its own inside the sender's namespace.

    python -m bench.rivals.driver pace --rate R --seconds S ADDRESS...    open loop: begins when due
    python -m bench.rivals.driver hold --sessions N ADDRESS...            until its standard input ends

A session's time counts from when it was due, so that a slow gateway cannot delay the question how slow it is.
The driver talks as Postfix does: MAIL, RCPT and DATA in one go. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import random
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import uvloop

from bench import delivery

REST_SECONDS = 20.0
"""For the last sessions to end; what has not by then has failed."""
OPENING_TOGETHER = 100
OPEN_SECONDS = 60.0

Step = tuple[bytes, tuple[bytes, ...]]
"""What is said, and the codes of the answers to it."""


def mail(number: int, body: bytes) -> list[Step]:
    """The mail's number is in its recipient, for who wants to see it arrive."""
    envelope = f"MAIL FROM:<a@a.test>\r\nRCPT TO:<b{number}@b.test>\r\nDATA\r\n".encode()
    return [
        (b"", (b"220",)),
        (b"EHLO mta-a.a.test\r\n", (b"250",)),
        (envelope, (b"250", b"250", b"354")),
        (body, (b"250",)),
    ]


def greeting() -> list[Step]:
    """The channel begins with the first command behind EHLO, hence the NOOP."""
    return [(b"", (b"220",)), (b"EHLO mta-a.a.test\r\n", (b"250",)), (b"NOOP\r\n", (b"250",))]


def due(rate: float, seconds: float, seed: int) -> list[float]:
    """When each session is due: random gaps, the same for everybody with the same seed."""
    source = random.Random(seed)
    found: list[float] = []
    at = source.expovariate(rate)
    while at < seconds:
        found.append(at)
        at += source.expovariate(rate)
    return found


class Talker(asyncio.Protocol):
    """Says the steps, one after the other; `done` is the time of the last answer, or an error."""

    def __init__(self, steps: list[Step], done: asyncio.Future[float]) -> None:
        self._steps = steps[::-1]
        self._awaited: list[bytes] = []
        self._buffer = b""
        self._done = done
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are of no class of asyncio's.
        self.transport = cast("asyncio.Transport", transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\r\n")
        for line in lines:
            if line[3:4] == b"-" or self._done.done():
                continue
            if not self._awaited or line[:3] != self._awaited[-1]:
                self._done.set_exception(ConnectionError(line.decode(errors="replace")))
                return
            self._awaited.pop()
            if not self._awaited:
                self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(error or ConnectionError("closed"))

    def end(self, farewell: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            if farewell:
                self.transport.write(farewell)
            self.transport.close()

    def _next(self) -> None:
        if not self._steps:
            self._done.set_result(time.monotonic())
            return
        said, codes = self._steps.pop()
        self._awaited = list(codes[::-1])
        if said:
            assert self.transport is not None
            self.transport.write(said)


@dataclass(slots=True)
class Timed:
    """One session of an open-loop run; `seconds` None: it failed."""

    number: int
    due: float
    seconds: float | None = None


async def pace(addresses: Sequence[str], moments: list[float], body: bytes) -> list[Timed]:
    loop = asyncio.get_running_loop()
    began = time.monotonic()
    sessions = [Timed(number, began + moment) for number, moment in enumerate(moments)]
    tasks = []
    for one in sessions:
        await asyncio.sleep(max(0.0, one.due - time.monotonic()))
        tasks.append(loop.create_task(_one(one, addresses[one.number % len(addresses)], body)))
    if tasks:
        await asyncio.wait(tasks, timeout=REST_SECONDS)
    return sessions


async def _one(timed: Timed, address: str, body: bytes) -> None:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[float] = loop.create_future()
    with contextlib.suppress(OSError):
        _, talker = await loop.create_connection(lambda: Talker(mail(timed.number, body), done), address, 25)
        try:
            timed.seconds = await done - timed.due
        finally:
            talker.end(b"QUIT\r\n")


def ends(addresses: Sequence[str], sources: Sequence[str], number: int) -> tuple[str, str | None]:
    """To whom a held session goes, and from where: no pair comes again before all have come."""
    lap, place = divmod(number, len(addresses))
    return addresses[place], sources[lap % len(sources)] if sources else None


async def hold(addresses: Sequence[str], sessions: int, sources: Sequence[str] = ()) -> list[Talker]:
    """Open sessions that have said NOOP. Raises ConnectionError or TimeoutError where one does not open."""
    loop = asyncio.get_running_loop()
    places = asyncio.Semaphore(OPENING_TOGETHER)

    async def one(number: int) -> Talker:
        async with places, asyncio.timeout(OPEN_SECONDS):
            done: asyncio.Future[float] = loop.create_future()
            to, source = ends(addresses, sources, number)
            _, talker = await loop.create_connection(
                lambda: Talker(greeting(), done), to, 25, local_addr=(source, 0) if source else None
            )
            await done
            return talker

    return await asyncio.gather(*(one(number) for number in range(sessions)))


async def _hold_until_told(addresses: Sequence[str], sessions: int, sources: Sequence[str]) -> None:
    talkers = await hold(addresses, sessions, sources)
    print(json.dumps({"held": len(talkers)}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    for talker in talkers:
        talker.end(b"")


def main() -> int:
    asked = _asked()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.freeze()
    gc.disable()
    if asked.what == "hold":
        uvloop.run(_hold_until_told(asked.addresses, asked.sessions, asked.source))
        return 0
    body = delivery.body_of(asked.octets)
    found = uvloop.run(pace(asked.addresses, due(asked.rate, asked.seconds, asked.seed), body))
    print(json.dumps([[one.number, one.due, one.seconds] for one in found]))
    return 0


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.rivals.driver")
    what = parser.add_subparsers(dest="what", required=True)
    paced = what.add_parser("pace")
    paced.add_argument("--rate", type=float, required=True, help="sessions per second")
    paced.add_argument("--seconds", type=float, required=True)
    paced.add_argument("--seed", type=int, default=1)
    paced.add_argument("--octets", type=int, default=4096)
    held = what.add_parser("hold")
    held.add_argument("--sessions", type=int, required=True)
    held.add_argument("--source", action="append", default=[], help="an own address, or several in turn")
    for one in (paced, held):
        one.add_argument("addresses", nargs="+")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
