"""The rules of the router placement: what a client hears when the server does not answer."""

from __future__ import annotations

import functools

import pytest

from tests.lab.probes import TRIES
from tests.lab.rules_ground import (
    BOTH_WAYS,
    RELAYED,
    SITE,
    A,
    B,
    GateProcess,
    apply,
    failure,
    sh,
    wait_for,
)
from tests.lab.two_sites import BOTH_FAMILIES

SECOND_SYN = 1.6
"""Behind the kernel's first retransmission."""
REJECTIONS = [
    (False, "tcp-reset"),
    (False, "icmp-port-unreachable"),
    (False, "icmp-host-unreachable"),
    (False, "icmp-net-unreachable"),
    (False, "icmp-admin-prohibited"),
    (True, "tcp-reset"),
    (True, "icmp6-port-unreachable"),
    (True, "icmp6-addr-unreachable"),
    (True, "icmp6-no-route"),
    (True, "icmp6-adm-prohibited"),
]


@BOTH_WAYS
@SITE
@pytest.mark.parametrize(("v6", "answer"), REJECTIONS, ids=[answer for _, answer in REJECTIONS])
def test_failures_are_those_seen_without_us(
    router: None, client: str, server: str, v6: bool, answer: str, site: str
) -> None:
    tool = "ip6tables" if v6 else "iptables"
    sh(server, f"{tool} -A INPUT -p tcp --dport 25 -j REJECT --reject-with {answer}")
    direct, takes = without_us(client, server, v6, answer)
    RELAYED[site]()
    apply()
    with GateProcess() as gate:
        for attempt in range(TRIES):
            through, took = failure(client, server, v6)
            assert gate.wait("dialled")
            assert through == direct
            if took < takes + 0.5:
                break
            assert attempt + 1 < TRIES, f"{took:.2f} s, and {takes:.2f} s without us"


@functools.cache
def without_us(client: str, server: str, v6: bool, answer: str) -> tuple[str, float]:
    """Whatever rules the site has. An error by ICMPv6 takes a second: it meets a socket in connect()."""
    return failure(client, server, v6)


@BOTH_WAYS
@BOTH_FAMILIES
@SITE
def test_no_neighbour_is_host_unreachable(
    router: None, client: str, server: str, v6: bool, site: str
) -> None:
    RELAYED[site]()
    apply()
    nobody = {A: ("10.1.0.77", "fd00:1::77"), B: ("10.2.0.77", "fd00:2::77")}[server][v6]
    with GateProcess() as gate:
        assert failure(client, server, v6, address=nobody)[0] == "EHOSTUNREACH"
        assert gate.wait("dialled")["outcome"] == "host-unreachable"


@BOTH_FAMILIES
@BOTH_WAYS
def test_silence_stays_silence(router: None, client: str, server: str, v6: bool) -> None:
    tool = "ip6tables" if v6 else "iptables"
    sh(server, f"{tool} -A INPUT -p tcp --dport 25 -j DROP")
    apply()
    with GateProcess() as gate:
        assert failure(client, server, v6, timeout=SECOND_SYN)[0] == "silent"
        wait_for(lambda: gate.count("syn") >= 2)
        assert gate.count("dialled") == 0
