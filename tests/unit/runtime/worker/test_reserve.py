"""Descriptors that are there when no others are."""

from __future__ import annotations

import os
import resource

from gateway.policy import limits
from gateway.runtime.worker.reserve import Reserve


def opens() -> int:
    found: list[int] = []
    try:
        while len(found) < 1000:
            found.append(os.dup(1))
    except OSError:
        pass
    for descriptor in found:
        os.close(descriptor)
    return len(found)


def test_they_are_there_when_no_others_are() -> None:
    reserve = Reserve(1)
    assert reserve.is_whole()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(1)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        assert opens() == 0
        assert reserve.give()
        assert opens() == limits.SPARE_DESCRIPTORS
        assert not reserve.give(), "they are given once"
        held = [os.dup(1)]
        assert not reserve.is_whole(), "somebody has one of them"
        os.close(held.pop())
        assert reserve.is_whole()
        assert opens() == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    reserve.give()
