"""What the daemon's first process answers. Counterpart: tests/lab, where it is a real one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.config import Config
from gateway.runtime.supervisor import handover, preflight
from gateway.runtime.supervisor.supervisor import Supervisor


def test_who_asks_for_a_reload_hears_of_a_stop_that_came_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """It said that it reloads, and whoever had asked was told that the daemon had ended as it reloaded."""
    daemon = cast("Any", object.__new__(Supervisor))
    daemon._config, daemon._pool = Config(), SimpleNamespace(slots=())
    daemon._site = SimpleNamespace(trouble="")
    daemon._anew, daemon._stop = False, asyncio.Event()
    daemon._one_reload = asyncio.Lock()

    async def fit(*_: object) -> str:
        daemon._told_to_stop()
        return ""

    monkeypatch.setattr(preflight, "trouble", fit)
    assert asyncio.run(daemon._reload()) == {"reloads": False, "trouble": "the daemon stops"}


def test_what_workers_say_of_clients_is_written_until_nobody_hears_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever has asked for the reload still gets the answer: the loop turns meanwhile, and workers speak."""
    heard: list[str] = []
    written: list[str] = []

    async def hand_over() -> None:
        heard.append("an upgrade")

    class Anything:
        def __getattr__(self, name: str) -> Any:
            return Anything()

        def __call__(self, *_: object, **__: object) -> Any:
            return Anything()

        def __iter__(self) -> Any:
            return iter(())

    class Pool(Anything):
        def hand_over(self) -> tuple[Any, ...]:
            heard.append("the last one")
            return (), {}, ()

    daemon = cast("Any", object.__new__(Supervisor))
    names = ("_keeper", "_log", "_bell", "_signer", "_seeing", "_sole", "_dead_ends", "_resting", "_left")
    for name in names:
        setattr(daemon, name, Anything())
    daemon._pool = Pool()
    daemon._memory = SimpleNamespace(sources=SimpleNamespace(write=lambda: written.extend(heard)))
    monkeypatch.setattr(handover, "execute_anew", lambda left: None)
    asyncio.run(daemon._become_the_next(SimpleNamespace(hand_over=hand_over)))
    assert written == ["an upgrade", "the last one"]
