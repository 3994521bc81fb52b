"""A router with another network, on neither side: mail to it is none of the gateway's, and passes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.errors import Reason
from gateway.intercept import kernel
from gateway.operator.aside import aside
from tests.lab.own_namespaces import ip, link
from tests.lab.rules_ground import CONFIG, HOSTS, A, B, G, GateProcess, R, Server, apply, sh, talk, within
from tests.lab.two_sites import BOTH_FAMILIES

THERE = {False: "10.3.0.2", True: "fd00:3::2"}
FAR = {False: "10.9.0.2", True: "fd00:9::2"}


@pytest.fixture(scope="module")
def other_network(router_between_hosts: None) -> Iterator[None]:
    ip(f"netns add {R}", f"-n {R} link set lo up")
    ip(f"link add dmz netns {G} type veth peer name eth netns {R}")
    link(R, "eth", "10.3.0.2/24", "fd00:3::2/64")
    link(G, "dmz", "10.3.0.1/24", "fd00:3::1/64")
    ip(f"-n {R} route add default via 10.3.0.1", f"-n {R} -6 route add default via fd00:3::1")
    yield
    ip(f"netns del {R}")


@BOTH_FAMILIES
def test_mail_to_a_network_on_neither_side_passes(router: None, other_network: None, v6: bool) -> None:
    """The answer to a dial would come in by an interface that is not ours, and go on to the client."""
    apply()
    with Server(R, v6, THERE[v6]), GateProcess() as gate:
        banner, _ = talk(A, R, v6, address=THERE[v6])
        assert banner.split()[3] == HOSTS[A][v6]
        assert gate.count("syn") == 0
    assert within(G, kernel.passed_counts)["lan"] >= 1, "and nobody would know of it"
    assert reason_at_the_gateway(THERE[v6]) is Reason.BYPASSED, "as `explain` says"


def reason_at_the_gateway(address: str) -> Reason | None:
    """Why `explain` would say there that it passes."""
    found = within(G, lambda: aside(CONFIG, address))
    return found.reason if found else None


@BOTH_FAMILIES
def test_what_explain_says_of_the_others(router: None, other_network: None, v6: bool) -> None:
    own = ("10.1.0.1", "fd00:1::1")[v6]
    expected = {HOSTS[B][v6]: None, HOSTS[A][v6]: Reason.NOT_OURS, own: Reason.NOT_OURS}
    assert {address: reason_at_the_gateway(address) for address in expected} == expected


@BOTH_FAMILIES
def test_mail_from_outside_to_a_network_on_neither_side_passes(
    router: None, other_network: None, v6: bool
) -> None:
    """None of the site's own, and not counted as passed: the gate has seen it."""
    apply()
    sh(B, f"ip {'-6' if v6 else '-4'} route add {THERE[v6]} via {('10.2.0.1', 'fd00:2::1')[v6]}")
    with Server(R, v6, THERE[v6]), GateProcess() as gate:
        talk(B, R, v6, address=THERE[v6])
        assert "NOT_OURS" in gate.wait("syn")["role"]


@pytest.fixture
def two_ways_out(router: None, other_network: None, v6: bool) -> Iterator[None]:
    """All leave by the other network, but what our sockets send in the name of A."""
    family, width = ("-6", 128) if v6 else ("-4", 32)
    rule = f"from {HOSTS[A][v6]} iif lo fwmark 0x80000000/0x80000000 lookup 99"
    sh(B, f"ip {family} address add {FAR[v6]}/{width} dev eth" + (" nodad" if v6 else ""))
    sh(
        G,
        "sysctl -qw net.ipv4.conf.wan.rp_filter=2",
        f"ip {family} route add {FAR[v6]} via {THERE[v6]}",
        f"ip {family} route add {FAR[v6]} via {HOSTS[B][v6]} table 99",
        f"ip {family} rule add {rule}",
    )
    yield
    sh(
        G,
        f"ip {family} rule del {rule}",
        f"ip {family} route flush table 99",
        f"ip {family} route del {FAR[v6]}",
        "sysctl -qw net.ipv4.conf.wan.rp_filter=1",
    )
    sh(B, f"ip {family} address del {FAR[v6]}/{width} dev eth")


@BOTH_FAMILIES
def test_the_way_of_our_own_sockets_decides(two_ways_out: None, v6: bool) -> None:
    """A site with several ways out says by routing rules which one they take (`doctor`: uplinks)."""
    apply()
    with Server(B, v6, FAR[v6]), GateProcess() as gate:
        talk(A, B, v6, address=FAR[v6])
        assert gate.wait("accepted")
    assert reason_at_the_gateway(FAR[v6]) is None, "nobody can tell without the sender"
