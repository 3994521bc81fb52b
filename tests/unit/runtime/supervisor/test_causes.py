"""The supervisor's last word on a cause: the kernel is asked about resets only, and not too often."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Reason
from gateway.observe.log import Level, Log, LogSink
from gateway.peers.pins import Destination
from gateway.policy import limits
from gateway.runtime.supervisor.causes import Causes


class Asked:
    """A kernel that answers `odd`, and what came of it."""

    def __init__(self, folder: Path, odd: bool | None) -> None:
        self.questions: list[tuple[str, str]] = []
        self.remembered: list[tuple[Destination, Reason]] = []
        self.named: list[Reason] = []
        self._odd = odd
        self._path = folder / "log"
        self._log = Log(LogSink.to_file(self._path), least=Level.DEBUG)
        self.causes = Causes(self._answer, self._log, self._remember)

    async def _answer(self, server: str, client: str) -> bool | None:
        self.questions.append((server, client))
        await asyncio.sleep(0)
        return self._odd

    def _remember(self, destination: Destination, cause: Reason, now: int) -> None:
        self.remembered.append((destination, cause))

    @property
    def log(self) -> str:
        self._log.flush()
        return self._path.read_text()

    def name(self, *words: Reason) -> None:
        async def all_named() -> None:
            for word in words:
                self.causes.name(told(word), self.named.append)
            await asyncio.gather(*self.causes._tasks)

        asyncio.run(all_named())


def told(word: Reason) -> dict[str, Any]:
    where = {"address": "192.0.2.7", "port": 25, "client": "198.51.100.1"}
    return {"likely": word.value, "session": "0123456789abcdef", **where}


def test_a_reset_is_asked_for_and_then_named(tmp_path: Path) -> None:
    for odd, cause in ((True, Reason.RESET_IN_BETWEEN), (False, Reason.RESET_BY_FAR_END)):
        asked = Asked(tmp_path, odd)
        asked.name(Reason.RESET_UNCLEAR)
        assert asked.questions == [("192.0.2.7", "198.51.100.1")]
        assert asked.named == [cause]
        assert asked.remembered == [(Destination("192.0.2.7", 25), cause)]
        line = asked.log.splitlines()[-1]
        assert f"session=0123456789abcdef peers cause to=192.0.2.7:25 reason={cause.value}" in line


def test_without_an_answer_it_stays_unclear(tmp_path: Path) -> None:
    asked = Asked(tmp_path, None)
    asked.name(Reason.RESET_UNCLEAR)
    assert asked.named == [Reason.RESET_UNCLEAR]
    assert asked.log == ""


def test_any_other_cause_is_told_at_once(tmp_path: Path) -> None:
    asked = Asked(tmp_path, True)
    asked.name(Reason.VERB_REFUSED, Reason.KEYWORD_MASKED)
    assert asked.questions == []
    assert asked.named == [Reason.VERB_REFUSED, Reason.KEYWORD_MASKED]
    assert [cause for _, cause in asked.remembered] == asked.named


def test_a_flood_of_resets_does_not_make_the_kernel_busy(tmp_path: Path) -> None:
    asked = Asked(tmp_path, True)
    asked.name(*[Reason.RESET_UNCLEAR] * 100)
    assert len(asked.questions) == limits.RESETS_ASKED_PER_SECOND
    assert len(asked.named) == 100
    assert asked.named.count(Reason.RESET_IN_BETWEEN) == limits.RESETS_ASKED_PER_SECOND


def test_questions_that_the_kernel_is_slow_to_answer_do_not_pile_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stand in one row with what looks at the rules, and switches the gate."""
    asked = Asked(tmp_path, True)
    moments = [100.0]

    async def flooded() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: moments[0])
        for _ in range(100):
            moments[0] += 1.0
            asked.causes.name(told(Reason.RESET_UNCLEAR), asked.named.append)
        assert len(asked.causes._tasks) == limits.RESETS_ASKED_PER_SECOND
        assert len(asked.named) == 100 - limits.RESETS_ASKED_PER_SECOND
        await asyncio.gather(*asked.causes._tasks)
        asked.causes.name(told(Reason.RESET_UNCLEAR), asked.named.append)
        await asyncio.gather(*asked.causes._tasks)

    asyncio.run(flooded())
    assert len(asked.questions) == limits.RESETS_ASKED_PER_SECOND + 1
    assert len(asked.named) == 101
