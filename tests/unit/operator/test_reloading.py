"""A reload that the daemon has agreed to, seen through: the new workers lead, or somebody is told why not."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.operator import reloading, status
from gateway.policy import limits


def facts(generation: int) -> dict[str, Any]:
    worker = {"generation": generation, "queue": 2500, "state": "serving", "sessions": 2}
    return {"version": "0.1.0", "workers": [worker], "rules": {"queues": [2500]}, "wanted": "up"}


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any] | Exception | None]:
    """What is answered, one after the other, the last one for ever; the clock goes on by a second a look."""
    answers: list[dict[str, Any] | Exception | None] = []

    def ask(*_: object) -> dict[str, Any] | None:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    clock: Iterator[float] = itertools.count(0.0)
    monkeypatch.setattr(status, "ask", ask)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return answers


AGREED: dict[str, Any] = {"reloads": True, "trouble": ""}


def test_it_is_done_when_the_new_workers_lead(daemon: list[Any]) -> None:
    silent = EnvironmentFailureError("has not answered")
    daemon += [facts(4), AGREED, facts(4), silent, None, facts(5)]
    done = reloading.reload(Config(run_dir=Path("/nowhere")))
    assert (done.generation, done.workers) == (5, 1)


def test_who_was_overtaken_by_another_reload_is_done_with_that_one(daemon: list[Any]) -> None:
    """An upgrade's and an operator's own: the workers of the first one have retired before anybody looked."""
    both = facts(6)
    both["workers"].insert(0, {"generation": 5, "queue": 2502, "state": "draining", "sessions": 3})
    daemon += [facts(4), AGREED, both]
    done = reloading.reload(Config(run_dir=Path("/nowhere")))
    assert (done.generation, done.workers, done.older) == (6, 1, 3)


def test_a_daemon_that_has_ended_is_not_waited_for(daemon: list[Any]) -> None:
    """Nobody says that older workers go on: without their supervisor they take nothing new."""
    daemon += [facts(4), AGREED, facts(4), None]
    with pytest.raises(EnvironmentFailureError, match="the daemon has ended"):
        reloading.reload(Config(run_dir=Path("/nowhere")))
    assert time.monotonic() < 10 * limits.CONTROL_SECONDS


def test_workers_that_do_not_come_up(daemon: list[Any]) -> None:
    daemon += [facts(4), AGREED, facts(4)]
    with pytest.raises(EnvironmentFailureError, match="the older ones go on serving"):
        reloading.reload(Config(run_dir=Path("/nowhere")))


def test_what_is_not_fit_is_said(daemon: list[Any]) -> None:
    daemon += [facts(4), {"reloads": False, "trouble": "kernel.zone: changes with a restart only"}]
    with pytest.raises(EnvironmentFailureError, match="nothing has changed: kernel"):
        reloading.reload(Config(run_dir=Path("/nowhere")))
