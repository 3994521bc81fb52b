"""Waiting for something to happen in a file or folder, without asking again and again.

The kernel's inotify, through libc: the standard library has no door to it. What exactly happened is not
told: whoever waits looks for himself, so that a lost event cannot hide anything.
"""

from __future__ import annotations

import ctypes
import os
import select
from pathlib import Path
from typing import Final

from gateway.errors import EnvironmentFailureError

MODIFIED: Final = 0x02
MOVED_TO: Final = 0x80
CREATED: Final = 0x100
READ_OCTETS: Final = 64 * 1024


class Inotify:
    """Watches one path from the moment it is made; end with `close`."""

    def __init__(self, path: Path, events: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._descriptor < 0 or libc.inotify_add_watch(self._descriptor, os.fsencode(path), events) < 0:
            code = ctypes.get_errno()
            self.close()
            raise EnvironmentFailureError(f"cannot watch {path}: {os.strerror(code)}")
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def wait(self, seconds: float) -> bool:
        """True once something has happened since the last call; False if nothing did in this time."""
        if seconds <= 0 or not self._poll.poll(seconds * 1000):
            return False
        try:
            os.read(self._descriptor, READ_OCTETS)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
