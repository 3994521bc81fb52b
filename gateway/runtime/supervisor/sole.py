"""One daemon to a network namespace: two would take each other's rules out.

A name among the abstract sockets, of which each network namespace has its own: the kernel gives it back with
the end of whoever holds it, however that came. Anybody may take a name there, so a holder who is not our user
keeps nobody from starting. Counterparts: `supervisor`, `control`, which does the same for a run directory.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.errors import EnvironmentFailureError
from gateway.policy import limits

_NAME: Final = b"\0nightmail"
_UCRED: Final = struct.Struct("3i")
_LISTENING: Final = 0x10000  # __SO_ACCEPTCON, <linux/net.h>


class Sole:
    """`control`: the path of our control socket. `inherited`: what the supervisor before us has left."""

    def __init__(self, control: Path, inherited: int | None = None, name: bytes = _NAME) -> None:
        self._control = control
        self._name = name
        self._held = socket.socket(fileno=inherited) if inherited is not None else None

    def take(self) -> str:
        """From now on until our end. Says why we do not know whether we are alone; empty where we are.

        Raises EnvironmentFailureError where another daemon is here.
        """
        if self._held is not None:
            return ""
        mine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            mine.bind(self._name)
            mine.listen(limits.SOLE_ASKERS)
        except OSError as error:
            mine.close()
            if error.errno != errno.EADDRINUSE:
                return f"no socket to know that by: {error.strerror}"
            return self._asked_of_the_holder()
        self._held = mine
        return ""

    async def keep(self) -> None:
        """Runs until it is cancelled: lets go who has asked who is here, which makes room for the next."""
        while self._held is not None:
            self._held.setblocking(False)
            asked, _ = await asyncio.get_running_loop().sock_accept(self._held)
            asked.close()
            await asyncio.sleep(limits.SOLE_ASKED_SECONDS)

    def hand_over(self) -> int | None:
        return None if self._held is None else self._held.detach()

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None

    def _asked_of_the_holder(self) -> str:
        holder = _listener(self._name)
        if holder is None:
            return "somebody has taken the name to know that by, and does not listen"
        pid, user = holder
        if user != os.geteuid():
            return f"process {pid} of user {user} has taken the name to know that by"
        if pid and (pid == os.getpid() or not Path("/proc", str(pid)).exists()):
            return f"the name to know that by is still held for process {pid}"
        told = _told(pid, self._control)
        raise EnvironmentFailureError(
            f"another daemon keeps the rules of this network namespace ({told}), and two would take each"
            " other's rules out: end that one, or give this one a network namespace of its own"
        )


def another(control: Path) -> str:
    """The daemon of this network namespace that has another control socket than this one, for people; empty
    for none, or none that is known to be one."""
    pid, user = _listener(_NAME) or (0, -1)
    try:
        if user != os.geteuid() or not Path("/proc", str(pid)).exists() or control in _listening_paths():
            return ""
        return _told(pid, control)
    except OSError:
        return ""


def _told(pid: int, control: Path) -> str:
    """Its process, and its control socket where it can be told."""
    for path in _listening_paths():
        if path.name == control.name and path != control:
            listener = _listener(str(path))
            if listener is not None and listener[0] == pid:
                return f"process {pid}, {path}"
    return f"process {pid}"


def holder_without(control: Path) -> int | None:
    """The process of the daemon whose control socket is this one, where somebody has removed its path: who is
    bound to it the kernel tells all the same. 0: it cannot be told. None: there is none."""
    try:
        is_bound = control in _listening_paths()
    except OSError:
        return None
    if not is_bound or control.exists():
        return None
    found = _listener(_NAME)
    return found[0] if found is not None else 0


def _listener(address: bytes | str) -> tuple[int, int] | None:
    """Process and user of who listens there; None if nobody answers. Process 0: not of our PID namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.setblocking(False)
        try:
            trial.connect(address)
            pid, user, _ = _UCRED.unpack(trial.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        except OSError:
            return None
    return pid, user


def _listening_paths() -> Iterator[Path]:
    """Of this network namespace, whatever file system they are on."""
    table = Path("/proc/thread-self/net/unix").read_text(encoding="utf-8", errors="surrogateescape")
    for line in table.splitlines():
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7].startswith("/") and int(fields[3], 16) & _LISTENING:
            yield Path(fields[7])
