"""The gateway as a bridge: what is not its own passes as it is, and a site's filters stay what they are."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import signal
import socket
from collections.abc import Iterator
from typing import Self

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Dot1Q, Ether

from gateway.config import Placement
from gateway.lab import gateways, network, processes
from gateway.lab.topology import BRIDGE
from tests.lab.bridges import Cable, decided, is_mail, mac_of, reaches
from tests.lab.in_any_placement import reached_the_gate
from tests.lab.probes import PATIENCE, Dialogue, MailServer, eventually, mail, mail_at_once, sent_again
from tests.lab.two_sites import BOTH_FAMILIES, TOOLS, Sites


@pytest.fixture(scope="module")
def placement() -> Placement:
    return Placement.BRIDGE


# --- What is not ours ---------------------------------------------------------------------------------


def test_a_forged_frame_from_outside_teaches_nothing_of_an_address_inside(
    sites: Sites, server: MailServer
) -> None:
    """Else what we send to the mail server would go to the forger's side, and mail would stand still."""
    target = sites.address("mta-b", False)
    mail(sites, "mta-c", server, target, b"so that it is known inside")
    station, router = mac_of(sites.namespace("mta-b"), "eth0"), mac_of(sites.namespace("wire"), "gw-b")
    packet = IP(src=target, dst=sites.address("mta-c", False)) / TCP(sport=25, dport=25, flags="S")
    with Cable(sites.namespace("wire"), "gw-b") as wire, Cable(sites.namespace("mta-b"), "eth0") as cable:
        for each in ("map from4", "map to4", "set fresh_from4", "set fresh_to4"):
            sites.sh("gw-b", f"nft flush {each.replace(' ', ' bridge nightmail ')}")
        frame = bytes(Ether(src=router.hex(":"), dst=station.hex(":")) / packet)
        wire.send(frame)
        eventually(lambda: frame in cable.arrived(), what="the forged frame, which passes like any other")
    mail_at_once(sites, "mta-c", server, target, b"as before")


@pytest.mark.parametrize(
    ("full", "element"),
    [
        ("set fresh_from4", "192.0.2.77 . 02:00:00:00:00:77"),
        ("map to4", "192.0.2.77 : 02:00:00:00:00:77"),
        ("set inside_macs", "02:00:00:00:00:77"),
    ],
    ids=lambda value: value.split()[1] if value.startswith(("set", "map")) else "",
)
def test_where_no_more_macs_can_be_learned_mail_passes_as_it_is(
    sites: Sites, server: MailServer, full: str, element: str
) -> None:
    """A flood of forged addresses fills a map: what cannot be answered for is not taken."""
    target = sites.address("mta-b", False)
    supervisor = sites.supervisor("b")

    def told() -> int:
        """It has looked then what the new table is like: the next change is not taken for a part of it."""
        return sites.log("b").count(" rules put-back ")

    known = told()
    # It would put the table back as it was.
    os.kill(supervisor, signal.SIGSTOP)
    try:
        table = sites.sh("gw-b", "nft -s -t list table bridge nightmail")
        begin = table.index(full)
        end = table.index("}", begin)
        small = table[:begin] + re.sub(r"size \d+", "size 1", table[begin:end]) + table[end:]
        text = "delete table bridge nightmail\n" + small
        text += f"add element bridge nightmail {full.split()[1]} {{ {element} }}\n"
        processes.run_in(sites.namespace("gw-b"), ["nft", "-f", "-"], stdin=text.encode())
        gated = reached_the_gate(sites, "b")
        mail_at_once(sites, "mta-c", server, target, b"in clear")
        assert reached_the_gate(sites, "b") == gated
    finally:
        os.kill(supervisor, signal.SIGCONT)

    def put_back() -> bool:
        listing = sites.sh("gw-b", "nft -s -t list table bridge nightmail")
        return re.search(r"size 1$", listing, re.MULTILINE) is None and told() > known

    eventually(put_back, what="our table")
    mail_at_once(sites, "mta-c", server, target, b"through the gate")
    assert reached_the_gate(sites, "b") == gated + 1


@BOTH_FAMILIES
def test_neighbours_and_other_ports_pass_as_bridged(sites: Sites, v6: bool) -> None:
    gated = reached_the_gate(sites, "a")
    word = "-6" if v6 else "-4"
    sites.sh("mta-a", f"ip {word} neigh flush dev eth0")
    assert reaches(sites, "mta-a", "mta-b", v6)
    neighbours = sites.sh("mta-a", f"ip {word} neigh show dev eth0")
    router = mac_of(sites.namespace("wire"), "gw-a")
    assert router.hex(":") in neighbours, "the router's own MAC, not one of the gateway's"
    assert reached_the_gate(sites, "a") == gated


