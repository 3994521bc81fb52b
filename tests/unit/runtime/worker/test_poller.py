"""Many sockets behind one descriptor of the loop: each is told, none for another, none keeps a turn."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Iterator

import pytest
import uvloop

from gateway.policy import limits
from gateway.runtime.worker.poller import Poller


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0.001)


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(5000):
        if holds():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("never")


@contextlib.contextmanager
def polled(count: int) -> Iterator[tuple[Poller, list[tuple[socket.socket, socket.socket]]]]:
    """A poller of the running loop, and pairs of whose first sockets the test makes it watch all."""
    poller = Poller(asyncio.get_running_loop())
    pairs = [pair() for _ in range(count)]
    yield poller, pairs
    for ours, theirs in pairs:
        poller.forget(ours.fileno())
        ours.close()
        theirs.close()
    poller.close()


def watch_all(
    poller: Poller, pairs: list[tuple[socket.socket, socket.socket]], serve: Callable[[int], None]
) -> None:
    """Each has something to read, and `serve` is told its number."""
    for number, (ours, theirs) in enumerate(pairs):
        theirs.send(b"x")
        poller.watch(ours.fileno(), select.EPOLLIN, lambda _, number=number: serve(number))


def run(body: object) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(body)  # type: ignore[arg-type]


def test_what_is_not_taken_is_told_again_and_what_is_forgotten_never() -> None:
    async def body() -> None:
        poller = Poller(asyncio.get_running_loop())
        ours, theirs = pair()
        told: list[int] = []
        poller.watch(ours.fileno(), select.EPOLLIN, told.append)
        theirs.send(b"x")
        await until(lambda: len(told) >= 2)
        poller.forget(ours.fileno())
        seen = len(told)
        await turns()
        assert len(told) == seen
        assert poller.watched == 0
        poller.close()
        ours.close()
        theirs.close()

    run(body())


def test_errors_come_unasked() -> None:
    async def body() -> None:
        poller = Poller(asyncio.get_running_loop())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            theirs = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        told = asyncio.get_running_loop().create_future()
        poller.watch(ours.fileno(), 0, lambda events: told.done() or told.set_result(events))
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        theirs.close()
        assert await asyncio.wait_for(told, 5) & (select.EPOLLERR | select.EPOLLHUP)
        poller.forget(ours.fileno())
        poller.close()
        ours.close()

    run(body())


def test_a_number_that_is_given_out_again_is_not_told_what_was_meant_for_another() -> None:
    """Both are ready in one turn; the first ends the second, and a new socket gets its number."""

    async def body() -> None:
        poller = Poller(asyncio.get_running_loop())
        first, first_peer = pair()
        second, second_peer = pair()
        wrongly: list[int] = []
        new: list[socket.socket] = []
        ended = asyncio.Event()

        def end(other: socket.socket) -> None:
            if new:
                return
            number = other.fileno()
            poller.forget(number)
            other.close()
            fresh, peer = socket.socketpair()
            new.extend((fresh, peer))
            if fresh.fileno() != number:
                os.dup2(fresh.fileno(), number)
                new.append(socket.socket(fileno=number))
            poller.watch(number, 0, wrongly.append)
            ended.set()

        for one, other in ((first, second), (second, first)):
            poller.watch(one.fileno(), select.EPOLLIN, lambda _, other=other: end(other))
        first_peer.send(b"x")
        second_peer.send(b"x")
        await asyncio.wait_for(ended.wait(), 5)
        await turns()
        assert not wrongly
        for sock in (first, second, first_peer, second_peer, *new):
            sock.close()
        poller.close()

    run(body())


def test_behind_its_moment_nothing_is_told_and_then_those_come_first_that_were_not() -> None:
    async def body() -> None:
        with polled(6) as (poller, pairs):
            told: list[int] = []

            def serve(number: int) -> None:
                told.append(number)
                if len(told) == 2:
                    poller.rest_behind(time.monotonic() - 1)

            watch_all(poller, pairs, serve)
            await turns()
            assert told == [0, 1]
            poller.rest_behind(time.monotonic() + 60)
            await until(lambda: len(told) >= 6)
            assert told[:6] == [0, 1, 2, 3, 4, 5]

    run(body())


def test_one_that_fails_keeps_none_of_the_others_waiting() -> None:
    """Also where a turn was cut short just before it: that list must not begin with the same one for ever."""

    async def body() -> None:
        loop = asyncio.get_running_loop()
        failures: list[BaseException] = []
        loop.set_exception_handler(lambda _, context: failures.append(context["exception"]))
        with polled(3) as (poller, pairs):
            told: list[int] = []

            def serve(number: int) -> None:
                if number == 0:
                    raise KeyError("a bug of ours")
                told.append(number)

            poller.rest_behind(time.monotonic() - 1)
            watch_all(poller, pairs, serve)
            await turns()
            assert told == []
            poller.rest_behind(time.monotonic() + 60)
            await until(lambda: {1, 2} <= set(told))
            await turns()
            assert [type(one) for one in failures] == [KeyError]

    run(body())


@pytest.mark.parametrize("more", [1, 100])
def test_a_turn_serves_so_many_and_the_next_turn_the_others(more: int) -> None:
    async def body() -> None:
        with polled(limits.EVENTS_PER_TURN + more) as (poller, pairs):
            served: set[int] = set()

            def serve(number: int) -> None:
                served.add(number)
                pairs[number][0].recv(1)

            watch_all(poller, pairs, serve)
            await until(lambda: len(served) == len(pairs))

    run(body())
