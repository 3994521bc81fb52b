"""A bridge knows thousands of stations; whether it knows ours as it should is asked of our port alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import pytest
from pyroute2 import IPRoute

from gateway.intercept.kernel import lifts
from gateway.intercept.objects import BridgeLift
from tests.lab.own_namespaces import ip, remove_ours
from tests.lab.rules_ground import sh, within
from tests.told import NEIGHBOUR, Told

PREFIX: Final = "nmst"
HERE: Final = f"{PREFIX}-{os.getpid()}"
LIFT: Final = BridgeLift("br0", ("cable",), "nm0", "nm1", "02:4e:4d:00:00:19")
STATIONS: Final = 200


@pytest.fixture
def bridge() -> Iterator[None]:
    remove_ours(PREFIX)
    try:
        ip(
            f"netns add {HERE}",
            f"-n {HERE} link add br0 type bridge",
            f"-n {HERE} link add cable type veth peer name far",
            f"-n {HERE} link add nm0 type veth peer name nm1",
            *(f"-n {HERE} link set {port} master br0" for port in ("cable", "nm0")),
        )
        macs = (f"02:00:00:00:00:{number:02x}" for number in range(STATIONS))
        sh(HERE, "bridge -batch -", stdin="".join(f"fdb add {mac} dev cable master static\n" for mac in macs))
        yield
    finally:
        remove_ours(PREFIX)


def looked() -> tuple[bool, int]:
    """Whether our entry is there, and of how many the kernel has told."""
    with IPRoute() as route:
        told = Told(route, NEIGHBOUR)
        return lifts._has_entry(route, lifts._links(route), LIFT), told.count


def test_our_entry_is_found_among_those_of_our_port_alone(bridge: None) -> None:
    is_there, told = within(HERE, looked)
    assert not is_there
    sh(HERE, f"bridge fdb replace {LIFT.mac} dev nm0 master static")
    is_there, now_told = within(HERE, looked)
    assert is_there
    assert now_told == told + 1 < STATIONS
    sh(
        HERE,
        f"bridge fdb del {LIFT.mac} dev nm0 master",
        f"bridge fdb add {LIFT.mac} dev cable master static",
    )
    assert within(HERE, looked) == (False, told), "at another port it is none of ours"
