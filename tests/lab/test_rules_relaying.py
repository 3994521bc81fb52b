"""The rules of the router placement: connections are relayed, and pass by when nobody is there."""

from __future__ import annotations

import pytest

from tests.lab.rules_ground import (
    BOTH_WAYS,
    CONFIG,
    HOSTS,
    RELAYED,
    SITE,
    WAYS,
    A,
    B,
    G,
    GateProcess,
    Server,
    apply,
    connect,
    echo,
    masquerade_and_filter,
    sh,
    talk,
    wait_for,
)
from tests.lab.two_sites import BOTH_FAMILIES


@BOTH_FAMILIES
@BOTH_WAYS
@SITE
def test_relays_and_falls_open_when_killed(
    router: None, client: str, server: str, v6: bool, site: str
) -> None:
    RELAYED[site]()
    apply()
    with Server(server, v6), GateProcess() as gate:
        banner, _ = talk(client, server, v6, port=40025)
        assert gate.wait("accepted")
        seen = HOSTS[client][v6] if site == "plain" or client == B else ("10.2.0.1", "fd00:2::1")[v6]
        assert banner == f"220 you are {seen} 40025"
        talk(client, server, v6, port=40025)
        gate.kill()
        before = gate.count("syn")
        for _ in range(3):
            _, again = talk(client, server, v6)
            assert not again
        assert gate.count("syn") == before


@BOTH_FAMILIES
@SITE
def test_both_directions_at_once(router: None, v6: bool, site: str) -> None:
    RELAYED[site]()
    apply()
    with Server(A, v6), Server(B, v6), GateProcess() as gate:
        socks = [connect(client, server, v6)[0] for client, server in WAYS * 2]
        for number, sock in enumerate(socks):
            sock.sendall(b"%d" % number)
        assert [sock.recv(10) for sock in socks] == [b"0", b"1", b"2", b"3"]
        for sock in socks:
            sock.close()
        wait_for(lambda: gate.count("accepted") == 4)


@BOTH_FAMILIES
@BOTH_WAYS
def test_a_large_transfer_is_whole(router: None, client: str, server: str, v6: bool) -> None:
    apply()
    with Server(server, v6), GateProcess():
        echo(client, server, v6, 3_000_000)


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("cookies", [1, 2], ids=["no-cookies", "cookies"])
@BOTH_FAMILIES
@BOTH_WAYS
def test_each_slot_also_with_syn_cookies(
    router: None, client: str, server: str, v6: bool, cookies: int, slot: int
) -> None:
    apply([CONFIG.first_queue + slot])
    sh(G, f"sysctl -qw net.ipv4.tcp_syncookies={cookies}")
    before = tcp_counter("SyncookiesRecv")
    with Server(server, v6), GateProcess(slot=slot) as gate:
        talk(client, server, v6)
        assert gate.wait("accepted")["claim"] == "dialled"
    assert (tcp_counter("SyncookiesRecv") > before) == (cookies == 2)


@BOTH_FAMILIES
def test_syn_cookies_behind_masquerading_and_filter(router: None, v6: bool) -> None:
    masquerade_and_filter()
    apply()
    sh(G, "sysctl -qw net.ipv4.tcp_syncookies=2")
    with Server(A, v6), Server(B, v6), GateProcess() as gate:
        for client, server in WAYS:
            talk(client, server, v6)
            assert gate.wait("accepted")


def tcp_counter(name: str) -> int:
    names, values = [line.split() for line in sh(G, "cat /proc/net/netstat").splitlines()[:2]]
    return int(values[names.index(name)])


@BOTH_FAMILIES
def test_accept_first_when_over_the_limit(router: None, v6: bool) -> None:
    apply()
    with Server(B, v6), GateProcess(held_limit=0) as gate:
        talk(A, B, v6)
        assert gate.wait("accepted")["claim"] == "dial-now"


def test_inbound_is_accepted_first_where_the_server_has_answered(router: None) -> None:
    apply()
    with Server(A, False), GateProcess() as gate:
        talk(B, A, False)
        assert gate.wait("accepted")["claim"] == "dialled"
        talk(B, A, False)
        assert gate.wait("accepted")["claim"] == "dial-now"
