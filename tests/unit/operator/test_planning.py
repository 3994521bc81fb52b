"""All that a plan lists, in one sentence."""

from __future__ import annotations

import pytest

from gateway.operator import planning
from gateway.operator.planning import Plan

RULES = [
    "remove  iptables raw -A NIGHTMAIL-OLD -j ACCEPT",
    "remove  nft table bridge nightmail",
    "add     iptables raw -A NIGHTMAIL-GATE -p tcp -j NFQUEUE",
    "add     iptables raw -A PREROUTING -j NIGHTMAIL-GATE",
    "add     ip6tables raw -A NIGHTMAIL-GATE -p tcp -j NFQUEUE",
    "add     sysctl net.ipv4.tcp_early_demux=0",
    "add     nft table inet nightmail",
    "add     nft chain inet nightmail opening",
    "add     nft rule inet nightmail opening accept",
    "add     ip -4 rule pref 25 iif lan lookup 2525",
    "add     ip -6 route local default dev lo table 2525",
    "add     ip link set nm0 master br0; bridge link set dev nm0 learning off",
    "add     bridge fdb replace x",
]
FILES = ["add     folder /f (stays)", "write   file /f/w: up (stays)", "add     socket /s"]
SERVICES = ["start   service nightmail.service", "enable  service nightmail.service"]


def test_each_kind_is_counted() -> None:
    assert planning.summary(Plan(RULES, FILES, SERVICES)) == (
        "in all: `up` would add 3 rules of iptables in 2 tables, 1 table of nft, 1 routing rule, 1 route,"
        " 2 steps at the bridge, 3 files and folders, turn 1 switch of the kernel, remove 1 rule of iptables"
        " in 1 table, 1 table of nft of ours that other settings or versions have left,"
        " start and enable nightmail.service; nothing of yours is removed"
    )


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (Plan(), "nothing to change: all rules are in place"),
        (
            Plan(services=SERVICES[:1]),
            "in all: `up` would start nightmail.service; nothing of yours is removed",
        ),
        (
            Plan(["add     nft table inet nightmail: its rules differ from ours"]),
            "in all: `up` would add 1 table of nft; nothing of yours is removed",
        ),
    ],
)
def test_few_things(plan: Plan, told: str) -> None:
    assert planning.summary(plan) == told
    assert list(planning.told(plan))[-1] == told
    assert planning.as_json(plan)["summary"]["told"] == told


def test_no_line_is_left_uncounted() -> None:
    """What is about none of the kinds would be missing from the sentence."""
    bodies = [line.split(maxsplit=1)[1] for line in (*RULES, *FILES)]
    assert all(any(begins.match(body) for begins, _, _ in planning._KINDS.values()) for body in bodies)
