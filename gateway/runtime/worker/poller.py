"""One epoll for all that a worker waits for, its sessions' sockets above all.

The readers and writers of asyncio loops cost three or four system calls each time that one comes or goes, and
a session starts and stops reading half a dozen times. Here it is one, and errors of a socket that is not read
are told too. Level-triggered: what is not taken is told again. Counterparts: `turns`, `endpoint`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import select
import time
import traceback
from collections.abc import Callable

from gateway.policy import limits

Ready = Callable[[int], object]
"""Is told the events, a set of select.EPOLL* bits; EPOLLERR and EPOLLHUP come unasked."""


class Poller:
    """Watches descriptors. Who closes one must `forget` it before, for its number is given out again."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        failed: Callable[[Exception], object] = traceback.print_exception,
    ) -> None:
        """`loop`: one of asyncio's, which is to call `turn`, and is told what a callback raises. Without one
        its owner calls, and `failed` is told."""
        self._loop = loop
        self._tell_failure = failed if loop is None else _exception_handler(loop)
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._left: list[tuple[int, Ready, int]] = []
        self.at_end: list[Callable[[], object]] = []
        """Each is called once, when all have been told that this turn tells. It raises nothing."""
        self.is_crowded = False
        """Whether the turn under way tells more than one of something: then there is an end to wait for."""
        self._until = math.inf
        if loop is not None:
            loop.add_reader(self._epoll.fileno(), self.turn)

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

    def forget_if_watched(self, fd: int) -> bool:
        """Whether it was."""
        is_watched = fd in self._ready
        if is_watched:
            self.forget(fd)
        return is_watched

    def rest_behind(self, moment: float) -> None:
        """Nothing is told behind this moment (time.monotonic()), until the next call.

        Called by the worker's heartbeat: within one turn of the loop many peers could else keep it waiting.
        """
        self._until = moment

    def close(self) -> None:
        if self._loop is not None:
            # uvloop answers None where asyncio and its annotations have a bool, which compiled code asks for.
            remove: Callable[[int], object] = self._loop.remove_reader
            remove(self._epoll.fileno())
        self._epoll.close()

    def turn(self, seconds: float = 0.0) -> None:
        """Wait so long for something, for ever if it is negative, and tell it."""
        # What an earlier turn had no time for comes first: epoll would begin with the same ones each time.
        events, self._left = self._left, []
        if not events:
            found = self._epoll.poll(seconds, limits.EVENTS_PER_TURN)
            ready = self._ready
            events = [(fd, ready[fd], mask) for fd, mask in found if fd in ready or self._is_still_ours(fd)]
        self.is_crowded = len(events) > 1
        self._tell(events)
        self.is_crowded = False
        if self.at_end:
            callbacks, self.at_end = self.at_end, []
            for callback in callbacks:
                callback()

    def _tell(self, events: list[tuple[int, Ready, int]]) -> None:
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

    def _is_still_ours(self, fd: int) -> bool:
        """No: one that was closed before it was forgotten is a bug, of one session alone."""
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)
        return False

    def _failed(self, fd: int, ready: Ready, error: Exception) -> None:
        """A bug of ours, and whose descriptor this is has not ended it: it must not keep the others waiting,
        nor fill the log with the same line."""
        self._tell_failure(error)
        if self._ready.get(fd) is ready:
            with contextlib.suppress(OSError):
                self._epoll.modify(fd, select.EPOLLONESHOT)


def _exception_handler(loop: asyncio.AbstractEventLoop) -> Callable[[Exception], object]:
    return lambda error: loop.call_exception_handler({"message": "a callback has failed", "exception": error})
