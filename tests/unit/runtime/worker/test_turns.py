"""A worker's loop: everything once, in its order, and nothing that raises ends it."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Iterator

import pytest

from gateway.policy import limits
from gateway.runtime.worker.turns import Turns


@pytest.fixture
def loop() -> Iterator[Turns]:
    made = Turns()
    made.call_later(10.0, os._exit, 9)  # a test that hangs
    yield made
    made.close()


def test_timers_come_at_their_time_and_those_of_one_moment_in_order(loop: Turns) -> None:
    told: list[str] = []
    began = loop.time()
    loop.call_later(0.03, loop.stop)
    loop.call_later(0.02, told.append, "late")
    moment = loop.time() + 0.01
    for word in ("first", "second", "third"):
        loop.call_at(moment, told.append, word)
    loop.run_forever()
    assert told == ["first", "second", "third", "late"]
    assert 0.03 <= loop.time() - began < 5


def test_a_cancelled_timer_is_not_called_and_holds_nothing(loop: Turns) -> None:
    told: list[str] = []
    timer = loop.call_later(0.0, told.append, "never")
    timer.cancel()
    timer.cancel()
    assert timer._args == ()
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert told == []


def test_a_timer_may_cancel_another_of_its_moment(loop: Turns) -> None:
    told: list[str] = []
    moment = loop.time()
    loop.call_at(moment, lambda: other.cancel())
    other = loop.call_at(moment, told.append, "never")
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert told == []


def test_cancelled_timers_do_not_pile_up(loop: Turns) -> None:
    """A session has timers of many seconds, and cancels nearly all of them."""
    for _ in range(50):
        for timer in [loop.call_later(60.0, os._exit, 9) for _ in range(100)]:
            timer.cancel()
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert len(loop._timers) <= limits.CANCELLED_TIMERS + 100 + 1
    told: list[str] = []
    loop.call_later(0.0, told.append, "still")
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    assert told == ["still"]


def test_one_that_has_been_called_can_be_cancelled(loop: Turns) -> None:
    told: list[str] = []
    timer = loop.call_later(0.0, told.append, "once")
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    timer.cancel()
    assert told == ["once"]
    assert loop._cancelled == 0


def test_what_was_asked_for_comes_in_order_and_what_it_asks_for_in_the_next_turn(loop: Turns) -> None:
    told: list[str] = []

    def first() -> None:
        told.append("first")
        loop.call_soon(told.append, "third")
        loop.call_soon(loop.stop)

    loop.call_soon(first)
    loop.call_soon(told.append, "second")
    loop.run_forever()
    assert told == ["first", "second", "third"]


def test_a_reader_is_told_until_it_is_removed(loop: Turns) -> None:
    ours, theirs = socket.socketpair()
    told: list[bytes] = []

    def readable(word: str) -> None:
        told.append(ours.recv(1) + word.encode())
        if len(told) == 2:
            assert loop.remove_reader(ours.fileno())
            loop.call_later(0.01, loop.stop)

    with ours, theirs:
        theirs.send(b"abc")
        loop.add_reader(ours.fileno(), readable, "!")
        loop.run_forever()
        assert told == [b"a!", b"b!"]
        assert not loop.remove_reader(ours.fileno())


def test_a_reader_that_fails_is_told_again(loop: Turns, capsys: pytest.CaptureFixture[str]) -> None:
    """It may be the kernel's queue of SYNs: deaf, it would hold up every new connection."""
    ours, theirs = socket.socketpair()
    told: list[int] = []

    def fail() -> None:
        told.append(len(told))
        if len(told) == 3:
            loop.stop()
        raise ValueError

    with ours, theirs:
        theirs.send(b"x")
        loop.add_reader(ours.fileno(), fail)
        loop.run_forever()
    assert told == [0, 1, 2]
    assert capsys.readouterr().err.count("raise ValueError") == 3


def test_what_raises_is_printed_and_the_loop_goes_on(loop: Turns, capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = socket.socketpair()
    told: list[str] = []

    def fail(word: str) -> None:
        told.append(word)
        if word == "reader":
            loop.remove_reader(ours.fileno())
        if len(told) == 3:
            loop.stop()
        raise ValueError(word)

    with ours, theirs:
        theirs.send(b"x")
        loop.add_reader(ours.fileno(), fail, "reader")
        loop.call_soon(fail, "soon")
        loop.call_later(0.0, fail, "timer")
        loop.run_forever()
    assert sorted(told) == ["reader", "soon", "timer"]
    assert capsys.readouterr().err.count("ValueError: ") == 3


def test_what_raises_is_told_to_whoever_wants_to_hear_it_and_may_fail_itself(
    loop: Turns, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []

    def fail(word: str) -> None:
        raise ValueError(word)

    def hear(error: Exception) -> None:
        told.append(str(error))
        if len(told) == 1:
            raise RuntimeError("cannot tell it")

    loop.on_failure = hear
    loop.call_soon(fail, "first")
    loop.call_soon(fail, "second")
    loop.call_later(0.02, loop.stop)
    loop.run_forever()
    assert told == ["first", "second"]
    assert capsys.readouterr().err.count("cannot tell it") == 2  # in the code, and in words


def test_a_socket_that_was_closed_before_it_was_forgotten_ends_nothing(loop: Turns) -> None:
    ours, theirs = socket.socketpair()
    again = socket.socket(fileno=os.dup(ours.fileno()))
    told: list[int] = []
    loop.poller.watch(ours.fileno(), select.EPOLLIN, told.append)
    del loop.poller._ready[ours.fileno()]  # a bug of ours: the kernel still tells of it
    with ours, theirs, again:
        theirs.send(b"x")
        loop.call_later(0.02, loop.stop)
        loop.run_forever()
    assert told == []


def test_a_signal_is_told_in_a_turn(loop: Turns) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    told: list[str] = []
    try:
        loop.add_signal_handler(signal.SIGUSR1, lambda: told.append("signal") or loop.stop())
        loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)
        loop.run_forever()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert told == ["signal"]
