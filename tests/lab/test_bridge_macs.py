"""The gateway as a bridge: on which side a station is, and which MACs frames have when others take over."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address
from itertools import count

import pytest
from scapy.layers.l2 import ARP, Ether

from gateway.config import Placement
from gateway.lab import network, processes
from gateway.lab.topology import BRIDGE, INSIDE
from tests.lab import two_sites
from tests.lab.bridges import Cable
from tests.lab.in_any_placement import reached_the_gate
from tests.lab.probes import Dialogue, MailServer, eventually, mail, mail_at_once
from tests.lab.two_sites import BOTH_FAMILIES, Sites

SECOND = "second"
BEHIND = {False: "10.12.0.77", True: "2001:db8:12::77"}
"""Of a station behind a second port of gateway b's bridge that is inside."""


@pytest.fixture(scope="module")
def placement() -> Placement:
    return Placement.BRIDGE


# --- Two ports inside -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forked() -> Iterator[Sites]:
    with two_sites.built(start=False, placement=Placement.BRIDGE) as sites:
        sites.sh(
            "gw-b",
            f"ip link add {SECOND} type veth peer name third netns {sites.namespace('mta-c')}",
            f"ip link set {SECOND} master {BRIDGE} up",
        )
        sites.sh(
            "mta-c",
            "ip link set third up",
            f"ip addr add {BEHIND[False]}/24 dev third",
            f"ip addr add {BEHIND[True]}/64 dev third nodad",
        )
        one = sites.gateway("b")
        text = one.configuration.read_text()
        one.configuration.write_text(
            text.replace(f'inside = ["{INSIDE}"]', f'inside = ["{INSIDE}", "{SECOND}"]')
        )
        sites.start("a", "b")
        yield sites


@BOTH_FAMILIES
def test_mail_between_two_ports_of_one_side_passes(forked: Sites, v6: bool) -> None:
    """Also to a station that has never spoken of mail: nobody may be dialled there for a client."""
    gated = reached_the_gate(forked, "b")
    with MailServer(forked, "mta-c", v6, address=BEHIND[v6]) as server:
        mail_at_once(forked, "mta-b", server, BEHIND[v6], b"next door")
    assert reached_the_gate(forked, "b") == gated


def test_one_side_is_not_dialled_for_any_longer_once_that_is_known(forked: Sites) -> None:
    """Where the client knew its neighbour before we did, its first SYN is taken and its next one passes."""
    with MailServer(forked, "mta-c", False, address=BEHIND[False]) as server:
        mail(forked, "mta-b", server, BEHIND[False], b"so that they are neighbours")
        for each in ("inside_macs", "outside_macs", "inside4", "home4"):
            forked.sh("gw-b", f"nft flush set bridge nightmail {each}")
        gated = reached_the_gate(forked, "b")
        with forked.socket("mta-b", False) as client:
            client.setblocking(False)
            client.connect_ex((BEHIND[False], 25))
            eventually(lambda: reached_the_gate(forked, "b") > gated, what="the client's SYN at the gate")
            forked.sh("mta-c", "ip neigh flush dev third")
            speak(forked, "mta-c", forked.address("mta-b", False))
            client.setblocking(True)
            client.settimeout(5.0)
            with Dialogue(client) as dialogue:
                dialogue.begin()
                dialogue.send_mail(b"by the second SYN")


@BOTH_FAMILIES
def test_mail_inside_by_way_of_the_router_outside_passes(forked: Sites, v6: bool) -> None:
    """Between two networks on one cable: each of its frames comes by twice."""
    router, target, length = ELSEWHERE[v6]
    forked.sh("wire", f"ip addr add {router}/{length} dev gw-b{' nodad' * v6}")
    forked.sh("wire", "sysctl -qw net.ipv4.conf.gw-b.send_redirects=0")
    forked.sh(
        "mta-c",
        "sysctl -qw net.ipv4.conf.third.rp_filter=0 net.ipv4.conf.all.rp_filter=0",
        f"ip addr add {target}/{length} dev third{' nodad' * v6}",
        f"ip route add {forked.address('mta-b', v6)} via {router} dev third",
    )
    speak(forked, "mta-c", router, target)
    home = f"nft list set bridge nightmail home{6 if v6 else 4}"
    eventually(lambda: target in forked.sh("gw-b", home), what="a neighbour inside")
    gated = reached_the_gate(forked, "b")
    with MailServer(forked, "mta-c", v6, address=target) as server:
        mail_at_once(forked, "mta-b", server, target, b"there and back again")
    assert reached_the_gate(forked, "b") == gated


