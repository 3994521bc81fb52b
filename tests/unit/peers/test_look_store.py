"""Looks and troubles on disk: only with a pin, gone with it, and few writes."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import Reason
from gateway.peers.database import Database
from gateway.peers.look_store import LookStore, Trouble
from gateway.peers.looks import Look
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.store import PinStore
from gateway.policy import limits
from tests.unit.peers.pinned import NOW, THERE

HERE = Destination("192.0.2.7", 25)
LOOK = Look(b"MX.B.EXAMPLE", (b"PIPELINING", b"SIZE"))
BARE = Look(b"MX.B.EXAMPLE", ())


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "peers.db")
    PinStore(opened).remember(HERE, MetPeer(b"A" * 32, 20_000, True), NOW)
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> LookStore:
    return LookStore(database)


def test_looks_are_kept_newest_first(store: LookStore) -> None:
    store.learn(HERE, LOOK, NOW)
    store.learn(HERE, BARE, NOW + limits.LOOK_AGAIN_SECONDS)
    assert store.looks(HERE) == (BARE, LOOK)
    assert store.looks(HERE)[0].seen == NOW + limits.LOOK_AGAIN_SECONDS


def test_nothing_is_kept_without_a_pin(store: LookStore) -> None:
    store.learn(THERE, LOOK, NOW)
    store.note_trouble(THERE, Reason.KEYWORD_MASKED, NOW)
    assert store.looks(THERE) == ()
    assert store.trouble(THERE) is None


def test_they_go_with_the_pin(store: LookStore, database: Database) -> None:
    store.learn(HERE, LOOK, NOW)
    store.note_trouble(HERE, Reason.KEYWORD_MASKED, NOW)
    PinStore(database).forget(HERE)
    assert store.looks(HERE) == ()
    assert store.trouble(HERE) is None


def test_the_last_trouble_is_kept_and_the_same_is_written_once_an_hour(
    store: LookStore, database: Database
) -> None:
    store.note_trouble(HERE, Reason.KEYWORD_MASKED, NOW)
    before = changes(database)
    for second in range(1, limits.TROUBLE_AGAIN_SECONDS, 60):
        store.note_trouble(HERE, Reason.KEYWORD_MASKED, NOW + second)
    assert changes(database) == before
    store.note_trouble(HERE, Reason.KEYWORD_MASKED, NOW + limits.TROUBLE_AGAIN_SECONDS)
    assert store.trouble(HERE) == Trouble(Reason.KEYWORD_MASKED, NOW + limits.TROUBLE_AGAIN_SECONDS)
    store.note_trouble(HERE, Reason.VERB_REFUSED, NOW + 1)
    assert store.trouble(HERE) == Trouble(Reason.VERB_REFUSED, NOW + 1)


def changes(database: Database) -> int:
    return database.read(lambda connection: connection.total_changes)


def test_a_word_of_a_later_version_is_no_corruption(store: LookStore, database: Database) -> None:
    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE troubles SET likely = 'the moon'")

    store.note_trouble(HERE, Reason.KEYWORD_MASKED, NOW)
    database.write(spoil)
    assert store.trouble(HERE) == Trouble(Reason.CAUSE_UNKNOWN, NOW)
    assert database.take_facts() == []
