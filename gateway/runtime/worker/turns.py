"""A worker's event loop: one epoll for all that it waits for, timers, and what is to be done next. No more.

A loop of everybody's would have an epoll of its own around that of the sessions, and each event would go
through both: a fifth of what passing one small message costs. Each turn: timers that are due, what others
have asked for, then descriptors. Whatever a callback raises is told, and the loop goes on.
Counterparts: `poller` (the epoll), `worker` (whose loop it is), `loop` (what others ask of it); the
supervisor has a loop of the library.
"""

from __future__ import annotations

import heapq
import itertools
import select
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from gateway.policy import limits
from gateway.runtime.worker.poller import Poller


class Timer:
    """Something to be called at a moment, unless it is cancelled before."""

    __slots__ = ("_args", "_callback", "_turns")

    def __init__(self, turns: Turns, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._turns = turns
        self._callback: Callable[..., object] | None = callback
        self._args = args

    @property
    def is_cancelled(self) -> bool:
        return self._callback is None

    def cancel(self) -> None:
        """Also of one that has been called: nothing."""
        if self._callback is not None:
            self._callback = None
            self._args = ()  # what it would have been called with may be large, and be gone now
            self._turns._cancelled += 1

    def _run(self) -> None:
        callback, args = self._callback, self._args
        if callback is not None:
            self._callback, self._args = None, ()
            callback(*args)


class Turns:
    """`run_forever` until `stop`. Used by one thread."""

    time = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.on_failure: Callable[[Exception], object] = traceback.print_exception
        """Is told what a callback has raised: a bug of ours."""
        self.poller = Poller(failed=self._failed)
        self._soon: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        """Of timers: two of one moment are called in the order in which they were asked for."""
        self._cancelled = 0
        """Timers that still stand in the heap, about."""
        self._stopping = False

    def call_soon(self, callback: Callable[..., object], *args: Any) -> None:
        """In the next turn, or later in this one, behind what was asked for before."""
        self._soon.append((callback, args))

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        return self.call_at(time.monotonic() + delay, callback, *args)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Timer:
        """`when` by `time`."""
        timer = Timer(self, callback, args)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        """One that fails is told again, unlike what the poller watches for others: this may be the queue."""
        self.poller.watch(fd, select.EPOLLIN, lambda _: self._told(callback, *args))

    def remove_reader(self, fd: int) -> bool:
        """Whether there was one."""
        return self.poller.forget_if_watched(fd)

    def add_signal_handler(self, number: int, callback: Callable[..., object]) -> None:
        """`callback` in a turn soon after; a loop that waits for descriptors is not woken for it."""
        signal.signal(number, lambda _number, _frame: self.call_soon(callback))

    def stop(self) -> None:
        """At the end of this turn."""
        self._stopping = True

    def run_forever(self) -> None:
        self._stopping = False
        while not self._stopping:
            self._turn()

    def close(self) -> None:
        self.poller.close()

    def _turn(self) -> None:
        soon = self._soon
        if self._timers:
            self._run_due()
        for _ in range(len(soon)):
            callback, args = soon.popleft()
            self._told(callback, *args)
        self.poller.turn(0.0 if soon or self._stopping else self._seconds_left())

    def _run_due(self) -> None:
        timers, now = self._timers, time.monotonic()
        while timers and timers[0][0] <= now:
            _, _, timer = heapq.heappop(timers)
            if timer.is_cancelled:
                self._cancelled -= 1
            else:
                self._told(timer._run)
        if self._cancelled > limits.CANCELLED_TIMERS and 2 * self._cancelled > len(timers):
            timers[:] = [entry for entry in timers if not entry[2].is_cancelled]
            heapq.heapify(timers)
            self._cancelled = 0

    def _seconds_left(self) -> float:
        """Until the next timer; negative: for ever."""
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1.0

    def _told(self, callback: Callable[..., object], *args: Any) -> None:
        try:
            callback(*args)
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        try:
            self.on_failure(error)
        except Exception:
            traceback.print_exc()
