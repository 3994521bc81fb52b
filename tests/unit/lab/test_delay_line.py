"""The long line, with a clock and a kernel of paper."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from gateway.lab.delay_line import DelayLine


class Paper:
    """A clock, a loop's timers, and packets that remember when they were let go."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.out: list[tuple[str, float]] = []

    def call_later(self, delay: float, action: Callable[[], None]) -> object:
        self.timers.append((self.now + delay, action))
        return object()

    def run_until(self, when: float) -> None:
        while self.timers and min(self.timers, key=lambda t: t[0])[0] <= when:
            timer = min(self.timers, key=lambda t: t[0])
            self.timers.remove(timer)
            self.now = timer[0]
            timer[1]()
        self.now = when

    def packet(self, name: str) -> Packet:
        return Packet(name, self)


class Packet:
    def __init__(self, name: str, paper: Paper) -> None:
        self.name, self.paper = name, paper

    def accept(self) -> None:
        self.paper.out.append((self.name, round(self.paper.now, 4)))

    def drop(self) -> None:
        self.paper.out.append((f"{self.name} lost", round(self.paper.now, 4)))


def line_on(paper: Paper, loses: Callable[[], bool] = lambda: False) -> DelayLine:
    loop = cast("asyncio.AbstractEventLoop", cast("Any", paper))
    return DelayLine(loop, 0.040, loses, now=lambda: paper.now)


def test_each_packet_waits_its_own_time_and_order_is_kept() -> None:
    paper = Paper()
    line = line_on(paper)
    for when, name in ((0.0, "a"), (0.010, "b"), (0.0101, "c"), (0.200, "d")):
        paper.run_until(when)
        line.take(paper.packet(name))
    paper.run_until(1.0)
    assert [name for name, _ in paper.out] == ["a", "b", "c", "d"]
    for (_, left), came in zip(paper.out, (0.0, 0.010, 0.0101, 0.200), strict=True):
        assert abs(left - came - 0.040) < 0.0003
    assert paper.timers == []


def test_lost_packets_are_dropped_at_once_and_hold_nothing_up() -> None:
    paper = Paper()
    chances = iter([False, True, False])
    line = line_on(paper, lambda: next(chances))
    for name in "abc":
        line.take(paper.packet(name))
    assert paper.out == [("b lost", 0.0)]
    paper.run_until(1.0)
    assert [name for name, _ in paper.out] == ["b lost", "a", "c"]


def test_at_the_end_everything_is_let_go() -> None:
    paper = Paper()
    line = line_on(paper)
    line.take(paper.packet("a"))
    line.take(paper.packet("b"))
    line.release_all()
    assert [name for name, _ in paper.out] == ["a", "b"]
    paper.run_until(1.0)
    assert len(paper.out) == 2


def test_a_late_packet_is_overtaken_once() -> None:
    paper = Paper()
    late = iter([False, True, False, False])
    loop = cast("asyncio.AbstractEventLoop", cast("Any", paper))
    line = DelayLine(loop, 0.040, lambda: False, now=lambda: paper.now, late=lambda: next(late))
    for when, name in ((0.0, "a"), (0.010, "b"), (0.020, "c"), (0.030, "d")):
        paper.run_until(when)
        line.take(paper.packet(name))
    paper.run_until(1.0)
    assert [name for name, _ in paper.out] == ["a", "c", "d", "b"]
