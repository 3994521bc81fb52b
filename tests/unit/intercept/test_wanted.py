"""The word survives, and a damaged file is one line."""

import os
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.intercept import wanted as words
from gateway.intercept.wanted import Wanted, Word, read_wanted, read_word, record_word


@pytest.mark.parametrize("wanted", Wanted)
def test_what_is_recorded_is_read(tmp_path: Path, wanted: Wanted) -> None:
    path = tmp_path / "state" / "wanted.json"
    assert read_wanted(path) is Wanted.UP
    record_word(path, Word(Wanted.DOWN))
    record_word(path, Word(wanted))
    assert read_wanted(path) is wanted
    assert [entry.name for entry in path.parent.iterdir()] == ["wanted.json"]


def boots(monkeypatch: pytest.MonkeyPatch, folder: Path, number: str) -> None:
    (folder / "boot_id").write_text(number)
    monkeypatch.setattr(words, "_BOOT", folder / "boot_id")


@pytest.mark.parametrize("lasting", Wanted)
@pytest.mark.parametrize("now", Wanted)
def test_a_word_for_this_boot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasting: Wanted, now: Wanted
) -> None:
    path = tmp_path / "wanted.json"
    boots(monkeypatch, tmp_path, "one\n")
    record_word(path, Word(lasting, now))
    assert read_wanted(path) is now
    boots(monkeypatch, tmp_path, "two\n")
    assert read_wanted(path) is lasting
    assert read_word(path) == Word(lasting)


def test_what_was_done_to_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that was started alone is gone with its boot; one that was enabled is there after it."""
    path = tmp_path / "wanted.json"
    for done, left in ((("started",), ()), (("started", "enabled"), ("started", "enabled"))):
        boots(monkeypatch, tmp_path, "one")
        record_word(path, Word(Wanted.DOWN, Wanted.UP, done))
        assert read_word(path).service == done
        boots(monkeypatch, tmp_path, "two")
        assert read_word(path).service == left


def test_how_often_down_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through another boot, too; a file of a version before it counts from nothing."""
    path = tmp_path / "wanted.json"
    boots(monkeypatch, tmp_path, "one")
    for word in (Word(downs=3), Word(Wanted.DOWN, Wanted.UP, downs=3)):
        record_word(path, word)
        assert read_word(path) == word
    boots(monkeypatch, tmp_path, "two")
    assert read_word(path).downs == 3
    path.write_text('{"wanted": "down"}')
    assert read_word(path).downs == 0


DAMAGED = [b"", b"down", b"[]", b'{"wanted": "sideways"}', b"{}", b"\xff",
           b'{"wanted": "up", "this_boot": {}}', b'{"wanted": "up", "this_boot": 7}',
           b'{"wanted": "up", "service": 7}', b'{"wanted": "up", "downs": "x"}',
           b'{"wanted": "up", "downs": 1e999}', b"[" * 4000]  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "wanted.json"
    path.write_bytes(content)
    with pytest.raises(EnvironmentFailureError, match="neither up nor down"):
        read_wanted(path)
    record_word(path, Word(Wanted.UP))
    assert read_wanted(path) is Wanted.UP


def test_trouble(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailureError, match="Is a directory"):
        read_wanted(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFailureError, match="cannot be written"):
        record_word(tmp_path / "file" / "wanted.json", Word(Wanted.UP))


def test_a_word_outlasts_a_power_cut_from_the_moment_that_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file's own octets, and then that it has the name."""
    synced, fsync = [], os.fsync

    def noted(descriptor: int) -> None:
        synced.append((Path(f"/proc/self/fd/{descriptor}").readlink(), (tmp_path / "wanted.json").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    record_word(tmp_path / "wanted.json", Word(Wanted.DOWN))
    assert synced == [(tmp_path / f".wanted.json.{os.getpid()}", False), (tmp_path, True)]


def test_who_is_interrupted_leaves_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record_word(tmp_path / "wanted.json", Word(Wanted.DOWN))
    assert list(tmp_path.iterdir()) == []
