"""Trouble with the file, whatever it is: one error within a short time, and nothing that was kept is lost."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError, Reason
from gateway.peers.pins import Destination
from gateway.peers.schema import SCHEMA_VERSION
from gateway.peers.store import PinStore
from gateway.policy import limits
from tests.unit.peers.pinned import HERE, NOW, THERE, met


def test_locked_is_an_error_soon_and_not_the_end(store: PinStore, path: Path) -> None:
    store.remember(HERE, met(), NOW)
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(EnvironmentFailureError, match="locked"):
        store.remember(THERE, met(), NOW)
    assert time.monotonic() - began < 1.0
    assert store.lookup(HERE) is not None
    blocker.execute("ROLLBACK")
    blocker.close()
    assert store.remember(THERE, met(), NOW) == store.lookup(THERE)


def damage_nothing(path: Path) -> None:
    path.write_bytes(b"this was never a database, and it is longer than a header of one" * 9)


def damage_header(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[:16] = bytes(16)
    path.write_bytes(octets)


def damage_page(path: Path) -> None:
    octets = bytearray(path.read_bytes())
    octets[4096:] = b"\xff" * (len(octets) - 4096)
    path.write_bytes(octets)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize("damage", [damage_nothing, damage_header, damage_page, cut_short])
def test_corrupt_file_is_moved_aside_and_told(path: Path, damage: Callable[[Path], None]) -> None:
    with PinStore(path) as store:
        store.remember(HERE, met(), NOW)
    damage(path)
    damaged = path.read_bytes()
    with PinStore(path, clock=lambda: NOW) as store:
        assert store.lookup(HERE) is None
        (fact,) = store.take_facts()
        assert fact.reason is Reason.PINS_UNREADABLE
        assert store.take_facts() == []
        store.remember(HERE, met(), NOW)
    aside = path.with_name(f"peers.db.corrupt-{NOW}")
    assert str(aside) in fact.detail
    assert aside.read_bytes() == damaged
    with PinStore(path) as store:
        assert store.take_facts() == []
        assert store.lookup(HERE) is not None


def test_a_large_file_is_looked_through_by_its_writer_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that looks through the pins of a million peers stands still for too long."""
    with PinStore(path) as store:
        store.remember(HERE, met(), NOW)
    damage_page(path)
    with pytest.raises(EnvironmentFailureError), PinStore.read_only(path):
        pass
    monkeypatch.setattr(limits, "CHECKED_BY_READERS_OCTETS", path.stat().st_size - 1)
    with PinStore.read_only(path):
        pass


def test_second_corruption_in_the_same_second_overwrites_nothing(path: Path) -> None:
    for _ in range(2):
        damage_nothing(path)
        PinStore(path, clock=lambda: NOW).close()
    assert len(list(path.parent.glob("peers.db.corrupt-*"))) == 2


def test_corruption_under_way_starts_anew(store: PinStore, path: Path) -> None:
    """A page goes bad while the store is open, and no page of it is in the cache."""
    for number in range(1, 400):
        store.remember(Destination("192.0.2.1", number), met(), NOW)
    store.close()
    with PinStore(path, clock=lambda: NOW) as opened:
        octets = bytearray(path.read_bytes())
        octets[4096:] = b"\xff" * (len(octets) - 4096)
        path.write_bytes(octets)
        # Nothing of it may be answered from SQLite's cache.
        opened._database.read(lambda connection: connection.execute("PRAGMA shrink_memory"))
        assert opened.lookup(HERE) is None
        assert opened.pins() == []
        assert [fact.reason for fact in opened.take_facts()] == [Reason.PINS_UNREADABLE]


def test_reader_leaves_a_corrupt_file_to_the_writer(path: Path) -> None:
    damage_nothing(path)
    with pytest.raises(EnvironmentFailureError):
        PinStore.read_only(path)
    assert [entry.name for entry in path.parent.iterdir()] == ["peers.db"]


def test_later_schema_and_foreign_databases_are_left_as_they_are(path: Path) -> None:
    PinStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(EnvironmentFailureError, match=f"schema {SCHEMA_VERSION + 1}"):
        PinStore(path)
    foreign = path.with_name("foreign.db")
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE mail (x)")
    connection.close()
    with pytest.raises(EnvironmentFailureError, match="not of pins"):
        PinStore(foreign)
    assert not list(path.parent.glob("*corrupt*"))


def test_symbolic_link_is_refused(path: Path) -> None:
    target = path.with_name("elsewhere")
    target.touch()
    path.symlink_to(target)
    with pytest.raises(EnvironmentFailureError):
        PinStore(path)


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailureError, match="No such file"):
        PinStore(tmp_path / "nowhere" / "peers.db")


FULL = """
import resource, signal, sys
from pathlib import Path
from gateway.errors import EnvironmentFailureError
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.store import PinStore
path = Path(sys.argv[1])
store = PinStore(path)
first = Destination("192.0.2.1", 1)
store.remember(first, MetPeer(b"A" * 32, 20000, True), 1_800_000_000)
if sys.argv[2] == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = path.with_name("peers.db-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20000, size + 20000))
written = [first]
for number in range(2, 20000):
    destination = Destination("192.0.2.1", number)
    try:
        store.remember(destination, MetPeer(b"A" * 32, 20000, True), 1_800_000_000)
    except EnvironmentFailureError as error:
        print("refused", error)
        break
    written.append(destination)
assert all(store.lookup(destination) for destination in written), "an accepted pin is gone"
assert store.lookup(destination) is None
try:
    store.remember(destination, MetPeer(b"A" * 32, 20000, True), 1_800_000_000)
except EnvironmentFailureError:
    print("refused again")
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20000, size + 20000))
print("written", len(written))
"""


def test_file_that_may_not_grow_is_an_error_and_loses_nothing(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path), "limit"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "refused" in done.stdout
    assert "refused again" in done.stdout
    with PinStore(path) as store:
        assert store.take_facts() == []
        assert f"written {len(store.pins())}" in done.stdout


IN_TMPFS = """
mount -t tmpfs -o size=256k none "$1" || exit 1
"$2" -c "$3" "$1/peers.db" disk || exit 1
mount -o remount,ro "$1" || exit 1
"$2" -c "$4" "$1/peers.db"
"""
READ_ONLY = """
import sys
from pathlib import Path
from gateway.errors import EnvironmentFailureError
from gateway.peers.store import PinStore
try:
    PinStore(Path(sys.argv[1]))
except EnvironmentFailureError as error:
    print("readonly", error)
"""


@pytest.mark.kernel
@pytest.mark.root
def test_full_and_read_only_disk(tmp_path: Path) -> None:
    command = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        IN_TMPFS,
        "sh",
        str(tmp_path),
        sys.executable,
        FULL,
        READ_ONLY,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "refused again" in done.stdout
    assert "readonly" in done.stdout
