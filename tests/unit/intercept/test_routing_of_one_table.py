"""Of our own routing table the kernel tells that alone, however many routes the site has in its others."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from pyroute2 import IPRoute

from gateway.intercept.kernel import routing

NOBODYS = 3_999_999_999
"""A table without routes."""
_RTM_NEWROUTE = 24  # <linux/rtnetlink.h>


class Listened:
    """An IPRoute, and the routes that the kernel has told it, whether anybody is given them or not."""

    def __init__(self, ip: Any) -> None:
        self.ip = ip
        self.told = 0
        self._parse = ip.marshal.parse_one_message
        ip.marshal.parse_one_message = self._hear

    def _hear(self, key: int, *rest: Any) -> Any:
        self.told += key == _RTM_NEWROUTE
        return self._parse(key, *rest)


@pytest.fixture
def listened() -> Iterator[Listened]:
    with IPRoute() as ip:
        yield Listened(ip)


def test_pyroute2_has_the_kernel_tell_all_routes_of_all_tables(listened: Listened) -> None:
    """If it no longer does, there is no need to ask in another way."""
    assert not listened.ip.get_routes(family=socket.AF_INET, table=NOBODYS)
    assert listened.told, "the loopback has routes of its own, in the table local"


def test_the_kernel_tells_of_one_table_alone(listened: Listened) -> None:
    for family in (4, 6):
        assert routing._routes(listened.ip, family, NOBODYS, {}) == []
    assert not listened.told


def test_what_is_asked_next_is_asked_as_before(listened: Listened) -> None:
    routing._routes(listened.ip, 4, NOBODYS, {})
    assert listened.ip.get_routes(family=socket.AF_INET, table=NOBODYS) == ()
    assert listened.told
