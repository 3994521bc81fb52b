"""Real sockets on a real event loop that keeps count of what is registered with it. For tests only."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from gateway.runtime.worker.poller import Poller

SECONDS = 20.0
"""A test that has not ended by then hangs."""


class CountingLoop(uvloop.Loop):
    """Knows which descriptors somebody waits for. (Its own `sock_recv` and the like do not count.)"""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[int] = set()
        self.writers: set[int] = set()
        self._poller: Poller | None = None

    def poller(self) -> Poller:
        """One for all that a test makes, closed at its end."""
        self._poller = self._poller or Poller(self)
        return self._poller

    def end_polling(self) -> None:
        if self._poller is not None:
            assert not self._poller.watched, "a socket is left registered"
            self._poller.close()

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override]
        self.readers.add(fd)
        super().add_reader(fd, callback, *args)

    def remove_reader(self, fd: Any) -> bool:  # type: ignore[override]
        self.readers.discard(fd)
        return bool(super().remove_reader(fd))

    def add_writer(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override]
        self.writers.add(fd)
        super().add_writer(fd, callback, *args)

    def remove_writer(self, fd: Any) -> bool:  # type: ignore[override]
        self.writers.discard(fd)
        return bool(super().remove_writer(fd))


def run(body: Callable[[CountingLoop], Coroutine[Any, Any, None]]) -> None:
    """Run one test body; afterwards nothing is registered and no descriptor is left."""
    before = open_descriptors()
    loop = CountingLoop()
    errors: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: errors.append(context))
    try:
        loop.run_until_complete(asyncio.wait_for(body(loop), SECONDS))
        loop.run_until_complete(asyncio.sleep(0))
        loop.end_polling()
        assert not loop.readers, "a reader is left registered"
        assert not loop.writers, "a writer is left registered"
    finally:
        loop.close()
    assert not errors, errors
    left = open_descriptors() - before
    assert not left, f"left open: {left}"


def open_descriptors() -> set[str]:
    """The sockets of this process, by inode; what a loop keeps for itself (epoll, eventfd) is not meant."""
    links = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.add(os.readlink(f"/proc/self/fd/{name}"))
    return {link for link in links if link.startswith("socket:")}


def tcp_pair(small: bool = False) -> tuple[socket.socket, socket.socket]:
    """Ours and theirs, connected over loopback. `small`: buffers that fill soon."""
    with socket.socket() as listener:
        if small:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        theirs = socket.socket()
        if small:
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        theirs.connect(listener.getsockname())
        ours, _ = listener.accept()
    for one in (ours, theirs):
        one.setblocking(False)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


def send_reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


async def read_all(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> bytes:
    """Up to the FIN. Raises ConnectionResetError where a reset came instead."""
    parts = []
    while part := await loop.sock_recv(sock, 1 << 16):
        parts.append(part)
    return b"".join(parts)


async def read_exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        part = await loop.sock_recv(sock, count - len(got))
        assert part, f"ended after {got!r}"
        got += part
    return got
