"""A worker as the supervisor begins it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gateway.intercept import tproxy
from gateway.intercept.kernel import routing
from gateway.intercept.marks import MarkBits
from gateway.intercept.ruleset import Slot
from gateway.runtime.supervisor.worker_process import WorkerProcess


@pytest.mark.parametrize(
    ("folder", "made"), [("ipv6", [socket.AF_INET, socket.AF_INET6]), ("none", [socket.AF_INET])]
)
def test_a_kernel_without_ipv6_has_no_listener_of_it(
    folder: str, made: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with ipv6.disable=1: it makes no such socket, and the daemon would not start."""
    (tmp_path / "ipv6").mkdir()
    monkeypatch.setattr(routing, "_IPV6", tmp_path / folder)
    monkeypatch.setattr(tproxy, "listener", lambda family, port, marks: family)
    process = WorkerProcess.listening(Slot(0, 2500, 12525), MarkBits(0xFF000000), 1)
    assert list(process.listeners) == made
