"""What a look leaves behind in cycles is collected soon, however much there is beside it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Iterator

import pytest

from gateway.policy import limits
from gateway.runtime.supervisor import heap

ONE_HEAP = """
import ctypes, threading
from gateway.runtime.supervisor import heap
heap.share()
libc = ctypes.CDLL(None)
held = []
def take():
    libc.malloc.restype = ctypes.c_void_p
    held.extend(libc.malloc(1000) for _ in range(1000))
threads = [threading.Thread(target=take) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
stats = ctypes.CDLL(None).malloc_stats()
"""


class Cycle:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_all_threads_share_one_heap() -> None:
    done = subprocess.run([sys.executable, "-c", ONE_HEAP], capture_output=True, text=True, check=True)
    assert "Arena 0:" in done.stderr
    assert "Arena 1:" not in done.stderr


def test_what_is_there_stays_and_what_comes_is_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COLLECT_SECONDS", 0.01)
    gone = asyncio.Event()

    async def kept() -> None:
        keeping = asyncio.create_task(heap.keep())
        await asyncio.sleep(0)
        weakref.finalize(Cycle(), gone.set)
        async with asyncio.timeout(5):
            await gone.wait()
        keeping.cancel()

    heap.settle()
    assert gc.get_freeze_count() > 0
    gc.disable()
    try:
        asyncio.run(kept())
    finally:
        gc.enable()
