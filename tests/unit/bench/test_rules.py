"""What our rules cost a packet: which packets are sent, and which part of the rules stands where."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from bench import flood, rules
from gateway.intercept.objects import IptablesRules, NftTable

STEPS = flood.session_steps()
PARTS = list(rules.parts())
LEFT_OUT = list(rules.without_each_rule())


def parsed(step: flood.Step, family: int, port: int = 0) -> Ether:
    octets = flood.frame(step, family)
    at = flood.port_at(step, family)
    octets[at : at + 2] = port.to_bytes(2, "big")
    return Ether(bytes(octets[10:]))


def test_a_session_is_forty_packets_half_of_them_each_way() -> None:
    assert len(STEPS) == 40
    assert [step.to_server for step in STEPS].count(True) == 21
    assert "".join(str(parsed(step, 4)[TCP].flags) for step in STEPS[:3]) == "SSAA"
    assert parsed(STEPS[-1], 4)[TCP].flags == "R"


@pytest.mark.parametrize(("family", "layer"), [(4, IP), (6, IPv6)])
def test_packets_are_whole_and_follow_one_another(family: int, layer: type) -> None:
    expected = {True: 1000, False: 5000}
    for step in STEPS:
        packet = parsed(step, family, 40025)
        ports = (40025, 25) if step.to_server else (25, 40025)
        assert (packet[TCP].sport, packet[TCP].dport) == ports
        assert packet[layer].src == (flood.CLIENT if step.to_server else flood.SERVER)[family]
        assert bytes(packet[TCP].payload) == step.payload
        assert packet[TCP].seq == expected[step.to_server]
        expected[step.to_server] += len(step.payload) + (step.flags & flood.SYN > 0)
        if step.flags & flood.ACK:
            assert packet[TCP].ack == expected[not step.to_server]
        if family == 4:
            said = packet[IP].chksum
            del packet[IP].chksum
            assert IP(bytes(packet[IP])).chksum == said


def table_of(variant: rules.Variant) -> str:
    return variant.rules.of(NftTable)[0].text


def iptables_of(variant: rules.Variant) -> str:
    return variant.rules.of(IptablesRules)[0].template


def test_every_part_is_another_one() -> None:
    assert len({one.name for one in PARTS + LEFT_OUT}) == len(PARTS + LEFT_OUT)
    laid = [(one.rules.objects, one.tracks) for one in PARTS + LEFT_OUT]
    assert len(set(laid)) == len(laid)


def test_a_chain_that_is_left_out_is_there_and_stands_at_no_hook() -> None:
    whole = next(one for one in PARTS if one.name == "all")
    hooked = rules.hooked_chains(whole.rules)
    assert {"sparing", "arriving", "delivering", "leaving"} <= set(hooked)
    for chain in hooked:
        part = next(one for one in PARTS if one.name == f"all but nft's {chain}")
        assert rules.hooked_chains(part.rules) == [one for one in hooked if one != chain]
        assert f"chain {chain} {{" in table_of(part)


def test_each_rule_is_left_out_of_one_router_alone() -> None:
    whole = next(one for one in PARTS if one.name == "all")
    full = table_of(whole).count("\n"), iptables_of(whole).count("\n")
    for one in LEFT_OUT:
        assert (table_of(one).count("\n"), iptables_of(one).count("\n")) in (
            (full[0] - 1, full[1]),
            (full[0], full[1] - 1),
        ), one.name
