"""Made once, private, whole; refused when others could have read it."""

import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.crypto.rotation import SiteIdentity, announced, as_lines
from gateway.errors import EnvironmentFailureError
from gateway.runtime.identity_file import change, load, load_or_make, parsed, put
from gateway.runtime.machine import Machine, this_machine

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


def seed_of(path: Path) -> bytes:
    return load_or_make(path, entropy).site.seed


def test_made_at_the_first_start_and_read_ever_after(path: Path) -> None:
    assert load(path) is None
    assert seed_of(path) == SEED
    assert load_or_make(path, lambda count: b"x" * count).site.seed == SEED
    kept = load(path)
    assert kept is not None
    assert kept.site.seed == SEED
    assert kept.machine == this_machine()


def test_file_and_directory_are_private_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        load_or_make(path, entropy)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["identity", "identity.lock"]


def test_starts_at_once_agree(path: Path) -> None:
    """Whoever is first makes it; the others wait, and read it."""
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: load_or_make(path, lambda n: bytes([number]) * n), range(8)))
    assert len({opened.site.seed for opened in made}) == 1
    assert seed_of(path) == made[0].site.seed
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["identity", "identity.lock"]


def test_a_draft_left_by_a_killed_start_is_in_nobodys_way(path: Path) -> None:
    path.parent.mkdir()
    path.with_name(".identity.new").write_text("nightmail iden")
    assert seed_of(path) == SEED


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o601])
def test_readable_by_others(made: Path, mode: int) -> None:
    made.chmod(mode)
    with pytest.raises(EnvironmentFailureError, match=f"mode {mode:04o}, so others may have read it"):
        load_or_make(made)


@pytest.mark.root
def test_foreign_owner(made: Path) -> None:
    os.chown(made, 12345, 0)
    with pytest.raises(EnvironmentFailureError, match="belongs to user 12345"):
        load_or_make(made)


