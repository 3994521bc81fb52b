from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.intercept import kernel
from gateway.policy import limits
from tests.unit.runtime.supervisor.ears import Ears
from tests.unit.runtime.supervisor.keeping import World


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


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(limits, "RULES_CHECK_SECONDS", 0.02)
    # Of this machine's kernel, which tells root alone.
    monkeypatch.setattr(kernel, "passed_counts", dict)
    world = asyncio.run(_made(tmp_path))
    yield world
    world.keeper.leave()
    world.log.close()


async def _made(folder: Path) -> World:
    return World(folder)
