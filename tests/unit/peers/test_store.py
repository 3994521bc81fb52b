"""The file: what it keeps, what kills do to it, and that trouble is one error within a short time."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError, Reason
from gateway.peers.pins import Acceptance, Destination, MetPeer, PathFailures, Pin
from gateway.peers.schema import SCHEMA_VERSION
from gateway.peers.store import PinStore
from gateway.policy import limits

HERE = Destination("192.0.2.7", 25)
THERE = Destination("2001:db8::7", 25)
A, B = b"A" * 32, b"B" * 32
NOW = 1_800_000_000


def met(identity: bytes = A, epoch: int = 20_000) -> MetPeer:
    return MetPeer(identity, epoch, True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "peers.db"


@pytest.fixture
def store(path: Path) -> Iterator[PinStore]:
    with PinStore(path, clock=lambda: NOW) as opened:
        yield opened


def test_remembers_over_a_reopening(store: PinStore, path: Path) -> None:
    assert store.lookup(HERE) is None
    remembered = store.remember(HERE, met(), NOW)
    store.remember(THERE, met(B), NOW + 5)
    store.close()
    with PinStore(path) as again:
        assert again.lookup(HERE) == remembered
        assert [pin.destination for pin in again.pins()] == [HERE, THERE]
        assert again.take_facts() == []


def test_ports_are_kept_apart(store: PinStore) -> None:
    store.remember(HERE, met(), NOW)
    assert store.lookup(Destination(HERE.address, 2525)) is None


def test_the_same_peer_costs_no_write_within_the_hour(store: PinStore, path: Path) -> None:
    store.remember(HERE, met(), NOW)
    wal = path.with_name("peers.db-wal")
    size, when = wal.stat().st_size, wal.stat().st_mtime_ns
    for second in range(200):
        store.remember(HERE, met(), NOW + second)
    assert (wal.stat().st_size, wal.stat().st_mtime_ns) == (size, when)
    assert store.remember(HERE, met(), NOW + 3600).last_seen == NOW + 3600
    assert wal.stat().st_size > size


def test_files_are_private(store: PinStore, tmp_path: Path) -> None:
    store.remember(HERE, met(), NOW)
    assert {entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()} == {0o600}


def test_evicted_identities_leave_the_file(store: PinStore) -> None:
    for number in range(8):
        store.remember(HERE, met(bytes([number]) * 32), NOW + number)
    pin = store.lookup(HERE)
    assert pin is not None
    assert [known.identity[0] for known in pin.identities] == [0, 5, 6, 7]


# --- The operator's hand -----------------------------------------------------------------------------


def test_accept_and_forget(store: PinStore) -> None:
    store.remember(HERE, met(A), NOW)
    store.remember(HERE, met(B), NOW + 1)
    assert store.accept(HERE, b"C" * 32) is None
    assert store.accept(THERE, A) is None
    accepted = store.accept(HERE, B)
    assert accepted is not None
    assert accepted == store.lookup(HERE)
    assert [known.acceptance for known in accepted.identities] == [Acceptance.FIRST_USE, Acceptance.OPERATOR]
    assert store.forget_identity(HERE, A) == store.lookup(HERE)
    assert store.forget_identity(HERE, B) is None
    assert store.forget(HERE)
    assert not store.forget(HERE)
    assert store.lookup(HERE) is None


# --- Failed paths ------------------------------------------------------------------------------------


def test_failures_rest_and_an_upgrade_ends_them(store: PinStore) -> None:
    for _ in range(3):
        assert not store.resting(HERE, NOW)
        store.note_failure(HERE, NOW)
    assert store.resting(HERE, NOW)
    assert [path.destination for path in store.resting_paths(NOW)] == [HERE]
    store.remember(HERE, met(), NOW)
    assert not store.resting(HERE, NOW)


def test_a_pinned_path_never_rests(store: PinStore) -> None:
    store.remember(HERE, met(), NOW)
    assert [store.note_failure(HERE, NOW) for _ in range(9)] == [PathFailures()] * 9
    assert not store.resting(HERE, NOW)


def test_forget_ends_a_rest(store: PinStore) -> None:
    for _ in range(3):
        store.note_failure(HERE, NOW)
    assert store.forget(HERE)
    assert not store.resting(HERE, NOW)


def test_failures_of_last_week_are_dropped(store: PinStore) -> None:
    store.note_failure(HERE, NOW)
    store.note_failure(HERE, NOW)
    store.note_failure(THERE, NOW + 8 * 86400)
    assert store.note_failure(HERE, NOW + 8 * 86400).in_a_row == 1


# --- Processes that read, processes that die -----------------------------------------------------------


def test_reader_sees_what_the_writer_writes_and_writes_nothing(store: PinStore, path: Path) -> None:
    with PinStore.read_only(path) as reader:
        assert reader.lookup(HERE) is None
        remembered = store.remember(HERE, met(), NOW)
        assert reader.lookup(HERE) == remembered
        with pytest.raises(EnvironmentFailureError, match="written"):
            reader.remember(THERE, met(), NOW)


def test_reader_needs_the_file(path: Path) -> None:
    with pytest.raises(EnvironmentFailureError, match=r"peers\.db"):
        PinStore.read_only(path)
    assert not path.exists()


def test_reader_follows_a_file_that_was_replaced(store: PinStore, path: Path) -> None:
    store.remember(HERE, met(), NOW)
    with PinStore.read_only(path) as reader:
        assert reader.lookup(HERE) is not None
        store.close()
        for part in path.parent.glob("peers.db*"):
            part.unlink()
        with PinStore(path):
            assert reader.lookup(HERE) is None


WRITER = """
import sys
from pathlib import Path
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.store import PinStore
store = PinStore(Path(sys.argv[1]))
for number in range(1, 60000):
    store.remember(Destination("192.0.2.1", number), MetPeer(number.to_bytes(32), 20000, True), 1_800_000_000)
    print(number, flush=True)
