"""Loads, floods, and what is measured in milliseconds: two of these at once on this machine, and no more.

`scripts/test` runs more files side by side than there are processors, since most tests mostly wait. What
takes all that it can get, or says how late something may be, would meet too many others of its kind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

AT_ONCE: Final = 2
_WORKER: Final = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
_LOCK: Final = Path(f"/run/nmq-turn{int(_WORKER.removeprefix('gw')) % AT_ONCE}.lock")
_had: list[None] = []


@contextlib.contextmanager
def turn() -> Iterator[None]:
    """Waits for it. Who has it already gets it again at once."""
    with _LOCK.open("w") as lock:
        if not _had:
            fcntl.flock(lock, fcntl.LOCK_EX)
        _had.append(None)
        try:
            yield
        finally:
            _had.pop()
