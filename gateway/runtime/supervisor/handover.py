"""What one supervisor leaves to the next, which is the same process with the program loaded anew.

A reload and an upgrade are one thing: the supervisor executes itself again, with the program and the
configuration that are on the disk now. Its workers live on meanwhile and carry all mail; their links and
listeners stay open across the exec, and what is not a descriptor travels in a memory file.
Counterparts: `supervisor`, `pool`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from gateway.errors import EnvironmentFailureError
from gateway.observe.counters import Snapshot, empty_snapshot

_VARIABLE: Final = "NIGHTMAIL_HANDOVER"
_COMMAND: Final = "run"
SIGNALS: Final = frozenset((signal.SIGHUP, signal.SIGINT, signal.SIGTERM))
"""What the supervisor is told by. An exec takes the handlers away, and each of them ends who has none."""


@dataclass(frozen=True, slots=True)
class Heirloom:
    """One worker as it goes over. `link` and `listeners` are descriptors."""

    index: int
    queue: int
    port: int
    generation: int
    pid: int
    draining: bool
    restarts: int
    link: int
    listeners: tuple[int, ...]
    counters: Snapshot
    confined: tuple[str, ...] = ()
    """The layers of its confinement that are in force."""
    identity: str = ""
    """For which it gets signatures, in hexadecimal; empty where that is not known."""

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:
        """From any version: what that did not know has its default, what is not known here is left out."""
        known: dict[str, Any] = {name: told[name] for name in cls.__slots__ if name in told}
        known |= {name: tuple(known[name]) for name in ("listeners", "confined") if name in known}
        return cls(**known)


@dataclass(frozen=True, slots=True)
class Handover:
    """`past`: counters of workers that are gone. `began`: when the first daemon of the line started."""

    workers: tuple[Heirloom, ...]
    past: Snapshot
    began: float
    bypassed: int
    alarms: list[dict[str, Any]]
    rules: dict[str, str]
    """See `KernelRules.standing`."""
    signers: tuple[int, ...] = ()
    """Processes that sign for the workers of their own generation, and end with them."""
    untold: tuple[dict[str, Any], ...] = ()
    """Alarms that people have not got yet."""
    control: int | None = None
    """The descriptor that the control socket listens by."""
    sole: int | None = None
    """The descriptor that holds the name of the only daemon of this network namespace."""
    ending: tuple[int, ...] = ()
    """Processes that are killed already, and have only to be waited for."""
    dead_ends: dict[str, Any] = field(default_factory=dict)
    """See `Spared.left`."""
    resting: dict[str, Any] = field(default_factory=dict)
    """The same of clients."""
    newest: int | None = None
    """The last generation of workers that was begun: it may have come to nothing, and have no heir."""

    @classmethod
    def of_nobody(cls, now: float) -> Self:
        """What the first supervisor of a line goes on from."""
        return cls(workers=(), past=empty_snapshot(), began=now, bypassed=0, alarms=[], rules={})

    @property
    def descriptors(self) -> list[int]:
        ours = [one for one in (self.control, self.sole) if one is not None]
        return ours + [one for worker in self.workers for one in (worker.link, *worker.listeners)]

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:
        workers = tuple(map(Heirloom.from_json, told["workers"]))
        # What a version did not know it had none of to leave.
        later: dict[str, Any] = {name: tuple(told.get(name, ())) for name in ("signers", "untold", "ending")}
        later |= {name: told.get(name) for name in ("control", "sole", "newest")}
        later |= {name: told.get(name, {}) for name in ("dead_ends", "resting")}
        return cls(
            workers, told["past"], told["began"], told["bypassed"], told["alarms"], told["rules"], **later
        )


def command_for(word: str) -> list[str]:
    """This daemon's own command line with another last word than `run`.

    Raises EnvironmentFailureError if the daemon was started in another way than by that command.
    """
    if sys.orig_argv[-1] != _COMMAND:
        raise EnvironmentFailureError("this daemon was not started by `nightmail run`: restart it instead")
    return [sys.executable, *sys.orig_argv[1:-1], word]


def execute_anew(handover: Handover) -> None:
    """Become the next supervisor. Comes back only by an EnvironmentFailureError."""
    command = command_for(_COMMAND)
    memory = os.memfd_create("nightmail-handover", 0)
    os.write(memory, json.dumps(asdict(handover)).encode())
    os.lseek(memory, 0, os.SEEK_SET)
    for descriptor in handover.descriptors:
        os.set_inheritable(descriptor, True)
    # Who is told to reload twice within a second, or to stop while it reloads, hears it when it can.
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        os.execve(command[0], command, {**os.environ, _VARIABLE: str(memory)})  # noqa: S606
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        raise EnvironmentFailureError(f"{command[0]}: cannot be executed: {error.strerror}") from None


def hear_no_signals() -> None:
    """The calling thread does not, from now on: what comes waits for another, or the next supervisor."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


async def what_came_is_heard() -> None:
    """Returns when there is no signal any more that has come and whose handler has not run."""
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    # The loop is told of all of them in their order.
    loop.add_signal_handler(signal.SIGUSR1, heard.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    await heard.wait()


def hear_signals() -> None:
    """To be called once there are handlers: what came since the exec, or comes from now on, is heard."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def received() -> Handover | None:
    """What the supervisor before us left; None for the first one."""
    descriptor = os.environ.pop(_VARIABLE, None)
    if descriptor is None:
        return None
    with os.fdopen(int(descriptor), "rb") as memory:
        handover = Handover.from_json(json.loads(memory.read()))
    for inherited in handover.descriptors:
        os.set_inheritable(inherited, False)
    return handover
