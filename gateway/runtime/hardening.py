"""What keeps a process's memory to itself. Keys live in it, and Python cannot wipe them.

The only file that calls prctl. Called by each process that holds keys, before it has any: an exec sets the
flag back. Root keeps its ways (CAP_SYS_PTRACE); everybody else, the process's own user included, has none.
"""

from __future__ import annotations

import ctypes
import os
import resource
from typing import Final

from gateway.errors import EnvironmentFailureError

_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4


def forbid_dumps() -> None:
    """No core dump, no ptrace, no look into /proc/PID/mem. Raises EnvironmentFailureError.

    Both are needed: the kernel ignores the limit where core_pattern is a pipe, and the flag alone would leave
    a core to root's directory where fs.suid_dumpable is 2.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) or libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0):
        why = os.strerror(ctypes.get_errno())
        raise EnvironmentFailureError(f"this process cannot be kept from being dumped: {why}")
