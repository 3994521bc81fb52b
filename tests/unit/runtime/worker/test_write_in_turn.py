"""Octets that wait for the end of a turn: all of them leave, in order, whatever else happens in that turn."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from gateway.policy import limits
from gateway.runtime.worker.endpoint import Endpoint, Hold, Owner
from gateway.runtime.worker.turns import Turns

PATIENCE = 5.0
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
KEPT, MORE = b"250 2.1.0 Ok\r\n", b"354 go on\r\n"


class Met:
    """An endpoint, its peer, and what the owner of both does when it is told of octets."""

    def __init__(self, turns: Turns) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.peer = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        ours.setblocking(False)
        self.peer.settimeout(PATIENCE)
        self.told: list[str] = []
        self.errors: list[Exception] = []
        self.on_octets: Callable[[], object] = lambda: None
        self.endpoint = Endpoint(turns, turns.poller, ours, cast("Owner", self))
        self.endpoint.unhold(Hold.NOT_STARTED)

    def octets_received(self, endpoint: Endpoint, octets: memoryview) -> None:
        self.told.append("octets")
        self.on_octets()

    def end_received(self, endpoint: Endpoint) -> None:
        self.told.append("end")

    def reset_received(self, endpoint: Endpoint) -> None:
        self.told.append("reset")

    def drained(self, endpoint: Endpoint) -> None:
        self.told.append("drained")

    def closed(self, endpoint: Endpoint) -> None:
        self.told.append("closed")

    def failed(self, error: Exception) -> None:
        self.errors.append(error)

    def answer(self) -> None:
        self.endpoint.write_in_turn(KEPT)

    def has_arrived(self, seconds: float = 0.0) -> bool:
        """A busy kernel takes its time for what has left."""
        return bool(select.select([self.peer], [], [], seconds)[0])

    def hears(self, octets: bytes) -> bool:
        return self.peer.recv(len(octets), socket.MSG_WAITALL) == octets


@pytest.fixture
def turns() -> Iterator[Turns]:
    made = Turns()
    yield made
    made.close()


@pytest.fixture
def two(turns: Turns) -> Iterator[tuple[Met, Met]]:
    """Both have something to read."""
    first, second = Met(turns), Met(turns)
    for one in (first, second):
        one.peer.sendall(b"NOOP\r\n")
    yield first, second
    for one in (first, second):
        one.endpoint.abandon()
        one.peer.close()


def test_what_is_written_leaves_when_all_have_been_told(turns: Turns, two: tuple[Met, Met]) -> None:
    seen: list[bool] = []
    for one in two:
        one.on_octets = lambda one=one: (one.answer(), seen.append(any(each.has_arrived() for each in two)))
    turns.poller.turn(PATIENCE)
    assert seen == [False, False]
    assert all(one.hears(KEPT) for one in two)


def test_where_nobody_else_is_told_it_leaves_at_once(turns: Turns, two: tuple[Met, Met]) -> None:
    alone, silent = two
    silent.endpoint.hold(Hold.BY_SESSION)
    seen: list[bool] = []
    alone.on_octets = lambda: (alone.answer(), seen.append(alone.has_arrived(PATIENCE)))
    turns.poller.turn(PATIENCE)
    assert seen == [True]


def test_outside_of_a_turn_it_leaves_at_once(two: tuple[Met, Met]) -> None:
    two[0].answer()
    assert two[0].hears(KEPT)


def test_large_ones_do_not_wait_nor_overtake(turns: Turns, two: tuple[Met, Met]) -> None:
    large = bytes(limits.KEPT_IN_TURN_OCTETS)
    seen: list[bool] = []

    def answer() -> None:
        two[0].answer()
        two[0].endpoint.write_in_turn(large)
        seen.append(two[0].has_arrived(PATIENCE))

    two[0].on_octets = answer
    turns.poller.turn(PATIENCE)
    assert seen == [True]
    assert two[0].hears(KEPT + large)


def test_two_for_one_socket_leave_in_their_order(turns: Turns, two: tuple[Met, Met]) -> None:
    two[0].on_octets = lambda: (two[0].answer(), two[0].endpoint.write_in_turn(bytearray(MORE)))
    turns.poller.turn(PATIENCE)
    assert two[0].hears(KEPT + MORE)


@pytest.mark.parametrize(
    ("word", "heard"),
    [
        (lambda endpoint: endpoint.write(memoryview(MORE)), KEPT + MORE),
        (lambda endpoint: endpoint.write_in_turn(MORE, last=True), KEPT),
        (Endpoint.end, KEPT),
        (Endpoint.close, KEPT),
        (Endpoint.reset, KEPT),
        (Endpoint.abandon, KEPT),
    ],
    ids=["write", "last", "end", "close", "reset", "abandon"],
)
def test_nothing_overtakes_what_is_kept(
    turns: Turns, two: tuple[Met, Met], word: Callable[[Endpoint], None], heard: bytes
) -> None:
    first, _ = two
    first.on_octets = lambda: (first.answer(), word(first.endpoint))
    turns.poller.turn(PATIENCE)
    if word is not Endpoint.reset and word is not Endpoint.abandon:
        first.endpoint.end()
    assert first.hears(heard)
    assert not first.errors


@pytest.mark.parametrize("has_ended", [False, True])
def test_a_peer_that_is_gone_meanwhile_is_told_of(
    turns: Turns, two: tuple[Met, Met], has_ended: bool
) -> None:
    first, second = two
    if has_ended:
        first.peer.shutdown(socket.SHUT_WR)

    def gone() -> None:
        first.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        first.peer.close()

    first.on_octets, second.on_octets = first.answer, gone
    while "reset" not in first.told:
        turns._turn()
    assert first.told in (["octets", "reset"], ["octets", "end", "reset"])
    assert not first.errors


def test_a_bug_with_one_socket_keeps_nobody_else_from_leaving(turns: Turns, two: tuple[Met, Met]) -> None:
    first, second = two
    first.on_octets = lambda: first.endpoint.write_in_turn(cast("bytes", "no octets"))
    second.on_octets = second.answer
    turns.poller.turn(PATIENCE)
    assert second.hears(KEPT)
    assert first.errors
