"""A process's view of the file system, and the ports it may connect to, by Landlock (landlock(7)).

The only file that makes a Landlock rule set; from the kernel's header, through libc's syscall. Linux 5.13 and
later, ports from 6.7 on, signals and abstract sockets from 6.12 on: each kernel gets what it has.
Counterpart: `hardening`.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""The same numbers on all architectures."""
_VERSION: Final = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_CONNECT_TCP: Final = 1 << 1
_SCOPE_ABSTRACT_UNIX, _SCOPE_SIGNAL = 1, 2
_RIGHTS: Final = ((1, 13), (2, 14), (3, 15), (5, 16))
"""From which version of the interface on how many rights of the file system there are."""
PORTS_SINCE, SCOPES_SINCE = 4, 6
"""Versions of the interface: Linux 6.7, and 6.12."""


def version() -> int:
    """Of the kernel's interface; 0 where there is none."""
    return max(0, _call(_CREATE, None, 0, _VERSION))


def restrict(readable: tuple[str, ...], ports: tuple[int, ...]) -> bool:
    """Nothing of the file system but reading beneath these folders, no connection but to these ports.

    Needs no-new-privileges. Whether it is in force.
    """
    found = version()
    if not found:
        return False
    rights = (1 << max(count for since, count in _RIGHTS if since <= found)) - 1
    net = _CONNECT_TCP if found >= PORTS_SINCE else 0
    scopes = _SCOPE_ABSTRACT_UNIX | _SCOPE_SIGNAL if found >= SCOPES_SINCE else 0
    # An older kernel takes the longer form, if what it does not know is zero.
    attributes = struct.pack("=QQQ", rights, net, scopes)
    rules = _call(_CREATE, attributes, len(attributes), 0)
    if rules < 0:
        return False
    try:
        for folder in readable:
            _allow_reading(rules, folder)
        for port in ports if net else ():
            _call(_ADD, rules, _NET_PORT, struct.pack("=QQ", _CONNECT_TCP, port), 0)
        return _call(_RESTRICT, rules, 0) == 0
    finally:
        os.close(rules)


def _allow_reading(rules: int, folder: str) -> None:
    """A folder that is not there needs no rule."""
    try:
        descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        _call(_ADD, rules, _PATH_BENEATH, struct.pack("=Qi", _READ_FILE | _READ_DIR, descriptor), 0)
    finally:
        os.close(descriptor)


def _call(number: int, *words: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    answer: int = libc.syscall(
        ctypes.c_long(number), *(ctypes.c_long(word) if isinstance(word, int) else word for word in words)
    )
    return answer
