"""SYNs with forged sources, from the wire: the protected server must hear nothing of them.

All of it is bounded: some hundreds of SYNs, some thousands in the flood. Namespaces nmf0-...
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from gateway.lab import network
from tests.lab import probes, two_sites
from tests.lab.forged import FORGED, FORGED_HOSTS, FORGED_NETWORK, checksum, syn
from tests.lab.probes import Dialogue, Load, MailServer, eventually, kill, mail, mail_at_once, wait_gone
from tests.lab.two_sites import BOTH_FAMILIES, TOOLS, Sites

SHARED = ("203.0.113.9/24", "2001:db8:113::9/64")
EVERYBODY, ANY_ROUTER = "203.0.113.255", "2001:db8:113::"
"""There: the broadcast address of the one, the anycast address of the other (RFC 4291 2.6.1)."""


@pytest.fixture(scope="module")
def built() -> Iterator[Sites]:
    with two_sites.built() as sites:
        for v6 in (False, True):
            # Whoever is forged stays silent: no reset, no ICMP error for the SYN-ACKs.
            flag = "-6 " if v6 else ""
            sites.sh("wire", f"ip {flag}route add blackhole {FORGED_NETWORK[v6]}")
            sites.sh("mta-b", f"{TOOLS[v6]} -A INPUT -s {FORGED_NETWORK[v6]} -p tcp")
        yield sites


@pytest.fixture
def sites(built: Sites) -> Iterator[Sites]:
    built.settle()
    yield built
    built.sh("gw-a", "sysctl -qw net.ipv4.tcp_syncookies=1")
    built.sh("gw-b", "sysctl -qw net.ipv4.tcp_syncookies=1")


def heard(sites: Sites, v6: bool) -> int:
    """Packets with a forged source that have reached the server's box, by the kernel's own counter."""
    listing = sites.sh("mta-b", f"{TOOLS[v6]} -L INPUT -v -n -x")
    line = next(each for each in listing.splitlines() if FORGED_NETWORK[v6] in each)
    return int(line.split()[0])


def gate_count(sites: Sites, v6: bool) -> int:
    """SYNs that have reached gateway b's gate from outside."""
    listing = sites.sh("gw-b", f"{TOOLS[v6]}-save -c -t raw")
    lines = [each for each in listing.splitlines() if "-i outside" in each and "NIGHTMAIL-GATE" in each]
    return sum(int(each.split(":")[0].lstrip("[")) for each in lines)


def before_the_gate(sites: Sites, v6: bool) -> int:
    """SYNs that have come to gateway b from anywhere, whether its gate is for them or not."""
    listing = sites.sh("gw-b", f"{TOOLS[v6]}-save -c -t raw")
    (line,) = [each for each in listing.splitlines() if "-A PREROUTING" in each and "NIGHTMAIL" in each]
    return int(line.split(":")[0].lstrip("["))


def forge(sites: Sites, v6: bool, count: int) -> None:
    """Send so many SYNs to the server at site b, each from another address or port."""
    target = sites.address("mta-b", v6)
    packets = [
        syn(FORGED[v6].format(1 + n % FORGED_HOSTS), 1024 + (n * 7919) % 60000, target) for n in range(count)
    ]

    def send() -> None:
        family = socket.AF_INET6 if v6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            for packet in packets:
                raw.sendto(packet, (target, 0))

    network.inside(sites.namespace("wire"), send)


@pytest.fixture
def shared(sites: Sites) -> Iterator[None]:
    """Gateway b is on a network with others outside, not on a line of its own alone."""
    for address in SHARED:
        sites.sh("gw-b", f"ip addr add {address} dev outside")
    yield
    for address in SHARED:
        sites.sh("gw-b", f"ip addr del {address} dev outside")


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("nobody", ["0.0.0.0", "255.255.255.255", EVERYBODY, "::", ANY_ROUTER])
def test_a_syn_from_no_address_makes_nobody_dial(sites: Sites, nobody: str) -> None:
    """To dial from there would be to dial from the gateway's own address, for whoever is on the wire."""
    v6 = ":" in nobody
    # It has forgotten that the server answers, and would look.
    sites.kill("b")
    sites.start("b")
    target = sites.address("mta-b", v6)
    with MailServer(sites, "mta-b", v6) as server:
        arrived = before_the_gate(sites, v6)
        send_frame(sites, "gw-b", syn(nobody, 43_211, target), v6)
        eventually(lambda: before_the_gate(sites, v6) > arrived, what="it before the gate")
        # A mail from the same side goes behind it through the same queues.
        mail(sites, "mta-c", server, target, b"behind it")
        assert server.peers == [sites.address("mta-c", v6)]


