"""One question to all workers: who answers, who does not, and who answers what nobody has asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.intercept.ruleset import Slot
from gateway.policy import limits
from gateway.runtime.link import Message
from gateway.runtime.supervisor.inquiry import Inquiry
from gateway.runtime.supervisor.worker_process import WorkerProcess

HERE = "192.0.2.7"


class Line:
    """A link that takes messages, or is full."""

    def __init__(self, *, full: bool = False) -> None:
        self.full = full
        self.messages: list[Message] = []

    def send(self, message: Message) -> bool:
        self.messages.append(message)
        return not self.full


def worker(index: int, line: Line | None) -> WorkerProcess:
    return WorkerProcess(Slot(index, 2500 + index, 12525 + index), (), link=line)  # type: ignore[arg-type]


def answer(address: str = HERE, in_a_row: int = 3) -> Message:
    return {"address": address, "in_a_row": in_a_row, "rests": False}


def run(work: Callable[[Inquiry], Awaitable[None]]) -> None:
    async def worked() -> None:
        async with asyncio.timeout(60):
            await work(Inquiry())

    asyncio.run(worked())


def test_all_answer() -> None:
    lines = [Line(), Line()]
    workers = [worker(1, lines[1]), worker(0, lines[0])]

    async def work(inquiry: Inquiry) -> None:
        asked = asyncio.ensure_future(inquiry.ignored_by(HERE, workers))
        await asyncio.sleep(0)
        assert [line.messages for line in lines] == [[{"asked": HERE}]] * 2
        inquiry.heard(workers[0], answer(in_a_row=40))
        inquiry.heard(workers[1], answer(in_a_row=2))
        assert await asked == [
            {"worker": 0, "in_a_row": 2, "rests": False},
            {"worker": 1, "in_a_row": 40, "rests": False},
        ]

    run(work)


def test_who_hangs_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INQUIRY_SECONDS", 0.01)
    workers = [worker(0, Line()), worker(1, Line()), worker(2, Line(full=True)), worker(3, None)]

    async def work(inquiry: Inquiry) -> None:
        asked = asyncio.ensure_future(inquiry.ignored_by(HERE, workers))
        await asyncio.sleep(0)
        inquiry.heard(workers[1], answer())
        assert [one["worker"] for one in await asked] == [1]
        inquiry.heard(workers[0], answer())  # nobody waits for it any more
        assert await inquiry.ignored_by(HERE, workers[2:]) == []

    run(work)


def test_what_nobody_asked_is_not_heard() -> None:
    """Of a worker in other hands: another address, twice, one that was not asked."""
    asked_one, stranger = worker(0, Line()), worker(1, Line())

    async def work(inquiry: Inquiry) -> None:
        inquiry.heard(asked_one, answer())
        asked = asyncio.ensure_future(inquiry.ignored_by(HERE, [asked_one]))
        await asyncio.sleep(0)
        inquiry.heard(stranger, answer(in_a_row=1))
        inquiry.heard(asked_one, answer("192.0.2.8", 1))
        assert not asked.done()
        inquiry.heard(asked_one, answer(in_a_row=5))
        inquiry.heard(asked_one, answer(in_a_row=6))
        assert await asked == [{"worker": 0, "in_a_row": 5, "rests": False}]

    run(work)


def test_two_who_ask_at_the_same_time_are_both_answered() -> None:
    one = worker(0, Line())

    async def work(inquiry: Inquiry) -> None:
        asked: list[asyncio.Future[list[dict[str, Any]]]] = [
            asyncio.ensure_future(inquiry.ignored_by(HERE, [one])) for _ in range(2)
        ]
        await asyncio.sleep(0)
        inquiry.heard(one, answer())
        assert [len(found) for found in await asyncio.gather(*asked)] == [1, 1]

    run(work)
