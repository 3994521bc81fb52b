"""Filters at FORWARD: which end mail that passes by the gateway, for certain, and what lets it by."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.config import Config, Placement
from gateway.operator.doctor.passing import passing
from gateway.operator.doctor.snapshot import Snapshot
from tests.unit.operator.filters import (
    ACCEPT,
    DROP,
    PORT,
    SOURCE,
    STATE,
    TO,
    by,
    jump,
    listing,
    placed,
    verdicts,
)
from tests.unit.operator.healthy import healthy, matched, only

OUT, IN = "from lan to wan", "from wan to lan"
BOTH = f"{OUT}, {IN}"
KNOWN = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
DOCKER = """\
:DOCKER-USER - [0:0]
:DOCKER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER-USER -j RETURN"""
UFW = """\
:ufw-before-forward - [0:0]
:ufw-user-forward - [0:0]
:ufw-reject-forward - [0:0]
-A FORWARD -j ufw-before-forward
-A FORWARD -j ufw-reject-forward
-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-forward -p icmp -m icmp --icmp-type 3 -j ACCEPT
-A ufw-before-forward -j ufw-user-forward"""


def saved(policy: str, rules: str = "", family: int = 4) -> Snapshot:
    return healthy(dumps={family: f"*filter\n:FORWARD {policy} [0:0]\n{rules}\nCOMMIT\n"})


@pytest.mark.parametrize(
    ("policy", "rules", "dropped"),
    [
        ("ACCEPT", "", ""),
        ("DROP", "", BOTH),
        ("DROP", KNOWN, BOTH),
        ("DROP", "-A FORWARD -i lan -o wan -j ACCEPT", IN),
        ("DROP", "-A FORWARD -i l+ -j ACCEPT", IN),
        ("DROP", "-A FORWARD -i wan -p tcp -m tcp --dport 25 -j ACCEPT", OUT),
        ("DROP", "-A FORWARD -p tcp -m tcp --dport 25 -j ACCEPT", ""),
        ("DROP", "-A FORWARD -p tcp -m multiport --dports 80,443 -j ACCEPT", BOTH),
        ("DROP", "-A FORWARD -p udp -j ACCEPT", BOTH),
        ("ACCEPT", "-A FORWARD -i mgmt -j DROP", ""),
        ("ACCEPT", "-A FORWARD -j LOG\n-A FORWARD -j REJECT --reject-with icmp-port-unreachable", BOTH),
        ("ACCEPT", "-A FORWARD -p tcp -m tcp --dport 25 -j DROP", BOTH),
        ("ACCEPT", "-A FORWARD ! -i lan -j DROP", ""),  # not read as far as that
        # Somebody's intention for some packets: not certain.
        ("DROP", "-A FORWARD -s 10.1.0.2/32 -p tcp -m tcp --dport 25 -j ACCEPT", ""),
        ("ACCEPT", "-A FORWARD -s 192.0.2.0/24 -j DROP", ""),
        ("DROP", "-A FORWARD -s 192.0.2.0/24 -j DROP", BOTH),
        ("DROP", "-A FORWARD -j NFQUEUE --queue-num 3", ""),
        ("DROP", "-A FORWARD -j NIGHTMAIL-FORWARD", BOTH),
        # Chains that lead to others.
        ("DROP", ":c - [0:0]\n-A FORWARD -j c\n-A c -i lan -j ACCEPT", IN),
        ("ACCEPT", ":c - [0:0]\n-A FORWARD -i wan -j c\n-A c -j DROP", IN),
        ("ACCEPT", ":c - [0:0]\n-A FORWARD -j c\n-A FORWARD -j DROP\n-A c -j RETURN\n-A c -j ACCEPT", BOTH),
        ("ACCEPT", ":c - [0:0]\n-A FORWARD -g c\n-A FORWARD -j DROP\n-A c -i mgmt -j DROP", ""),
        ("ACCEPT", ":c - [0:0]\n-A FORWARD -j c\n-A c -s 10.0.0.0/8 -j RETURN\n-A c -j DROP", ""),
        ("ACCEPT", ":c - [0:0]\n-A FORWARD -s 10.0.0.0/8 -j c\n-A c -j DROP", ""),
        ("ACCEPT", ":c - [0:0]\n-A FORWARD -j c\n-A c -j c", ""),
        ("DROP", UFW, BOTH),
        ("DROP", f"{UFW}\n-A ufw-user-forward -p tcp -m tcp --dport 25 -j ACCEPT", ""),
        ("DROP", DOCKER, BOTH),
        ("DROP", DOCKER.replace("-j RETURN", "-p tcp -m tcp --dport 25 -j ACCEPT"), ""),
    ],
)  # fmt: skip
def test_chains_of_iptables(policy: str, rules: str, dropped: str) -> None:
    seen = saved(policy, rules)
    if dropped:
        told = only(seen, "passing").what
        assert told == f"the chain FORWARD of iptables drops all mail that passes by the gateway {dropped}"
    else:
        assert list(passing(seen)) == []


@pytest.mark.parametrize(
    ("policy", "chains", "dropped"),
    [
        ("accept", [[]], ""),
        ("drop", [[]], BOTH),
        ("drop", [[[matched(STATE, "established"), ACCEPT]]], BOTH),
        ("drop", [[[matched({"ct": {"key": "status"}}, "dnat"), ACCEPT]]], BOTH),
        ("drop", [[[matched({"ct": {"key": "status"}}, "seen-reply"), ACCEPT]]], ""),
        ("drop", [[[by("lan"), matched(TO, "wan"), ACCEPT]]], IN),
        ("drop", [[[matched(TO, "lan"), ACCEPT]]], OUT),
        ("drop", [[[by("mgmt"), ACCEPT]]], BOTH),
        ("drop", [[[matched(PORT, 25), ACCEPT]]], ""),
        ("accept", [[[matched(PORT, 25), DROP]]], BOTH),
        ("drop", [[[matched(SOURCE, "10.1.0.2"), ACCEPT]]], ""),
        ("drop", [[[jump(1)]], [[matched(TO, "wan"), ACCEPT]]], IN),
        ("accept", [[[verdicts(TO, wan=DROP)]]], OUT),
    ],
)  # fmt: skip
def test_chains_of_nftables(policy: str, chains: Any, dropped: str) -> None:
    seen = healthy(nft=listing(policy, *chains, hook="forward"))
    if dropped:
        told = only(seen, "passing").what
        assert told == f"the chain inet site c0 drops all mail that passes by the gateway {dropped}"
    else:
        assert list(passing(seen)) == []


def test_what_lets_it_by() -> None:
    one_way = "-A FORWARD -i wan -o lan -j ACCEPT"
    assert only(saved("DROP", one_way), "passing").mend == (
        "iptables -I FORWARD -i lan -o wan -p tcp -m multiport --dports 25 -j ACCEPT"
        " && iptables -I FORWARD -i wan -o lan -p tcp -m multiport --sports 25"
        " -m conntrack --ctstate ESTABLISHED -j ACCEPT"
    )
    assert only(saved("DROP", one_way, 6), "passing").mend.startswith("ip6tables -I FORWARD -i lan -o wan")
    assert only(saved("DROP", UFW), "passing").mend == "ufw route allow proto tcp to any port 25"
    assert only(saved("DROP", DOCKER), "passing").mend.startswith("iptables -I DOCKER-USER -i lan -o wan")
    nft = healthy(nft=listing("drop", [[by("wan"), ACCEPT]], hook="forward"))
    assert only(nft, "passing").mend == (
        "nft insert rule inet site c0 iifname lan oifname wan tcp dport '{ 25 }' accept && nft insert rule"
        " inet site c0 iifname wan oifname lan tcp sport '{ 25 }' ct state established accept"
    )
    firewalld = {"family": "inet", "table": "firewalld", "name": "filter_FORWARD", "hook": "forward"}
    of_firewalld = healthy(nft=({"chain": {**firewalld, "policy": "drop"}},))
    assert "--add-port=25/tcp && firewall-cmd --reload" in only(of_firewalld, "passing").mend


def test_a_family_that_is_not_in_use() -> None:
    four = tuple(one for one in healthy().addresses if one.address.version == 4)
    assert list(passing(replace(saved("DROP", family=6), addresses=four))) == []
    six = listing("drop", [], hook="forward", family="ip6")
    assert list(passing(healthy(nft=six, addresses=four))) == []
    assert len(list(passing(healthy(nft=six)))) == 1


def test_a_bridge() -> None:
    """Its frames meet iptables only where they did before; what nft has at this hook they do meet."""
    bridge = placed(Placement.BRIDGE, inside=("lan",), outside=("wan",))
    assert list(passing(replace(bridge, dumps=saved("DROP").dumps))) == []
    (trouble,) = passing(replace(bridge, nft=listing("drop", [], hook="forward")))
    assert "from br0 to br0" in trouble.what
    assert "iifname br0 oifname br0 tcp sport '{ 25 }' accept" in trouble.mend
    known = listing("drop", [[by("br0"), ACCEPT]], hook="forward")
    assert list(passing(replace(bridge, nft=known))) == []


def test_several_interfaces() -> None:
    config = Config(inside=("lan", "dmz"), outside=("wan",))
    (trouble,) = passing(replace(saved("DROP", "-A FORWARD -i wan -j ACCEPT"), config=config))
    assert trouble.what.endswith("from lan to wan, from dmz to wan")
