from __future__ import annotations

import os

import pytest

from bench import meter


def reading(wall: float, busy: float, strangers: float) -> meter.Reading:
    return meter.Reading(wall, busy, 0.0, 0.0, strangers)


def test_what_strangers_used_is_not_ours() -> None:
    used = meter.between(reading(10.0, 100.0, 50.0), reading(12.0, 103.5, 51.0))
    assert used.cpu == pytest.approx(2.5)
    assert used.strangers == pytest.approx(1.0)
    assert used.wall == pytest.approx(2.0)


def test_strangers_who_ended_unseen_do_not_add_to_ours() -> None:
    assert meter.between(reading(0.0, 10.0, 50.0), reading(1.0, 11.0, 49.0)).cpu == pytest.approx(1.0)


def test_the_machine_is_read() -> None:
    first = meter.begin()
    spent = meter.process_seconds([os.getpid()])
    while meter.process_seconds([os.getpid()]) - spent < 0.05:
        pass
    last = meter.end()
    assert last.wall > first.wall
    assert last.busy > first.busy
