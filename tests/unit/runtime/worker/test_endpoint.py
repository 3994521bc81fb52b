"""The end of a socket: a reset that comes behind the peer's end is still told, and costs nobody a turn; and
last words go out though the peer has nothing more to say."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import cast

import pytest
import uvloop

from gateway.runtime.worker.endpoint import Endpoint, Hold, Owner
from gateway.runtime.worker.poller import Poller
from tests.unit.runtime.worker.scripted import until

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
PATIENCE = 5.0
LAST_WORDS = bytes(range(256)) * (1 << 16)
"""More than two kernels take."""


@contextlib.contextmanager
def polling() -> Iterator[Poller]:
    poller = Poller(asyncio.get_running_loop())
    try:
        yield poller
        assert not poller.watched
    finally:
        poller.close()


class Told:
    """An owner that writes down what it is told."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.event = asyncio.Event()

    def _tell(self, word: str) -> None:
        self.words.append(word)
        self.event.set()

    def octets_received(self, endpoint: Endpoint, octets: memoryview) -> None:
        self._tell("octets")

    def end_received(self, endpoint: Endpoint) -> None:
        self._tell("end")

    def reset_received(self, endpoint: Endpoint) -> None:
        self._tell("reset")

    def drained(self, endpoint: Endpoint) -> None:
        self._tell("drained")

    def closed(self, endpoint: Endpoint) -> None:
        self._tell("closed")

    async def wait(self, word: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while word not in self.words:
                self.event.clear()
                await self.event.wait()


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    return ours, peer


async def met_reset(reset: Callable[[Endpoint, socket.socket], None]) -> list[str]:
    """An endpoint whose peer ends, and then resets."""
    ours, peer = pair()
    told = Told()
    with polling() as poller:
        endpoint = Endpoint(asyncio.get_running_loop(), poller, ours, cast("Owner", told))
        try:
            endpoint.unhold(Hold.NOT_STARTED)
            peer.shutdown(socket.SHUT_WR)
            await told.wait("end")
            reset(endpoint, peer)
            await told.wait("reset")
        finally:
            peer.close()
            endpoint.reset()
    return told.words


def by_reset(endpoint: Endpoint, peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    peer.close()


def by_answer(endpoint: Endpoint, peer: socket.socket) -> None:
    """Closed altogether: its kernel answers the next octets with a reset."""
    peer.close()
    endpoint.write(b"more of the mail\r\n")


@pytest.mark.parametrize("reset", [by_reset, by_answer])
def test_a_reset_behind_the_end_is_told_once(reset: Callable[[Endpoint, socket.socket], None]) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    assert asyncio.run(met_reset(reset)) == ["end", "reset", "closed"]
    assert len(os.listdir("/proc/self/fd")) <= descriptors


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_reset_that_comes_together_with_octets_is_told(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Both are there before the loop looks: it tells of the descriptor once, and there is more to read."""

    async def met() -> list[str]:
        ours, peer = pair()
        told = Told()
        with polling() as poller:
            endpoint = Endpoint(asyncio.get_running_loop(), poller, ours, cast("Owner", told))
            endpoint.unhold(Hold.NOT_STARTED)
            peer.sendall(b"421 4.3.2 Closing\r\n")
            by_reset(endpoint, peer)
            await told.wait("reset")
            endpoint.reset()
        return told.words

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(met()) == ["octets", "reset", "closed"]


def test_nothing_is_told_behind_an_end_that_is_answered() -> None:
    async def both_end() -> list[str]:
        ours, peer = pair()
        told = Told()
        with polling() as poller:
            endpoint = Endpoint(asyncio.get_running_loop(), poller, ours, cast("Owner", told))
            endpoint.unhold(Hold.NOT_STARTED)
            peer.shutdown(socket.SHUT_WR)
            await told.wait("end")
            endpoint.end()
            await asyncio.get_running_loop().run_in_executor(None, peer.recv, 1)
            endpoint.close()
            peer.close()
            await told.wait("closed")
        return told.words

    descriptors = len(os.listdir("/proc/self/fd"))
    assert asyncio.run(both_end()) == ["end", "closed"]
    assert len(os.listdir("/proc/self/fd")) <= descriptors


async def closing(endpoint: Endpoint, peer: socket.socket) -> None:
    """An orderly close, of which most has yet to go out when the peer's own end is read."""
    endpoint.unhold(Hold.NOT_STARTED)
    endpoint.write(LAST_WORDS)
    endpoint.close()
    peer.shutdown(socket.SHUT_WR)
    await until(lambda: endpoint.has_ended)


def read_all(peer: socket.socket) -> bytes:
    return b"".join(iter(lambda: peer.recv(1 << 16), b""))


def test_last_words_go_out_to_a_peer_that_has_ended_before_they_are_out() -> None:
    """R's last record, behind a line that is slow: without it S takes the end for a broken channel."""

    async def met() -> tuple[bytes, list[str]]:
        ours, peer = pair()
        told = Told()
        with polling() as poller:
            endpoint = Endpoint(asyncio.get_running_loop(), poller, ours, cast("Owner", told))
            await closing(endpoint, peer)
            heard = await asyncio.get_running_loop().run_in_executor(None, read_all, peer)
            peer.close()
            await told.wait("closed")
        return heard, told.words

    heard, told = asyncio.run(met())
    assert heard == LAST_WORDS
    assert told == ["closed"]


def test_last_words_for_a_peer_that_has_ended_and_is_gone_keep_nothing() -> None:
    async def met() -> list[str]:
        ours, peer = pair()
        told = Told()
        with polling() as poller:
            endpoint = Endpoint(asyncio.get_running_loop(), poller, ours, cast("Owner", told))
            await closing(endpoint, peer)
            assert endpoint.pending
            by_reset(endpoint, peer)
            await told.wait("closed")
        return told.words

    descriptors = len(os.listdir("/proc/self/fd"))
    assert asyncio.run(met()) == ["closed"]
    assert len(os.listdir("/proc/self/fd")) <= descriptors
