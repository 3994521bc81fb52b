"""A worker's end of the link to its supervisor, taken hold of: what it says can be kept from being heard."""

from __future__ import annotations

import ctypes
import os
import socket
from pathlib import Path
from typing import Final

from gateway.runtime.link import ALIVE

SYS_PIDFD_GETFD: Final = 438  # on every architecture


def fill_link(worker: int) -> None:
    """As where its supervisor, which must stand still, has done so for half a minute."""
    with _link_of(worker) as link:
        try:
            while True:
                link.send(ALIVE)
        except BlockingIOError:
            return


def _link_of(worker: int) -> socket.socket:
    """As it has it: pidfd_getfd(2)."""
    number = int(Path(f"/proc/{worker}/cmdline").read_bytes().split(b"\0")[-2])
    process = os.pidfd_open(worker)
    try:
        found = ctypes.CDLL(None, use_errno=True).syscall(SYS_PIDFD_GETFD, process, number, 0)
    finally:
        os.close(process)
    assert found >= 0, os.strerror(ctypes.get_errno())
    return socket.socket(fileno=found)
