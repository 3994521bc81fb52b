"""What goes on as long as the daemon does: begun together, ended together, begun again where it fails.

A keeper that ended by a bug of ours, unheard, would leave the rules, the gate or the memory to themselves
while the daemon seems to live. Counterparts: `supervisor`, which names them; `alarms_out`, whose own ends in
another way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from gateway.policy import limits

Keeper = Callable[[], Awaitable[None]]
"""Runs until it is cancelled, or has nothing more to do."""
Failed = Callable[[Exception], None]


@contextlib.asynccontextmanager
async def kept(keepers: Sequence[Keeper], failed: Failed) -> AsyncIterator[None]:
    """They run beside what stands inside, and have ended behind it, in their order."""
    tasks = [asyncio.create_task(lasts(keeper, failed)) for keeper in keepers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def lasts(keeper: Keeper, failed: Failed) -> None:
    """One of them, until it is cancelled or has nothing more to do."""
    while True:
        try:
            await keeper()
        except Exception as error:
            failed(error)
            await asyncio.sleep(limits.KEEPER_RESTS_SECONDS)
        else:
            return
