"""Workers whose supervisor was killed: they finish their sessions by themselves, and need the rules for that.

Nobody can ask them, so who takes the rules out finds them among the machine's processes, tells them to end,
and waits for that. Counterparts: `runtime.worker`, which then gives its sessions as long as at a stop;
`lifecycle`, which calls this before the rules go.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from gateway.policy import limits

_PROCESSES: Final = Path("/proc")
_WORKER: Final = [b"-m", b"gateway.runtime.worker"]
_DAEMON: Final = b"run"


def end(pause: Callable[[float], None], *, hurried: bool) -> None:
    """Returns when none is left in this network namespace. `hurried`: sessions are not waited for."""
    with contextlib.ExitStack() as opened:
        left = []
        for process in _found():
            opened.callback(os.close, process)
            left.append(process)
            _signal(process, signal.SIGTERM)
        seconds = limits.ENDING_SECONDS + (0.0 if hurried else limits.STOP_SECONDS + limits.ENDING_SECONDS)
        for _ in range(round(seconds / limits.RULES_ASKED_SECONDS)):
            left = [process for process in left if not _has_ended(process)]
            if not left:
                return
            pause(limits.RULES_ASKED_SECONDS)
        # Of an older version, or it hangs: the kernel closes what it had.
        for process in left:
            _signal(process, signal.SIGKILL)


def _found() -> Iterator[int]:
    """Descriptors of theirs: behind a number may be another process by the time it is told something."""
    for folder in _PROCESSES.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            process = os.pidfd_open(int(folder.name))
        except OSError:
            continue
        if _is_orphan(folder):
            yield process
        else:
            os.close(process)


def _is_orphan(folder: Path) -> bool:
    """Whose parent is no daemon any more."""
    try:
        if _words(folder)[-3:-1] != _WORKER or not _is_here(folder):
            return False
        parent = folder.joinpath("stat").read_text(errors="replace").rpartition(")")[2].split()[1]
        return _words(_PROCESSES / parent)[-1:] != [_DAEMON]
    except (OSError, IndexError):
        return False


def _words(folder: Path) -> list[bytes]:
    """Of its command line."""
    return folder.joinpath("cmdline").read_bytes().rstrip(b"\0").split(b"\0")


def _is_here(folder: Path) -> bool:
    """In our network namespace."""
    return os.path.samestat(folder.joinpath("ns/net").stat(), _PROCESSES.joinpath("self/ns/net").stat())


def _has_ended(process: int) -> bool:
    return bool(select.select([process], [], [], 0)[0])


def _signal(process: int, number: signal.Signals) -> None:
    with contextlib.suppress(OSError):  # it has ended
        signal.pidfd_send_signal(process, number)
