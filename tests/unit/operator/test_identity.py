"""What an operator does with the identity: rotated, taken back, carried; said in words."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.crypto.rotation import SiteIdentity, as_lines
from gateway.crypto.statement import read_statement
from gateway.errors import EnvironmentFailureError
from gateway.operator import identity
from gateway.policy import limits
from gateway.runtime import identity_file
from gateway.runtime.machine import Machine

NOW = 1_800_000_000
DAY = 86400
PHRASE = b"a phrase of many letters"


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EXPORT_KDF_PASSES", 1)
    monkeypatch.setattr(limits, "EXPORT_KDF_OCTETS", 8192)


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "state" / "identity"
    identity_file.load_or_make(path)
    yield path
    # Whatever was done: the daemon could start.
    identity_file.load_or_make(path)


def site(path: Path) -> SiteIdentity:
    kept = identity_file.load(path)
    assert kept is not None
    return kept.site


def fingerprint(path: Path) -> str:
    return site(path).key.public.fingerprint


def test_announced_then_taken_back(path: Path) -> None:
    before = as_lines(site(path))
    answer = identity.announce(path, NOW, 14)
    after = site(path)
    assert after.next is not None
    assert after.next_key is not None
    assert after.next.use_at == NOW + 14 * DAY
    assert answer.lines[0] == f"announced: {after.next_key.public.fingerprint}"
    assert answer.complaint == ""
    again = identity.announce(path, NOW, 14)
    assert "announced already" in again.complaint
    back = identity.undo(path)
    assert "taken back" in back.lines[0]
    assert as_lines(site(path))[:2] == before[:2]
    assert site(path).next is None
    assert "no identity is announced" in identity.undo(path).complaint


def test_at_once_uses_the_announced_one(path: Path) -> None:
    identity.announce(path, NOW, 14)
    upcoming = site(path).next_key
    assert upcoming is not None
    answer = identity.rotate_now(path, NOW + DAY)
    assert fingerprint(path) == upcoming.public.fingerprint
    assert upcoming.public.fingerprint in answer.lines[0]


def test_at_once_without_an_announcement_leads_from_the_old_one(path: Path) -> None:
    old = site(path).key.public
    identity.rotate_now(path, NOW)
    (content,) = site(path).statements(NOW)
    said = read_statement(content)
    assert (said.old, said.new) == (old, site(path).key.public)
    assert "rotate again" in identity.undo(path).complaint


def test_two_rotations_in_a_short_time_are_warned_of(path: Path) -> None:
    assert not any("ring the alarm" in line for line in identity.rotate_now(path, NOW).lines)
    assert any("ring the alarm" in line for line in identity.announce(path, NOW + DAY, 14).lines)


def test_told_in_words(path: Path) -> None:
    kept = identity_file.load(path)
    assert kept is not None
    assert list(identity.told(kept)) == [fingerprint(path)]
    identity.rotate_now(path, NOW)
    identity.announce(path, NOW, 14)
    kept = identity_file.load(path)
    assert kept is not None
    lines = list(identity.told(kept))
    assert lines[0] == fingerprint(path)
    assert lines[1].startswith("announced: ")
    assert "2027-01-29" in lines[1]
    told = identity.as_json(kept)
    assert told["statements"] == 2
    assert site(path).seed.hex() not in str((lines, told))


def test_of_another_machine_is_said_and_not_rotated(known_machine: None, path: Path) -> None:
    kept = identity_file.load(path)
    assert kept is not None
    other = identity_file.Kept(kept.site, Machine("1" * 32, "2" * 32))
    assert list(identity.told(other))[-1].startswith("MADE ON ANOTHER MACHINE")
    path.write_text(identity_file._text(other))
    with pytest.raises(EnvironmentFailureError, match="import --replace"):
        identity.announce(path, NOW, 14)
    with pytest.raises(EnvironmentFailureError, match="import --replace"):
        identity.undo(path)
    # On purpose, as the line says: from the very file.
    identity.import_(path, path, identity.read(path), b"", replace=True)
    assert fingerprint(path) == kept.site.key.public.fingerprint
    identity.announce(path, NOW, 14)


def test_exported_and_imported_with_all_that_is_under_way(path: Path, tmp_path: Path) -> None:
    identity.rotate_now(path, NOW)
    identity.announce(path, NOW, 14)
    file = tmp_path / "export"
    assert identity.export(path, file, PHRASE) == fingerprint(path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert site(path).seed.hex() not in file.read_text()
    elsewhere = tmp_path / "new" / "identity"
    lines = identity.import_(elsewhere, file, identity.read(file), PHRASE, replace=False)
    assert as_lines(site(elsewhere)) == as_lines(site(path))
    assert fingerprint(path) in lines[0]
    assert any("rotation under way" in line for line in lines)


def test_half_an_export_is_none(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "export"

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk, pytest.raises(EnvironmentFailureError, match="No space left"):
        disk.setattr(os, "fsync", full)
        identity.export(path, file, PHRASE)
    assert not file.exists()
    identity.export(path, file, PHRASE)


def test_an_export_never_takes_the_place_of_another_file(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "export"
    file.write_text("precious")
    with pytest.raises(EnvironmentFailureError, match="cannot be written"):
        identity.export(path, file, PHRASE)
    assert file.read_text() == "precious"


@pytest.mark.parametrize("phrase", [b"", b"another phrase of letters"])
def test_another_passphrase_imports_nothing(path: Path, tmp_path: Path, phrase: bytes) -> None:
    file = tmp_path / "export"
    identity.export(path, file, PHRASE)
    before = path.read_bytes()
    with pytest.raises(EnvironmentFailureError, match="another passphrase"):
        identity.import_(path, file, identity.read(file), phrase, replace=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"\xff" * 100, b"nightmail identity export 7\n", b"nightmail identity 9\n"]
)
def test_what_is_neither_is_refused_in_one_line(path: Path, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "export"
    file.write_bytes(content)
    with pytest.raises(EnvironmentFailureError, match="export") as caught:
        identity.import_(path, file, identity.read(file), PHRASE, replace=True)
    assert "\n" not in str(caught.value)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailureError, match="neither"):
        identity.read(Path("/dev/zero"))


def test_an_identity_that_is_there_is_set_aside_only_when_told_to(path: Path, tmp_path: Path) -> None:
    file, old = tmp_path / "export", fingerprint(path)
    identity.export(path, file, PHRASE)
    os.unlink(path)
    identity_file.load_or_make(path)
    newer = fingerprint(path)
    with pytest.raises(EnvironmentFailureError, match="--replace"):
        identity.import_(path, file, identity.read(file), PHRASE, replace=False)
    assert fingerprint(path) == newer
    lines = identity.import_(path, file, identity.read(file), PHRASE, replace=True)
    assert fingerprint(path) == old
    assert any(line.startswith("set aside: ") for line in lines)


def test_a_file_of_version_1_can_be_imported(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "old"
    file.write_text(f"nightmail identity 1\n{'ab' * 32}\n")
    identity.import_(path, file, identity.read(file), b"", replace=True)
    assert site(path).seed == b"\xab" * 32