@BOTH_FAMILIES
def test_what_is_no_tcp_bears_no_mark_of_ours(sites: Sites, v6: bool) -> None:
    """Rules of the site for packets without any mark find them, as they would without us."""
    tool = "ip6tables" if v6 else "iptables"
    rule = "FORWARD -p udp --dport 25 -m mark ! --mark 0x0 -j DROP"
    kind = socket.AF_INET6 if v6 else socket.AF_INET
    with (
        network.socket_in(sites.namespace("mta-a"), kind, socket.SOCK_DGRAM) as sender,
        network.socket_in(sites.namespace("mta-b"), kind, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind((sites.address("mta-b", v6), 25))
        receiver.settimeout(PATIENCE)
        sites.sh("gw-a", f"{tool} -w -I {rule}")
        try:
            sender.sendto(b"no mail", receiver.getsockname()[:2])
            assert receiver.recv(100) == b"no mail"
        finally:
            sites.sh("gw-a", f"{tool} -w -D {rule}")


@pytest.mark.parametrize("filtered", [0, 1])
def test_tagged_frames_pass_as_they_are(sites: Sites, filtered: int) -> None:
    """Also where br_netfilter shows them to iptables."""
    sites.sh("gw-a", f"sysctl -qw net.bridge.bridge-nf-filter-vlan-tagged={filtered}")
    gated = reached_the_gate(sites, "a")
    station, router = mac_of(sites.namespace("mta-a"), "eth0"), mac_of(sites.namespace("wire"), "gw-a")
    head = Ether(src=station.hex(":"), dst=router.hex(":")) / Dot1Q(vlan=7)
    addresses = {"src": sites.address("mta-a", False), "dst": sites.address("mta-b", False)}
    frame = bytes(head / IP(**addresses) / TCP(sport=42000, dport=25, flags="S"))
    try:
        with (
            Cable(sites.namespace("mta-a"), "eth0") as inside,
            Cable(sites.namespace("wire"), "gw-a") as wire,
        ):
            inside.send(frame)

            def seen() -> bool:
                return any(tag == 7 and is_mail(got) for got, tag in wire.arrived_tagged())

            eventually(seen, what="the tagged frame on the wire")
        assert reached_the_gate(sites, "a") == gated
    finally:
        sites.sh("gw-a", "sysctl -qw net.bridge.bridge-nf-filter-vlan-tagged=0")


@BOTH_FAMILIES
def test_a_smaller_path_is_found_by_both_halves(sites: Sites, v6: bool) -> None:
    """A large mail through a wire whose next hop takes 1300 octets: ICMP's "too big" reaches our sockets."""
    word, prefix = ("-6", "2001:db8:12::/64") if v6 else ("-4", "10.12.0.0/24")
    metric = " metric 256" if v6 else ""
    sites.sh("wire", f"ip {word} route replace {prefix} dev gw-b{metric} mtu lock 1300")
    try:
        with MailServer(sites, "mta-b", v6) as server:
            body = b"\r\n".join([b"x" * 900] * 400)
            assert mail(sites, "mta-a", server, sites.address("mta-b", v6), body) < PMTU_SECONDS
    finally:
        sites.sh("wire", f"ip {word} route replace {prefix} dev gw-b{metric}")


PMTU_SECONDS = 8.0


# --- A port that nobody has named -----------------------------------------------------------------------

UNNAMED = "unnamed"
STATION, STATION_MAC = "10.12.0.77", "02:00:00:00:00:77"


@pytest.fixture
def station(sites: Sites) -> Iterator[str]:
    """The namespace of one that is behind a third port of gateway b's bridge, as a virtual machine may be."""
    namespace = sites.namespace("mta-c")
    sites.sh(
        "gw-b",
        f"ip link add {UNNAMED} type veth peer name third address {STATION_MAC} netns {namespace}",
        f"ip link set {UNNAMED} master {BRIDGE} up",
    )
    sites.sh(
        "mta-c",
        "sysctl -qw net.ipv4.conf.third.rp_filter=0 net.ipv4.conf.all.rp_filter=0",
        "ip link set third up",
        f"ip addr add {STATION}/24 dev third",
        "ip route add 10.11.0.0/24 via 10.12.0.254 dev third",
    )
    yield namespace
    sites.sh("gw-b", f"ip link del {UNNAMED}")


def test_mail_to_a_station_behind_a_port_that_nobody_has_named_passes(sites: Sites, station: str) -> None:
    """Its answers do not come to the gateway, so nobody may be dialled there for a client."""
    assert_served(station, STATION, sites.namespace("mta-a"), 587)
    gated = reached_the_gate(sites, "b")
    assert_served(station, STATION, sites.namespace("mta-a"), 25, at_once=True)
    assert reached_the_gate(sites, "b") == gated


def test_mail_to_such_a_station_passes_from_its_first_frame_on(sites: Sites, station: str) -> None:
    """One that was silent for long is not known there, so it is taken; its answer lets the client through."""
    assert_served(station, STATION, sites.namespace("mta-a"), 587)
    with silent(station):
        sites.sh("gw-b", "nft flush set bridge nightmail other_macs")
        gated = reached_the_gate(sites, "b")
        call = Call(station, STATION, sites.namespace("mta-a"), 25)
        eventually(lambda: reached_the_gate(sites, "b") > gated, what="the client's SYN at the gate")
    with call:
        call.assert_served()


def test_mail_from_a_station_behind_a_port_that_nobody_has_named_passes(sites: Sites, station: str) -> None:
    gated = reached_the_gate(sites, "b")
    server = sites.address("mta-a", False)
    assert_served(sites.namespace("mta-a"), server, station, 25, source=STATION)
    assert reached_the_gate(sites, "b") == gated


@pytest.mark.parametrize(("client", "at"), [("mta-b", "mta-a"), ("mta-a", "mta-b")], ids=["client", "server"])
def test_a_session_of_a_station_that_has_moved_there_gets_nowhere_in_clear(
    sites: Sites, station: str, client: str, at: str
) -> None:
    """What it says there in the middle of it is not for the gateway, and not for the wire."""
    mac, router = mac_of(sites.namespace("mta-b"), "eth0").hex(":"), mac_of(sites.namespace("wire"), "gw-b")
    with (
        MailServer(sites, at, False),
        Cable(sites.namespace("mta-b"), "eth0") as before,
        Dialogue(sites.connect(client, sites.address(at, False))) as dialogue,
        Cable(station, "third") as there,
        Cable(sites.namespace("wire"), "gw-b") as wire,
    ):
        dialogue.begin()
        heard = [Ether(frame) for frame in before.arrived() if is_mail(frame)][-1]
        ports = {"sport": heard[TCP].dport, "dport": heard[TCP].sport}
        place = {"seq": heard[TCP].ack, "ack": heard[TCP].seq + len(heard[TCP].payload)}
        words = (
            IP(src=heard[IP].dst, dst=heard[IP].src) / TCP(flags="PA", **ports, **place) / b"RSET moonlit\r\n"
        )
        there.send(bytes(Ether(src=mac, dst=router.hex(":")) / words))
        there.send(
            bytes(Ether(src=mac, dst=router.hex(":")) / IP(src="192.0.2.1", dst="192.0.2.2") / b"last")
        )
        seen = b""

        def arrived() -> bool:
            nonlocal seen
            seen += b"".join(wire.arrived())
            return b"last" in seen

        eventually(arrived, what="another frame of the same station on the wire")
        assert b"moonlit" not in seen


def test_who_speaks_there_in_another_vlan_is_not_there_in_ours(sites: Sites, station: str) -> None:
    """A router has the same MAC in each of its VLANs; else mail to it would pass in clear."""
    router = mac_of(sites.namespace("wire"), "gw-b").hex(":")
    words = IP(src="192.0.2.1", dst="192.0.2.2")
    with Cable(station, "third") as trunk:
        trunk.send(bytes(Ether(src=router, dst="ff:ff:ff:ff:ff:ff") / Dot1Q(vlan=20) / words))
        trunk.send(bytes(Ether(src="02:00:00:00:00:78", dst="ff:ff:ff:ff:ff:ff") / words))

    def known() -> str:
        return sites.sh("gw-b", "nft list set bridge nightmail other_macs")

    eventually(lambda: "02:00:00:00:00:78" in known(), what="who has spoken there without a tag")
    assert router not in known()


def assert_served(
    server: str, address: str, client: str, port: int, *, at_once: bool = False, source: str = ""
) -> None:
    with Call(server, address, client, port, source=source) as call:
        call.assert_served(at_once=at_once)


class Call:
    """A client that has begun to connect to a server, both of them sockets in namespaces."""

    def __init__(self, server: str, address: str, client: str, port: int, *, source: str = "") -> None:
        self._listener = network.socket_in(server, socket.AF_INET, socket.SOCK_STREAM)
        self._client = network.socket_in(client, socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((address, port))
        self._listener.listen()
        self._listener.settimeout(PATIENCE)
        self._client.bind((source, 0))
        self._client.setblocking(False)
        assert self._client.connect_ex((address, port)) == errno.EINPROGRESS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._client.close()

    def assert_served(self, *, at_once: bool = False) -> None:
        """It stands, by its first SYN if `at_once`, and what the server says arrives."""
        assert select.select([], [self._client], [], PATIENCE)[1], f"no connection within {PATIENCE} s"
        assert self._client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert not (at_once and sent_again(self._client)), "its SYN was sent again"
        accepted, _ = self._listener.accept()
        with accepted:
            accepted.sendall(b"220 mx.test ESMTP\r\n")
            self._client.settimeout(PATIENCE)
            assert self._client.recv(100) == b"220 mx.test ESMTP\r\n"


@contextlib.contextmanager
def silent(station: str) -> Iterator[None]:
    """Not a frame comes from it, of whatever kind, so that no bridge can learn of it."""
    for family in ("inet", "arp"):
        rules = (
            f"table {family} silent {{ chain out {{ type filter hook output priority 0; policy drop; }}; }}"
        )
        processes.run_in(station, ["nft", "-f", "-"], stdin=rules.encode())
    yield
    for family in ("inet", "arp"):
        processes.run_in(station, ["nft", "delete", "table", family, "silent"])


# --- A site with filters of its own --------------------------------------------------------------------


def test_rules_that_never_saw_a_frame_of_the_bridge_see_none(sites: Sites) -> None:
    """A firewall for what this machine routes, and masquerading: br_netfilter shows both our frames."""
    site = (
        "*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -j MASQUERADE\nCOMMIT\n"
        "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n"
    )
    for tool in TOOLS:
        processes.run_in(sites.namespace("gw-b"), [f"{tool}-restore", "--noflush"], stdin=site.encode())
    try:
        for v6 in (False, True):
            test_neighbours_and_other_ports_pass_as_bridged(sites, v6)
            with MailServer(sites, "mta-b", v6) as server:
                target = sites.address("mta-b", v6)
                mail(sites, "mta-a", server, target, b"through a firewall that is not asked")
                mail(sites, "mta-c", server, target, b"in clear")
                assert server.peers == [sites.address("mta-a", v6), sites.address("mta-c", v6)]
        assert "dport=" not in sites.sh("gw-b", "conntrack -L", "conntrack -L -f ipv6")
    finally:
        for tool in TOOLS:
            sites.sh("gw-b", f"{tool} -t nat -F POSTROUTING", f"{tool} -P FORWARD ACCEPT")


@pytest.mark.long
def test_a_bridge_that_was_filtered_stays_so(sites: Sites) -> None:
    """Stateful rules that know frames of the bridge go on judging them, and both halves of a session pass."""
    gateways.kill(sites.gateway("b"))
    sites.command("b", "down")
    sites.sh("gw-b", f"ip link set {BRIDGE} type bridge nf_call_iptables 1")
    site = (
        "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT\n"
        "-A FORWARD -m conntrack --ctstate NEW -p tcp --dport 25 -j ACCEPT\nCOMMIT\n"
    )
    processes.run_in(sites.namespace("gw-b"), ["iptables-restore", "--noflush"], stdin=site.encode())
    try:
        sites.command("b", "up")
        sites.start("b")
        with MailServer(sites, "mta-b", False) as server:
            for client in ("mta-a", "mta-c"):
                mail(sites, client, server, sites.address("mta-b", False), b"through the site's own filter")
        eventually(lambda: decided(sites, "b") == 2, what="two sessions")
        assert not reaches(sites, "mta-c", "mta-b", False)
        assert reaches(sites, "mta-c", "mta-b", True), "nobody filters IPv6"
    finally:
        gateways.kill(sites.gateway("b"))
        sites.command("b", "down")
        sites.sh("gw-b", "iptables -F FORWARD", "iptables -P FORWARD ACCEPT")
        sites.sh("gw-b", f"ip link set {BRIDGE} type bridge nf_call_iptables 0")
