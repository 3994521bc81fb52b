from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.runtime.supervisor.ears import Ears


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def ears(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Iterator[Ears]:
    ears = Ears(loop, tmp_path)
    yield ears
    assert ears.memory.pins is not None
    ears.memory.pins.close()
    ears.log.close()
