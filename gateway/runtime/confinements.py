"""What each process of this daemon is left with: users, folders, ports.

The state folder holds the identity, which is root's alone, and the memory of peers, which workers read: they
may pass through the folder, and are in the group that may read that one file. Where a folder above is closed
to them, it is mounted for them alone, to be read.
Counterpart: `hardening`, which does it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gateway.config import Config
from gateway.policy import limits
from gateway.runtime.hardening import WORKER_CAPABILITIES, Confinement, User, user_for

SIGNER: Final = "-signer"
_MAY_PASS: Final = 0o710
_PLACES: Final = ("/mnt", "/srv", "/media")
"""Where a worker sees a state folder that it does not get to; the machine's own view has something else."""


@dataclass(frozen=True, slots=True)
class Confinements:
    worker: Confinement
    signer: Confinement
    readers: int | None
    """The group that may read the memory of peers; None where this process is not root."""


def of(config: Config) -> Confinements:
    """Two users, so that a worker cannot even send the signer a signal."""
    readable = (str(config.state_dir), *_python())
    if os.geteuid() != 0:
        worker = Confinement(None, None, WORKER_CAPABILITIES, readable, config.ports)
        return Confinements(worker, Confinement(None, None), None)
    user = user_for(config.user, limits.SPARE_USER)
    near = None
    if closed_to(user, config.state_dir) is not None:
        place = next((place for place in _PLACES if Path(place).is_dir()), _PLACES[0])
        near, readable = (str(config.state_dir), place), (place, *_python())
    other = user_for(config.user + SIGNER, limits.SPARE_USER + 1)
    return Confinements(
        Confinement(user.uid, user.gid, WORKER_CAPABILITIES, readable, config.ports, near),
        Confinement(other.uid, other.gid),
        user.gid,
    )


def share(state_dir: Path, readers: int | None) -> None:
    """Let the workers pass through the state folder. Where that cannot be (a disk that is read-only, say), it
    may be so already; else they tell that they cannot read what is remembered."""
    if readers is not None:
        with contextlib.suppress(OSError):
            os.chown(state_dir, -1, readers)
            state_dir.chmod(_MAY_PASS)


def closed_to(user: User, state_dir: Path) -> Path | None:
    """A folder above the state folder that this user may not pass through; None if he gets to it."""
    for folder in state_dir.parents:
        try:
            found = folder.stat()
        except FileNotFoundError:
            continue
        by_whom = 0o100 if found.st_uid == user.uid else 0o010 if found.st_gid == user.gid else 0o001
        if not found.st_mode & by_whom:
            return folder
    return None


def seen_by_workers(config: Config, worker: Confinement) -> Config:
    """With the state folder where they see it."""
    return replace(config, state_dir=Path(worker.near[1])) if worker.near is not None else config


def _python() -> tuple[str, ...]:
    """Where what this program is made of may yet be read: an exception's lines, a module imported late."""
    folders = [path for path in sys.path if path] + [sys.prefix, sys.base_prefix, "/lib", "/usr/lib"]
    return tuple(dict.fromkeys(folder for folder in folders if Path(folder).is_dir()))
