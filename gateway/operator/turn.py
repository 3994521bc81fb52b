"""One `up` or `down` at a time: what one takes out while the other puts it in would ring, and end as neither.

The lock is on the folder that holds the word, needs no file, and ends with its process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.policy import limits

_LOCKS: Final = Path("/proc/locks")


@contextlib.contextmanager
def taken(config: Config, pause: Callable[[float], None]) -> Iterator[None]:
    """Raises EnvironmentFailureError where another one is at work for too long. May make the folder."""
    with contextlib.ExitStack() as held:
        for _ in range(round(limits.TURN_SECONDS / limits.RULES_ASKED_SECONDS)):
            folder = _opened(config.state_dir)
            if folder is None:
                break  # what is to be written there tells why
            held.callback(os.close, folder)
            if _locked(folder) and _is_there(folder, config.state_dir):
                break
            held.close()
            pause(limits.RULES_ASKED_SECONDS)
        else:
            raise EnvironmentFailureError(
                f"another `nightmail up` or `down` is at work{_holder(config.state_dir)}:"
                " say it again when that one has ended"
            )
        yield


def _opened(path: Path) -> int | None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return None


def _locked(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_there(folder: int, path: Path) -> bool:
    """An `up` that is undone takes the folder along, and a lock on that one keeps nobody out."""
    try:
        return os.path.samestat(os.fstat(folder), path.stat())
    except OSError:
        return False


def _holder(path: Path) -> str:
    """Its process, where the kernel tells: proc_locks(5)."""
    with contextlib.suppress(OSError, IndexError):
        for line in _LOCKS.read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(path.stat().st_ino):
                return f" (process {fields[4]})"
    return ""
