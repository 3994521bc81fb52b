"""The rules of the router placement: what a process that dies leaves half open, or under way."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct

from gateway.intercept.marks import MarkBits
from gateway.intercept.nfqueue import SynQueue
from tests.lab.probes import sent_again
from tests.lab.rules_ground import (
    BOTH_WAYS,
    CONFIG,
    HOSTS,
    RELAYED,
    SITE,
    A,
    B,
    G,
    GateProcess,
    Server,
    apply,
    connect,
    made,
    masquerade_and_filter,
    sh,
    wait_for,
    within,
)
from tests.lab.two_sites import BOTH_FAMILIES


@BOTH_FAMILIES
@BOTH_WAYS
@SITE
def test_half_open_at_death_is_reset(router: None, client: str, server: str, v6: bool, site: str) -> None:
    RELAYED[site]()
    apply()
    tool = "ip6tables" if v6 else "iptables"
    only_syns = "OUTPUT -p tcp --dport 25 ! --syn -j DROP"
    with Server(server, v6), GateProcess() as gate:
        sh(client, f"{tool} -A {only_syns}")
        try:
            sock = made(client, v6)
            sock.connect((HOSTS[server][v6], 25))  # SYN and SYN-ACK; our ACK is lost
            assert gate.wait("dialled")
            gate.kill()
        finally:
            sh(client, f"{tool} -D {only_syns}")
        assert gate.count("accepted") == 0
        assert_ends_soon(sock)


@BOTH_FAMILIES
@BOTH_WAYS
@SITE
def test_established_at_death_ends_at_once(
    router: None, client: str, server: str, v6: bool, site: str
) -> None:
    RELAYED[site]()
    apply()
    with Server(server, v6), GateProcess() as gate:
        sock, _, _ = connect(client, server, v6)
        gate.kill()
        assert_ends_soon(sock)


def assert_ends_soon(sock: socket.socket) -> None:
    """Sends, and gets a reset or an end: else it would wait for its own timer, minutes."""
    sock.settimeout(3)
    with sock, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        sock.sendall(b"MAIL FROM:<>\r\n")
        while sock.recv(100):
            pass


@BOTH_FAMILIES
def test_octets_after_death_do_not_reach_the_wire(router: None, v6: bool) -> None:
    """A client that has not heard of our death goes on sending: that must not be forwarded in clear."""
    apply()
    tool = "ip6tables" if v6 else "iptables"
    deaf = "INPUT -p tcp --sport 25 -j DROP"
    with Server(B, v6), GateProcess() as gate:
        sock, _, _ = connect(A, B, v6)
        sh(A, f"{tool} -A {deaf}")
        sh(G, f"{tool} -A FORWARD -p tcp --dport 25")
        try:
            gate.kill()
            sock.sendall(b"what the wire must not see")
            wait_for(lambda: packets(f"{tool} -nvxL NIGHTMAIL-INPUT", "reject-with tcp-reset") > 0)
            assert packets(f"{tool} -nvxL FORWARD", "dpt:25") == 0
        finally:
            sh(A, f"{tool} -D {deaf}")
            sock.close()


def packets(listing: str, words: str) -> int:
    return sum(int(line.split()[0]) for line in sh(G, listing).splitlines() if words in line)


@BOTH_FAMILIES
@BOTH_WAYS
def test_direct_connections_survive_our_coming_and_going(
    router: None, client: str, server: str, v6: bool
) -> None:
    masquerade_and_filter()
    with Server(server, v6):
        before, _, _ = connect(client, server, v6)
        rules = apply()
        meanwhile, _, _ = connect(client, server, v6)  # nobody listens: it passes by
        for sock in (before, meanwhile):
            sock.sendall(b"still here")
            assert sock.recv(100) == b"still here"
        within(G, rules.remove)
        for sock in (before, meanwhile):
            sock.sendall(b"and still")
            assert sock.recv(100) == b"and still"
            sock.close()


@BOTH_FAMILIES
def test_the_server_can_end_what_we_left(router: None, v6: bool) -> None:
    """The kernel keeps our dialled socket for a minute, as hardly more than its ports: it must hear."""
    apply()
    with Server(B, v6) as server, GateProcess() as gate:
        server.may_end.clear()
        sock, _, (_, port, *_) = connect(A, B, v6)
        gate.kill()
        here = f"sport = :25 and dport = :{port}"
        wait_for(lambda: "CLOSE-WAIT" in sh(B, f"ss -Htan {here}"))
        server.may_end.set()
        wait_for(lambda: not sh(B, f"ss -Htan {here}"))
        sock.close()


@BOTH_FAMILIES
def test_a_syn_taken_for_nobody_is_lost_once(router: None, v6: bool) -> None:
    """The process dies between verdict and listener: the client's next SYN goes direct."""
    apply()
    held: list = []
    made_queue = within(G, lambda: SynQueue(CONFIG.first_queue, lambda token, *_: held.append(token)))
    with Server(B, v6), made(A, v6) as sock:
        sock.setblocking(False)
        assert sock.connect_ex((HOSTS[B][v6], 25)) == errno.EINPROGRESS
        wait_for(lambda: made_queue.run() is None and held)
        made_queue.verdict(held[0], MarkBits(CONFIG.marks.mask).take(0))
        made_queue.close()
        sock.settimeout(2)
        assert sock.recv(100).startswith(b"220")


@BOTH_FAMILIES
@BOTH_WAYS
@SITE
def test_sessions_survive_rules_put_in_again(
    router: None, client: str, server: str, v6: bool, site: str
) -> None:
    RELAYED[site]()
    apply()
    with Server(server, v6), GateProcess():
        sock, _, _ = connect(client, server, v6)
        with sock:
            apply()
            for words in (b"still here", b"and now"):
                sock.sendall(words)
                assert sock.recv(100) == words


@BOTH_FAMILIES
def test_a_pair_of_ports_that_was_ours_goes_direct_after_death(router: None, v6: bool) -> None:
    """The memory of taken connections must not catch the client's own next connection."""
    apply()
    with Server(B, v6, ends_first=True), GateProcess() as gate:
        sock, _, _ = connect(A, B, v6, port=40077)
        assert sock.recv(100) == b""
        # The server ended first and the client resets: no socket of ours is left in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        wait_for(lambda: "40077" not in sh(G, "ss -Htan"))
        gate.kill()
        with connect(A, B, v6, port=40077)[0] as again:
            assert not sent_again(again)
