"""What the fuzzer has found, as tests of its own: one each, named by what was wrong."""

from __future__ import annotations

from pathlib import Path

from gateway.errors import Reason
from gateway.peers.store import PinStore


def test_a_schema_whose_text_is_no_text_is_corruption(tmp_path: Path) -> None:
    """SQLite's message quotes the damaged name, and Python's module raised UnicodeDecodeError over them."""
    path = tmp_path / "peers.db"
    PinStore(path).close()
    octets = path.read_bytes()
    damaged = octets.replace(b"identitiesidentities", b"identiti\xc1sidentities")
    assert damaged != octets
    path.write_bytes(damaged)
    with PinStore(path) as store:
        assert store.pins() == []
        assert [fact.reason for fact in store.take_facts()] == [Reason.PINS_UNREADABLE]
    (aside,) = (one for one in tmp_path.glob("peers.db.corrupt-*") if not one.name.endswith(("-wal", "-shm")))
    assert aside.read_bytes() == damaged
