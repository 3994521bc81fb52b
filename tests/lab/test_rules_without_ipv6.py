"""IPv6 is switched off on the gateway's machine: the rules of IPv4 stand, and what there was of IPv6 goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import pytest

from gateway.config import Config, Placement
from gateway.intercept import kernel, ruleset
from tests.lab.own_namespaces import lonely_router, remove_ours
from tests.lab.rules_ground import sh, within

PREFIX: Final = "nmm6"
HERE: Final = f"{PREFIX}-{os.getpid()}"


@pytest.fixture
def machine() -> Iterator[None]:
    remove_ours(PREFIX)
    with lonely_router(HERE):
        yield


@pytest.fixture(
    params=[Config(inside=("lan",), outside=("wan",)), Config(placement=Placement.HOST)],
    ids=lambda config: config.placement.value,
)
def config(request: pytest.FixtureRequest) -> Config:
    found: Config = request.param
    return found


def switch(value: int) -> None:
    sh(HERE, f"sysctl -qw net.ipv6.conf.all.disable_ipv6={value}")


def ours(tool: str) -> bool:
    return "NIGHTMAIL" in sh(HERE, f"{tool}-save")


def test_rules_stand_where_ipv6_is_off(machine: None, config: Config) -> None:
    switch(1)
    rules = kernel.KernelRules(config)
    wanted = ruleset.render(config, ruleset.slots_of(config))
    within(HERE, lambda: rules.apply(wanted, [config.first_queue]))
    assert within(HERE, rules.missing) == []
    assert ours("iptables")
    assert not ours("ip6tables")
    within(HERE, rules.remove)
    assert not ours("iptables")


def test_ipv6_goes_and_comes_under_rules_that_stand(machine: None, config: Config) -> None:
    """The kernel takes the route by lo out with it, and refuses it until then."""
    rules = kernel.KernelRules(config)
    wanted = ruleset.render(config, ruleset.slots_of(config))
    within(HERE, lambda: rules.apply(wanted, [config.first_queue]))
    switch(1)
    assert within(HERE, rules.mend).gone == ()
    assert ours("iptables")
    switch(0)
    (gone,) = within(HERE, rules.mend).gone
    assert gone.startswith("ip -6 route local default")
    assert within(HERE, rules.missing) == []
    switch(1)
    within(HERE, rules.remove)
    assert not ours("iptables")
    assert not ours("ip6tables")
