"""Routing rules by interface: named where they leave the gateway's own packets out, and only there."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from gateway.config import Placement
from gateway.operator.doctor.snapshot import RoutingRule
from tests.unit.operator.healthy import found, healthy, only

DIALLED, ACCEPTED = 0x80000000, 0x20000000


def rule(priority: int = 1000, table: int = 77, **asks: Any) -> RoutingRule:
    for name in ("source", "destination"):
        if name in asks:
            asks[name] = ip_network(asks[name])
    return RoutingRule(4, priority, table, narrow=bool(asks), **asks)


def test_a_rule_of_the_inside_is_said_again_of_what_is_sent_from_there() -> None:
    trouble = only(healthy(routing_rules=(rule(interface="lan"),)), "uplinks")
    assert trouble.mend == (
        "ip -4 rule add priority 1000 iif lo fwmark 0x80000000/0x80000000 from 10.1.0.0/24 lookup 77"
        " && ip -4 rule add priority 1000 iif lo fwmark 0x20000000/0x20000000 from 10.1.0.0/24 lookup 77"
    )


def test_a_rule_of_the_outside_is_said_again_of_what_is_sent_inside() -> None:
    config = replace(healthy().config, inside_networks=(ip_network("10.1.0.0/25"),))
    trouble = only(healthy(config=config, routing_rules=(rule(interface="wan"),)), "uplinks")
    assert trouble.mend.startswith(
        "ip -4 rule add priority 1000 iif lo fwmark 0x80000000/0x80000000 to 10.1.0.0/25 "
    )


@pytest.mark.parametrize(
    "others",
    [
        (rule(interface="lo", mark=DIALLED, source="10.1.0.0/24"), rule(interface="lo", mark=ACCEPTED)),
        (rule(source="10.0.0.0/8"),),
        (rule(5000),),
    ],
    ids=["by mark", "by address", "for all"],
)
def test_what_is_said_already_need_not_be_said_again(others: tuple[RoutingRule, ...]) -> None:
    assert found(healthy(routing_rules=(rule(interface="lan"), *others))) == []


@pytest.mark.parametrize(
    "other",
    [
        rule(source="10.1.0.0/25"),
        rule(table=78, source="10.1.0.0/24"),
        rule(interface="lo", mark=DIALLED),
        rule(source="10.1.0.0/24", particular=True),
        rule(destination="192.0.2.0/24"),
    ],
    ids=["a part", "another table", "one mark of two", "in particular", "another end"],
)
def test_what_says_less_is_not_enough(other: RoutingRule) -> None:
    only(healthy(routing_rules=(rule(interface="lan"), other)), "uplinks")


@pytest.mark.parametrize(
    "harmless",
    [
        rule(interface="dmz"),
        rule(interface="lan", table=254),
        rule(interface="lan", mark=1),
        rule(40000, interface="lan"),
        rule(25, table=2525, interface="lan"),
    ],
    ids=["another interface", "main", "by a mark", "behind main", "ours"],
)
def test_rules_that_are_nobodys_trouble(harmless: RoutingRule) -> None:
    assert found(healthy(routing_rules=(harmless,))) == []


def test_elsewhere_than_on_a_router_nothing_is_forwarded() -> None:
    config = replace(healthy().config, placement=Placement.BRIDGE)
    names = [name for name, _ in found(healthy(config=config, routing_rules=(rule(interface="lan"),)))]
    assert "uplinks" not in names
