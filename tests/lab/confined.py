"""What a process can do under some layers of its confinement: tried, one after the other, and told as JSON.

Run by `test_confinement` in a gateway's namespace, as the worker is: as root, confined by the same code. Each
attempt is one that a worker taken over through its mail would like to make.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from gateway.runtime import hardening, system_calls
from gateway.runtime.hardening import Confinement

_PTRACE_SEIZE = 0x4206
_SO_ATTACH_FILTER = 26


def main() -> None:
    told = json.loads(sys.argv[1])
    state, run = Path(told["state"]), Path(told["run"])
    attempts: dict[str, Callable[[], object]] = {
        "read the memory of peers": lambda: (state / "peers.db").read_bytes(),
        "read the identity": lambda: (state / "identity").read_bytes(),
        "read the shadow file": lambda: Path("/etc/shadow").read_bytes(),
        "write beside the memory of peers": lambda: (state / "left-by-a-worker").write_text("x"),
        "write the memory of peers": lambda: os.close(os.open(state / "peers.db", os.O_RDWR)),
        "write to a folder of all": lambda: Path(told["folder_of_all"], "left-by-a-worker").write_text("x"),
        "execute a program": lambda: subprocess.run(["/bin/true"], check=True),
        "fork": _fork,
        "trace the supervisor": lambda: _trace(told["supervisor"]),
        "signal the signer": lambda: os.kill(told["signer"], 0),
        "speak to the control socket": lambda: _connect(socket.AF_UNIX, str(run / "control.sock")),
        "speak to a service of all": lambda: _connect(socket.AF_UNIX, told["service_of_all"]),
        "connect to a mail port": lambda: _connect(socket.AF_INET, ("127.0.0.1", told["mail_port"])),
        "connect to another port": lambda: _connect(socket.AF_INET, ("127.0.0.1", told["other_port"])),
        "connect by the first octets sent": lambda: _connect_by_sending(told["other_port"]),
        "send a datagram": lambda: _datagram(told["other_port"]),
        "open a raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close(),
        "change routes": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close(),
        "map memory to be executed": _map_executable,
        "put a filter on a socket": _put_filter,
        "take a ring": lambda: _call(425, 8, bytes(120)),
        "become root by a program of root's": lambda: _become_root(told["program_of_root"]),
    }
    confinement = Confinement.from_json(told["confinement"])
    for layer, step in hardening.STEPS.items():
        if layer in told["layers"]:
            assert step(confinement), layer
    if "system-calls" in told["layers"]:
        assert system_calls.install(system_calls.WORKER_CALLS)
    done = {name: _succeeds(attempt) for name, attempt in attempts.items() if name in told["attempts"]}
    print(json.dumps(done))


def _succeeds(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except (OSError, subprocess.SubprocessError):
        return False
    return True


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _connect(family: int, address: object) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.settimeout(5)
        attempt.connect(address)  # type: ignore[arg-type]


def _connect_by_sending(port: int) -> None:
    """TCP Fast Open: the connection is made by the send, and no other layer sees a connect."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
        attempt.sendto(b"x", socket.MSG_FASTOPEN, ("127.0.0.1", port))


def _datagram(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attempt:
        attempt.sendto(b"x", ("127.0.0.1", port))


def _put_filter() -> None:
    """That lets everything pass."""
    code = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0xFFFFFFFF))
    program = struct.pack("@HP", 1, ctypes.addressof(code))
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def _call(number: int, *words: int | bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    answer: int = libc.syscall(ctypes.c_long(number), *words)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer


def _trace(pid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(ctypes.c_long(_PTRACE_SEIZE), ctypes.c_long(pid), None, None):
        raise OSError(ctypes.get_errno(), "ptrace")
    # Seized and running: this process's end lets it go.


def _map_executable() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    at = libc.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0))
    if at == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")


def _become_root(program: str) -> None:
    """`program` is id(1) with root's set-user-id bit."""
    told = subprocess.run([program, "-u"], check=True, capture_output=True, text=True).stdout
    if os.geteuid() == 0 or told.strip() != "0":
        raise PermissionError


if __name__ == "__main__":
    main()
