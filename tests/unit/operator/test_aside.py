"""Which addresses a gateway has nothing to do with, by each placement and by where the routes lead."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network

import pytest

from gateway.config import Config, FoundInterface, Placement
from gateway.errors import EnvironmentFailureError, Reason
from gateway.intercept import kernel
from gateway.intercept.marks import MarkBits
from gateway.operator import lifecycle
from gateway.operator.aside import aside

DIALLED = MarkBits(Config().marks.mask).dialled
INSIDE = ip_network("192.0.2.0/24")
OWN, SERVER, FAR = "192.0.2.1", "192.0.2.25", "203.0.113.7"
NOT_OURS, BYPASSED = Reason.NOT_OURS, Reason.BYPASSED
ROUTER = Config(inside=("lan",), outside=("wan",))
ONE_ARMED = Config(inside=("lan",), outside=("lan",), inside_networks=(INSIDE,))
HOST, ITS_WAN = Config(placement=Placement.HOST), Config(placement=Placement.HOST, outside=("wan",))
BRIDGE = Config(placement=Placement.BRIDGE, inside=("lan",), outside=("wan",))
BRIDGE_OF = Config(placement=Placement.BRIDGE, inside=("lan",), outside=("wan",), inside_networks=(INSIDE,))


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, int], str]:
    """By which interface an address is reached, with a mark; without an entry: as without a mark, or not."""
    found = {(OWN, 0): "lo", (SERVER, 0): "lan", (FAR, 0): "wan"}
    names = [FoundInterface("wan", True), FoundInterface("lan", False), FoundInterface("dmz", False)]
    monkeypatch.setattr(lifecycle, "discover", lambda: names)
    monkeypatch.setattr(kernel, "as_found", lambda config: config)
    monkeypatch.setattr(kernel, "inside_networks", _inside)
    monkeypatch.setattr(
        kernel, "interface_to", lambda to, mark=0: found.get((to, mark), found.get((to, 0), ""))
    )
    return found


def _inside(config: Config) -> tuple[object, ...]:
    if config.placement is Placement.BRIDGE:
        return config.inside_networks
    return (ip_network(OWN),) if config.placement is Placement.HOST else (INSIDE,)


@pytest.mark.parametrize(
    ("config", "address", "reason", "word"),
    [
        (ROUTER, FAR, None, ""),
        (ROUTER, OWN, NOT_OURS, "this machine's own"),
        (ROUTER, SERVER, NOT_OURS, "inside"),
        (ROUTER, "198.51.100.9", None, ""),
        (ROUTER, "fe80::1", NOT_OURS, "no connection between two machines"),
        (ROUTER, "127.0.0.1", NOT_OURS, "no connection between two machines"),
        (ONE_ARMED, SERVER, NOT_OURS, "inside"),
        (ONE_ARMED, OWN, NOT_OURS, "own"),
        (HOST, FAR, None, ""),
        (HOST, OWN, NOT_OURS, "own"),
        (HOST, SERVER, None, ""),
        (ITS_WAN, FAR, None, ""),
        (ITS_WAN, SERVER, NOT_OURS, "the route leads by lan, which interfaces.outside does not name"),
        (ITS_WAN, "198.51.100.9", None, ""),
        (BRIDGE, SERVER, None, ""),
        (BRIDGE_OF, SERVER, NOT_OURS, "inside"),
        (BRIDGE_OF, FAR, None, ""),
    ],
)
def test_each_placement(
    ways: Mapping[object, str], config: Config, address: str, reason: Reason | None, word: str
) -> None:
    found = aside(config, address)
    assert (found.reason if found else None) is reason
    assert word in (found.why if found else "")


@pytest.mark.parametrize(
    ("plain", "dialled", "reason"),
    [
        ("dmz", "dmz", BYPASSED),
        ("dmz", "wan", None),
        ("wan", "dmz", None),
        ("wan", "", None),
        ("", "dmz", BYPASSED),
        ("dmz", "", None),
    ],
)
def test_a_way_by_neither_side(
    ways: dict[tuple[str, int], str], plain: str, dialled: str, reason: Reason | None
) -> None:
    """As the rules have it: what is dialled has a way, and neither that nor what is forwarded has a side."""
    ways |= {(FAR, 0): plain, (FAR, DIALLED): dialled}
    found = aside(ROUTER, FAR)
    assert (found.reason if found else None) is reason
    if found:
        assert "leads by dmz, which is named on neither side" in found.why


def test_where_the_sides_are_not_known_nothing_is_said(
    ways: Mapping[object, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert aside(Config(), SERVER) is None, "three interfaces, and none named"
    assert aside(Config(inside=("eth9",), outside=("wan",)), SERVER) is None

    def trouble(config: Config) -> tuple[object, ...]:
        raise EnvironmentFailureError("3000 networks")

    monkeypatch.setattr(kernel, "inside_networks", trouble)
    assert aside(ROUTER, SERVER) is None
