"""Whom a worker that takes nothing new leaves its listeners to, and what it says with its proofs of life."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.policy import limits
from gateway.runtime.worker.worker import Worker


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def worker(said: list[str]) -> Any:
    """One that drains, and has sessions that last; nobody is on the way to it."""
    worker = Worker.__new__(Worker)
    worker._intake = SimpleNamespace(is_idle=True, dials=0, stop_accepting=lambda: said.append("stops"))  # type: ignore[assignment]
    worker._signing = SimpleNamespace(close=lambda: said.append("closes"))  # type: ignore[assignment]
    worker._link = SimpleNamespace(send=lambda message: said.extend(message) or True)  # type: ignore[assignment]
    worker._drains_said, worker._yielded = True, False
    worker._retiring_from = worker._finishing_from = None
    return worker


def test_one_that_is_told_to_end_leaves_them_to_its_successor(worker: Any, said: list[str]) -> None:
    worker._yield_if_quiet(limits.YIELD_SECONDS - 0.1)
    assert not said
    for _ in range(2):
        worker._yield_if_quiet(limits.YIELD_SECONDS)
    assert said == ["stops", "closes", "yields"]


def test_one_that_retires_has_no_successor_and_keeps_them(worker: Any, said: list[str]) -> None:
    """Whoever comes late is reset: accepted by nobody, he would wait for a greeting until he gives up."""
    worker._retiring_from = 100.0
    worker._yield_if_quiet(limits.DRAIN_AWAITED_SECONDS)
    assert not said


def test_what_waits_to_be_heard_is_said_with_each_proof_of_life_and_before_it(
    worker: Any, said: list[str]
) -> None:
    """Those fill the link, too."""
    nothing = SimpleNamespace(
        rest_behind=lambda moment: None, beat=lambda: None, draw_ahead=lambda: None, flush=lambda: None
    )
    worker._poller = worker._pulse = worker._surroundings = worker._log = nothing
    worker._loop = SimpleNamespace(time=lambda: 100.0, call_later=lambda seconds, callback: None)
    worker._alive_at = worker._counted_at = 100.0
    worker._draining = False
    worker._saying = SimpleNamespace(again=lambda: said.append("what waits"))
    worker._link.send_alive = lambda: said.append("alive")
    worker._alive()
    assert said == ["what waits", "alive"]


@pytest.mark.parametrize(
    ("seconds", "what", "says"),
    [
        (limits.ALIVE_EVERY_SECONDS, {}, True),
        (0.0, {}, False),  # a SYN may still be unread
        (60.0, {"open": 1}, False),
        (60.0, {"held": 1}, False),
        (60.0, {"dials": 1}, False),
        (1.0, {"is_idle": False}, False),
        (limits.DRAIN_AWAITED_SECONDS, {"is_idle": False}, True),
    ],
)
def test_one_that_is_asked_says_once_that_no_session_is_left(
    worker: Any, said: list[str], seconds: float, what: dict[str, Any], says: bool
) -> None:
    worker._sessions = SimpleNamespace(open=what.get("open", 0))
    worker._intake = SimpleNamespace(**{"is_idle": True, "dials": 0, "held": 0, **what})
    worker._report = lambda: said.append("counters")
    worker._finishing_from = 0.0
    worker._say_finished(seconds)
    assert said == (["counters", "finished"] if says else [])
    assert (worker._finishing_from is None) == says


@pytest.mark.parametrize("is_orphan", [False, True])
def test_who_sees_to_the_end_of_one_that_a_signal_tells_to(
    worker: Any, said: list[str], monkeypatch: pytest.MonkeyPatch, is_orphan: bool
) -> None:
    """Its supervisor, if there is one; else it has as long as at a stop, and told once more none of it."""
    due: list[float] = []
    worker._loop = SimpleNamespace(call_later=lambda seconds, callback: due.append(seconds))
    monkeypatch.setattr(worker, "drain", lambda: said.append("drains"))
    monkeypatch.setattr(worker, "_end_now", lambda: said.append("ends"))
    worker._is_orphan, worker._has_been_told = is_orphan, False
    worker.told_to_end()
    assert (said, due) == (["drains"], [limits.STOP_SECONDS] if is_orphan else [])
    worker.told_to_end()
    assert said == (["drains", "drains", "ends"] if is_orphan else ["drains", "drains"])
