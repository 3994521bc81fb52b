"""An IPRoute that is kept, and asked every second for months, holds nothing of what it was told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pyroute2 import IPRoute

from gateway.intercept.kernel import routing

LOOKS = 10


def unread(ip: Any) -> int:
    """Messages that have come and that nobody has asked for, once all of them are there."""
    ip.get_links()
    found = ip.asyncore.msg_queue.root.qsize()
    assert isinstance(found, int)
    return found


def test_pyroute2_lays_aside_what_comes_behind_an_answer() -> None:
    """If it no longer does, there is nothing to drop."""
    with IPRoute() as ip:
        for _ in range(LOOKS):
            ip.link_lookup(ifname="lo")
        assert unread(ip) == LOOKS


def test_of_what_a_kept_one_is_told_nothing_stays() -> None:
    with ThreadPoolExecutor(1, initializer=routing.keep_open) as thread:
        for _ in range(LOOKS):
            thread.submit(routing.networks_behind, ["lo"], []).result()
        left = thread.submit(routing.with_routes, unread).result()
        thread.submit(routing.let_go).result()
    assert left <= 1
