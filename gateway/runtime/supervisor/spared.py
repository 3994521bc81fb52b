"""What passes at the gate, in the kernel: put there when a worker has found it, taken out when it is none.

Two kinds: servers that offer nothing (dead ends), and clients that ignore offers, between their turns. The
kernel forgets each by itself after a time: then the next session is seen, and finds it so again, or not. What
goes by is counted as sessions in clear, so that no share of protected sessions looks better than it is.
Counterparts: `policy.dead_end` and `policy.ignored_offers` (when), `intercept.kernel` (how), `hearing` (who
says so), and `runtime.supervisor.rulekeeper`, whose thread it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel
from gateway.observe.log import Level, Log
from gateway.peers.pins import Destination
from gateway.policy import limits

WhileStanding = Callable[[Callable[[], None]], Awaitable[None]]


class Visit(NamedTuple):
    """Whose sessions pass where: a client from outside, and a server inside."""

    address: str
    server: str
    port: int

    @property
    def to(self) -> Destination:
        return Destination(self.server, self.port)


Entry = TypeVar("Entry", bound=Destination | Visit)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Entry]):
    """Which sets, how much of it, and what the log says of them."""

    sets: kernel.SparedSet
    entry: Callable[..., Entry]
    say: Callable[[Log, Entry, int], None]
    """For how many seconds; 0: no more."""
    say_all_end: Callable[[Log, int], None]
    """How many."""
    say_failed: Callable[[Log, str], None]
    most: int
    together: int
    """So many in one run of nft, of which all fail if one does."""
    gathered_seconds: float
    """So long they are gathered."""


def _say_dead_end(log: Log, server: Destination, seconds: int) -> None:
    if seconds:
        log.fact("gate", "dead-end", to=str(server), seconds=seconds)
    else:
        log.fact("gate", "dead-end-no-more", to=str(server))


def _say_resting(log: Log, visit: Visit, seconds: int) -> None:
    if seconds:
        log.fact("gate", "client-rests", source=visit.address, to=str(visit.to), seconds=seconds)
    else:
        log.fact("gate", "client-rests-no-more", source=visit.address, to=str(visit.to))


DEAD_ENDS: Final = Kind(
    kernel.DEAD_ENDS,
    Destination,
    _say_dead_end,
    lambda log, count: log.fact("gate", "dead-ends-no-more", count=count),
    lambda log, detail: log.fact("gate", "dead-ends-failed", level=Level.NOTICE, detail=detail),
    most=limits.DEAD_ENDS,
    together=1,
    gathered_seconds=0,
)
RESTING: Final = Kind(
    kernel.RESTING,
    Visit,
    _say_resting,
    lambda log, count: log.fact("gate", "clients-rest-no-more", count=count),
    lambda log, detail: log.fact("gate", "clients-rest-failed", level=Level.NOTICE, detail=detail),
    most=limits.RESTING,
    together=limits.RESTING_TOGETHER,
    gathered_seconds=limits.RESTING_GATHERED_SECONDS,
)


class Spared(Generic[Entry]):
    """`seconds`: for how long, 0 where it is not wanted. `while_standing` runs a call in the thread of the
    rules, if they stand then. `passed` is told how many more sessions went by. `left` is what the daemon that
    this process was before has left (`left`)."""

    def __init__(
        self,
        kind: Kind[Entry],
        seconds: int,
        while_standing: WhileStanding,
        passed: Callable[[int], None],
        log: Log,
        left: Mapping[str, Any],
    ) -> None:
        self._kind = kind
        self._seconds = seconds
        self._while_standing = while_standing
        self._passed = passed
        self._log = log
        self._until: dict[Entry, float] = {}
        """In this order: each is there for as long as the others."""
        self._until |= {kind.entry(*parts): until for *parts, until in left.get("until", ())}
        self._changes: dict[Entry, bool] = {}
        self._changes |= {kind.entry(*parts): False for parts in left.get("none", ())}
        self._at: dict[str, set[Entry]] = {}
        """All of them by address; some may be none any more."""
        self._find()
        self._under_way: Mapping[Entry, bool] = {}
        """Changes that the kernel is told of just now, or was at our end: it may have taken them."""
        self._all_go: bool = left.get("all_go", False)
        """None of those that are there is one any more."""
        self._goes = False
        """The kernel is told so just now, or was at our end."""
        self._again_from: float = left.get("again_from", 0.0)
        """Until then none is put in."""
        self._counted: int = left.get("counted", 0)
        self._news = asyncio.Event()
        self._gathering: asyncio.TimerHandle | None = None
        if self._changes or self._all_go:
            self._news.set()

    def found(self, entry: Entry) -> None:
        """A worker has met it, for so many sessions in a row that it is one. Whom it meets again though it is
        there has been lost with our table, or is of a session that was begun before."""
        now = time.monotonic()
        wanted = self._seconds and now >= self._again_from
        fresh = max(0.0, self._seconds - limits.SPARED_FOUND_AGAIN_SECONDS)
        is_there = self._until.get(entry, 0.0) > now + fresh
        if wanted and not is_there and len(self._changes) < self._kind.most:
            self._change(entry, True)
            self._tell_soon()

    def is_none(self, entry: Entry) -> None:
        """It is another one after all."""
        if entry in self._until or entry in self._changes or entry in self._under_way:
            self._change(entry, False)
            self._news.set()

    def is_none_at(self, address: str) -> None:
        """The same, whatever else. Clients have it asked as often as they like: nothing is searched."""
        for entry in tuple(self._at.get(address, ())):
            self.is_none(entry)

    def are_none(self, rest_seconds: float) -> None:
        """Nobody is one any more, or becomes one for so long."""
        self._again_from = time.monotonic() + rest_seconds
        self._all_go = self._all_go or bool(self._until or self._under_way or self._changes)
        self._changes = {}
        if self._all_go:
            self._news.set()

    def at(self, address: str) -> tuple[Entry, ...]:
        """Those of it that the kernel has now."""
        now = time.monotonic()
        return tuple(one for one in self._at.get(address, ()) if self._until.get(one, now) > now)

    def left(self) -> dict[str, Any]:
        """For the supervisor that comes next: the kernel's sets and its counter stand as they do now. What is
        still to be taken out must be, for its mail passes unseen."""
        last = time.monotonic() + self._seconds
        perhaps = {one: last for one, there in self._under_way.items() if there and one not in self._until}
        until = [(*one, its) for one, its in {**self._until, **perhaps}.items()]
        changes = {**self._under_way, **self._changes}
        none = [tuple(one) for one, there in changes.items() if not there]
        goes = {"all_go": self._all_go or self._goes, "again_from": self._again_from}
        return {"until": until, "none": none, "counted": self._counted, **goes}

    def _change(self, entry: Entry, there: bool) -> None:
        self._changes[entry] = there
        self._at.setdefault(entry.address, set()).add(entry)

    def _tell_soon(self) -> None:
        if not self._kind.gathered_seconds:
            self._news.set()
        elif self._gathering is None:
            loop = asyncio.get_running_loop()
            self._gathering = loop.call_later(self._kind.gathered_seconds, self._news.set)

    def _find(self) -> None:
        self._at = {}
        for entry in (*self._until, *self._changes):
            self._at.setdefault(entry.address, set()).add(entry)

    async def keep(self) -> None:
        """Runs until it is cancelled. Trouble with the kernel costs nothing but the saving."""
        await self._forget_what_lasts_longer()
        while self._seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.SPARED_COUNTED_EVERY_SECONDS):
                    await self._news.wait()
            self._news.clear()
            self._gathering = None
            await self._carry_out()

    async def _carry_out(self) -> None:
        self._goes, self._all_go = self._all_go, False
        self._under_way = changes = self._next_changes()
        done: dict[Entry, bool] = {}
        counted: list[int] = []
        forgotten: list[bool] = []
        # From before the kernel's own time begins: whoever comes when that is over must be heard.
        until = time.monotonic() + self._seconds
        trouble = ""
        try:
            work = partial(self._carry, changes, self._goes, done, counted, forgotten)
            await self._while_standing(work)
        except EnvironmentFailureError as error:
            trouble = str(error)
        self._under_way = {}
        if self._goes:
            self._goes = False
            self._note_all(bool(forgotten))
        if counted:
            self._count(counted[0])
        self._note(done, until)
        # What is found is found again; what is none would pass in clear for its whole time.
        none = {one: False for one, there in changes.items() if not there and one not in done}
        self._changes = none | self._changes
        if len(done) < len(changes):
            self._find()
        if trouble:
            self._kind.say_failed(self._log, trouble)
            self._changes = {one: False for one, there in self._changes.items() if not there}
            self._find()
            # Where the kernel has no room for more, each session would have it tried again.
            await asyncio.sleep(limits.SPARED_COUNTED_EVERY_SECONDS)

    def _next_changes(self) -> dict[Entry, bool]:
        """Those that are none first. A tool is run for each, in the thread that looks after the rules, which
        must not be away for long."""
        none = [one for one, there in self._changes.items() if not there][: limits.SPARED_RUNS_AT_ONCE]
        room = (limits.SPARED_RUNS_AT_ONCE - len(none)) * self._kind.together
        found = [one for one, there in self._changes.items() if there][:room]
        changes = dict.fromkeys(none, False) | dict.fromkeys(found, True)
        self._changes = {one: there for one, there in self._changes.items() if one not in changes}
        if self._changes:
            self._news.set()
        return changes

    def _carry(
        self,
        changes: Mapping[Entry, bool],
        all_go: bool,
        done: dict[Entry, bool],
        counted: list[int],
        forgotten: list[bool],
    ) -> None:
        """In the thread. `done` are those of `changes` that the kernel has taken, also where it fails."""
        sets = self._kind.sets
        counted.append(sets.count())
        if all_go:
            sets.forget()
            forgotten.append(True)
        for entry in (one for one, there in changes.items() if not there):
            sets.remove(entry)
            done[entry] = False
        found = [one for one, there in changes.items() if there]
        for start in range(0, len(found), self._kind.together):
            piece = found[start : start + self._kind.together]
            sets.add(piece, self._seconds)
            done.update(dict.fromkeys(piece, True))

    async def _forget_what_lasts_longer(self) -> None:
        """Before a reload they were put there for longer than is wanted now: all of them are found anew, or
        not at all."""
        while any(until > time.monotonic() + self._seconds for until in self._until.values()):
            try:
                await self._while_standing(self._kind.sets.forget)
                self._note_all(True)
                self._changes, self._all_go = {}, False
            except EnvironmentFailureError as error:
                self._kind.say_failed(self._log, str(error))
                await asyncio.sleep(limits.SPARED_COUNTED_EVERY_SECONDS)

    def _note(self, changes: dict[Entry, bool], until: float) -> None:
        now = time.monotonic()
        # There may be tens of thousands, of whom a few are over each second.
        while self._until and self._until[oldest := next(iter(self._until))] <= now:
            self._let_go(oldest)
        for entry, there in changes.items():
            self._let_go(entry)
            if there:
                self._until[entry] = until
                self._at.setdefault(entry.address, set()).add(entry)
            self._kind.say(self._log, entry, self._seconds if there else 0)

    def _let_go(self, entry: Entry) -> None:
        self._until.pop(entry, None)
        others = self._at.get(entry.address, set())
        if entry not in self._changes:
            others.discard(entry)
        if not others:
            self._at.pop(entry.address, None)

    def _note_all(self, forgotten: bool) -> None:
        """One line for all: there may be tens of thousands."""
        if forgotten:
            self._kind.say_all_end(self._log, len(self._until))
            self._until = {}
            self._find()
        else:
            self._all_go = True

    def _count(self, counted: int) -> None:
        is_anew = counted < self._counted
        if is_anew:  # the whole table, and its sets are empty
            self._until = {}
        more = counted if is_anew else counted - self._counted
        self._counted = counted
        if more:
            self._passed(more)
