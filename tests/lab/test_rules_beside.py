"""The rules of the router placement: what is not ours, and what the site does with marks, stays as it is."""

from __future__ import annotations

import socket
from ipaddress import ip_network

import pytest

from gateway.config import Config
from tests.lab.rules_ground import (
    BOTH_WAYS,
    CONFIG,
    HOSTS,
    PATIENCE,
    A,
    B,
    G,
    GateProcess,
    Server,
    apply,
    connect,
    failure,
    made,
    sh,
    talk,
    within,
)
from tests.lab.two_sites import BOTH_FAMILIES


@BOTH_FAMILIES
def test_wildcard_listeners_of_the_router_stay_out_of_it(router: None, v6: bool) -> None:
    """A service of the router's own on port 25 must not answer for a server that refuses."""
    apply()
    own = made(G, v6)
    own.bind(("::" if v6 else "0.0.0.0", 25))
    own.listen()
    with own, GateProcess():
        assert failure(A, B, v6)[0] == "ECONNREFUSED"
        assert failure(B, A, v6)[0] == "ECONNREFUSED"


@BOTH_FAMILIES
def test_strangers_cannot_call_our_listeners(router: None, v6: bool) -> None:
    apply()
    with GateProcess() as gate:
        for address in (("10.1.0.1", "fd00:1::1")[v6], ("10.2.0.1", "fd00:2::1")[v6], HOSTS[B][v6]):
            sock = made(A, v6)
            with sock, pytest.raises(ConnectionRefusedError):
                sock.connect((address, CONFIG.first_listen_port))
        assert gate.count("accepted") == 0


def test_spoofed_inside_sources_are_dropped(router: None) -> None:
    apply()
    sock = made(B, False)
    sock.setsockopt(socket.IPPROTO_IP, 19, 1)  # IP_TRANSPARENT: any source address
    sock.bind(("10.1.0.9", 0))
    sock.settimeout(1)
    with sock, Server(A, False) as server, GateProcess() as gate:
        with pytest.raises(TimeoutError):
            sock.connect((HOSTS[A][0], 25))
        assert "SPOOFED" in gate.wait("syn")["role"]
        assert server.connections == 0


@BOTH_FAMILIES
def test_networks_left_alone_never_reach_the_gate(router: None, v6: bool) -> None:
    config = Config(
        inside=("lan",), outside=("wan",), never=(ip_network("10.2.0.0/24"), ip_network("fd00:2::/64"))
    )
    apply(config=config)
    with Server(A, v6), Server(B, v6), GateProcess() as gate:
        talk(A, B, v6)
        talk(B, A, v6)
        assert gate.count("syn") == 0


@BOTH_FAMILIES
@BOTH_WAYS
def test_what_is_no_mail_bears_no_mark_of_ours(router: None, client: str, server: str, v6: bool) -> None:
    """Rules of the site that ask for a packet without any mark mean it as ever."""
    apply()
    sh(G, f"{'ip6tables' if v6 else 'iptables'} -A FORWARD -m mark ! --mark 0x0 -j DROP")
    kind = socket.AF_INET6 if v6 else socket.AF_INET
    sender, receiver = (
        within(name, lambda: socket.socket(kind, socket.SOCK_DGRAM)) for name in (client, server)
    )
    with sender, receiver:
        receiver.bind((HOSTS[server][v6], 25))
        receiver.settimeout(PATIENCE)
        sender.sendto(b"no mail", receiver.getsockname()[:2])
        assert receiver.recv(100) == b"no mail"
        sender.settimeout(PATIENCE)
        sender.connect((HOSTS[server][v6], 26))
        sender.send(b"to nobody")
        with pytest.raises(ConnectionRefusedError):  # by an ICMP error
            sender.recv(100)


@BOTH_FAMILIES
@BOTH_WAYS
def test_marks_of_the_site_live(router: None, client: str, server: str, v6: bool) -> None:
    tool = "ip6tables" if v6 else "iptables"
    incoming = "lan" if client == A else "wan"
    here = f"{tool} -t mangle -A INPUT -i {incoming} -p tcp --dport 25"
    sh(G, f"{tool} -t raw -A PREROUTING -i {incoming} -p tcp --dport 25 -j MARK --set-xmark 0x5/0xff")
    apply()
    sh(G, f"{here} -m mark --mark 0x40000005/0x400000ff", here)
    with Server(server, v6), GateProcess() as gate:
        talk(client, server, v6)
        assert gate.wait("syn")["mark"] & 0xFF == 5  # beside ours, by which the gate knows the SYN
        assert gate.wait("accepted")
    listing = sh(G, f"{tool} -t mangle -nvxL INPUT").splitlines()
    marked, every = (int(line.split()[0]) for line in listing if "dpt:25" in line)
    assert 0 < marked == every


@BOTH_FAMILIES
@BOTH_WAYS
def test_a_site_that_saves_and_restores_whole_marks(router: None, client: str, server: str, v6: bool) -> None:
    tool = "ip6tables" if v6 else "iptables"
    sh(
        G,
        f"{tool} -t mangle -A PREROUTING -j CONNMARK --restore-mark",
        f"{tool} -t mangle -A OUTPUT -j CONNMARK --restore-mark",
        f"{tool} -t mangle -A POSTROUTING -j CONNMARK --save-mark",
    )
    apply()
    with Server(server, v6), GateProcess() as gate:
        for _ in range(2):
            talk(client, server, v6)
            assert gate.wait("accepted")


@BOTH_FAMILIES
@BOTH_WAYS
@pytest.mark.parametrize("early_demux", [0, 1])
def test_sessions_survive_a_flush_of_conntrack(
    router: None, client: str, server: str, v6: bool, early_demux: int
) -> None:
    """Also where the kernel does not find the socket before it routes."""
    apply()
    sh(G, f"sysctl -qw net.ipv4.ip_early_demux={early_demux}")
    try:
        with Server(server, v6), GateProcess():
            sock, _, _ = connect(client, server, v6)
            sh(G, "conntrack -F")
            with sock:
                sock.sendall(b"still here")
                assert sock.recv(100) == b"still here"
    finally:
        sh(G, "sysctl -qw net.ipv4.ip_early_demux=1")


@BOTH_FAMILIES
@BOTH_WAYS
@pytest.mark.parametrize("setting", ["net.ipv4.conf.all.src_valid_mark", "fwmark_reflect"])
def test_settings_that_look_at_marks(router: None, client: str, server: str, v6: bool, setting: str) -> None:
    """src_valid_mark with a strict reverse-path filter, and answers that reflect the mark."""
    name = setting if "." in setting else ("net.ipv4.fwmark_reflect", "net.ipv6.fwmark_reflect")[v6]
    sh(G, f"sysctl -qw {name}=1")
    try:
        apply()
        with Server(server, v6), GateProcess() as gate:
            talk(client, server, v6)
            assert gate.wait("accepted")
            gate.kill()
            _, again = talk(client, server, v6)
            assert not again
    finally:
        sh(G, f"sysctl -qw {name}=0")
