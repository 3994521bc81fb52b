"""What a power loss leaves of a memory of peers: files that were copied in mid-write."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from bench.chaos import pins

NOISE = bytes(range(256)) * 64


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    folder = tmp_path / "torn"
    folder.mkdir()
    return folder


def test_a_torn_memory_has_all_but_what_was_half_written(tmp_path: Path, copies: Path) -> None:
    path = tmp_path / "peers.db"
    kept = sqlite3.connect(path, isolation_level=None)
    kept.executescript("PRAGMA journal_mode = wal; CREATE TABLE peers (name); INSERT INTO peers VALUES ('b')")
    pins.tear(path, copies)
    whole = (tmp_path / "peers.db-wal").stat().st_size
    assert (copies / "peers.db-wal").stat().st_size == whole - pins.LOST_OCTETS
    found = sqlite3.connect(copies / "peers.db")
    assert found.execute("SELECT name FROM peers").fetchall() == [("b",)]
    assert found.execute("SELECT name FROM sqlite_master").fetchall() == [("peers",)]
    for each in (found, kept):
        each.close()


def test_of_noise_that_nobody_has_come_upon_there_is_a_copy(tmp_path: Path, copies: Path) -> None:
    path = tmp_path / "peers.db"
    path.write_bytes(NOISE)
    pins.tear(path, copies)
    assert (copies / "peers.db").read_bytes() == NOISE