"""


def writer(path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("lines", [1, 37, 120])
def test_kill_nine_loses_nothing_that_was_remembered(path: Path, lines: int) -> None:
    with writer(path) as process:
        assert process.stdout is not None
        last = 0
        for _ in range(lines):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read().splitlines(keepends=True)
    last = max([last, *(int(line) for line in rest if line.endswith("\n"))])
    with PinStore(path) as store:
        assert store.take_facts() == []
        ports = [pin.destination.port for pin in store.pins()]
        assert ports[:last] == list(range(1, last + 1))
        store.remember(THERE, met(), NOW)


def test_two_writers_at_once(path: Path) -> None:
    """A write either is there or was refused as busy (a slow disk, a loaded machine); nothing is lost."""
    errors: list[str] = []

    def write(first: int) -> None:
        with PinStore(path) as mine:
            for number in range(first, 60, 2):
                while True:
                    try:
                        mine.remember(Destination("192.0.2.1", number), met(), NOW)
                        break
                    except EnvironmentFailureError as error:
                        errors.append(str(error))

    threads = [threading.Thread(target=write, args=(first,)) for first in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("locked" in error for error in errors)
    with PinStore(path) as store:
        assert len(store.pins()) == 59
        assert store.take_facts() == []


def test_two_writers_do_not_overwrite_each_other(store: PinStore, path: Path) -> None:
    store.remember(HERE, met(A), NOW)
    with PinStore(path) as other:
        other.remember(HERE, met(B), NOW)
        other.accept(HERE, B)
        pin = store.remember(HERE, met(A, 20_001), NOW)
    assert [known.accepted for known in pin.identities] == [True, True]


def test_what_another_writes_between_look_and_lock_is_kept(path: Path) -> None:
    class Raced(PinStore):
        def lookup(self, destination: Destination) -> Pin | None:
            pin = super().lookup(destination)
            with PinStore(path) as other:
                other.accept(HERE, B)
            return pin

    with Raced(path) as store:
        store.remember(HERE, met(A), NOW)
        store.remember(HERE, met(B), NOW)
        with PinStore(path) as other:
            other.forget(HERE)
            other.remember(HERE, met(A), NOW)
            other.remember(HERE, met(B), NOW)
        pin = store.remember(HERE, met(B, 20_001), NOW)
    assert [known.acceptance for known in pin.identities] == [Acceptance.FIRST_USE, Acceptance.OPERATOR]


# --- Trouble -----------------------------------------------------------------------------------------


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
def test_corrupt_file_is_moved_aside_and_told(path: Path, damage: "type[None]") -> None:
    with PinStore(path) as store:
        store.remember(HERE, met(), NOW)
    damage(path)  # type: ignore[call-arg]
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
mount -t tmpfs -o size=256k none "$1" || exit 77
"$2" -c "$3" "$1/peers.db" disk || exit 1
mount -o remount,ro "$1" || exit 77
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
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts in a namespace of its own")
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
    if done.returncode == 77:
        pytest.skip("no tmpfs may be mounted here")
    assert done.returncode == 0, done.stderr
    assert "refused again" in done.stdout
    assert "readonly" in done.stdout
