"""Dead ends in the kernel: put there when a worker has found one, taken out when it turns out to be none.

The kernel forgets each by itself after a time: then the next session is seen, and finds it so again, or not.
What goes by is counted as sessions in clear, so that no share of protected sessions looks better than it is.
Counterparts: `policy.dead_end` (when), `intercept.kernel` (how), and `runtime.supervisor.rulekeeper`, whose
thread it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel
from gateway.observe.log import Level, Log
from gateway.peers.pins import Destination
from gateway.policy import limits

WhileStanding = Callable[[Callable[[], None]], Awaitable[None]]


class DeadEnds:
    """`while_standing` runs a call in the thread of the rules, if they stand then. `passed` is told how many
    more sessions went by. `left` is what the daemon that this process was before has left (`left`)."""

    def __init__(
        self,
        minutes: int,
        while_standing: WhileStanding,
        passed: Callable[[int], None],
        log: Log,
        left: Mapping[str, Any],
    ) -> None:
        self._seconds = minutes * 60
        self._while_standing = while_standing
        self._passed = passed
        self._log = log
        known = left.get("until", ())
        self._until = {Destination(address, port): until for address, port, until in known}
        self._changes = {Destination(address, port): False for address, port in left.get("none", ())}
        self._at: dict[str, set[Destination]] = {}
        """All of them by address; some may be none any more."""
        self._find()
        self._under_way: Mapping[Destination, bool] = {}
        """Changes that the kernel is told of just now, or was at our end: it may have taken them."""
        self._counted: int = left.get("counted", 0)
        self._news = asyncio.Event()
        if self._changes:
            self._news.set()

    def found(self, destination: Destination) -> None:
        """A worker has met it for so many sessions in a row that it is one."""
        now = time.monotonic()
        has_room = len(self._changes) < limits.DEAD_ENDS
        if has_room and self._seconds and self._until.get(destination, now) <= now:
            self._change(destination, True)

    def is_none(self, destination: Destination) -> None:
        """There is a gateway after all."""
        if destination in self._until or destination in self._changes or destination in self._under_way:
            self._change(destination, False)

    def is_none_at(self, address: str) -> None:
        """The same, whatever the port. Clients have it asked as often as they like: nothing is searched."""
        for destination in tuple(self._at.get(address, ())):
            self.is_none(destination)

    def left(self) -> dict[str, Any]:
        """For the supervisor that comes next: the kernel's sets and its counter stand as they do now. What is
        still to be taken out must be, for its mail passes unseen."""
        last = time.monotonic() + self._seconds
        perhaps = {one: last for one, dead in self._under_way.items() if dead}
        until = [(one.address, one.port, its) for one, its in {**perhaps, **self._until}.items()]
        changes = {**self._under_way, **self._changes}
        none = [(one.address, one.port) for one, dead in changes.items() if not dead]
        return {"until": until, "none": none, "counted": self._counted}

    def _change(self, destination: Destination, dead: bool) -> None:
        self._changes[destination] = dead
        self._at.setdefault(destination.address, set()).add(destination)
        self._news.set()

    def _find(self) -> None:
        self._at = {}
        for destination in (*self._until, *self._changes):
            self._at.setdefault(destination.address, set()).add(destination)

    async def keep(self) -> None:
        """Runs until it is cancelled. Trouble with the kernel costs nothing but the saving."""
        await self._forget_what_lasts_longer()
        while self._seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.DEAD_ENDS_COUNTED_EVERY_SECONDS):
                    await self._news.wait()
            self._news.clear()
            await self._carry_out()

    async def _carry_out(self) -> None:
        # A tool is run for each, in the thread that looks after the rules, which must not be away for long.
        waiting = sorted(self._changes.items(), key=lambda change: change[1])
        changes = dict(waiting[: limits.DEAD_ENDS_AT_ONCE])
        self._changes = dict(waiting[limits.DEAD_ENDS_AT_ONCE :])
        if self._changes:
            self._news.set()
        self._under_way = changes
        done: dict[Destination, bool] = {}
        counted: list[int] = []
        # From before the kernel's own time begins: whoever comes when that is over must be heard.
        until = time.monotonic() + self._seconds
        trouble = ""
        try:
            await self._while_standing(partial(_carry, changes, self._seconds, done, counted))
        except EnvironmentFailureError as error:
            trouble = str(error)
        self._under_way = {}
        self._note(done, until)
        if counted:
            self._count(counted[0])
        # What is found dead is found again; what is none would pass in clear for its whole time.
        none = {one: False for one, dead in changes.items() if not dead and one not in done}
        self._changes = none | self._changes
        self._find()
        if trouble:
            self._log.fact("gate", "dead-ends-failed", level=Level.NOTICE, detail=trouble)
            self._changes = {one: False for one, dead in self._changes.items() if not dead}
            # Where the kernel has no room for more, each session would have it tried again.
            await asyncio.sleep(limits.DEAD_ENDS_COUNTED_EVERY_SECONDS)

    async def _forget_what_lasts_longer(self) -> None:
        """Before a reload they were put there for longer than is wanted now: all of them are found anew, or
        not at all."""
        while any(until > time.monotonic() + self._seconds for until in self._until.values()):
            try:
                await self._while_standing(kernel.forget_dead_ends)
                self._until = {}
            except EnvironmentFailureError as error:
                self._log.fact("gate", "dead-ends-failed", level=Level.NOTICE, detail=str(error))
                await asyncio.sleep(limits.DEAD_ENDS_COUNTED_EVERY_SECONDS)

    def _note(self, changes: dict[Destination, bool], until: float) -> None:
        now = time.monotonic()
        self._until = {one: its for one, its in self._until.items() if its > now}
        for destination, dead in changes.items():
            if dead:
                self._until[destination] = until
                self._log.fact("gate", "dead-end", to=str(destination), seconds=self._seconds)
            else:
                self._until.pop(destination, None)
                self._log.fact("gate", "dead-end-no-more", to=str(destination))

    def _count(self, counted: int) -> None:
        # Less than before: the table was made anew.
        more = counted - self._counted if counted >= self._counted else counted
        self._counted = counted
        if more:
            self._passed(more)


def _carry(
    changes: Mapping[Destination, bool], seconds: int, done: dict[Destination, bool], counted: list[int]
) -> None:
    """`done` are those of `changes` that the kernel has taken, also where it fails."""
    counted.append(kernel.dead_end_count())
    for destination, dead in changes.items():
        if dead:
            kernel.add_dead_end(destination.address, destination.port, seconds)
        else:
            kernel.remove_dead_end(destination.address, destination.port)
        done[destination] = dead
