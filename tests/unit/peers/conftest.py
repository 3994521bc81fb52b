"""A memory of peers in a file of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.peers.store import PinStore
from tests.unit.peers.pinned import NOW


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "peers.db"


@pytest.fixture
def store(path: Path) -> Iterator[PinStore]:
    with PinStore(path, clock=lambda: NOW) as opened:
        yield opened
