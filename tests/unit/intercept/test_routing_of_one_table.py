"""Of our own routing table the kernel tells that alone, however many routes the site has in its others."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from pyroute2 import IPRoute

from gateway.intercept.kernel import routing
from tests.told import ROUTE, Told

NOBODYS = 3_999_999_999
"""A table without routes."""


@pytest.fixture
def ip() -> Iterator[Any]:
    with IPRoute() as ip:
        yield ip


@pytest.fixture
def told(ip: Any) -> Told:
    return Told(ip, ROUTE)


def test_pyroute2_has_the_kernel_tell_all_routes_of_all_tables(ip: Any, told: Told) -> None:
    """If it no longer does, there is no need to ask in another way."""
    assert not ip.get_routes(family=socket.AF_INET, table=NOBODYS)
    assert told.count, "the loopback has routes of its own, in the table local"


def test_the_kernel_tells_of_one_table_alone(ip: Any, told: Told) -> None:
    for family in (4, 6):
        assert routing._routes(ip, family, NOBODYS) == []
    assert not told.count


def test_what_is_asked_next_is_asked_as_before(ip: Any, told: Told) -> None:
    routing._routes(ip, 4, NOBODYS)
    assert ip.get_routes(family=socket.AF_INET, table=NOBODYS) == ()
    assert told.count
