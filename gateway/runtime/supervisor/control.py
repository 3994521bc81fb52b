"""The control socket: one question a connection, one JSON object back. Only root reaches it.

Being bound is also what makes a daemon the only one of its run directory. Counterpart: `operator.status`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from gateway.errors import EnvironmentFailureError
from gateway.policy import limits


class ControlSocket:
    """`status` answers the object for the question "status", `reload` the one for "reload"."""

    def __init__(
        self,
        path: Path,
        status: Callable[[], dict[str, Any]],
        reload: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        self._path = path
        self._status = status
        self._reload = reload
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[Any]] = set()

    def require_free(self) -> None:
        """Raises EnvironmentFailureError where another daemon listens."""
        if self._somebody_listens():
            raise EnvironmentFailureError(f"{self._path}: another daemon runs with this run directory")

    async def open(self) -> None:
        """Answer from now on, in place of a dead daemon's socket. Raises EnvironmentFailureError."""
        self.require_free()
        try:
            self._path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._asked, str(self._path))
            self._path.chmod(0o600)
        except OSError as error:
            raise EnvironmentFailureError(f"{self._path}: {error.strerror}") from None

    async def close(self) -> None:
        """Whoever has asked by now still gets the answer."""
        if self._server is None:
            return
        self._path.unlink(missing_ok=True)
        self._server.close()
        if self._answering:
            await asyncio.wait(self._answering, timeout=limits.CONTROL_SECONDS)

    def _somebody_listens(self) -> bool:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
            try:
                trial.connect(str(self._path))
            except OSError:
                return False
            return True

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
        with contextlib.suppress(OSError, TimeoutError, ValueError):
            async with asyncio.timeout(limits.CONTROL_SECONDS):
                question = (await reader.readline()).strip()
            async with asyncio.timeout(limits.CONTROL_SECONDS + limits.RELOAD_SECONDS):
                if question == b"status":
                    answer = self._status()
                elif question == b"reload":
                    answer = await self._reload()
                else:
                    answer = {"error": "this daemon knows the questions status and reload"}
                writer.write(json.dumps(answer).encode())
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
