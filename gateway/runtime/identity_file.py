"""The identity file: the one secret of a site that is kept on disk. Made at the first start, then only read.

Refuses, with one line, a file that others can read or that somebody else owns: a key that may have been
copied is no identity. Never replaces a file that is there. What is in it: a line that says what it is,
and 64 hex digits. Counterpart: `crypto.keys.IdentityKey.from_seed`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.errors import EnvironmentFailureError

SEED_OCTETS: Final = 32
_FIRST_LINE: Final = "nightmail identity 1"
_FILE_OCTETS: Final = 1024


def load_or_make(path: Path, entropy: Callable[[int], bytes] = os.urandom) -> bytes:
    """The seed, made if there is none yet. Raises EnvironmentFailureError."""
    try:
        return _read(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _failed(path, "cannot be read", error) from None
    try:
        _make(path, entropy(SEED_OCTETS))
        return _read(path)
    except OSError as error:
        raise _failed(path, "cannot be made", error) from None


def load(path: Path) -> bytes | None:
    """The seed; None if there is none yet. Raises EnvironmentFailureError."""
    try:
        return _read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failed(path, "cannot be read", error) from None


def _failed(path: Path, what: str, error: OSError) -> EnvironmentFailureError:
    return EnvironmentFailureError(f"{path}: identity {what}: {error.strerror}")


def _read(path: Path) -> bytes:
    if path.is_symlink():
        raise EnvironmentFailureError(f"{path}: identity is a symbolic link; it must be the file itself")
    # NONBLOCK: a pipe in its place must not stop the start.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        _check_guarded(path, os.fstat(descriptor))
        octets = os.read(descriptor, _FILE_OCTETS)
    finally:
        os.close(descriptor)
    return _seed(path, octets)


def _check_guarded(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise EnvironmentFailureError(f"{path}: identity is no regular file")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise EnvironmentFailureError(
            f"{path}: identity has mode {mode:04o}, so others may have read it; if none did: chmod 600 {path}"
        )
    if found.st_uid not in _rightful_owners(path):
        raise EnvironmentFailureError(
            f"{path}: identity belongs to user {found.st_uid}, not to {os.geteuid()}"
        )


def _rightful_owners(path: Path) -> set[int]:
    """Ourselves; for root also the daemon's user, who owns the directory."""
    return {os.geteuid()} | ({path.parent.stat().st_uid} if os.geteuid() == 0 else set())


def _seed(path: Path, octets: bytes) -> bytes:
    lines = octets.decode("ascii", "replace").splitlines()
    if len(lines) == 2 and lines[0] == _FIRST_LINE and len(lines[1]) == 2 * SEED_OCTETS:
        try:
            return bytes.fromhex(lines[1])
        except ValueError:
            pass
    raise EnvironmentFailureError(f"{path}: not an identity file of this version; restore it from a backup")


def _make(path: Path, seed: bytes) -> None:
    """Whole or not at all, and never over one that another process made meanwhile: hence link, not rename."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    owner = path.parent.stat()
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    # One that a killed start has left, with our number (in a container it is always the same).
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            os.fchmod(descriptor, 0o600)
            if os.geteuid() == 0 and owner.st_uid != 0:
                os.fchown(descriptor, owner.st_uid, owner.st_gid)
            _write_all(descriptor, f"{_FIRST_LINE}\n{seed.hex()}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()
    _sync_directory(path.parent)


def _write_all(descriptor: int, octets: bytes) -> None:
    while octets:
        octets = octets[os.write(descriptor, octets) :]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
