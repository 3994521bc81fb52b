"""What the doctor's trial has built goes again, whatever else goes at the same moment.

Counterpart: tests/lab/test_doctor, where the kernel does it.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from pyroute2.netlink.exceptions import NetlinkError

from gateway.config import Config, Placement
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel
from gateway.operator.doctor import stand

V4, V6 = socket.AF_INET, socket.AF_INET6
HERE = Config(inside=("lan",), outside=("wan",))
CABLE, SIDE = 25_250_001, 25_250_002
SITE = (V4, 25, 2525)


@dataclass
class Kernel:
    """Rules are (family, priority, table), routes (family, table, destination)."""

    links: list[str] = field(default_factory=list)
    rules: list[tuple[int, int, int]] = field(default_factory=list)
    routes: list[tuple[int, int, str]] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    """What a deletion answers, and does not do."""
    vanishing: str = ""
    """A route that goes, with its interface, when it is to be deleted."""

    def link_lookup(self, *, ifname: str) -> list[int]:
        return [index for index, name in enumerate(self.links) if name == ifname]

    def link(self, word: str, *, index: int) -> None:
        self._may(word, "link")
        self.links[index] = ""

    def rule(self, word: str, *, family: int, priority: int, table: int) -> None:
        self._may(word, "rule")
        try:
            self.rules.remove((family, priority, table))
        except ValueError:
            raise NetlinkError(errno.ENOENT) from None

    def get_routes(self, *, family: int, table: int) -> tuple[str, ...]:
        return tuple(where for its, of, where in self.routes if (its, of) == (family, table))

    def flush_routes(self, *, family: int, table: int) -> None:
        for where in self.get_routes(family=family, table=table):
            self._may("del", "route")
            self.routes.remove((family, table, where))
            if where == self.vanishing:
                raise NetlinkError(errno.ESRCH)

    def _may(self, word: str, kind: str) -> None:
        assert word == "del"
        if kind in self.errors:
            raise NetlinkError(self.errors[kind])


def full() -> Kernel:
    """As a trial leaves it in the middle, behind one that was killed."""
    rules = [
        (family, priority, SIDE if priority == 28 else CABLE)
        for family in (V4, V6)
        for priority in (26, 27, 28)
        for _ in range(4)
    ]
    routes: list[tuple[int, int, str]] = [
        (family, table, where) for family in (V4, V6) for table in (CABLE, SIDE) for where in ("in", "out")
    ]
    return Kernel(["lo", "nm-doctor-in", "nm-doctor-out"], [SITE, *rules], routes)


def test_all_goes_but_what_is_the_sites() -> None:
    kernel = full()
    stand._removed(kernel)
    assert (kernel.links, kernel.rules, kernel.routes) == (["lo", "", ""], [SITE], [])
    stand._removed(kernel)


def test_a_cable_that_goes_by_itself_stops_nothing() -> None:
    """The kernel takes it away, with the namespace of its far end, between our look and our word."""
    kernel = full()
    kernel.errors["link"] = errno.ENODEV
    stand._removed(kernel)
    assert (kernel.rules, kernel.routes) == ([SITE], [])


def test_a_route_that_goes_by_itself_stops_nothing() -> None:
    kernel = full()
    kernel.vanishing = "in"
    stand._removed(kernel)
    assert kernel.routes == []


@pytest.mark.parametrize("kind", ["link", "rule", "route"])
def test_what_may_not_be_deleted_is_told(kind: str) -> None:
    kernel = full()
    kernel.errors[kind] = errno.EPERM
    with pytest.raises(NetlinkError):
        stand._removed(kernel)


@pytest.mark.parametrize(
    "words", ["its routing rules of priority 26 stay", "its routes of table 25250001 stay"]
)
def test_what_stays_is_told_and_not_tried_for_ever(words: str) -> None:
    """Another doctor, say, puts there again what this one takes away."""
    kernel = full()
    if "rules" in words:
        kernel.rule = lambda word, **which: None  # type: ignore[method-assign]
    else:
        kernel.flush_routes = lambda **which: None  # type: ignore[method-assign]
    with pytest.raises(EnvironmentFailureError, match=words):
        stand._removed(kernel)


@pytest.mark.parametrize("placement", [Placement.ROUTER, Placement.HOST])
def test_the_cables_go_before_the_namespaces(monkeypatch: pytest.MonkeyPatch, placement: Placement) -> None:
    done: list[str] = []

    class Space:
        def close(self) -> None:
            done.append("closed")

    def with_routes(ask: Callable[[Any], Any]) -> None:
        done.append("removed" if ask is stand._removed else "built")

    monkeypatch.setattr(stand, "Space", Space)
    monkeypatch.setattr(stand, "_lay", lambda *words: None)
    monkeypatch.setattr(kernel, "with_routes", with_routes)
    config: Any = SimpleNamespace(placement=placement, inside=("lan",), outside=("wan",))
    with stand.standing(config, (4,)):
        done.append("stands")
    spaces = 1 if placement is Placement.HOST else 2
    assert done == ["removed", "built", "stands", "removed", *["closed"] * spaces]


def test_two_doctors_do_not_lay_the_same_cables() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as another:
        another.bind("\0nightmail-doctor")
        with pytest.raises(EnvironmentFailureError, match="another doctor"), stand.standing(HERE, (4,)):
            pytest.fail("built")
