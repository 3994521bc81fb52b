"""What keeps a process that lives for months from growing by what it has long given back.

The supervisor looks at routes and rules twice a second, and each look leaves objects in cycles behind. What
is needed stands between them, so that what the collector finds late can hardly be used again, in one heap for
each thread that was ever there. Counterpart: docs/faults.md, "Two hours".
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
from typing import Final

from gateway.policy import limits

_M_ARENA_MAX: Final = -8  # <malloc.h>


def share() -> None:
    """All threads allocate from one heap; without glibc, nothing. Called before there is a second thread."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def settle() -> None:
    """What is there now stays, and is not looked through any more."""
    gc.collect()
    gc.freeze()


async def keep() -> None:
    """Runs until it is cancelled: collects what is new, and gives free pages back, a millisecond's work.

    By itself the collector would wait until a quarter of all objects are new, forty thousand of them.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while True:
        gc.collect()
        if trim is not None:
            trim(0)
        await asyncio.sleep(limits.COLLECT_SECONDS)
