"""Who the processes of a daemon are, and what they are left with."""

from __future__ import annotations

import json
import os
import platform
import pwd
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.peers.database import Database
from gateway.policy import limits
from gateway.runtime import confinements, hardening, landlock, system_calls
from gateway.runtime.hardening import Confinement, User, user_for


def test_a_user_that_exists_is_taken() -> None:
    entry = next(entry for entry in pwd.getpwall() if entry.pw_uid != 0)
    found = user_for(entry.pw_name, limits.SPARE_USER)
    assert (found.name, found.uid, found.gid) == (entry.pw_name, entry.pw_uid, entry.pw_gid)


@pytest.mark.parametrize("name", ["nobody-of-this-name", "root"])
def test_without_one_it_is_a_number_that_nobody_has(name: str) -> None:
    found = user_for(name, limits.SPARE_USER)
    assert limits.SPARE_USER <= found.uid < limits.SPARE_USER + limits.SPARE_USERS
    assert found.gid == found.uid
    assert found.uid not in {entry.pw_uid for entry in pwd.getpwall()}


def test_a_number_that_is_taken_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        pw_name, pw_uid, pw_gid = "somebody", limits.SPARE_USER, limits.SPARE_USER + 2

    monkeypatch.setattr(pwd, "getpwall", lambda: [Entry])
    assert user_for("nobody-of-this-name", limits.SPARE_USER).uid == limits.SPARE_USER + 4


def test_workers_and_signer_are_two_and_neither_is_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    made = confinements.of(replace(Config(), user="nobody-of-this-name", ports=(25, 2525)))
    assert made.worker.uid not in (None, 0, made.signer.uid)
    assert made.signer.uid not in (None, 0)
    assert made.readers == made.worker.gid
    assert made.worker.ports == (25, 2525)
    assert set(made.worker.capabilities) == {hardening.NET_ADMIN, hardening.NET_BIND_SERVICE}
    assert (made.signer.capabilities, made.signer.readable, made.signer.ports) == ((), (), ())
    assert Confinement.from_json(made.worker.as_json()) == made.worker


def test_who_is_not_root_gives_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    made = confinements.of(Config())
    assert made.worker.uid is made.signer.uid is made.readers is None


@pytest.mark.root
def test_readers_pass_through_the_state_folder_and_see_nothing_of_it(tmp_path: Path) -> None:
    confinements.share(tmp_path, 61_000)
    found = tmp_path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o710, os.geteuid(), 61_000)
    confinements.share(tmp_path / "nowhere", 61_000)


def let_pass(folder: Path) -> None:
    """Everybody may pass from the folder of temporary files to this one; pytest's own are closed."""
    while folder != Path(tempfile.gettempdir()):
        folder.chmod(0o711)
        folder = folder.parent


def test_a_folder_that_workers_cannot_pass_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    let_pass(tmp_path)
    closed = tmp_path / "closed"
    config = replace(Config(), state_dir=closed / "not-there-yet" / "state")
    user = User("somebody", 61_000, 61_000)
    assert confinements.closed_to(user, config.state_dir) is None
    assert confinements.of(config).worker.near is None
    closed.mkdir(0o700)
    assert confinements.closed_to(user, config.state_dir) == closed
    worker = confinements.of(config).worker
    assert worker.near == (str(config.state_dir), "/mnt")
    assert str(config.state_dir) not in worker.readable
    assert confinements.seen_by_workers(config, worker).pins_file == Path("/mnt/peers.db")
    assert Confinement.from_json(json.loads(json.dumps(worker.as_json()))) == worker
    closed.chmod(0o711)
    assert confinements.closed_to(user, config.state_dir) is None


@pytest.mark.root
def test_a_reader_who_may_not_write_reads_what_is_written_then(tmp_path: Path) -> None:
    """Another process, of the readers' group: with the files that SQLite keeps beside the file."""
    let_pass(tmp_path)
    state = tmp_path / "state"
    state.mkdir()
    confinements.share(state, 61_000)
    database = Database(state / "peers.db", readers=61_000)
    database.write(lambda connection: connection.execute("CREATE TABLE seen (word TEXT)").close())
    asks, told = os.pipe()
    answers, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(61_000, 61_000, 61_000)
            os.setresuid(61_001, 61_001, 61_001)
            reader = Database.read_only(state / "peers.db")
            for _ in range(2):
                os.read(asks, 1)
                words = reader.read(lambda one: one.execute("SELECT word FROM seen").fetchall())
                os.write(tell, f"{len(words)}\n".encode())
        finally:
            os._exit(0)
    for word in ("first", "second"):
        database.write(lambda one, word=word: one.execute("INSERT INTO seen VALUES (?)", (word,)).close())
        os.write(told, b"x")
        assert os.read(answers, 100) == (b"1\n" if word == "first" else b"2\n")
    os.waitpid(pid, 0)
    for name in ("peers.db", "peers.db-wal", "peers.db-shm"):
        found = (state / name).stat()
        assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o640, 61_000)
    assert stat.S_IMODE((state / "peers.db.lock").stat().st_mode) == 0o600
    database.close()


def test_every_call_has_a_number_on_both_architectures_or_is_the_older_ones_alone() -> None:
    for rule in (*system_calls.WORKER_CALLS, *system_calls.SIGNER_CALLS):
        assert rule.call in system_calls._NUMBERS
    for machine in system_calls._SECCOMP:
        column = list(system_calls._SECCOMP).index(machine)
        numbers = [pair[column] for pair in system_calls._NUMBERS.values() if pair[column] is not None]
        assert len(numbers) == len(set(numbers)), machine
    only_old = {name for name, (_, new) in system_calls._NUMBERS.items() if new is None}
    assert only_old == {"access", "epoll_wait", "lstat", "poll", "readlink", "stat"}


def test_what_a_machine_cannot_do_is_said_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(landlock, "version", lambda: 0)
    assert hardening.filter_calls(system_calls.WORKER_CALLS) == []
    assert landlock.restrict(("/",), (25,)) is False
