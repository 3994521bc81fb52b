"""A router whose interface inside is a bridge, the frames of which br_netfilter shows to iptables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.config import Config
from gateway.intercept import kernel
from tests.lab.rules_ground import A, B, G, GateProcess, Server, apply, sh, talk, within
from tests.lab.two_sites import BOTH_FAMILIES

BRIDGED = Config(inside=("brl",), outside=("wan",))


@pytest.fixture(scope="module", params=[1, 0], ids=["filtered", "unfiltered"])
def filtered(request: pytest.FixtureRequest, router_between_hosts: None) -> Iterator[bool]:
    """Whether iptables sees frames of the bridge, for which the switch of all bridges is off."""
    sh(
        G,
        "sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0",
        f"ip link add brl type bridge nf_call_iptables {request.param} nf_call_ip6tables {request.param}",
        "ip addr flush dev lan",
        "ip link set lan master brl",
        "ip link set brl up",
        "ip addr add 10.1.0.1/24 dev brl",
        "ip addr add fd00:1::1/64 dev brl nodad",
    )
    yield bool(request.param)
    sh(G, "ip link del brl")


@BOTH_FAMILIES
def test_mail_from_behind_it_passes(router: None, filtered: bool, v6: bool) -> None:
    """As frames new connections cannot be taken: the kernel skips our rules when they are none any more."""
    apply(config=BRIDGED)
    before = within(G, kernel.passed_counts)["brl"]
    with Server(B, v6), GateProcess(config_inside=["brl"]) as gate:
        talk(A, B, v6)
        assert bool(gate.count("syn")) is not filtered
    after = within(G, kernel.passed_counts)["brl"]
    assert (after > before) is filtered


@BOTH_FAMILIES
def test_mail_to_behind_it_is_taken(router: None, filtered: bool, v6: bool) -> None:
    apply(config=BRIDGED)
    with Server(A, v6), GateProcess(config_inside=["brl"]) as gate:
        talk(B, A, v6)
        assert gate.wait("accepted")
