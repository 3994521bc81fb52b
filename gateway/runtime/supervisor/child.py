"""A child process by its pid: started here, or inherited from the program that this process was before.

asyncio's own processes cannot outlive an exec of their parent; a pid and a pidfd can.
Counterpart: `pool`, which starts workers, and `handover`, which carries them over an exec.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence


class Child:
    """`on_end` is called once, in the loop, with the exit status (negative: the signal that ended it)."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pid: int, on_end: Callable[[int], None]) -> None:
        """Raises OSError if there is no such child."""
        self.pid = pid
        self._loop = loop
        self._on_end = on_end
        self._ended: asyncio.Future[int] = loop.create_future()
        self._pidfd = os.pidfd_open(pid)
        loop.add_reader(self._pidfd, self._reap)

    @classmethod
    def start(
        cls,
        loop: asyncio.AbstractEventLoop,
        module: str,
        words: Sequence[str],
        inherited: Sequence[int],
        on_end: Callable[[int], None],
        environment: Mapping[str, str] | None = None,
    ) -> Child:
        """`python -m module words`, with these descriptors and no other. Raises OSError.

        `environment`: what it has beside ours, unless ours says otherwise.
        """
        # -P: a root process must not import from the directory it happens to stand in.
        command = [sys.executable, "-P", "-m", module, *words]
        # All other descriptors are close-on-exec; a dup2 onto itself clears the flag in the child alone.
        actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        actions += [(os.POSIX_SPAWN_DUP2, fd, fd) for fd in inherited]  # type: ignore[misc]
        variables = {**(environment or {}), **os.environ}
        # A supervisor that has just executed itself anew hears no signals yet; its children have to.
        pid = os.posix_spawn(sys.executable, command, variables, file_actions=actions, setsigmask=())
        try:
            return cls(loop, pid, on_end)
        except OSError:
            os.kill(pid, signal.SIGKILL)  # nobody would ever hear of its end
            os.waitpid(pid, 0)
            raise

    @property
    def has_ended(self) -> bool:
        return self._ended.done()

    async def wait(self) -> int:
        """The exit status, once there is one."""
        return await asyncio.shield(self._ended)

    def kill(self) -> None:
        if not self.has_ended:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:  # somebody else has waited for it: ended it has
            status = 0
        self._ended.set_result(status)
        self._on_end(status)
