"""Who looks at routes again and again does it by one IPRoute, and one that has failed is not asked again."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from gateway.errors import EnvironmentFailureError
from gateway.intercept.kernel import routing
from gateway.intercept.kernel.routing import with_routes
from gateway.policy import limits


class Route:
    """In the place of pyroute2's."""

    made: list[Route]

    def __init__(self) -> None:
        self.is_closed = False
        self.asyncore = SimpleNamespace(msg_queue=SimpleNamespace(root=asyncio.Queue()))
        Route.made.append(self)

    def __enter__(self) -> Route:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        assert not self.is_closed
        self.is_closed = True


@pytest.fixture(autouse=True)
def routes(monkeypatch: pytest.MonkeyPatch) -> list[Route]:
    Route.made = []
    monkeypatch.setattr(routing, "IPRoute", Route)
    return Route.made


@pytest.fixture
def keeping() -> Iterator[ThreadPoolExecutor]:
    """A thread that keeps one."""
    with ThreadPoolExecutor(1, initializer=routing.keep_open) as thread:
        yield thread
        thread.submit(routing.let_go).result()


def test_a_thread_that_keeps_one_makes_no_other(keeping: ThreadPoolExecutor, routes: list[Route]) -> None:
    asked = [keeping.submit(with_routes, lambda ip: ip).result() for _ in range(5)]
    assert asked == routes * 5
    assert [route.is_closed for route in routes] == [False]
    keeping.submit(routing.let_go).result()
    assert [route.is_closed for route in routes] == [True]


def test_anybody_else_has_one_for_each_question(routes: list[Route]) -> None:
    for _ in range(2):
        with_routes(lambda ip: ip)
    assert [route.is_closed for route in routes] == [True, True]


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOBUFS, "full"), NetlinkError(errno.EPERM), KeyError("a bug")]
)
def test_behind_a_failure_there_is_a_new_one(
    keeping: ThreadPoolExecutor, routes: list[Route], error: Exception
) -> None:
    """What it had still to read would be taken for the next answer."""

    def ask(ip: Any) -> None:
        raise error

    expected = type(error) if isinstance(error, KeyError) else EnvironmentFailureError
    with pytest.raises(expected):
        keeping.submit(with_routes, ask).result()
    assert keeping.submit(with_routes, lambda ip: ip).result() is routes[1]
    assert [route.is_closed for route in routes] == [True, False]


def test_what_lies_elsewhere_is_taken_out_as_far_as_there_is_room() -> None:
    """Beyond, the daemon would not start for networks that nobody has named."""
    inside = [ip_network("10.0.0.0/8")]
    elsewhere = [ip_network(f"10.{each}.1.1") for each in range(250)]
    found = routing._without(inside, elsewhere)
    assert limits.INSIDE_NETWORKS - 24 < len(found) <= limits.INSIDE_NETWORKS
    assert not any(elsewhere[0].subnet_of(net) for net in found)
    assert any(elsewhere[-1].subnet_of(net) for net in found)
    assert routing._without(inside, inside) == inside
