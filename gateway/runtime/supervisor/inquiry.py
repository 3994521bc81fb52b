"""A question to all workers at once: what each of them alone knows, and nobody writes down.

So far one: how many offers a client has ignored. Who does not answer in time is left out. Counterparts:
`worker`, which answers; `pool`, whose links these are; `operator.explain`, which asks by the control socket.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from gateway.policy import limits
from gateway.runtime.link import Message
from gateway.runtime.supervisor.worker_process import WorkerProcess


@dataclass(eq=False)
class _Question:
    address: str
    waiting: set[WorkerProcess]
    answers: list[dict[str, Any]] = field(default_factory=list)
    complete: asyncio.Event = field(default_factory=asyncio.Event)


class Inquiry:
    """`heard` is told what workers answer."""

    def __init__(self) -> None:
        self._open: list[_Question] = []

    async def ignored_by(self, address: str, workers: Iterable[WorkerProcess]) -> list[dict[str, Any]]:
        """One object for each worker that has answered."""
        told = {one for one in workers if one.link is not None and one.link.send({"asked": address})}
        if not told:
            return []
        question = _Question(address, told)
        self._open.append(question)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.INQUIRY_SECONDS):
                    await question.complete.wait()
        finally:
            self._open.remove(question)
        return sorted(question.answers, key=lambda answer: int(answer["worker"]))

    def heard(self, worker: WorkerProcess, answer: Message) -> None:
        """What nobody has asked, or twice, is nothing."""
        for question in self._open:
            if question.address == answer["address"] and worker in question.waiting:
                question.waiting.discard(worker)
                told = {"in_a_row": answer["in_a_row"], "rests": answer["rests"]}
                question.answers.append({"worker": worker.slot.index, **told})
                if not question.waiting:
                    question.complete.set()
