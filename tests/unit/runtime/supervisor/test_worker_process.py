"""A worker as the supervisor begins it."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from gateway.intercept import tproxy
from gateway.intercept.kernel import routing
from gateway.intercept.marks import MarkBits
from gateway.intercept.ruleset import Slot
from gateway.observe.counters import empty_snapshot
from gateway.runtime.link import Link, Message
from gateway.runtime.supervisor.child import Child
from gateway.runtime.supervisor.handover import Heirloom
from gateway.runtime.supervisor.worker_process import WorkerProcess
from tests.unit.runtime.supervisor.ears import PRESENTED, Process


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


OTHER = replace(PRESENTED, identity=bytes([1] * 32))
NEXT_DAY = replace(PRESENTED, epoch=2)


def heir(identity: bytes, said: list[Message]) -> WorkerProcess:
    """One that has come from an earlier supervisor, which presented this identity; empty: did not say."""
    left = Heirloom(0, 2500, 12525, 3, 7, False, 0, -1, (), empty_snapshot(), (), identity.hex())
    worker = WorkerProcess.inherited(left)
    worker.link = cast("Link", SimpleNamespace(send=lambda message: said.append(message) or True, detach=int))
    worker.process = cast("Child", Process())
    return worker


def test_an_heir_is_not_told_of_an_identity_that_its_signer_does_not_know() -> None:
    """Its signer is that of the program before: it would have refused each offer, and mail came in clear."""
    said: list[Message] = []
    worker = heir(PRESENTED.identity, said)
    for presented in (PRESENTED, OTHER, NEXT_DAY):
        worker.tell_who(presented)
    assert said == [{"site": PRESENTED.as_json()}, {"site": NEXT_DAY.as_json()}]
    assert worker.as_heirloom(OTHER.identity).identity == PRESENTED.identity.hex()


def test_who_is_begun_in_its_place_has_the_signer_of_now() -> None:
    said: list[Message] = []
    worker = heir(PRESENTED.identity, said)
    worker.begins(0.0, PRESENTED, ())
    worker.tell_who(OTHER)
    assert said == [{"site": OTHER.as_json()}]
    assert worker.as_heirloom(OTHER.identity).identity == OTHER.identity.hex()


def test_an_heir_of_a_version_that_did_not_say_is_told() -> None:
    said: list[Message] = []
    heir(b"", said).tell_who(OTHER)
    assert said == [{"site": OTHER.as_json()}]