def send_frame(sites: Sites, to: str, packet: bytes, v6: bool) -> None:
    """From the wire to a gateway, as it is: of a raw socket's packets the kernel writes the source anew."""
    there = sites.sh(to, "ip -br link show outside").split()[2]
    if not v6:
        packet = packet[:10] + struct.pack("!H", checksum(packet[:20])) + packet[12:]
    frame = bytes.fromhex(there.replace(":", "") + "02004e4d0001" + ("86dd" if v6 else "0800")) + packet

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((to, 0))
            raw.send(frame)

    network.inside(sites.namespace("wire"), send)


@BOTH_FAMILIES
def test_forged_syns_do_not_reach_a_server_that_answers(sites: Sites, v6: bool) -> None:
    with MailServer(sites, "mta-b", v6) as server:
        target = sites.address("mta-b", v6)
        mail(sites, "mta-c", server, target, b"it answers")
        before, arrived = heard(sites, v6), gate_count(sites, v6)
        forge(sites, v6, 300)
        eventually(lambda: gate_count(sites, v6) >= arrived + 300, what="all of them at the gate")
        # A mail from the same side goes behind them through the same queues.
        mail_at_once(sites, "mta-c", server, target, b"behind them")
        assert heard(sites, v6) == before
        assert set(server.peers) == {sites.address("mta-c", v6)}


@BOTH_FAMILIES
def test_forged_syns_probe_a_silent_server_one_at_a_time(sites: Sites, v6: bool) -> None:
    """Nobody knows whether it answers: one probe finds out, and then all others are accepted first."""
    sites.kill("b")
    sites.start("b")
    with MailServer(sites, "mta-b", v6) as server:
        before, arrived = heard(sites, v6), gate_count(sites, v6)
        forge(sites, v6, 200)
        eventually(lambda: gate_count(sites, v6) >= arrived + 200, what="all of them at the gate")
        mail_at_once(sites, "mta-c", server, sites.address("mta-b", v6), b"behind them")
        # Two workers, one probe each.
        assert len(server.peers) - 1 <= 2
        assert heard(sites, v6) - before <= 2 * 4


@BOTH_FAMILIES
@pytest.mark.parametrize("client", ["mta-a", "mta-c"], ids=["both-gates", "inbound"])
def test_forced_syn_cookies_work_through_the_gateways(sites: Sites, client: str, v6: bool) -> None:
    for node in ("gw-a", "gw-b"):
        sites.sh(node, "sysctl -qw net.ipv4.tcp_syncookies=2")
    before = cookies(sites, "gw-b")
    with MailServer(sites, "mta-b", v6) as server:
        for number in range(5):
            mail_at_once(sites, client, server, sites.address("mta-b", v6), b"by cookie %d" % number)
    assert cookies(sites, "gw-b") >= before + 5


def cookies(sites: Sites, node: str) -> int:
    names, values = [
        line.split()[1:]
        for line in sites.sh(node, "cat /proc/net/netstat").splitlines()
        if line.startswith("TcpExt:")
    ]
    return int(dict(zip(names, values, strict=True))["SyncookiesRecv"])


@BOTH_FAMILIES
def test_a_flood_leaves_real_mail_flowing(sites: Sites, v6: bool) -> None:
    target = sites.address("mta-b", v6)
    with MailServer(sites, "mta-b", v6) as server:
        mail(sites, "mta-a", server, target, b"before")
        before = heard(sites, v6)
        with Load(sites, "mta-a", (target,), clients=4) as load:
            load.wait(20)
            at = time.monotonic()
            forge(sites, v6, 3000)
            sent = time.monotonic()
            load.wait(40, since=at + 1.0)
        print(load.judge(at), f"3,000 SYNs in {sent - at:.2f} s")
        failed = [each for each in load.attempts if each.failure]
        assert not failed, probes.shown(failed, at)
        assert heard(sites, v6) == before
        mail_at_once(sites, "mta-c", server, target, b"afterwards")
        with Dialogue(sites.connect("mta-a", target)) as dialogue:
            dialogue.begin()


def test_clients_that_never_come_keep_no_worker_without_a_supervisor(sites: Sites) -> None:
    """They were let in, and would be waited for a minute; whoever is under way still gets its session."""
    with MailServer(sites, "mta-b", False) as server:
        mail(sites, "mta-a", server, sites.address("mta-b", False), b"the server answers")
        workers, arrived = sites.workers("b"), gate_count(sites, False)
        forge(sites, False, 20)
        eventually(lambda: gate_count(sites, False) >= arrived + 20, what="all at the gate")
        kill(sites.supervisor("b"))
        wait_gone(*workers, seconds=8.0)
