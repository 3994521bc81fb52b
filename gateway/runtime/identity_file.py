"""The identity file: the one secret of a site that is kept on disk. Made at the first start.

Refuses, with one line, a file that others can read or that somebody else owns: a key that may have been
copied is no identity. A file that was made on another machine (an image, a copied disk) is set aside, never
used: two boxes with one identity would each be taken for the other. What is in it: a line that says what it
is, the lines of `crypto.rotation`, and the machine. Counterparts: `machine`, `operator.identity`, `site`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.crypto.primitives import ED25519_SEED_OCTETS
from gateway.crypto.rotation import SiteIdentity, as_lines, from_lines
from gateway.durable import sync_folder
from gateway.errors import EnvironmentFailureError
from gateway.policy import limits
from gateway.runtime.machine import Machine, this_machine

_FIRST_LINE: Final = "nightmail identity 2"
_FIRST_LINE_OF_VERSION_1: Final = "nightmail identity 1"


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """What stands in a file. `machine`: the one that it belongs to, None in a file of version 1."""

    site: SiteIdentity
    machine: Machine | None

    def is_of_another(self, machine: Machine) -> bool:
        return self.machine is not None and self.machine.is_another_than(machine)


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """The identity to use; `set_aside` is where one of another machine went, None if there was none."""

    site: SiteIdentity
    set_aside: Path | None = None


def load_or_make(
    path: Path, entropy: Callable[[int], bytes] = os.urandom, machine: Machine | None = None
) -> Opened:
    """The identity, made if there is none of this machine yet. Raises EnvironmentFailureError."""
    machine = machine or this_machine()
    kept = load(path)
    if kept is not None and kept.machine is None:
        # From now on a copy is known as one. A disk that is full or read-only must not stop the start.
        with contextlib.suppress(OSError, EnvironmentFailureError), _alone(path):
            _write(path, Kept(kept.site, machine))
    if kept is not None and not kept.is_of_another(machine):
        return Opened(kept.site)
    with _failing("cannot be made", path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(path):
            return _made(path, entropy, machine)


def _made(path: Path, entropy: Callable[[int], bytes], machine: Machine) -> Opened:
    """Under the lock: another process may have been quicker."""
    kept = load(path)
    if kept is not None and not kept.is_of_another(machine):
        return Opened(kept.site)
    site = SiteIdentity(entropy(ED25519_SEED_OCTETS), since=int(time.time()))
    return Opened(site, _write(path, Kept(site, machine), "of-another-machine" if kept is not None else ""))


def load(path: Path) -> Kept | None:
    """What stands there; None if there is nothing yet. Raises EnvironmentFailureError."""
    with _failing("cannot be read", path):
        try:
            return _parsed(path, _read(path))
        except FileNotFoundError:
            return None


def change(path: Path, work: Callable[[SiteIdentity], SiteIdentity]) -> SiteIdentity:
    """Put `work`'s answer in the place of what is there; nothing is written if it is the very same object.

    Raises EnvironmentFailureError, also where there is no identity or one of another machine.
    """
    machine = this_machine()
    none_yet = EnvironmentFailureError(f"{path}: no identity yet; it is made at the daemon's first start")
    if load(path) is None:
        raise none_yet  # nor is there a folder, perhaps, for the lock
    with _failing("cannot be changed", path), _alone(path):
        kept = load(path)
        if kept is None:
            raise none_yet
        if kept.is_of_another(machine):
            raise EnvironmentFailureError(
                f"{path}: this identity was made on another machine; to go on with it here:"
                f" nightmail identity import --replace {path}"
            )
        after = work(kept.site)
        if after is not kept.site:
            _write(path, Kept(after, machine))
    return after


def put(path: Path, site: SiteIdentity, *, replace: bool = False) -> Path | None:
    """Make `site` the identity of this machine; where another one was, it is set aside, and the answer says
    where. Raises EnvironmentFailureError, also where one is and `replace` is not said."""
    with _failing("cannot be made", path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(path):
            stands = path.exists()
            if stands and not replace:
                raise EnvironmentFailureError(
                    f"{path}: there is an identity already; --replace sets it aside"
                )
            return _write(path, Kept(site, this_machine()), "replaced" if stands else "")


def parsed(text: str) -> Kept | None:
    """The text of an identity file of any version; None if it is none."""
    lines = text.splitlines()
    if lines[:1] == [_FIRST_LINE_OF_VERSION_1] and len(lines) == 2:
        site = from_lines([f"seed {lines[1]}", "since 0", "serial 0"])
        return Kept(site, None) if site is not None else None
    if lines[:1] != [_FIRST_LINE] or not lines[-1].startswith("machine "):
        return None
    site, machine = from_lines(lines[1:-1]), Machine.parse(lines[-1].removeprefix("machine "))
    return Kept(site, machine) if site is not None and machine is not None else None


def _text(kept: Kept) -> str:
    return "\n".join([_FIRST_LINE, *as_lines(kept.site), f"machine {kept.machine}"]) + "\n"


def _parsed(path: Path, octets: bytes) -> Kept:
    kept = parsed(octets.decode("ascii", "replace"))
    if kept is None:
        raise EnvironmentFailureError(
            f"{path}: not an identity file of this version; restore it from a backup"
        )
    return kept


@contextlib.contextmanager
def _failing(what: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EnvironmentFailureError(f"{path}: identity {what}: {error.strerror}") from None


# --- Reading --------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    if path.is_symlink():
        raise EnvironmentFailureError(f"{path}: identity is a symbolic link; it must be the file itself")
    # NONBLOCK: a pipe in its place must not stop the start.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        _check_guarded(path, os.fstat(descriptor))
        return os.read(descriptor, limits.IDENTITY_FILE_OCTETS)
    finally:
        os.close(descriptor)


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


# --- Writing --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Of daemon and commands one at a time changes the file, for the milliseconds that it takes."""
    descriptor = os.open(
        path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
    )
    try:
        _give_to_owner(descriptor, path)
        deadline = time.monotonic() + limits.IDENTITY_LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EnvironmentFailureError(
                        f"{path}: another process is changing the identity"
                    ) from None
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, kept: Kept, set_aside: str = "") -> Path | None:
    """Whole or not at all; the place of what was there is taken in one step.

    With `set_aside`, the word for why, what was there is kept beside, and the answer says where. It goes when
    all of the new one is on the disk: without either the next start would make another identity.
    """
    draft, aside = path.with_name(f".{path.name}.new"), None
    # One that a killed process has left: the lock says that nobody is at it now.
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            os.fchmod(descriptor, 0o600)
            _give_to_owner(descriptor, path)
            _write_all(descriptor, _text(kept).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        aside = _set_aside(path, set_aside) if set_aside else None
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        if aside is not None and not path.exists():
            aside.rename(path)
        raise
    sync_folder(path.parent)
    return aside


def _set_aside(path: Path, why: str) -> Path:
    """Renamed, never deleted: it may be the only copy."""
    aside = path.with_name(f"{path.name}.{why}-{int(time.time())}")
    while aside.exists():
        aside = aside.with_name(aside.name + "+")
    path.rename(aside)
    return aside


def _give_to_owner(descriptor: int, path: Path) -> None:
    """What root makes belongs to the daemon's user, who owns the directory."""
    owner = path.parent.stat()
    if os.geteuid() == 0 and os.fstat(descriptor).st_uid != owner.st_uid:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _write_all(descriptor: int, octets: bytes) -> None:
    while octets:
        octets = octets[os.write(descriptor, octets) :]
