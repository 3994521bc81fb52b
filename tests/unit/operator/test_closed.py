"""Filters that drop what nobody has let by: which of them let our packets by, and which certainly do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.config import Placement
from gateway.operator.doctor.closed import closed
from tests.unit.operator.filters import (
    ACCEPT,
    BY,
    DROP,
    MARK,
    PORT,
    REJECT,
    SOURCE,
    STATE,
    TO,
    Rules,
    by,
    jump,
    listing,
    placed,
    verdicts,
)
from tests.unit.operator.healthy import found, healthy, matched, only

USUAL: Rules = [
    [matched({"meta": {"key": "iif"}}, "lo"), ACCEPT],
    [{"match": {"op": "in", "left": STATE, "right": ["established", "related"]}}, {"counter": {}}, ACCEPT],
    [matched(STATE, "invalid"), DROP],
    [matched({"meta": {"key": "l4proto"}}, {"set": ["icmp", "ipv6-icmp"]}), ACCEPT],
    [matched({"payload": {"protocol": "udp", "field": "dport"}}, 25), ACCEPT],
    [matched(SOURCE, "192.0.2.1"), matched(PORT, 22), ACCEPT],
    [matched(PORT, {"set": [80, {"range": [100, 200]}]}), ACCEPT],
]
"""What a router lets in that serves nobody: none of it is a new connection to port 25."""


@pytest.mark.parametrize(
    ("policy", "chains", "dropped"),
    [
        ("drop", [[]], "lan, wan"),
        ("drop", [USUAL], "lan, wan"),
        ("accept", [[*USUAL, [{"counter": {}}, REJECT]]], "lan, wan"),
        ("accept", [USUAL], ""),
        ("drop", [[*USUAL, [by("lan"), ACCEPT]]], "wan"),
        ("drop", [[[by("wan"), DROP], [matched(PORT, 25), ACCEPT]]], "wan"),
        ("drop", [[*USUAL, [matched(PORT, 25), ACCEPT]]], ""),
        ("drop", [[*USUAL, [matched(PORT, {"set": [{"range": [20, 30]}]}), ACCEPT]]], ""),
        ("drop", [[*USUAL, [matched(STATE, "new"), ACCEPT]]], ""),
        ("drop", [[[{"match": {"op": "!=", "left": STATE, "right": "invalid"}}, ACCEPT]]], ""),
        ("drop", [[[{"match": {"op": "!=", "left": PORT, "right": 22}}, ACCEPT]]], ""),
        ("drop", [[[{"match": {"op": "!=", "left": PORT, "right": 25}}, ACCEPT]]], "lan, wan"),
        # Somebody's intention for some packets: not certain.
        ("drop", [[[matched(MARK, 1), ACCEPT]]], ""),
        ("drop", [[[matched(SOURCE, "10.0.0.0/8"), ACCEPT]]], ""),
        ("drop", [[[matched(BY, "l*"), ACCEPT]]], ""),
        ("drop", [[[{"limit": {"rate": 9}}, ACCEPT]]], ""),
        ("drop", [[[{"queue": {"num": 1}}]]], ""),
        ("accept", [[[matched(SOURCE, "192.0.2.0/24"), DROP]]], ""),
        ("accept", [[[matched(SOURCE, "192.0.2.0/24"), {"return": None}], [DROP]]], ""),
        # Chains that lead to others.
        ("drop", [[[jump(1)]], [[matched(PORT, 22), ACCEPT]]], "lan, wan"),
        ("drop", [[[jump(1)], [ACCEPT]], [[matched(PORT, 22), ACCEPT]]], ""),
        ("accept", [[[jump(1, "goto")], [DROP]], [[matched(PORT, 22), ACCEPT]]], ""),
        ("drop", [[[jump(1, "goto")], [ACCEPT]], [[matched(PORT, 22), ACCEPT]]], "lan, wan"),
        ("accept", [[[by("wan"), jump(1)], [DROP]], [[{"return": None}], [ACCEPT]]], "lan, wan"),
        ("accept", [[[jump(1)], [DROP]], [[jump(1)]]], ""),
        ("drop", [[[verdicts(STATE, established=ACCEPT, invalid=DROP)]]], "lan, wan"),
        ("drop", [[[verdicts(STATE, new=ACCEPT)]]], ""),
        ("accept", [[[verdicts(BY, lo=ACCEPT, lan=jump(1), wan=DROP)]], [[DROP]]], "lan, wan"),
        ("accept", [[[verdicts(BY, lan=jump(1))], [DROP]], [[ACCEPT]]], "wan"),
        ("drop", [[[verdicts(SOURCE, **{"192.0.2.1": ACCEPT})]]], ""),
        ("drop", [[[{"vmap": {"key": BY, "data": "@zones"}}]]], ""),
    ],
)  # fmt: skip
def test_chains_of_nftables(policy: str, chains: list[Rules], dropped: str) -> None:
    seen = healthy(nft=listing(policy, *chains))
    if not dropped:
        assert found(seen) == []
        return
    trouble = only(seen, "closed")
    assert trouble.what == f"the chain inet site c0 drops all mail that comes to the gateway by {dropped}"
    assert trouble.mend == "nft insert rule inet site c0 meta mark and 0x40000000 '!=' 0 accept"


def test_a_rule_that_names_our_port_is_told_once() -> None:
    seen = healthy(nft=listing("drop", [[by("wan"), matched(PORT, 25), DROP], [by("lan"), ACCEPT]]))
    assert only(seen, "nftables").mend == "nft delete rule inet site c0 handle 9"


def test_what_the_gateway_sends() -> None:
    rules: Rules = [[matched(TO, "wan"), matched(PORT, 25), ACCEPT]]
    trouble = only(healthy(nft=listing("drop", rules, hook="output")), "closed")
    assert trouble.what == "the chain inet site c0 drops all mail that leaves the gateway by lan"
    assert "meta mark and 0xa0000000 '!=' 0 accept" in trouble.mend
    assert list(closed(healthy(nft=listing("drop", rules, hook="forward")))) == []


def test_a_family_that_is_not_in_use() -> None:
    six = listing("drop", [], family="ip6")
    assert [name for name, _ in found(healthy(nft=six))] == ["closed"]
    four = tuple(one for one in healthy().addresses if one.address.version == 4)
    assert list(closed(healthy(nft=six, addresses=four))) == []
    dump = {6: "*filter\n:OUTPUT DROP [0:0]\nCOMMIT\n"}
    assert len(list(closed(healthy(dumps=dump)))) == 1
    assert list(closed(healthy(dumps=dump, addresses=four))) == []


def test_a_mail_server_is_asked_of_what_is_the_gateways_alone() -> None:
    """What comes from outside is the mail server's own: its filter knows that, or is meant so."""
    host = placed(Placement.HOST)
    assert list(closed(replace(host, nft=listing("drop", USUAL)))) == []
    (trouble,) = closed(replace(host, nft=listing("drop", USUAL[1:])))
    assert trouble.what.endswith("comes to the gateway by lo")
    (trouble,) = closed(replace(host, nft=listing("drop", [], hook="output")))
    assert trouble.what.endswith("leaves the gateway by any interface")
    some: Rules = [[matched(TO, "eth0"), ACCEPT]]
    assert list(closed(replace(host, nft=listing("drop", some, hook="output")))) == []


