"""Names the cause of trouble as well as it can be known, then tells it: to the log, the memory and the bell.

Mostly a worker has named it already. Where a connection was reset, the kernel is asked where that came from;
mail does not wait for it, and without an answer the cause stays unclear.
Counterparts: `policy.cause` (the words), `intercept.kernel` (the question), `runtime.worker.sessions`, which
tells.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.errors import Reason
from gateway.observe.log import Level, Log
from gateway.peers.pins import Destination
from gateway.policy import limits
from gateway.policy.cause import with_reset
from gateway.runtime.link import told_address, told_destination

WasOdd = Callable[[str, str], Awaitable[bool | None]]


class Causes:
    """`was_odd` is `RuleKeeper.reset_was_odd`; `remember` writes what it likely was to the pin."""

    def __init__(
        self, was_odd: WasOdd, log: Log, remember: Callable[[Destination, Reason, int], None]
    ) -> None:
        self._was_odd = was_odd
        self._log = log
        self._remember = remember
        self._asked: deque[float] = deque(maxlen=limits.RESETS_ASKED_PER_SECOND)
        self._tasks: set[asyncio.Task[None]] = set()

    def name(self, told: dict[str, Any], then: Callable[[Reason], None]) -> None:
        """`told` by a worker: the likely cause, the server's address and port, the client.

        `then` is called with the cause, now or some milliseconds later. Raises ValueError, KeyError for what
        no worker of ours says.
        """
        word, at, client = Reason(told["likely"]), told_destination(told), told_address(told["client"])
        if word is not Reason.RESET_UNCLEAR or not self._may_ask():
            self._named(at, word, then)
            return
        task = asyncio.get_running_loop().create_task(self._ask(at, client, told.get("session", ""), then))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, at: Destination, client: str, session: str, then: Callable[[Reason], None]) -> None:
        word = Reason.RESET_UNCLEAR
        named = with_reset(word, await self._was_odd(at.address, client))
        if named is not word:
            self._log.fact("peers", "cause", level=Level.NOTICE, session=session, reason=named, to=str(at))
        self._named(at, named, then)

    def _named(self, at: Destination, cause: Reason, then: Callable[[Reason], None]) -> None:
        self._remember(at, cause, int(time.time()))
        then(cause)

    def _may_ask(self) -> bool:
        """Nor while so many wait for their answer: they would pile up before what looks after the rules."""
        now = asyncio.get_running_loop().time()
        if len(self._tasks) >= limits.RESETS_ASKED_PER_SECOND:
            return False
        if len(self._asked) == self._asked.maxlen and now - self._asked[0] < 1.0:
            return False
        self._asked.append(now)
        return True
