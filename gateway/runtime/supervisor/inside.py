"""Which networks are inside, looked at again and again: routes come and go, and at boot we are up first.

Counterparts: `intercept.kernel`, which reads them; `order`, with which the workers hear of them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from gateway.config import Config, Network
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel
from gateway.observe.log import Level, Log
from gateway.policy import limits
from gateway.runtime.supervisor.kernel_thread import kernel_thread


class Inside:
    """`asked` is the configuration as it was written; `tell` is told whenever the networks are others."""

    def __init__(self, asked: Config, log: Log, tell: Callable[[tuple[Network, ...]], None]) -> None:
        self._asked = asked
        self._log = log
        self._tell = tell
        self.networks = kernel.inside_networks(asked)

    async def keep(self) -> None:
        """Runs until cancelled."""
        # Not in the thread of the rules, which must not wait for a long routing table.
        thread = kernel_thread("inside")
        try:
            while True:
                rest = await self._look(thread)
                await asyncio.sleep(rest)
        finally:
            thread.submit(kernel.let_go)
            thread.shutdown(wait=False)

    async def _look(self, thread: ThreadPoolExecutor) -> float:
        """Seconds to rest before the next one."""
        began = time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(thread, kernel.inside_networks, self._asked)
        except (EnvironmentFailureError, OSError) as error:
            self._log.fact("daemon", "inside-unknown", level=Level.ERROR, detail=str(error))
            found = self.networks
        self._found(found)
        return max(limits.INSIDE_LOOK_SECONDS, (time.monotonic() - began) * limits.INSIDE_LOOK_REST)

    def _found(self, found: tuple[Network, ...]) -> None:
        """An interface that is down for a moment has no routes: what is gone altogether is kept."""
        before, versions = self.networks, {network.version for network in found}
        networks = found + tuple(network for network in before if network.version not in versions)
        if set(networks) == set(before):
            return
        self.networks = networks
        self._tell(networks)
        self._log.fact("daemon", "inside", level=Level.NOTICE, networks=",".join(map(str, networks)))
