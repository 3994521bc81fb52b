"""Metrics over HTTP, on a Unix socket or a loopback port: one GET, one answer, the connection closed.

Served in the supervisor's loop without ever holding it up: whoever asks is given little time and little
memory, and the text is made anew once a second at most. Counterparts: `observe.exposition` (the text),
`outlets` (where it may listen).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import h11

from gateway.errors import EnvironmentFailureError
from gateway.observe.exposition import CONTENT_TYPE, exposition
from gateway.outlets import Listen
from gateway.policy import limits

_PATH: Final = b"/metrics"


class Metrics:
    """`status` answers the daemon's facts, as the control socket does."""

    def __init__(self, listen: Listen, status: Callable[[], dict[str, Any]]) -> None:
        self._listen = listen
        self._status = status
        self._server: asyncio.Server | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._text = b""
        self._made_at = float("-inf")

    async def open(self) -> None:
        """Answer from now on. Raises EnvironmentFailureError."""
        try:
            if isinstance(self._listen, Path):
                _remove(self._listen)
                self._server = await asyncio.start_unix_server(self._asked, str(self._listen))
                # For a collector in the group of its directory (setgid); counts are no secret of the mail's.
                self._listen.chmod(0o660)
            else:
                host, port = self._listen
                self._server = await asyncio.start_server(self._asked, host, port)
        except OSError as error:
            raise EnvironmentFailureError(f"metrics.listen: {error.strerror or error}") from None

    @property
    def is_lost(self) -> bool:
        """Whether somebody has removed the socket that is served."""
        return self._server is not None and isinstance(self._listen, Path) and not self._listen.is_socket()

    async def close(self) -> None:
        if self._server is None:
            return
        if isinstance(self._listen, Path):
            _remove(self._listen)
        self._server.close()
        for answer in list(self._answering):
            answer.cancel()

    async def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._answering) >= limits.METRICS_CONNECTIONS:
            writer.close()
            return
        self._answering.add(task)
        try:
            async with asyncio.timeout(limits.METRICS_SECONDS):
                await self._answer(reader, writer)
        except TimeoutError:
            writer.transport.abort()  # an orderly close would wait for a reader who does not read
        except OSError:
            pass  # whoever asked is gone
        finally:
            self._answering.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.METRICS_REQUEST_OCTETS)
        request = None
        try:
            request = await _request(http, reader)
            if request is None:
                return
            status, body = self._judged(request)
        except h11.RemoteProtocolError as error:
            status, body = error.error_status_hint, b"not a request that is understood here\n"
        if http.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = [
            ("Content-Type", CONTENT_TYPE),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        writer.write(http.send(h11.Response(status_code=status, headers=headers)) or b"")
        if request is None or request.method != b"HEAD":  # which gets the length alone: RFC 9110, 9.3.2
            writer.write(http.send(h11.Data(data=body)) or b"")
        writer.write(http.send(h11.EndOfMessage()) or b"")
        await writer.drain()

    def _judged(self, request: h11.Request) -> tuple[int, bytes]:
        if request.method not in (b"GET", b"HEAD"):
            return 405, b"GET is all there is\n"
        if request.target.partition(b"?")[0] != _PATH:
            return 404, b"there is /metrics\n"
        return 200, self._fresh_text()

    def _fresh_text(self) -> bytes:
        now = asyncio.get_running_loop().time()
        if now - self._made_at >= limits.METRICS_EVERY_SECONDS:
            self._text, self._made_at = exposition(self._status()), now
        return self._text


def _remove(path: Path) -> None:
    """A socket that a dead daemon has left, or our own. Whatever else a slip in the configuration names, the
    site's identity perhaps, stays, and is in the way."""
    if path.is_socket():
        path.unlink(missing_ok=True)


async def _request(http: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """None: the peer has gone without asking. Raises h11.RemoteProtocolError."""
    while True:
        event = http.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        octets = await reader.read(limits.METRICS_REQUEST_OCTETS)
        http.receive_data(octets)
        if not octets and http.their_state is h11.IDLE and not http.trailing_data[0]:
            return None
