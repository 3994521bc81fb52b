"""What the daemon's first process answers. Counterpart: tests/lab, where it is a real one."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.config import Config
from gateway.runtime.supervisor import preflight
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