def test_frames_of_a_bridge_are_tracked_by_nobody() -> None:
    bridge = placed(Placement.BRIDGE, inside=("lan",), outside=("wan",))
    (trouble,) = closed(replace(bridge, nft=listing("drop", [[matched(STATE, "new"), ACCEPT]])))
    assert trouble.what.endswith(f"comes to the gateway by {bridge.config.bridge_interface}")
    assert list(closed(replace(bridge, nft=listing("drop", [[matched(STATE, "untracked"), ACCEPT]])))) == []
    assert list(closed(replace(bridge, dumps={4: "*filter\n:OUTPUT DROP [0:0]\nCOMMIT\n"}))) == []


SILENT = ["-o lo -j ACCEPT", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-j LOG"]


@pytest.mark.parametrize(
    ("policy", "rules", "dropped"),
    [
        ("DROP", [], "lan, wan"),
        ("DROP", [*SILENT, "-p tcp -m tcp --dport 443 -j ACCEPT", "-p udp -j ACCEPT"], "lan, wan"),
        ("ACCEPT", [*SILENT, "-j REJECT --reject-with icmp-port-unreachable"], "lan, wan"),
        ("ACCEPT", SILENT, ""),
        ("DROP", ["-o wan -p tcp -m tcp --dport 25 -j ACCEPT"], "lan"),
        ("DROP", ["-p tcp -m multiport --dports 25,587 -j ACCEPT"], ""),
        ("DROP", ["-m conntrack --ctstate NEW,ESTABLISHED -j ACCEPT"], ""),
        ("DROP", ["-m owner --uid-owner 0 -j ACCEPT"], ""),
        ("DROP", ["-s 10.0.0.0/8 -j DROP", "-j ACCEPT"], ""),
        ("DROP", ["-p tcp -m tcp --dport 22 -j SITE"], "lan, wan"),
        ("DROP", ["-j SITE"], ""),
        ("DROP", ["-s 10.0.0.0/8 -j SITE"], ""),
    ],
)
def test_output_of_iptables(policy: str, rules: list[str], dropped: str) -> None:
    lines = "".join(f"[0:0] -A OUTPUT {rule}\n" for rule in rules)
    site = ":SITE - [0:0]\n", "[0:0] -A SITE -p tcp -m tcp --dport 25 -j ACCEPT\n"
    dump = f"*filter\n:OUTPUT {policy} [0:0]\n{site[0]}{lines}{site[1]}COMMIT\n"
    seen = healthy(dumps={4: dump})
    if not dropped:
        assert found(seen) == []
        return
    trouble = only(seen, "closed")
    assert trouble.what == f"the chain OUTPUT of iptables drops all mail that leaves the gateway by {dropped}"
    assert trouble.mend == "iptables -I OUTPUT -m mark '!' --mark 0x0/0xa0000000 -j ACCEPT"


def test_input_of_iptables_is_ours_first() -> None:
    assert found(healthy(dumps={4: "*filter\n:INPUT DROP [0:0]\nCOMMIT\n"})) == []
