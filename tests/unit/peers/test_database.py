"""The file that two stores share: files of an older version keep what they know and grow up, once."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.peers import schema
from gateway.peers.database import Database
from gateway.peers.day_store import DayStore, Kind
from gateway.peers.pins import Acceptance, Destination, MetPeer
from gateway.peers.source_store import SourceStore
from gateway.peers.store import PinStore
from tests.unit.peers.pinned import NOW

HERE = Destination("192.0.2.7", 25)
VERSION_1 = """
CREATE TABLE identities (
    address TEXT NOT NULL, port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    identity BLOB NOT NULL CHECK (length(identity) = 32), epoch INTEGER NOT NULL, first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL, days_seen INTEGER NOT NULL,
    acceptance TEXT NOT NULL CHECK (acceptance IN ('first-use', 'time', 'operator', 'not-yet')),
    had_full_offer INTEGER NOT NULL CHECK (had_full_offer IN (0, 1)), run_since INTEGER NOT NULL,
    run_days INTEGER NOT NULL, PRIMARY KEY (address, port, identity)) STRICT, WITHOUT ROWID;
CREATE TABLE failures (
    address TEXT NOT NULL, port INTEGER NOT NULL, in_a_row INTEGER NOT NULL, rest_until INTEGER NOT NULL,
    last_failed INTEGER NOT NULL, PRIMARY KEY (address, port)) STRICT, WITHOUT ROWID;
INSERT INTO identities VALUES ('192.0.2.7', 25, CAST('AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA' AS BLOB),
    20000, 1700000000, 1700000500, 2, 'operator', 1, 0, 0);
INSERT INTO failures VALUES ('192.0.2.9', 25, 3, 1800000600, 1800000000);
PRAGMA application_id = 1315786801;
PRAGMA user_version = 1;
"""


@pytest.fixture
def old(path: Path) -> Path:
    """A file as the first version wrote it."""
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA journal_mode = WAL;" + VERSION_1)
    connection.close()
    return path


def test_a_file_of_version_1_keeps_what_it_knows_and_becomes_this_version(old: Path) -> None:
    for _ in range(2):
        with PinStore(old) as store:
            assert store.take_facts() == []
            (pin,) = store.pins()
            assert pin.destination == HERE
            (known,) = pin.identities
            assert (known.identity, known.epoch, known.days_seen) == (b"A" * 32, 20000, 2)
            assert known.acceptance is Acceptance.OPERATOR
            assert store.resting(Destination("192.0.2.9", 25), NOW)
    assert version(old) == schema.SCHEMA_VERSION


def test_a_file_of_version_2_keeps_what_it_knows_and_counts_days(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript("PRAGMA journal_mode = WAL;" + VERSION_1)
    for statement in schema._TO_VERSION_2:
        connection.execute(statement)
    connection.execute(
        "INSERT INTO senders VALUES (CAST('AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA' AS BLOB), 9, 20000)"
    )
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()
    database = Database(path)
    assert SourceStore(database).sender(b"A" * 32).epoch == 9
    with PinStore(database) as store:
        assert [pin.destination for pin in store.pins()] == [HERE]
    kind = Kind("out", True, "upgraded")
    DayStore(database).add({20_800: {kind: 2}}, 20_800)
    database.close()
    again = Database.read_only(path)
    assert DayStore(again).since(0) == {20_800: {kind: 2}}
    again.close()
    assert version(path) == schema.SCHEMA_VERSION == 3


def test_a_file_that_grew_up_is_like_one_made_today(old: Path, tmp_path: Path) -> None:
    Database(old).close()
    Database(tmp_path / "new.db").close()
    grown, new = columns(old), columns(tmp_path / "new.db")
    assert grown == new
    assert {
        "identities",
        "failures",
        "looks",
        "troubles",
        "sources",
        "senders",
        "days",
        "alarms_sent",
    } <= set(grown)


def test_a_reader_leaves_an_old_file_to_the_writer(old: Path) -> None:
    with pytest.raises(EnvironmentFailureError, match="at its next start"):
        Database.read_only(old)
    assert version(old) == 1
    Database(old).close()
    Database.read_only(old).close()


def test_a_step_that_fails_leaves_the_file_as_it_was(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = (*schema._STEPS, ("CREATE TABLE half (x)", "CREATE TABLE identities (x)"))
    with monkeypatch.context() as patched:
        patched.setattr(schema, "_STEPS", broken)
        patched.setattr(schema, "SCHEMA_VERSION", len(broken))
        with pytest.raises(EnvironmentFailureError, match="already exists"):
            Database(old)
    assert version(old) == 1
    assert "half" not in columns(old)
    with PinStore(old) as store:
        assert [pin.destination for pin in store.pins()] == [HERE]


def test_two_stores_share_one_file_and_the_file_outlives_them(path: Path) -> None:
    database = Database(path)
    for _ in range(2):
        with PinStore(database) as store:
            store.remember(HERE, MetPeer(b"A" * 32, 20_000, True), NOW)
    assert database.read(_count) == 1
    database.close()


def test_a_transaction_that_fails_changes_nothing(path: Path) -> None:
    def spoilt(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM identities")
        raise ZeroDivisionError

    database = Database(path)
    PinStore(database).remember(HERE, MetPeer(b"A" * 32, 20_000, True), NOW)
    with pytest.raises(ZeroDivisionError):
        database.write(spoilt)
    assert database.read(_count) == 1
    database.close()


def test_rows_that_no_store_could_have_written_are_corruption(path: Path) -> None:
    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute("UPDATE identities SET acceptance = 'perhaps'")

    with PinStore(path, clock=lambda: NOW) as store:
        store.remember(HERE, MetPeer(b"A" * 32, 20_000, True), NOW)
        store.database.read(spoil)
        assert store.lookup(HERE) is None
        (fact,) = store.take_facts()
        assert "perhaps" in fact.detail
        assert path.with_name(f"peers.db.corrupt-{NOW}").exists()
        store.remember(HERE, MetPeer(b"A" * 32, 20_000, True), NOW)
        assert store.take_facts() == []


def _count(connection: sqlite3.Connection) -> int:
    count: int
    (count,) = connection.execute("SELECT count(*) FROM identities").fetchone()
    return count


def asked(path: Path, ask: Callable[[sqlite3.Connection], object]) -> object:
    connection = sqlite3.connect(path)
    try:
        return ask(connection)
    finally:
        connection.close()


def version(path: Path) -> object:
    return asked(path, lambda connection: connection.execute("PRAGMA user_version").fetchone()[0])


def columns(path: Path) -> dict[str, list[object]]:
    """All tables with their columns: name, type, not null, default, place in the key."""
    connection = sqlite3.connect(path)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    found = {name: connection.execute(f"PRAGMA table_info({name})").fetchall() for name in sorted(names)}
    connection.close()
    return found
