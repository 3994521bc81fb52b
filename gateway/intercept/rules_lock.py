"""One hand at a time on the rules of the kernel: the daemon's, or that of `nightmail up` and `down`.

A look of the daemon would else see half of what a command takes out, and two that put in at the same moment
fail at each other, upon which each takes out all of it. The lock is on a file beside the control socket, and
ends with its process. Nobody waits for it for long: who holds it may be stopped for good, and rules that are
gone let mail out in clear. Counterparts: `runtime.supervisor.rulekeeper`, `operator.lifecycle`; and
`operator.turn`, which a command holds from its beginning to its end.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.config import Config
from gateway.policy import limits


@contextlib.contextmanager
def held(config: Config, seconds: float, pause: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Goes on without the lock after so long, and where there is none to be had: without a run directory
    there is no daemon."""
    lock = _opened(config.rules_lock)
    if lock is None:
        yield
        return
    try:
        for _ in range(max(1, round(seconds / limits.RULES_HAND_ASKED_SECONDS))):
            if _locked(lock):
                break
            pause(limits.RULES_HAND_ASKED_SECONDS)
        yield
    finally:
        os.close(lock)


def _opened(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError:
        return None


def _locked(lock: int) -> bool:
    """True also where the file system knows no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
