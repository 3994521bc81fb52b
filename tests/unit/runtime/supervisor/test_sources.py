"""The only writer of the memory of clients: nothing at once, nothing beyond its bounds, trouble told."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.observe.log import Level, Log, LogSink
from gateway.peers.database import Database
from gateway.peers.source_store import SourceCounts, SourceStore
from gateway.policy import limits
from gateway.runtime.supervisor.sources import SourceMemory

CLIENT = "192.0.2.1"
IDENTITY = b"A" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SourceStore]:
    database = Database(tmp_path / "peers.db")
    yield SourceStore(database)
    database.close()


class Written:
    """A memory, what it logs, and what troubles it tells."""

    def __init__(self, store: SourceStore | None, folder: Path) -> None:
        self._path = folder / "log"
        self._log = Log(LogSink.to_file(self._path), least=Level.DEBUG)
        self.troubles: list[str] = []
        self.crowded: list[str] = []
        self.memory = SourceMemory(lambda: store, self._log, self.troubles.append, self.crowded.append)

    @property
    def log(self) -> str:
        self._log.flush()
        return self._path.read_text()


def upgrade(address: str = CLIENT, epoch: int = 20_000) -> dict[str, object]:
    who = {"name": b"mail.a.example".hex(), "identity": IDENTITY.hex(), "epoch": epoch}
    return {"address": address, "seen": "upgraded", **who}


def drop(address: str = CLIENT) -> dict[str, object]:
    return {"address": address, "seen": "dropped"}


def test_nothing_is_written_until_it_is_time(store: SourceStore, tmp_path: Path) -> None:
    written = Written(store, tmp_path)
    written.memory.note(upgrade())
    assert store.sources() == []
    written.memory.write()
    assert store.source(CLIENT).has_upgraded
    assert store.source(CLIENT).name == b"mail.a.example"
    assert store.sender(IDENTITY).epoch == 20_000
    assert written.memory.counts == SourceCounts(1, 0)
    assert written.troubles == []


def test_what_is_not_written_yet_counts(store: SourceStore, tmp_path: Path) -> None:
    written = Written(store, tmp_path)
    written.memory.note(drop())
    assert "rests" not in written.log
    written.memory.note(drop())
    assert "reason=source-rests" in written.log
    written.memory.write()
    assert written.memory.counts == SourceCounts(0, 1)


def test_what_was_written_before_counts(store: SourceStore, tmp_path: Path) -> None:
    first = Written(store, tmp_path)
    first.memory.note(drop())
    first.memory.write()
    second = Written(store, tmp_path)
    second.memory.note({"address": CLIENT, "seen": "went-on"})
    second.memory.note(drop())
    second.memory.write()
    assert store.source(CLIENT).drops == 1
    second.memory.note(upgrade(epoch=20_000))
    second.memory.note(upgrade(epoch=19_000))
    second.memory.write()
    assert (store.source(CLIENT).drops, store.sender(IDENTITY).epoch) == (0, 20_000)


@pytest.mark.parametrize("way", ["upgrades", "drops", "identities"])
def test_of_one_network_only_so_many_new_ones_are_learnt_of_in_a_day(
    store: SourceStore, tmp_path: Path, way: str
) -> None:
    """Whoever has very many addresses, or makes very many identities, must not push out what is known."""
    written, most = Written(store, tmp_path), limits.SOURCES_NEW_OF_NETWORK
    for number in range(most + 3):
        address = CLIENT if way == "identities" else f"2001:db8:5:{number:x}::1"
        who = {"identity": number.to_bytes(32).hex()} if way == "identities" else {}
        written.memory.note(drop(address) if way == "drops" else {**upgrade(address), **who})
    assert len(written.crowded) == 3
    written.memory.note(upgrade("2001:db8:6::1"))
    written.memory.note(upgrade("2001:db8:6::1", epoch=20_001))
    written.memory.write()
    assert len(written.crowded) == 3
    assert store.source("2001:db8:6::1").has_upgraded
    assert store.sender(IDENTITY).epoch == 20_001
    assert len(store.sources()) == (2 if way == "identities" else most + 1)


def test_who_makes_identities_keeps_no_neighbour_from_its_rest(store: SourceStore, tmp_path: Path) -> None:
    """A mailer that cannot read offers gets its mail through by being remembered, and by nothing else."""
    written = Written(store, tmp_path)
    for number in range(limits.SOURCES_NEW_OF_NETWORK + 1):
        written.memory.note({**upgrade(), "identity": number.to_bytes(32).hex()})
    assert len(written.crowded) == 1
    for _ in range(limits.SOURCE_DROPS_IN_A_ROW):
        written.memory.write()
        written.memory.note(drop("192.0.2.25"))
    assert "rests source=192.0.2.25" in written.log


def test_a_network_fills_no_bound_before_its_first_clients_are_forgotten() -> None:
    of_network = limits.SOURCES_NEW_OF_NETWORK
    assert of_network * limits.SOURCE_KEPT_DAYS < limits.SOURCES_UPGRADED
    assert of_network * limits.HARMED_KEPT_DAYS < limits.SOURCES_HARMED
    assert of_network > 256  # all of a /24


def test_between_two_writes_only_so_much_is_learnt(store: SourceStore, tmp_path: Path) -> None:
    written = Written(store, tmp_path)
    for number in range(limits.SOURCES_PENDING + 50):
        written.memory.note(upgrade(f"2001:db8:{number:x}::1"))
    written.memory.write()
    assert len(store.sources()) == limits.SOURCES_PENDING


def test_nor_more_of_identities_though_from_few_addresses(store: SourceStore, tmp_path: Path) -> None:
    written = Written(store, tmp_path)
    for number in range(limits.SOURCES_PENDING + 50):
        written.memory.note(upgrade(f"192.0.{number % 100}.1") | {"identity": f"{number:064x}"})
    assert len(written.memory._senders) == limits.SOURCES_PENDING
    written.memory.write()
    written.memory.note(upgrade())
    assert len(written.memory._senders) == 1


def test_without_a_file_nothing_is_learnt_and_nothing_fails(tmp_path: Path) -> None:
    written = Written(None, tmp_path)
    written.memory.note(upgrade())
    written.memory.write()
    written.memory.count()
    assert written.memory.counts == SourceCounts(0, 0)


def test_trouble_with_the_file_is_told(store: SourceStore, tmp_path: Path) -> None:
    written = Written(store, tmp_path)
    written.memory.note(drop())
    blocker = Database(tmp_path / "peers.db")

    def write_while_locked(connection: object) -> None:
        written.memory.write()

    blocker.write(write_while_locked)
    (trouble,) = written.troubles
    assert "locked" in trouble
    written.memory.write()
    assert store.sources() == []
    blocker.close()
    with pytest.raises(EnvironmentFailureError):
        Database.read_only(tmp_path / "nowhere.db")