def test_who_has_moved_outside_is_no_neighbour_inside(forked: Sites) -> None:
    """Mail to it is protected from its first word there on."""
    moved = str(ip_address(BEHIND[False]) + 1)

    def says(namespace: str, interface: str) -> None:
        frame = Ether(src=next(macs), dst="ff:ff:ff:ff:ff:ff") / ARP(op="is-at", psrc=moved, pdst=moved)
        with Cable(namespace, interface) as cable:
            cable.send(bytes(frame))

    def known() -> bool:
        return moved in forked.sh("gw-b", "nft list set bridge nightmail home4")

    says(forked.namespace("mta-c"), "third")
    eventually(known, what="a neighbour inside")
    says(forked.namespace("wire"), "gw-b")
    eventually(lambda: not known(), what="none any more")


ELSEWHERE = {False: ("10.13.0.254", "10.13.0.10", 24), True: ("2001:db8:13::fe", "2001:db8:13::10", 64)}
"""A second network of site b: its router, the station behind the second port, and the prefix."""


def speak(sites: Sites, node: str, address: str, source: str = "") -> None:
    """It asks for its neighbour, and says something."""
    kind = socket.AF_INET6 if ":" in address else socket.AF_INET
    with network.socket_in(sites.namespace(node), kind, socket.SOCK_DGRAM) as made:
        made.bind((source, 0))
        made.sendto(b"", (address, 9))


# --- Another MAC ----------------------------------------------------------------------------------------

macs = (f"02:00:00:00:01:{number:02x}" for number in count())


def takes_over(sites: Sites, node: str, interface: str, neighbour: str, at: str) -> None:
    """The same address has another MAC from now on, and the neighbour has heard of it."""
    sites.sh(node, f"ip link set {interface} address {next(macs)}")
    sites.sh(neighbour, f"ip -4 neigh flush dev {at}", f"ip -6 neigh flush dev {at}")


@BOTH_FAMILIES
@pytest.mark.parametrize(
    ("node", "interface", "neighbour", "at"),
    [("wire", "gw-b", "mta-b", "eth0"), ("mta-b", "eth0", "wire", "gw-b")],
    ids=["router", "mail-server"],
)
def test_who_takes_over_with_another_mac_has_mail_at_once(
    sites: Sites, v6: bool, node: str, interface: str, neighbour: str, at: str
) -> None:
    with MailServer(sites, "mta-b", v6) as here, MailServer(sites, "mta-c", v6) as there:
        ways = (("mta-c", here, sites.address("mta-b", v6)), ("mta-b", there, sites.address("mta-c", v6)))
        for client, server, target in ways:
            mail(sites, client, server, target, b"as it was")
        for client, server, target in ways:
            takes_over(sites, node, interface, neighbour, at)
            mail_at_once(sites, client, server, target, b"as it is")


@pytest.mark.parametrize("client", ["mta-b", "mta-c"], ids=["out", "in"])
def test_a_session_goes_on_behind_a_router_that_takes_over(sites: Sites, client: str) -> None:
    node = "mta-c" if client == "mta-b" else "mta-b"
    with (
        MailServer(sites, node, False),
        Dialogue(sites.connect(client, sites.address(node, False), timeout=4.0)) as dialogue,
    ):
        dialogue.begin()
        takes_over(sites, "wire", "gw-b", "mta-b", "eth0")
        dialogue.send_mail(b"in the same session")


@pytest.fixture
def two_routers(sites: Sites) -> Iterator[Sites]:
    """What comes to mta-b comes from another MAC than it sends to: as where routers share a virtual one."""
    sites.sh(
        "wire",
        f"ip link add own link gw-b address {next(macs)} type macvlan mode bridge",
        "ip link set own up",
        "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2",
        "ip addr add 10.12.0.253/24 dev own noprefixroute",
        "ip route add 10.12.0.10/32 dev own",
    )
    for each in ("map from4", "map to4", "set fresh_from4", "set fresh_to4"):
        sites.sh("gw-b", f"nft flush {each.replace(' ', ' bridge nightmail ')}")
    yield sites
    sites.sh("wire", "ip link del own")


def test_frames_go_where_the_mail_servers_own_ones_go(two_routers: Sites) -> None:
    """The router that has answered so far dies; the other one takes over what the stations send to."""
    sites = two_routers
    with (
        MailServer(sites, "mta-b", False),
        Dialogue(sites.connect("mta-c", sites.address("mta-b", False), timeout=4.0)) as dialogue,
    ):
        dialogue.begin()
        sites.sh("wire", "ip route del 10.12.0.10/32 dev own")
        processes.run_in(sites.namespace("wire"), ["nft", "-f", "-"], stdin=DEAD)
        dialogue.send_mail(b"through the one that took over")
    sites.sh("wire", "nft delete table inet dead")


DEAD = b"""table inet dead { chain in { type filter hook prerouting priority -400; iifname "own" drop; }; }"""
