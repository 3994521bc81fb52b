"""The file: what it keeps, for whom, and what kills do to it. Counterpart: `test_store_trouble`."""

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.peers.pins import Acceptance, Destination, PathFailures, Pin
from gateway.peers.store import PinStore
from tests.unit.peers.pinned import HERE, NOW, THERE, A, B, met


def test_remembers_over_a_reopening(store: PinStore, path: Path) -> None:
    assert store.lookup(HERE) is None
    remembered = store.remember(HERE, met(), NOW)
    store.remember(THERE, met(B), NOW + 5)
    store.close()
    with PinStore(path) as again:
        assert again.lookup(HERE) == remembered
        assert [pin.destination for pin in again.pins()] == [HERE, THERE]
        assert again.take_facts() == []


def test_how_many_there_are(store: PinStore) -> None:
    assert store.count() == 0
    for identity in (A, B):
        for port in (25, 587):
            store.remember(Destination("192.0.2.25", port), met(identity), NOW)
    assert store.count() == len(store.pins()) == 2


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
