"""What goes on as long as the daemon does, whatever happens to it."""

from __future__ import annotations

import asyncio

import pytest

from gateway.policy import limits
from gateway.runtime.supervisor.lasting import kept


def test_one_that_fails_is_told_and_begun_again_beside_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEEPER_RESTS_SECONDS", 0.01)
    failures: list[str] = []
    begun: list[str] = []
    well = asyncio.Event()

    async def fails_twice() -> None:
        begun.append("one")
        if len(failures) < 2:
            raise KeyError(f"failure {len(failures)}")
        well.set()
        await asyncio.Event().wait()

    async def goes_on() -> None:
        begun.append("other")
        await asyncio.Event().wait()

    async def has_nothing_to_do() -> None:
        begun.append("idle")

    async def lived() -> None:
        keepers = [fails_twice, goes_on, has_nothing_to_do]
        async with kept(keepers, lambda error: failures.append(str(error))), asyncio.timeout(5):
            await well.wait()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    asyncio.run(lived())
    assert failures == ["'failure 0'", "'failure 1'"]
    assert sorted(begun) == ["idle", "one", "one", "one", "other"]


def test_they_end_in_their_order_also_behind_an_error() -> None:
    ended: list[int] = []

    async def ends(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    async def lived() -> None:
        keepers = [lambda number=number: ends(number) for number in range(3)]
        with pytest.raises(OSError, match="inside"):
            async with kept(keepers, lambda error: None):
                await asyncio.sleep(0)
                raise OSError("inside")

    asyncio.run(lived())
    assert ended == [0, 1, 2]
