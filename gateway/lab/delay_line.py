"""A long line: holds every packet that crosses the wire for half a round trip; loses some, holds some longer.

A process of its own in the wire's namespace, for kernels without netem: `python -m gateway.lab.delay_line`.
Packets wait in the kernel's queue; only their numbers come here. Where none is lost or overtaken they come as
large as the kernel carries them: one number for each 1,500 octets would make this process the narrowest part
of the line. It must give back what it holds when it ends, and the rule that feeds it passes packets by when
nobody listens, so that no death of it stops mail.
Counterpart: `wan`, which starts and ends it. (The product's own queue is `intercept.nfqueue`.)
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import uvloop
from netfilterqueue import COPY_META, NetfilterQueue

from gateway.intercept import nfqueue

MAX_HELD_PACKETS: Final = 65_536
"""40 ms one way at 1 GB/s of full packets."""
SOCKET_BUFFER_OCTETS: Final = 8 * 1024 * 1024
EARLY_SECONDS: Final = 0.0002
"""The loop's timers tick in milliseconds: what is due within this is as good as due."""


class DelayLine:
    """Packets in, packets out `one_way` seconds later, in order; one that is `late` waits twice as long."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        one_way: float,
        loses: Callable[[], bool],
        now: Callable[[], float] = time.monotonic,
        late: Callable[[], bool] = lambda: False,
    ) -> None:
        self._loop = loop
        # Not the loop's own clock: that stands still for the length of one turn of the loop.
        self._now = now
        self._one_way = one_way
        self._loses = loses
        self._late = late
        self._held: deque[tuple[float, Any, bool]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def take(self, packet: Any) -> None:
        """One packet from the kernel."""
        if self._loses():
            packet.drop()
            return
        self._held.append((self._now() + self._one_way, packet, self._late()))
        if self._timer is None:
            self._timer = self._loop.call_later(self._one_way, self._release)

    def release_all(self) -> None:
        """Let go of everything at once."""
        while self._held:
            self._held.popleft()[1].accept()

    def _release(self) -> None:
        self._timer = None
        now = self._now()
        while self._held and self._held[0][0] <= now + EARLY_SECONDS:
            _, packet, late = self._held.popleft()
            if late:
                self._held.append((now + self._one_way, packet, False))
            else:
                packet.accept()
        if self._held:
            self._timer = self._loop.call_later(max(0.0, self._held[0][0] - now), self._release)


async def run(queue: int, one_way: float, loss: float, overtaken: float, seed: int) -> None:
    """Hold packets until SIGTERM. Says "ready" on standard output once the queue is bound."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    dice = random.Random(seed)  # noqa: S311 repeatable is what is wanted here
    line = DelayLine(
        loop, one_way, lambda: dice.random() < loss, late=lambda: overtaken > 0 and dice.random() < overtaken
    )
    kernel = NetfilterQueue()
    kernel.bind(queue, line.take, max_len=MAX_HELD_PACKETS, mode=COPY_META, sock_len=SOCKET_BUFFER_OCTETS)
    # A copy of the queue's descriptor in the shape that the binding's reader wants; no other process has one.
    reader = socket.fromfd(kernel.get_fd(), socket.AF_UNIX, socket.SOCK_STREAM)
    reader.setblocking(False)
    if not loss and not overtaken:
        # An older kernel answers with an error, which is read as a packet would be, and cuts.
        reader.send(nfqueue.flag_message(queue, nfqueue.WHOLE_SEGMENTS))

    def read() -> None:
        try:
            kernel.run_socket(reader)
        except BlockingIOError:
            return

    loop.add_reader(reader.fileno(), read)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    try:
        await ended.wait()
    finally:
        loop.remove_reader(reader.fileno())
        line.release_all()
        reader.close()
        kernel.unbind()


def main() -> None:
    """Command line of the process."""
    parser = argparse.ArgumentParser(description="Delay what the kernel queues.")
    parser.add_argument("--queue", type=int, required=True)
    parser.add_argument("--one-way", type=float, required=True, help="seconds")
    parser.add_argument("--loss", type=float, default=0.0, help="share of packets, 0 to 1")
    parser.add_argument("--overtaken", type=float, default=0.0, help="share of packets, 0 to 1")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    uvloop.run(run(asked.queue, asked.one_way, asked.loss, asked.overtaken, asked.seed))


if __name__ == "__main__":
    main()
