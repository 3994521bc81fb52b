"""Made once, private, whole; refused when others could have read it."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.crypto.keys import IdentityKey
from gateway.errors import EnvironmentFailureError
from gateway.runtime.identity_file import load, load_or_make

SEED = bytes(range(32))


def entropy(count: int) -> bytes:
    assert count == 32
    return SEED


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "identity"


@pytest.fixture
def made(path: Path) -> Path:
    load_or_make(path, entropy)
    return path


def test_made_at_the_first_start_and_read_ever_after(path: Path) -> None:
    assert load(path) is None
    assert load_or_make(path, entropy) == SEED
    assert load_or_make(path, lambda count: b"x" * count) == SEED
    assert load(path) == SEED
    assert IdentityKey.from_seed(SEED).public.fingerprint


def test_file_and_directory_are_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        load_or_make(path, entropy)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["identity"]


def test_two_starts_at_once_agree(path: Path) -> None:
    """The second one finds that the first was quicker, after it had drawn its own."""

    def slow(count: int) -> bytes:
        load_or_make(path, entropy)
        return b"x" * count

    assert load_or_make(path, slow) == SEED
    assert [entry.name for entry in path.parent.iterdir()] == ["identity"]


def test_a_draft_left_by_a_killed_start_is_in_nobodys_way(path: Path) -> None:
    path.parent.mkdir()
    path.with_name(f".identity.{os.getpid()}").write_text("nightmail iden")
    assert load_or_make(path, entropy) == SEED


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o601])
def test_readable_by_others(made: Path, mode: int) -> None:
    made.chmod(mode)
    with pytest.raises(EnvironmentFailureError, match=f"mode {mode:04o}, so others may have read it"):
        load_or_make(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file away")
def test_foreign_owner(made: Path) -> None:
    os.chown(made, 12345, 0)
    with pytest.raises(EnvironmentFailureError, match="belongs to user 12345"):
        load_or_make(made)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_root_makes_and_reads_it_for_the_owner_of_the_directory(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    os.chown(path.parent, 12345, 12345)
    assert load_or_make(path, entropy) == SEED
    assert path.stat().st_uid == 12345


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def replace_by_directory(path: Path) -> None:
    path.unlink()
    path.mkdir(0o700)


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (replace_by_link, "is a symbolic link"),
        (replace_by_pipe, "is no regular file"),
        (replace_by_directory, "is no regular file"),
    ],
)
def test_what_is_no_file(made: Path, replace: Callable[[Path], None], message: str) -> None:
    replace(made)
    for read in (load, load_or_make):
        with pytest.raises(EnvironmentFailureError, match=message):
            read(made)


def test_dangling_link_is_not_followed(path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(path.with_name("elsewhere"))
    with pytest.raises(EnvironmentFailureError, match="symbolic link"):
        load_or_make(path)
    assert not path.with_name("elsewhere").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        SEED,
        b"nightmail identity 2\n" + b"0" * 64 + b"\n",
        b"nightmail identity 1\n" + b"0" * 63 + b"\n",
        b"nightmail identity 1\n" + b"g" * 64 + b"\n",
        b"nightmail identity 1\n" + b"0" * 64 + b"\nmore\n",
        b"nightmail identity 1\n" + b"\xff" * 64 + b"\n",
    ],
)
def test_damaged_is_never_replaced(made: Path, content: bytes) -> None:
    made.write_bytes(content)
    with pytest.raises(EnvironmentFailureError, match="restore it from a backup") as caught:
        load_or_make(made)
    assert "\n" not in str(caught.value)
    assert made.read_bytes() == content


def test_no_place_for_it(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(EnvironmentFailureError, match="identity cannot be"):
        load_or_make(tmp_path / "state" / "identity")
