"""What a worker believes of peers and clients: soon what the file says, at once what it has seen itself."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.peers.database import Database
from gateway.peers.look_store import LookStore
from gateway.peers.looks import Look
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.source_store import SourceStore
from gateway.peers.sources import Sender, Source, SourceSeen, after_upgrade
from gateway.peers.store import PinStore
from gateway.policy import limits
from gateway.policy.ignored_offers import Neighbourhood
from gateway.runtime.worker.memory import Memory, PinReader, SourceReader

HERE = Destination("192.0.2.7", 25)
CLIENT = "198.51.100.1"
NOW = 1_800_000_000
LOOK = Look(b"MX", (b"SIZE",))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "peers.db")
    yield opened
    opened.close()


@pytest.fixture
def memory(database: Database, tmp_path: Path) -> Memory:
    return Memory(tmp_path / "peers.db", lambda detail: pytest.fail(detail))


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PIN_CACHE_SECONDS", -1.0)
    monkeypatch.setattr(limits, "SOURCE_CACHE_SECONDS", -1.0)


def test_what_the_file_says(database: Database, memory: Memory, no_cache: None) -> None:
    pins, sources = PinReader(memory), SourceReader(memory)
    assert (pins.pin_of(HERE), pins.is_resting(HERE), pins.looks_of(HERE)) == (None, False, ())
    pin = PinStore(database).remember(HERE, MetPeer(b"A" * 32, 20_000, True), NOW)
    LookStore(database).learn(HERE, LOOK, NOW)
    source, sender = after_upgrade(Source(CLIENT), b"mail", 20_000), Sender(b"B" * 32, 20_000, 20_000)
    SourceStore(database).put([source], [sender], 20_000)
    assert (pins.pin_of(HERE), pins.looks_of(HERE)) == (pin, (LOOK,))
    assert (sources.source_of(CLIENT), sources.sender_of(b"B" * 32)) == (source, sender)


def test_within_the_time_the_file_is_not_read_again(database: Database, memory: Memory) -> None:
    pins, sources = PinReader(memory), SourceReader(memory)
    assert pins.pin_of(HERE) is None
    assert sources.source_of(CLIENT) == Source(CLIENT)
    PinStore(database).remember(HERE, MetPeer(b"A" * 32, 20_000, True), NOW)
    SourceStore(database).put([after_upgrade(Source(CLIENT), b"mail", 20_000)], [], 20_000)
    assert pins.pin_of(HERE) is None
    assert not sources.source_of(CLIENT).has_upgraded
    pins.forget_for_a_while(HERE)
    assert pins.pin_of(HERE) is not None


def test_what_is_about_to_be_written_is_believed_at_once(memory: Memory) -> None:
    pins, sources = PinReader(memory), SourceReader(memory)
    pins.expect_looks(HERE, (LOOK,))
    assert pins.looks_of(HERE) == (LOOK,)
    source, sender = after_upgrade(Source(CLIENT), b"mail", 20_000), Sender(b"B" * 32, 20_000, 20_000)
    sources.expect(source, sender)
    assert (sources.source_of(CLIENT), sources.sender_of(b"B" * 32)) == (source, sender)


def test_two_drops_seen_anywhere_are_two_in_a_row(memory: Memory) -> None:
    sources = SourceReader(memory)
    sources.learn(CLIENT, SourceSeen.DROPPED)
    sources.learn(CLIENT, SourceSeen.WENT_ON)
    sources.learn(CLIENT, SourceSeen.DROPPED)
    assert not sources.source_of(CLIENT).rest_until
    sources.learn(CLIENT, SourceSeen.DROPPED)
    assert sources.source_of(CLIENT).rest_until


def test_who_has_upgraded_near_a_client(database: Database, memory: Memory, no_cache: None) -> None:
    sources = SourceReader(memory)
    assert sources.neighbourhood_of(CLIENT) is Neighbourhood.NOBODY
    SourceStore(database).put([after_upgrade(Source("198.51.100.9"), b"mail", 20_000)], [], 20_000)
    assert sources.neighbourhood_of(CLIENT) is Neighbourhood.NEIGHBOUR
    assert sources.neighbourhood_of("198.51.101.1") is Neighbourhood.NOBODY
    SourceStore(database).put([after_upgrade(Source(CLIENT), b"mail", 20_000)], [], 20_000)
    assert sources.neighbourhood_of(CLIENT) is Neighbourhood.ITSELF


@pytest.mark.parametrize("here", [True, False], ids=["this worker", "another worker"])
def test_the_first_upgrade_near_a_client_is_believed_at_once(memory: Memory, here: bool) -> None:
    """Also where the worker has looked just before, and the file does not know it yet."""
    sources = SourceReader(memory)
    assert sources.neighbourhood_of(CLIENT) is Neighbourhood.NOBODY
    near = after_upgrade(Source("198.51.100.9"), b"mail", 20_000)
    if here:
        sources.expect(near, Sender(b"B" * 32, 20_000, 20_000))
    else:
        sources.expect_upgrade(near.address, b"mail", 20_000)
    assert sources.neighbourhood_of(CLIENT) is Neighbourhood.NEIGHBOUR


def test_who_has_just_upgraded_elsewhere_never_rests(memory: Memory) -> None:
    """The file does not know it yet, and this worker has looked: drops behind that say nothing."""
    sources = SourceReader(memory)
    assert not sources.source_of(CLIENT).has_upgraded
    sources.expect_upgrade(CLIENT, b"mail", 20_000)
    for _ in range(limits.SOURCE_DROPS_IN_A_ROW):
        sources.learn(CLIENT, SourceSeen.DROPPED)
    assert not sources.source_of(CLIENT).rest_until
    assert sources.source_of(CLIENT).name == b"mail"


def test_where_the_file_cannot_be_read_everybody_may_have_a_gateway_near(tmp_path: Path) -> None:
    sources = SourceReader(Memory(tmp_path / "nowhere.db", lambda detail: None))
    assert sources.neighbourhood_of(CLIENT) is Neighbourhood.NEIGHBOUR


def test_a_worker_keeps_only_so_much_in_mind(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SOURCE_CACHE_ENTRIES", 3)
    sources = SourceReader(memory)
    for number in range(9):
        sources.learn(f"192.0.2.{number}", SourceSeen.DROPPED)
    assert sources.source_of("192.0.2.8").drops == 1
    assert sources.source_of("192.0.2.0").drops == 0, "forgotten"


def test_an_unreadable_file_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    memory = Memory(tmp_path / "nowhere.db", told.append)
    pins, sources = PinReader(memory), SourceReader(memory)
    assert (pins.pin_of(HERE), pins.is_resting(HERE), pins.looks_of(HERE)) == (None, False, ())
    assert sources.source_of(CLIENT) == Source(CLIENT)
    assert sources.sender_of(b"B" * 32) == Sender(b"B" * 32)
    assert len(told) == 1
    assert "nowhere.db" in told[0]


def test_a_file_that_goes_while_it_is_opened_is_one_that_cannot_be_read(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Moved aside by the writer at that moment: told like all trouble with it, for a session hangs on it."""
    told: list[str] = []
    memory = Memory(tmp_path / "peers.db", told.append)

    def gone(self: Path, **_: object) -> os.stat_result:
        raise FileNotFoundError(2, "No such file or directory")

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "stat", gone)
        assert PinReader(memory).pin_of(HERE) is None
    assert len(told) == 1
    PinStore(database).remember(HERE, MetPeer(b"A" * 32, 20_000, True), NOW)
    assert PinReader(memory).pin_of(HERE) is not None
    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "stat", gone)
        assert PinReader(memory).pin_of(HERE) is None
    assert len(told) == 2, "trouble that comes back is told again: a known peer is none without it"