@pytest.mark.root
def test_root_makes_and_reads_it_for_the_owner_of_the_directory(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    os.chown(path.parent, 12345, 12345)
    assert seed_of(path) == SEED
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
        b"nightmail identity 2\nseed " + b"0" * 64 + b"\nsince 0\nserial 0\n",
        b"nightmail identity 2\nseed " + b"0" * 64 + b"\nsince 0\nserial 0\nmachine -\n",
        b"nightmail identity 2\nseed " + b"0" * 64 + b"\nsince 0\nserial 9999999999\nmachine - -\n",
        b"nightmail identity 2\nmachine - -\n",
        b"nightmail identity 3\nseed " + b"0" * 64 + b"\nsince 0\nserial 0\nmachine - -\n",
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


# --- Whose machine ---------------------------------------------------------------------------------------

HERE = Machine("a" * 32, "b" * 32)
COPIED_IMAGE = Machine("a" * 32, "c" * 32)
OTHER_DISK = Machine("d" * 32, "b" * 32)


@pytest.mark.parametrize("other", [COPIED_IMAGE, OTHER_DISK])
def test_a_copy_on_another_machine_is_set_aside_and_a_new_one_made(path: Path, other: Machine) -> None:
    first = load_or_make(path, machine=HERE)
    opened = load_or_make(path, machine=other)
    assert opened.site.key.public != first.site.key.public
    assert opened.set_aside is not None
    aside = load(opened.set_aside)
    assert aside is not None
    assert aside.site.key.public == first.site.key.public
    assert stat.S_IMODE(opened.set_aside.stat().st_mode) == 0o600
    again = load_or_make(path, machine=other)
    assert (again.site.key.public, again.set_aside) == (opened.site.key.public, None)


@pytest.mark.parametrize("other", [HERE, Machine(), Machine("a" * 32), Machine(hardware="b" * 32)])
def test_what_is_not_known_to_differ_stays(path: Path, other: Machine) -> None:
    first = load_or_make(path, machine=HERE)
    assert load_or_make(path, machine=other).site.key.public == first.site.key.public


def test_a_file_of_version_1_is_bound_to_the_machine_that_starts_it(path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o600)
    path.write_text(f"nightmail identity 1\n{SEED.hex()}\n")
    assert load_or_make(path, machine=HERE).site.seed == SEED
    kept = load(path)
    assert kept is not None
    assert kept.machine == HERE
    assert load_or_make(path, machine=OTHER_DISK).set_aside is not None


def test_a_file_of_version_1_serves_where_nothing_can_be_written(path: Path) -> None:
    path.parent.mkdir()
    path.touch(0o600)
    path.write_text(f"nightmail identity 1\n{SEED.hex()}\n")
    path.with_name("identity.lock").mkdir()  # as good as a disk that is read-only
    assert load_or_make(path, machine=HERE).site.seed == SEED


# --- Changes ---------------------------------------------------------------------------------------------


def rotated(site: SiteIdentity) -> SiteIdentity:
    return announced(site, lambda count: b"n" * count, 1_800_000_000, 14)


def test_change_writes_what_it_is_told_and_keeps_the_rest(made: Path) -> None:
    after = change(made, rotated)
    kept = load(made)
    assert kept is not None
    assert as_lines(kept.site) == as_lines(after)
    assert after.next is not None
    before = made.stat().st_ino
    change(made, lambda site: site)
    assert made.stat().st_ino == before
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


def test_change_refuses_what_is_not_there_or_not_ours(known_machine: None, path: Path) -> None:
    path.parent.mkdir()
    with pytest.raises(EnvironmentFailureError, match="no identity yet"):
        change(path, rotated)
    load_or_make(path, machine=Machine("1" * 32, "2" * 32))
    with pytest.raises(EnvironmentFailureError, match="made on another machine"):
        change(path, rotated)


def test_a_change_that_fails_leaves_what_was_there(made: Path) -> None:
    before = made.read_bytes()

    def broken(site: SiteIdentity) -> SiteIdentity:
        raise OSError(28, "No space left on device")

    with pytest.raises(EnvironmentFailureError, match="No space left"):
        change(made, broken)
    assert made.read_bytes() == before


def test_put_sets_aside_only_when_told_to(made: Path) -> None:
    other = SiteIdentity(b"o" * 32)
    with pytest.raises(EnvironmentFailureError, match="there is an identity already"):
        put(made, other)
    aside = put(made, other, replace=True)
    assert aside is not None
    kept = parsed(aside.read_text())
    assert kept is not None
    assert kept.site.seed == SEED
    assert seed_of(made) == b"o" * 32


@pytest.mark.parametrize("fails", ["fsync", "rename"])
def test_what_was_there_stays_where_the_new_one_cannot_be_written(
    made: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """A full disk; else the next start would find no identity, and make itself one that no peer knows."""
    before, rename = made.read_bytes(), Path.rename

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    def broken(self: Path, target: Path) -> Path:
        if self.name == ".identity.new":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    if fails == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "rename", broken)
    for work in (
        lambda: put(made, SiteIdentity(b"o" * 32), replace=True),
        lambda: load_or_make(made, machine=Machine("x" * 32, "y" * 32)),
    ):
        with pytest.raises(EnvironmentFailureError, match=r"identity cannot be made: (No space|Input)"):
            work()
        assert made.read_bytes() == before
        assert sorted(entry.name for entry in made.parent.iterdir()) == ["identity", "identity.lock"]


def test_a_second_process_waits_for_the_first(made: Path) -> None:
    """Twenty changes at once: none is lost."""

    def one_more(_: int) -> None:
        change(made, lambda site: SiteIdentity(site.seed, site.since, site.serial + 1))

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(one_more, range(20)))
    kept = load(made)
    assert kept is not None
    assert kept.site.serial == 20


def test_nothing_prints_a_key(made: Path) -> None:
    site = change(made, rotated)
    kept = load(made)
    for shown in (repr(site), repr(site.next), repr(kept), str(kept)):
        assert SEED.hex() not in shown
        assert repr(SEED) not in shown
        assert "6e6e6e" not in shown
        assert "nnn" not in shown
