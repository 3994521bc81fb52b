"""Which peers the supervisor hears of: whoever is news to the memory, and whoever it has no place for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.crypto.messages import OfferForm
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.store import PinStore
from gateway.policy import limits
from tests.unit.runtime.worker.without_sockets import CLIENT, Worker, flow

HERE = Destination("203.0.113.7", 25)


def identity(number: int) -> bytes:
    return bytes([number]) * 32


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """Its memory has a pin whose places are all taken by accepted identities."""
    worker = Worker(tmp_path)
    with PinStore(tmp_path / "peers.db") as store:
        for number in range(limits.IDENTITIES_PER_PIN):
            store.remember(HERE, MetPeer(identity(number), 20_000, True), 1_800_000_000)
            store.accept(HERE, identity(number))
    yield worker
    worker.close()


def told(worker: Worker, number: int) -> list[Any]:
    """Of a peer that has proven itself, and rung where it is not known."""
    peer = SimpleNamespace(
        identity=SimpleNamespace(octets=identity(number)), epoch=20_000, form=OfferForm.FULL
    )
    note: Any = SimpleNamespace(peer=peer, statement=None, look=None, rang=True)
    worker.said.clear()
    worker.sessions.learning.remember_peer(flow(CLIENT), note)
    return [message["remember"]["identity"] for message in worker.said]


def test_one_that_there_is_no_place_for_is_told_of_each_time(worker: Worker) -> None:
    for _ in range(2):
        assert told(worker, 9) == [identity(9).hex()]


def test_one_that_is_known_is_told_of_once_an_hour(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1_800_000_000.0 + limits.PIN_LAST_SEEN_SECONDS - 1]
    monkeypatch.setattr("time.time", lambda: clock[0])
    assert told(worker, 1) == []
    clock[0] += 1
    assert told(worker, 1) == [identity(1).hex()]
