"""One epoll for all session sockets of a worker: it is one descriptor of the event loop, and they are its.

The loop's own readers and writers cost three or four system calls each time that one comes or goes, and a
session starts and stops reading half a dozen times. Here it is one, and errors of a socket that is not read
are told too. Level-triggered: what is not taken is told again. Counterpart: `endpoint`.
"""

from __future__ import annotations

import asyncio
import math
import select
import time
from collections.abc import Callable

from gateway.policy import limits

Ready = Callable[[int], None]
"""Is told the events, a set of select.EPOLL* bits; EPOLLERR and EPOLLHUP come unasked."""


class Poller:
    """Watches descriptors. Who closes one must `forget` it before, for its number is given out again."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._left: list[tuple[int, Ready, int]] = []
        self._until = math.inf
        loop.add_reader(self._epoll.fileno(), self._turn)

    @property
    def watched(self) -> int:
        return len(self._ready)

    def watch(self, fd: int, events: int, ready: Ready) -> None:
        self._epoll.register(fd, events)
        self._ready[fd] = ready

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def forget(self, fd: int, *, closing: bool = False) -> None:
        """`closing`: the caller closes it next, and there is no copy: the kernel forgets it by itself."""
        del self._ready[fd]
        if not closing:
            self._epoll.unregister(fd)

    def rest_behind(self, moment: float) -> None:
        """Nothing is told behind this moment (time.monotonic()), until the next call.

        Called by the worker's heartbeat: within one turn of the loop many peers could else keep it waiting.
        """
        self._until = moment

    def close(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _turn(self) -> None:
        # What an earlier turn had no time for comes first: epoll would begin with the same ones each time.
        events = self._left
        if not events:
            found = self._epoll.poll(0, limits.EVENTS_PER_TURN)
            events = [(fd, self._ready[fd], mask) for fd, mask in found]
        for done, (fd, ready, mask) in enumerate(events):
            if time.monotonic() > self._until:
                self._left = events[done:]
                return
            # One that was told before it may have ended this one, and its number may be another's by now.
            if self._ready.get(fd) is ready:
                try:
                    ready(mask)
                except Exception as error:
                    self._failed(fd, ready, error)
        self._left = []

    def _failed(self, fd: int, ready: Ready, error: Exception) -> None:
        """A bug of ours: it must not keep the others waiting, nor fill the log with the same line."""
        self._loop.call_exception_handler({"message": f"{ready} has failed", "exception": error})
        if self._ready.get(fd) is ready:
            self._epoll.modify(fd, select.EPOLLONESHOT)
