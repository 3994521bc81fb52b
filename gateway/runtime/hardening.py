"""What keeps a process's memory to itself, and what keeps a process from the rest of the machine.

The only file that calls prctl. A worker reads what strangers send: it gives away root, all capabilities but
two, and the ways to get any back, before it reads the first octet. What the kernel or a container does not
let it give away is told, never a reason not to carry mail. Counterparts: `system_calls`, `landlock`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import resource
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

from gateway.errors import EnvironmentFailureError
from gateway.policy import limits
from gateway.runtime import landlock, system_calls

_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_CLONE_NEWNS: Final = 0x20000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION_3: Final = 0x20080522
_CAPABILITIES: Final = 64
NET_BIND_SERVICE: Final = 10
NET_ADMIN: Final = 12

WORKER_CAPABILITIES: Final = (NET_ADMIN, NET_BIND_SERVICE)
"""NET_ADMIN: the packet queue's verdicts, transparent sockets, packet marks. NET_BIND_SERVICE: a client's own
port, from which a worker dials, may be one below 1024."""


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a process keeps. `uid` None: it stays who it is (and was not root to begin with)."""

    uid: int | None
    gid: int | None
    capabilities: tuple[int, ...] = ()
    readable: tuple[str, ...] = ()
    """Folders whose files it may open for reading; there is none where it may write or execute."""
    ports: tuple[int, ...] = ()
    """To which it may connect."""
    near: tuple[str, str] | None = None
    """A folder to which its user does not get, and the one in whose place it sees it, to read."""

    def as_json(self) -> dict[str, Any]:
        return {
            "uid": self.uid,
            "gid": self.gid,
            "capabilities": list(self.capabilities),
            "readable": list(self.readable),
            "ports": list(self.ports),
            "near": self.near,
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:
        capabilities, readable, ports = (tuple(told[name]) for name in ("capabilities", "readable", "ports"))
        near = tuple(told["near"]) if told["near"] else None
        return cls(told["uid"], told["gid"], capabilities, readable, ports, near)


@dataclass(frozen=True, slots=True)
class User:
    name: str
    uid: int
    gid: int


def user_for(name: str, otherwise: int) -> User:
    """The user of that name; where there is none, a number that nobody on this machine has."""
    try:
        found = pwd.getpwnam(name)
        if found.pw_uid != 0:
            return User(name, found.pw_uid, found.pw_gid)
    except KeyError:
        pass
    taken = {entry.pw_uid for entry in pwd.getpwall()} | {entry.pw_gid for entry in pwd.getpwall()}
    uid = next(
        number for number in range(otherwise, otherwise + limits.SPARE_USERS, 2) if number not in taken
    )
    return User(str(uid), uid, uid)


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


def confine(confinement: Confinement) -> list[str]:
    """All layers but the filter of system calls, which comes when all is set up. What is in force now."""
    if confinement.near is not None:
        _bring_near(*confinement.near)
    in_force = [layer for layer, step in STEPS.items() if step(confinement)]
    forbid_dumps()  # a change of user has set the flag back
    return in_force


def refuse_rings() -> None:
    """Before an event loop is made, which else takes one: what goes through a ring passes by all filters."""
    system_calls.refuse_rings()


def filter_calls(rules: tuple[system_calls.Rule, ...]) -> list[str]:
    """The last layer; names it where it is in force."""
    return [_FILTER] if system_calls.install(rules) else []


def _bring_near(folder: str, place: str) -> None:
    """In a view of the file system of this process's own. Where that cannot be had, it does not see it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        return
    if not libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None):
        libc.mount(os.fsencode(folder), os.fsencode(place), None, _MS_BIND, None)
        libc.mount(None, os.fsencode(place), None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY, None)


def _become_user(confinement: Confinement) -> bool:
    if confinement.uid is None or confinement.gid is None:
        return os.geteuid() != 0
    libc = ctypes.CDLL(None, use_errno=True)
    # First, while it is allowed: what is not in the bounding set never comes back, by no program.
    for number in range(_CAPABILITIES):
        if number not in confinement.capabilities:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        os.setgroups([])
        os.setresgid(confinement.gid, confinement.gid, confinement.gid)
        os.setresuid(confinement.uid, confinement.uid, confinement.uid)
    return os.getresuid() == (confinement.uid,) * 3 and os.getgroups() == []


def _keep_capabilities(confinement: Confinement) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    held = ctypes.create_string_buffer(24)
    if libc.capget(header, held):
        return False
    _, low, _, _, high, _ = struct.unpack("=6I", held.raw)
    kept = sum(1 << number for number in confinement.capabilities) & (low | high << 32)
    low, high = kept & 0xFFFFFFFF, kept >> 32
    return not libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0))


def _take_no_new_privileges(confinement: Confinement) -> bool:
    return not ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


STEPS: Final[dict[str, Callable[[Confinement], bool]]] = {
    "user": _become_user,
    "capabilities": _keep_capabilities,
    "no-new-privileges": _take_no_new_privileges,
    "file-system": lambda confined: landlock.restrict(confined.readable, confined.ports),
}
"""In this order: each needs what the next one takes."""
_FILTER: Final = "system-calls"
LAYERS: Final = (*STEPS, _FILTER)
"""All that there is to confine a process by; `status` shows what is in force."""
