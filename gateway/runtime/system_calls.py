"""Which system calls a process may make, as a filter in the kernel (seccomp(2)).

The only file that makes a filter: a list of what is allowed, some of it by its arguments; everything else
fails with EPERM, so that an unforeseen call costs an error in the log and not the process with its sessions.
The numbers are the kernel's, for the two architectures that packages are made for. Counterpart: `hardening`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from dataclasses import dataclass
from typing import Final

_SECCOMP: Final = {"x86_64": 317, "aarch64": 277}
_AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_SET_MODE_FILTER: Final = 1
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM
_X32: Final = 0x40000000
_IO_URING_SETUP: Final = 425
_LOAD, _AND, _JUMP_IF_EQUAL, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
_AT_NUMBER, _AT_ARCH, _AT_ARGUMENTS = 0, 4, 16

_NUMBERS: Final = {
    "accept4": (288, 242),
    "access": (21, None),
    "bind": (49, 200),
    "brk": (12, 214),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "close": (3, 57),
    "connect": (42, 203),
    "epoll_ctl": (233, 21),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    "epoll_wait": (232, None),
    "exit": (60, 93),
    "exit_group": (231, 94),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "fcntl": (72, 25),
    "fstat": (5, 80),
    "futex": (202, 98),
    "getcwd": (79, 17),
    "getdents64": (217, 61),
    "getegid": (108, 177),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getpeername": (52, 205),
    "getpid": (39, 172),
    "getrandom": (318, 278),
    "getsockname": (51, 204),
    "getsockopt": (55, 209),
    "gettid": (186, 178),
    "gettimeofday": (96, 169),
    "getuid": (102, 174),
    "ioctl": (16, 29),
    "lseek": (8, 62),
    "lstat": (6, None),
    "madvise": (28, 233),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "munmap": (11, 215),
    "nanosleep": (35, 101),
    "newfstatat": (262, 79),
    "openat": (257, 56),
    "poll": (7, None),
    "ppoll": (271, 73),
    "pread64": (17, 67),
    "read": (0, 63),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "readv": (19, 65),
    "recvfrom": (45, 207),
    "recvmsg": (47, 212),
    "restart_syscall": (219, 128),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sched_yield": (24, 124),
    "sendmsg": (46, 211),
    "sendto": (44, 206),
    "setsockopt": (54, 208),
    "shutdown": (48, 210),
    "sigaltstack": (131, 132),
    "socket": (41, 198),
    "stat": (4, None),
    "statx": (332, 291),
    "write": (1, 64),
    "writev": (20, 66),
}
"""x86_64, aarch64; None where an architecture has another call for it."""

_PROT_EXEC: Final = 4
_NOT_FOR_READING: Final = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY)
_MSG_FASTOPEN: Final = 0x20000000
_TYPE_OF_SOCKET: Final = 0xF
_REQUESTS: Final = (0x5421, 0x5451, 0x5450, 0x5401, 0x8910)
"""FIONBIO, FIOCLEX, FIONCLEX, TCGETS, SIOCGIFNAME."""
_OPTIONS: Final = (
    *((socket.SOL_SOCKET, option) for option in (socket.SO_MARK, socket.SO_KEEPALIVE, socket.SO_REUSEADDR)),
    (socket.SOL_SOCKET, socket.SO_LINGER),
    *((socket.IPPROTO_TCP, option) for option in (socket.TCP_NODELAY, socket.TCP_KEEPIDLE)),
    *((socket.IPPROTO_IP, option) for option in (19, 24)),
    *((socket.IPPROTO_IPV6, option) for option in (75, socket.IPV6_V6ONLY)),
)
"""What `intercept.tproxy` sets, IP_TRANSPARENT, IP_BIND_ADDRESS_NO_PORT and IPV6_TRANSPARENT among it, and of
listeners sets anew: a filter would stay on what a successor gets."""


@dataclass(frozen=True, slots=True)
class Rule:
    """This call, if all arguments that are named here have these bits. Several rules of one call are
    alternatives."""

    call: str
    arguments: tuple[tuple[int, int, int], ...] = ()
    """Which (from 0), mask, value."""


_ALL: Final = 0xFFFFFFFF
_ALWAYS: Final = (
    *(
        "recvfrom",
        "epoll_wait",
        "epoll_pwait",
        "epoll_pwait2",
        "epoll_ctl",
        "write",
        "writev",
        "read",
    ),
    *("accept4", "close", "getsockopt", "getsockname", "getpeername", "shutdown", "bind"),
    *("connect", "recvmsg", "getrandom", "clock_gettime", "gettimeofday", "futex", "brk", "munmap", "mremap"),
    *(
        "madvise",
        "poll",
        "ppoll",
        "readv",
        "pread64",
        "lseek",
        "fstat",
        "stat",
        "lstat",
        "newfstatat",
        "statx",
    ),
    *("access", "faccessat", "faccessat2", "readlink", "readlinkat", "getcwd", "getdents64", "fcntl"),
    *("getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "rt_sigaction", "rt_sigprocmask"),
    *("rt_sigreturn", "sigaltstack", "restart_syscall", "sched_yield", "nanosleep", "clock_nanosleep"),
    *("exit", "exit_group"),
)
_NO_NEW_CODE: Final = (
    Rule("mmap", ((2, _PROT_EXEC, 0),)),
    Rule("mprotect", ((2, _PROT_EXEC, 0),)),
)
WORKER_CALLS: Final = (
    *map(Rule, _ALWAYS),
    # Such a send would be a connect that no other layer sees.
    Rule("sendto", ((3, _MSG_FASTOPEN, 0),)),
    Rule("sendmsg", ((2, _MSG_FASTOPEN, 0),)),
    *(
        Rule("socket", ((0, _ALL, family), (1, _TYPE_OF_SOCKET, socket.SOCK_STREAM)))
        for family in (socket.AF_INET, socket.AF_INET6)
    ),
    *(Rule("setsockopt", ((1, _ALL, level), (2, _ALL, option))) for level, option in _OPTIONS),
    Rule("openat", ((2, _NOT_FOR_READING, os.O_RDONLY),)),
    *(Rule("ioctl", ((1, _ALL, request),)) for request in _REQUESTS),
    *_NO_NEW_CODE,
)
"""No new program, process or thread, no socket but TCP's, no option of one but these, no file but for
reading, no memory that is both written and executed. Files are the memory of peers, and what Python may yet
want to read of itself."""
SIGNER_CALLS: Final = (
    *map(
        Rule,
        (
            *("recvfrom", "sendto", "poll", "ppoll", "read", "write", "close", "getrandom", "clock_gettime"),
            *("futex", "brk", "munmap", "mremap", "madvise", "getpid", "rt_sigaction", "rt_sigprocmask"),
            *("rt_sigreturn", "restart_syscall", "exit", "exit_group", "gettimeofday"),
        ),
    ),
    *_NO_NEW_CODE,
)
"""Packets in, packets out."""


def install(rules: tuple[Rule, ...]) -> bool:
    """From now on nothing but these calls, for this process and for good. Needs no-new-privileges.

    False where the kernel has no such filter, or the architecture's numbers are not known here.
    """
    machine = platform.machine()
    return machine in _SECCOMP and _install(_program(rules, machine), machine)


def refuse_rings() -> bool:
    """No io_uring from now on; everything else is left as it is."""
    machine = platform.machine()
    program = [
        _instruction(_LOAD, _AT_NUMBER),
        _instruction(_JUMP_IF_EQUAL, _IO_URING_SETUP, 0, 1),
        _instruction(_RETURN, _REFUSE),
        _instruction(_RETURN, _ALLOW),
    ]
    return machine in _SECCOMP and _install(program, machine)


def _install(program: list[bytes], machine: str) -> bool:
    octets = ctypes.create_string_buffer(b"".join(program), 8 * len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    whole = Program(len(program), ctypes.addressof(octets))
    libc = ctypes.CDLL(None, use_errno=True)
    answer: int = libc.syscall(
        ctypes.c_long(_SECCOMP[machine]),
        ctypes.c_long(_SET_MODE_FILTER),
        ctypes.c_long(0),
        ctypes.byref(whole),
    )
    return answer == 0


def _program(rules: tuple[Rule, ...], machine: str) -> list[bytes]:
    column = list(_SECCOMP).index(machine)
    program = [
        _instruction(_LOAD, _AT_ARCH),
        _instruction(_JUMP_IF_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        _instruction(_RETURN, _REFUSE),
        _instruction(_LOAD, _AT_NUMBER),
    ]
    if machine == "x86_64":
        program += [_instruction(_JUMP_IF_AT_LEAST, _X32, 0, 1), _instruction(_RETURN, _REFUSE)]
    for rule in rules:
        number = _NUMBERS[rule.call][column]
        if number is not None:
            program += _ruled(number, rule)
    return [*program, _instruction(_RETURN, _REFUSE)]


def _ruled(number: int, rule: Rule) -> list[bytes]:
    """Return ALLOW, or go on behind this with the call's number loaded."""
    checks: list[bytes] = []
    after = [_instruction(_RETURN, _ALLOW)]
    if rule.arguments:
        after.append(_instruction(_LOAD, _AT_NUMBER))
    left = 3 * len(rule.arguments)
    for which, mask, value in rule.arguments:
        left -= 3
        checks += [
            # The low half, which comes first on both; these are ints, whose high half the kernel ignores.
            _instruction(_LOAD, _AT_ARGUMENTS + 8 * which),
            _instruction(_AND, mask),
            _instruction(_JUMP_IF_EQUAL, value, 0, left + 1),
        ]
    skipped = len(checks) + len(after)
    return [_instruction(_JUMP_IF_EQUAL, number, 0, skipped), *checks, *after]


def _instruction(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_so, if_not, value)
