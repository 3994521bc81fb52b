"""The control socket: one question a connection, one JSON object back. Only root reaches it.

Being bound is also what makes a daemon the only one of its run directory. The socket outlives a reload: who
asks while the supervisor becomes the next one is answered by that one. Where somebody removes it, or the
whole directory, it comes back. Counterpart: `operator.status`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.errors import EnvironmentFailureError
from gateway.policy import limits

_UCRED: Final = struct.Struct("3i")
_LEAVE_THE_PATH: Final[dict[str, Any]] = {"cleanup_socket": False}
Answer = Callable[[str], Awaitable[dict[str, Any]]]


class ControlSocket:
    """`answers`: by the first word of the question; each is told the rest of it."""

    def __init__(
        self,
        path: Path,
        answers: Mapping[str, Answer],
        inherited: int | None = None,
    ) -> None:
        """`inherited`: the listening descriptor that the supervisor before this one has left."""
        self._path = path
        self._answers = answers
        self._listener = _heirloom(path, inherited)
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[Any]] = set()

    def require_free(self) -> None:
        """Raises EnvironmentFailureError where another daemon listens."""
        pid = self._listening_process() if self._listener is None else None
        if pid is not None:
            told = f"another daemon runs with this run directory (process {pid})"
            raise EnvironmentFailureError(f"{self._path}: {told}; `nightmail reload` loads it anew")

    async def open(self) -> None:
        """Answer from now on, in place of a dead daemon's socket. Raises EnvironmentFailureError."""
        self.require_free()
        try:
            if self._listener is None:
                self._listener = self._bound()
            self._server = await self._served(self._listener)
        except OSError as error:
            raise EnvironmentFailureError(f"{self._path}: {error.strerror}") from None

    async def keep(self, tell: Callable[[str], None]) -> None:
        """Runs until it is cancelled. `tell` hears of a socket that was removed: why it is not back, or an
        empty word where it is."""
        lost = ""
        while True:
            await asyncio.sleep(limits.CONTROL_LOOK_SECONDS)
            if self._path.is_socket():
                continue
            why = await self._put_back()
            if why != lost or not why:
                tell(why)
            lost = why

    async def _put_back(self) -> str:
        """Who has connected to the one before is still answered."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            listener = self._bound()
            server = await self._served(listener)
        except OSError as error:
            return error.strerror or str(error)
        if self._server is not None:
            self._server.close()
        self._listener, self._server = listener, server
        return ""

    async def _served(self, listener: socket.socket) -> asyncio.Server:
        """Its path stays when it is closed: from Python 3.13 on it would go."""
        try:
            return await asyncio.start_unix_server(self._connected, sock=listener, **_LEAVE_THE_PATH)
        except TypeError:  # an earlier loop, which leaves it anyhow
            return await asyncio.start_unix_server(self._connected, sock=listener)

    def _bound(self) -> socket.socket:
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self._path))
            self._path.chmod(0o600)
        except OSError:
            listener.close()
            raise
        return listener

    async def hand_over(self) -> int | None:
        """Answer nobody any more; what comes from now on waits for whoever gets this descriptor."""
        if self._server is None or self._listener is None:
            return None
        left = os.dup(self._listener.fileno())
        self._server.close()
        await self._finish()
        return left

    async def close(self) -> None:
        """Whoever has asked by now still gets the answer."""
        if self._server is None:
            return
        self._path.unlink(missing_ok=True)
        self._server.close()
        await self._finish()

    async def _finish(self) -> None:
        await asyncio.sleep(0)  # for connections that the loop has accepted and not told us of yet
        if self._answering:
            await asyncio.wait(self._answering, timeout=limits.CONTROL_SECONDS)

    def _listening_process(self) -> int | None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            try:
                trial.connect(str(self._path))
                credentials = trial.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
            except OSError:
                return None
            return int(_UCRED.unpack(credentials)[0])

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._asked(reader, writer))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(limits.CONTROL_SECONDS):
                word, _, rest = (await reader.readline()).decode().strip().partition(" ")
            async with asyncio.timeout(limits.CONTROL_SECONDS + limits.ANSWER_SECONDS):
                known = self._answers.get(word)
                told = {"error": f"this daemon knows the questions {', '.join(self._answers)}"}
                writer.write(json.dumps(await known(rest) if known is not None else told).encode())
                await writer.drain()
        writer.close()
        try:
            async with asyncio.timeout(limits.CONTROL_SECONDS):
                await writer.wait_closed()
        except TimeoutError:
            writer.transport.abort()  # an orderly close would wait for a reader who does not read
        except OSError:
            pass  # whoever asked is gone


def _heirloom(path: Path, inherited: int | None) -> socket.socket | None:
    """A socket whose path is gone cannot be asked: then there is to be another one."""
    if inherited is None:
        return None
    listener = socket.socket(fileno=inherited)
    if path.is_socket():
        return listener
    listener.close()
    return None
