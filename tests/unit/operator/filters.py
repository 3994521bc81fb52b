"""Filters of others as nftables' own JSON has them, for tests of the doctor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.config import Config, Placement
from gateway.operator.doctor.snapshot import Snapshot
from tests.unit.operator.healthy import healthy, matched

Rules = list[list[dict[str, Any]]]
ACCEPT: dict[str, Any] = {"accept": None}
DROP: dict[str, Any] = {"drop": None}
REJECT: dict[str, Any] = {"reject": {"type": "icmpx", "expr": "admin-prohibited"}}
PORT = {"payload": {"protocol": "tcp", "field": "dport"}}
SOURCE = {"payload": {"protocol": "ip", "field": "saddr"}}
STATE = {"ct": {"key": "state"}}
BY = {"meta": {"key": "iifname"}}
TO = {"meta": {"key": "oifname"}}
MARK = {"&": [{"meta": {"key": "mark"}}, 0x40000000]}


def listing(policy: str, *chains: Rules, hook: str = "input", family: str = "inet") -> tuple[Any, ...]:
    """The first chain stands at the hook, the others are c1, c2 and so on."""
    at = {"family": family, "table": "site"}
    base = {**at, "name": "c0", "hook": hook, "prio": 0, "policy": policy}
    items: list[dict[str, Any]] = [{"chain": base}]
    items += [{"chain": {**at, "name": f"c{number}"}} for number in range(1, len(chains))]
    for number, rules in enumerate(chains):
        items += [{"rule": {**at, "chain": f"c{number}", "handle": 9, "expr": rule}} for rule in rules]
    return tuple(items)


def by(interface: str) -> dict[str, Any]:
    return matched(BY, interface)


def verdicts(key: dict[str, Any], **elements: dict[str, Any]) -> dict[str, Any]:
    return {"vmap": {"key": key, "data": {"set": [list(pair) for pair in elements.items()]}}}


def jump(number: int, verb: str = "jump") -> dict[str, Any]:
    return {verb: {"target": f"c{number}"}}


def placed(placement: Placement, **named: Any) -> Snapshot:
    return replace(healthy(), config=Config(placement=placement, **named))
