"""Clients on disk: kept over a reopening, bounded, and strangers never push out peers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.peers import source_store
from gateway.peers.database import Database
from gateway.peers.source_store import SourceCounts, SourceStore
from gateway.peers.sources import Sender, Source, after_drop, after_upgrade, beginnings
from gateway.policy import limits
from tests.unit.peers.pinned import NOW

TODAY = NOW // 86400


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "peers.db")
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> SourceStore:
    return SourceStore(database)


def peer(number: int, day: int = TODAY) -> Source:
    return after_upgrade(Source(f"2001:db8::{number:x}"), b"mail%d.a.example" % number, day)


def stranger(number: int, day: int = TODAY) -> Source:
    source = Source(f"192.0.2.{number}")
    return after_drop(after_drop(source, day * 86400), day * 86400)


def test_remembers_over_a_reopening(store: SourceStore, database: Database, tmp_path: Path) -> None:
    sender = Sender(b"A" * 32, 20_000, TODAY)
    store.put([peer(1), stranger(1)], [sender], TODAY)
    database.close()
    again = Database.read_only(tmp_path / "peers.db")
    reader = SourceStore(again)
    assert reader.sources() == sorted([peer(1), stranger(1)], key=lambda source: source.address)
    assert reader.source("2001:db8::1") == peer(1)
    assert reader.sender(b"A" * 32) == sender
    assert reader.source("192.0.2.99") == Source("192.0.2.99")
    assert reader.sender(b"B" * 32) == Sender(b"B" * 32)
    with pytest.raises(EnvironmentFailureError, match="written"):
        reader.put([peer(2)], [], TODAY)
    again.close()


def test_who_has_upgraded_of_a_network(store: SourceStore) -> None:
    """By the beginnings of addresses; who only dropped offers does not count."""
    store.put([peer(1), after_upgrade(Source("198.51.100.255"), b"mail", TODAY), stranger(1)], [], TODAY)
    for address in ("2001:db8::ffff", "2001:db8:0:1::1", "198.51.100.1"):
        assert store.has_upgraded_among(beginnings(address)), address
    for address in ("2001:db8:1::1", "2001:db9::1", "198.51.10.1", "198.51.101.1", "192.0.2.1", "192.0.2.9"):
        assert not store.has_upgraded_among(beginnings(address)), address
    assert not store.has_upgraded_among(())


def test_counts(store: SourceStore) -> None:
    store.put([peer(1), peer(2), stranger(1), after_drop(Source("192.0.2.2"), NOW)], [], TODAY)
    assert store.counts(TODAY * 86400) == SourceCounts(upgraded=2, resting=1)
    assert store.counts(TODAY * 86400 + limits.SOURCE_REST_SECONDS) == SourceCounts(2, 0)


def test_strangers_push_out_strangers_and_never_a_peer(
    store: SourceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = ((source_store._TOO_MANY[0][0], 5), (source_store._TOO_MANY[1][0], 3))
    monkeypatch.setattr(source_store, "_TOO_MANY", bounds)
    store.put([peer(number) for number in range(5)], [], TODAY)
    for number in range(1, 100):
        store.put([stranger(number, TODAY + number // 50)], [], TODAY)
    left = store.sources()
    assert [source for source in left if source.has_upgraded] == [peer(number) for number in range(5)]
    assert len(left) == 5 + 3
    assert {source.seen_day for source in left if not source.has_upgraded} == {TODAY + 1}


def test_who_rests_is_pushed_out_by_nobody_who_has_dropped_one_offer(store: SourceStore) -> None:
    """A mailer that cannot read offers gets its mail through, however many addresses somebody else has."""
    mailer = after_drop(after_drop(Source("192.0.2.1"), NOW), NOW)
    assert mailer.rests(NOW)
    crowd = [after_drop(Source(f"2001:db8::{number:x}"), NOW) for number in range(limits.SOURCES_HARMED)]
    store.put(crowd, [], TODAY)
    store.put([mailer], [], TODAY)
    assert store.source(mailer.address) == mailer
    store.put([after_drop(Source("2001:db8:1::1"), NOW + 86400)], [], TODAY + 1)
    assert store.source(mailer.address) == mailer
    assert len(store.sources()) == limits.SOURCES_HARMED


def test_of_those_that_rest_the_last_ones_stay_whatever_their_addresses(store: SourceStore) -> None:
    def rests(address: str, now: int) -> Source:
        return after_drop(after_drop(Source(address), now), now)

    crowd = [rests(f"2001:db8::{number:x}", NOW) for number in range(limits.SOURCES_HARMED)]
    store.put(crowd, [], TODAY)
    mailer = rests("192.0.2.1", NOW + 1)
    store.put([mailer], [], TODAY)
    assert store.source(mailer.address) == mailer


def test_the_bounds_are_the_ones_of_the_limits() -> None:
    assert [most for _, most in source_store._TOO_MANY] == [
        limits.SOURCES_UPGRADED,
        limits.SOURCES_HARMED,
        limits.SENDERS,
    ]


def test_the_least_recently_seen_peers_and_senders_go_first(
    store: SourceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = tuple((statement, 2) for statement, _ in source_store._TOO_MANY)
    monkeypatch.setattr(source_store, "_TOO_MANY", bounds)
    for number in range(4):
        store.put([peer(number, TODAY - number)], [Sender(bytes([number]) * 32, 1, TODAY - number)], TODAY)
    assert store.sources() == [peer(0), peer(1, TODAY - 1)]
    assert [store.sender(bytes([number]) * 32).seen_day for number in range(4)] == [TODAY, TODAY - 1, 0, 0]


def test_who_has_long_given_up_its_gateway_is_forgotten(store: SourceStore) -> None:
    store.put([peer(1), stranger(1)], [], TODAY)
    store.put([], [], TODAY + limits.HARMED_KEPT_DAYS)
    assert len(store.sources()) == 2
    store.put([], [], TODAY + limits.HARMED_KEPT_DAYS + 1)
    assert store.sources() == [peer(1)]
    store.put([], [], TODAY + limits.SOURCE_KEPT_DAYS + 1)
    assert store.sources() == []


def test_forget(store: SourceStore) -> None:
    store.put([peer(1)], [], TODAY)
    assert store.forget(peer(1).address)
    assert not store.forget(peer(1).address)
    assert store.source(peer(1).address) == Source(peer(1).address)
