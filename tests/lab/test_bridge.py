"""The gateway as a bridge without an address: all that holds for a router holds here, and frames stay frames.

Each part has its counterpart among the tests of the router placement, whose tools it uses: `test_real_mail`,
`test_equality`, `test_darkness`, `test_errors_of_others`, `test_fail_open`, `test_reload`. What is of a
bridge alone is looked at on the cables, by sockets that see every frame.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

from gateway.config import Placement
from gateway.lab import gateways, network, processes
from gateway.lab.lab import Lab
from gateway.lab.topology import BRIDGE, INSIDE, OUTSIDE, Family
from tests.lab import in_any_placement, probes, test_equality, test_errors_of_others, test_fail_open
from tests.lab.conftest import Guarded
from tests.lab.dialogues import DIALOGUES, FIRST_CONTACT, Dialogue
from tests.lab.exchange import MailSites, TlsContexts
from tests.lab.in_any_placement import reached_the_gate
from tests.lab.probes import TOOLS, MailServer, Sites, eventually, mail, wait_gone
from tests.lab.test_darkness import SPOKEN, assert_dark
from tests.lab.test_equality import BOTH, ROUTES
from tests.lab.test_errors_of_others import HOST, NET, NO_NEIGHBOUR, REFUSED, SILENT, Trouble, at
from tests.lab.test_fail_open import kill_all_workers, kill_everything

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
BOTH_FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
DELIVERY_SECONDS = 60.0
LOG_SECONDS = 10.0
ETH_P_ALL = 0x0003  # <linux/if_ether.h>


# --- Real mail ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def post(require_root: None) -> Iterator[Lab]:
    """Three Postfix, two of them behind a bridge; the daemons on these are not started yet."""
    with in_any_placement.post_offices(Placement.BRIDGE) as lab:
        yield lab


def test_real_mail_is_the_same_and_dark_between_gateways_alone(post: Lab) -> None:
    in_any_placement.assert_real_mail_is_the_same_and_dark_between_gateways_alone(post)


# --- Dialogues ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bridged(require_root: None, tls_contexts: TlsContexts) -> Iterator[Guarded]:
    """Gateways that have met."""
    with in_any_placement.acquainted(tls_contexts, Placement.BRIDGE) as made:
        yield made


SELECTED = [
    one for number, one in enumerate(DIALOGUES) if number % 4 == 1 and not (one.long or one.takes_its_time)
]


def named(dialogues: list[Dialogue]) -> list[object]:
    return [pytest.param(one, id=one.name.replace(" ", "-")) for one in dialogues]


@pytest.mark.parametrize("dialogue", named(SELECTED))
def test_dialogue(dialogue: Dialogue, bridged: Guarded, bare_sites: MailSites) -> None:
    """Octets, ends, and the client's address and port."""
    test_equality.compare(dialogue, bridged, bare_sites, ROUTES, Family.V4)


@pytest.mark.parametrize("dialogue", named(SELECTED[::4]))
def test_dialogue_by_ipv6(dialogue: Dialogue, bridged: Guarded, bare_sites: MailSites) -> None:
    test_equality.compare(dialogue, bridged, bare_sites, ROUTES, Family.V6)


@pytest.mark.parametrize("dialogue", named(SPOKEN[:4]))
def test_between_gateways_nothing_is_readable(dialogue: Dialogue, bridged: Guarded) -> None:
    outcome = bridged.sites.run(dialogue.steps, BOTH.sender, BOTH.receiver, Family.V4)
    assert_dark(bridged.sites.on_the_wire(outcome), outcome)


# --- Frames -------------------------------------------------------------------------------------------


class Cable:
    """All frames at one interface of a namespace, those for others and tagged ones included."""

    def __init__(self, namespace: str, interface: str) -> None:
        self._socket = network.inside(namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        self._socket.setsockopt(263, 1, struct.pack("=iHHQ", if_index(namespace, interface), 1, 0, 0))
        self._socket.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA: a tag is told beside the frame
        self._socket.bind((interface, ETH_P_ALL))
        self._socket.setblocking(False)

    def __enter__(self) -> Cable:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, frame: bytes) -> None:
        self._socket.send(frame)

    def arrived(self) -> list[bytes]:
        """What has come in since the last call."""
        return [frame for frame, _ in self.arrived_tagged()]

    def arrived_tagged(self) -> list[tuple[bytes, int | None]]:
        """The same, each with the number of its VLAN if it has a tag."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, told, _, sender = self._socket.recvmsg(65536, 128)
                if sender[2] == socket.PACKET_OUTGOING:
                    continue
                status, *_rest, tci, _tpid = struct.unpack("=IIIHHHH", told[0][2])
                found.append((frame, tci & 0xFFF if status & 0x10 else None))
        return found


def if_index(namespace: str, interface: str) -> int:
    return network.inside(namespace, lambda: socket.if_nametoindex(interface))


def mac_of(namespace: str, interface: str) -> bytes:
    said = processes.run_in(namespace, ["ip", "-o", "link", "show", interface]).stdout.decode()
    return bytes.fromhex(said.split("link/ether ")[1].split()[0].replace(":", ""))


@pytest.mark.parametrize("family", Family)
def test_frames_have_the_macs_of_those_in_whose_name_they_are(bridged: Guarded, family: Family) -> None:
    lab = bridged.sites.lab
    router = {letter: mac_of(lab.namespace("wire"), f"gw-{letter}") for letter in "ab"}
    station = {letter: mac_of(lab.namespace(f"mta-{letter}"), "eth0") for letter in "ab"}
    with contextlib.ExitStack() as stack:
        near, far = (
            {
                letter: stack.enter_context(
                    Cable(lab.namespace(node.format(letter)), interface.format(letter))
                )
                for letter in "ab"
            }
            for node, interface in (("mta-{}", "eth0"), ("wire", "gw-{}"))
        )
        bridged.sites.run(FIRST_CONTACT.steps, "a", "b", family)
        for letter in "ab":
            seen = {(frame[6:12], frame[:6]) for frame in near[letter].arrived() if is_mail(frame)}
            assert seen == {(router[letter], station[letter])}
            seen = {(frame[6:12], frame[:6]) for frame in far[letter].arrived() if is_mail(frame)}
            assert seen == {(station[letter], router[letter])}


def is_mail(frame: bytes) -> bool:
    """TCP from or to port 25."""
    kind = frame[12:14]
    if kind == b"\x08\x00":
        tcp = frame[14 + 4 * (frame[14] & 15) :] if frame[23] == 6 else b""
    else:
        tcp = frame[54:] if kind == b"\x86\xdd" and frame[20] == 6 else b""
    return b"\x00\x19" in (tcp[0:2], tcp[2:4])


SECRETS = (b"moonlit", b"heron", b"saltmarsh")


class Session:
    """A session from a to b that is upgraded, and can be led on step by step."""

    def __init__(self, guarded: Guarded, family: Family) -> None:
        self.made, self.accepted = guarded.sites.connect("a", "b", family)
        self.lines = self.made.makefile("rb")

    def __enter__(self) -> Session:
        self.reply(b"220 mx.test ESMTP\r\n")
        self.say(b"EHLO client.test\r\n")
        self.reply(b"250 mx.test\r\n")
        self.say(b"NOOP\r\n")
        self.reply(b"250 ok\r\n")
        return self

    def __exit__(self, *_: object) -> None:
        self.lines.close()
        self.made.close()
        self.accepted.close()

    def say(self, line: bytes) -> None:
        self.made.sendall(line)
        assert self.accepted.recv(1000) == line

    def reply(self, line: bytes) -> None:
        self.accepted.sendall(line)
        assert self.lines.readline() == line


def forget_stations(lab: Lab) -> None:
    for letter in "ab":
        for port in (INSIDE, OUTSIDE):
            words = ["ip", "link", "set", port, "type", "bridge_slave", "fdb_flush"]
            processes.run_in(lab.gateway(letter).namespace, words)


def say_with_forgetful_bridges(lab: Lab, session: Session) -> bytes:
    """Both ways in clear on the cables to the mail servers; all that was on the wire meanwhile."""
    with Cable(lab.namespace("wire"), "gw-a") as a, Cable(lab.namespace("wire"), "gw-b") as b:
        for word in SECRETS:
            forget_stations(lab)
            session.say(b"MAIL FROM:<" + word + b"@a.test>\r\n")
            forget_stations(lab)
            session.reply(b"250 " + word + b"\r\n")
        return b"".join(a.arrived() + b.arrived())


@pytest.mark.parametrize("family", Family)
def test_a_bridge_that_has_forgotten_its_stations_floods_nothing_in_clear(
    bridged: Guarded, family: Family
) -> None:
    lab = bridged.sites.lab
    with Session(bridged, family) as session:
        on_the_wire = say_with_forgetful_bridges(lab, session)
    assert on_the_wire
    for word in SECRETS:
        assert word not in on_the_wire


def horizon(lab: Lab, letter: str) -> str:
    words = ["nft", "list", "chain", "bridge", "nightmail", "horizon"]
    return processes.run_in(lab.gateway(letter).namespace, words).stdout.decode()


def test_it_is_the_split_horizon_that_keeps_it_from_the_wire(bridged: Guarded) -> None:
    """Without those rules every word is found: they are taken out faster than the daemon puts them back."""
    lab = bridged.sites.lab
    with Session(bridged, Family.V4) as session:

        def seen() -> bool:
            for letter in "ab":
                processes.run_in(
                    lab.gateway(letter).namespace, ["nft", "flush", "chain", "bridge", "nightmail", "horizon"]
                )
            on_the_wire = say_with_forgetful_bridges(lab, session)
            return all(word in on_the_wire for word in SECRETS)

        eventually(seen, 30.0, "words in clear on the wire")
    for letter in "ab":
        eventually(lambda letter=letter: "drop" in horizon(lab, letter), what="rules put back")
    with Session(bridged, Family.V4) as session:
        on_the_wire = say_with_forgetful_bridges(lab, session)
    for word in SECRETS:
        assert word not in on_the_wire


# --- Failures -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_troubles() -> Iterator[Sites]:
    with probes.built(placement=Placement.BRIDGE) as sites:
        arrange_troubles(sites)
        yield sites


def arrange_troubles(sites: Sites) -> None:
    for length, v6 in ((24, False), (64, True)):
        sites.sh("mta-b", f"ip addr add {at(REFUSED, v6)}/{length} dev eth0" + (" nodad" if v6 else ""))
    for tool, v6 in zip(TOOLS, (False, True), strict=True):
        rejects = {
            HOST: "icmp6-addr-unreachable" if v6 else "icmp-host-unreachable",
            NET: "icmp6-no-route" if v6 else "icmp-net-unreachable",
        }
        for trouble, word in rejects.items():
            sites.sh("wire", f"{tool} -A FORWARD -d {at(trouble, v6)} -p tcp -j REJECT --reject-with {word}")
        sites.sh("wire", f"{tool} -A FORWARD -d {at(SILENT, v6)} -p tcp -j DROP")
    for family in ("ipv4", "ipv6"):
        sites.sh("wire", f"sysctl -qw net.{family}.neigh.gw-b.retrans_time_ms=100")
    sites.pass_by("a", "b")


@pytest.mark.parametrize(
    ("trouble", "v6"),
    [
        *(pytest.param(each, False, id=f"{each.name}-v4") for each in (REFUSED, HOST, NET, SILENT)),
        pytest.param(REFUSED, True, id="refused-v6"),
        *(
            pytest.param(each, True, id=f"{each.name}-v6", marks=pytest.mark.long)
            for each in (HOST, NET, SILENT)
        ),
    ],
)
def test_the_same_failure_at_the_same_time(with_troubles: Sites, v6: bool, trouble: Trouble) -> None:
    test_errors_of_others.assert_alike(with_troubles, "mta-a", v6, trouble)


@BOTH_FAMILIES
def test_a_refusal_of_the_mail_server_reaches_a_client_on_the_wire(with_troubles: Sites, v6: bool) -> None:
    test_errors_of_others.assert_alike(with_troubles, "mta-c", v6, REFUSED)


@BOTH_FAMILIES
def test_a_missing_neighbour_is_told_by_the_network_itself(with_troubles: Sites, v6: bool) -> None:
    """There is no address here to tell it from, so the client's own SYN goes on: the same word, later."""
    target = at(NO_NEIGHBOUR, v6)
    name, direct = probes.failure(with_troubles, "mta-a", target, direct=True)
    gated, took = probes.failure(with_troubles, "mta-a", target)
    assert name == gated == "EHOSTUNREACH"
    print(f"{direct * 1000:.0f} ms direct, {took * 1000:.0f} ms through the gates")
    assert took < 3 * direct + 3.0


# --- Fail-open ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built() -> Iterator[Sites]:
    with probes.built(placement=Placement.BRIDGE) as sites:
        sites.acquaint()
        yield sites


@pytest.fixture
def sites(built: Sites) -> Sites:
    built.settle()
    return built


@pytest.mark.parametrize("letter", ["a", "b"])
@pytest.mark.parametrize(
    "event",
    [
        pytest.param(kill_all_workers, id="workers", marks=pytest.mark.long),
        pytest.param(kill_everything, id="everything"),
    ],
)
def test_a_kill_under_load_leaves_nobody_hanging(
    sites: Sites, server: MailServer, server6: MailServer, event: Callable, letter: str
) -> None:
    in_any_placement.assert_a_kill_under_load_leaves_nobody_hanging(sites, server, event, letter)


@pytest.mark.parametrize("letter", ["a", "b"])
def test_the_first_connection_behind_a_kill_passes_at_once(
    sites: Sites, server: MailServer, server6: MailServer, letter: str
) -> None:
    servers = (server, server6)
    in_any_placement.assert_the_first_connection_behind_a_kill_passes_at_once(sites, servers, letter)


def test_a_session_is_reset_when_its_gateway_dies(sites: Sites, server: MailServer) -> None:
    in_any_placement.assert_a_session_is_reset_when_its_gateway_dies(sites)


@BOTH_FAMILIES
@pytest.mark.parametrize(
    ("alive", "route"),
    [(True, ""), (False, ""), (False, "default dev lo")],
    ids=["a-listener", "nobody", "nobody-and-another-way-out"],
)
def test_what_finds_no_socket_is_reset_through_the_bridge(
    sites: Sites, v6: bool, alive: bool, route: str
) -> None:
    """Octets of a connection that was taken and is gone, on a machine that has no way to their client, or a
    wrong one: the client hears of it at once, and the wire nothing."""
    source, target, port = sites.address("mta-a", v6), sites.address("mta-b", v6), 47000
    if not alive:
        pids = [sites.supervisor("a"), *sites.workers("a")]
        probes.kill(*pids)
        wait_gone(*pids)
    word, six = ("-6", "6") if v6 else ("-4", "4")
    element = f"{{ {source} . {port} . {target} . 25 }}"
    sites.sh("gw-a", f"nft add element inet nightmail taken{six} {element}")
    if route:
        sites.sh("gw-a", f"ip {word} route add {route}")
    packet = (IPv6 if v6 else IP)(src=source, dst=target) / TCP(sport=port, dport=25, flags="A", seq=1, ack=1)
    station, router = mac_of(sites.namespace("mta-a"), "eth0"), mac_of(sites.namespace("wire"), "gw-a")
    frame = bytes(Ether(src=station.hex(":"), dst=router.hex(":")) / packet)
    try:
        with (
            Cable(sites.namespace("mta-a"), "eth0") as inside,
            Cable(sites.namespace("wire"), "gw-a") as wire,
        ):
            inside.send(frame)
            answer = eventually(lambda: reset_to(port, inside.arrived()), what="a reset")
            assert (answer[6:12], answer[:6]) == (router, station)
            assert frame not in wire.arrived()
    finally:
        if route:
            sites.sh("gw-a", f"ip {word} route del {route}")


def reset_to(port: int, frames: list[bytes]) -> bytes | None:
    for frame in frames:
        if is_mail(frame) and (tcp := Ether(frame)[TCP]).dport == port and "R" in tcp.flags:
            return frame
    return None


@pytest.mark.long
def test_a_reload_under_load_breaks_nothing(sites: Sites, server: MailServer) -> None:
    in_any_placement.assert_a_reload_under_load_breaks_nothing(sites, "a")


# --- What is not ours ---------------------------------------------------------------------------------


def test_a_forged_frame_from_outside_teaches_nothing_of_an_address_inside(
    sites: Sites, server: MailServer
) -> None:
    """Else what we send to the mail server would go to the forger's side, and mail would stand still."""
    target = sites.address("mta-b", False)
    mail(sites, "mta-c", server, target, b"so that it is known inside")
    station, router = mac_of(sites.namespace("mta-b"), "eth0"), mac_of(sites.namespace("wire"), "gw-b")
    packet = IP(src=target, dst=target) / TCP(sport=25, dport=25, flags="A")
    with Cable(sites.namespace("wire"), "gw-b") as wire, Cable(sites.namespace("mta-b"), "eth0") as cable:
        sites.sh("gw-b", "nft flush map bridge nightmail now4", "nft flush map bridge nightmail last4")
        frame = bytes(Ether(src=router.hex(":"), dst=station.hex(":")) / packet)
        wire.send(frame)
        eventually(lambda: frame in cable.arrived(), what="the forged frame, which passes like any other")
    assert mail(sites, "mta-c", server, target, b"as before") < 1.0


def test_where_no_more_macs_can_be_learned_mail_passes_as_it_is(sites: Sites, server: MailServer) -> None:
    """A flood of forged addresses fills the map: what cannot be answered for is not taken."""
    target = sites.address("mta-b", False)
    supervisor = sites.supervisor("b")
    # It would put the table back as it was.
    os.kill(supervisor, signal.SIGSTOP)
    try:
        table = sites.sh("gw-b", "nft -s -t list table bridge nightmail")
        begin = table.index("map now4")
        end = table.index("}", begin)
        full = table[:begin] + re.sub(r"size \d+", "size 1", table[begin:end]) + table[end:]
        text = "delete table bridge nightmail\n" + full
        text += "add element bridge nightmail now4 { 192.0.2.77 : 02:00:00:00:00:77 }\n"
        processes.run_in(sites.namespace("gw-b"), ["nft", "-f", "-"], stdin=text.encode())
        gated = reached_the_gate(sites, "b")
        assert mail(sites, "mta-c", server, target, b"in clear") < 1.0
        assert reached_the_gate(sites, "b") == gated
    finally:
        os.kill(supervisor, signal.SIGCONT)

    def put_back() -> bool:
        listing = sites.sh("gw-b", "nft -s -t list table bridge nightmail")
        return re.search(r"size 1$", listing, re.MULTILINE) is None

    eventually(put_back, what="our table")
    assert mail(sites, "mta-c", server, target, b"through the gate") < 1.0
    assert reached_the_gate(sites, "b") == gated + 1


def reaches(sites: Sites, client: str, server: str, v6: bool) -> bool:
    """Whether a connection to the port for submission comes in, from its own address and port."""
    family = socket.AF_INET6 if v6 else socket.AF_INET
    address = (sites.address(server, v6), 587)
    with (
        network.socket_in(sites.namespace(server), family, socket.SOCK_STREAM) as listener,
        network.socket_in(sites.namespace(client), family, socket.SOCK_STREAM) as made,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
        made.settimeout(2.0)
        try:
            made.connect(address)
        except OSError:
            return False
        accepted, source = listener.accept()
        accepted.close()
        assert source[:2] == made.getsockname()[:2]
        return True


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


PMTU_SECONDS = 5.0


# --- The operator's hand ------------------------------------------------------------------------------


def bridge_state(sites: Sites, letter: str) -> list[str]:
    """All that `up` may change, of bridges, interfaces and rules."""
    node = sites.home(letter)
    lines = [line for line in sites.sh(node, "ip -o -d link").splitlines() if line.strip()]
    fields = [
        " ".join(word for word in line.split() if not word.endswith(("_timer", ".00")) and "." not in word)
        for line in lines
    ]
    switches = [
        "sysctl -a --pattern net.bridge",
        "sysctl -a --pattern net.ipv[46].conf.*.(disable_ipv6|rp_filter|src)",
    ]
    return [*fields, *sites.sh(node, *switches).splitlines(), *sites.kernel_state(letter)]


def test_left_over_rules_are_harmless_and_down_takes_everything(
    sites: Sites, server: MailServer, server6: MailServer
) -> None:
    targets = test_fail_open.targets(sites)
    gateways.kill(sites.gateway("a"))
    sites.command("a", "down")
    without = bridge_state(sites, "a")
    assert sites.gate("a") == []
    plan = sites.command("a", "plan")
    assert bridge_state(sites, "a") == without, "plan changes nothing"
    for words in (
        "add     ip link add nm1 address",
        f"add     ip link set {BRIDGE} type bridge nf_call_iptables 1",
        f"add     ip link set nm0 master {BRIDGE}; bridge link set dev nm0 learning off",
        "add     bridge fdb replace",
        "add     ip -6 route default dev nm1 table 2526",
        "add     ip -4 rule pref 40000 iif lo lookup 2526",
        "add     nft chain bridge nightmail horizon {",
    ):
        assert words in plan
    for _ in range(2):
        sites.command("a", "up")
        assert sites.command("a", "plan").startswith("nothing to change")
    assert mail(sites, "mta-a", server, targets[0], b"left-over rules") < 0.5
    assert mail(sites, "mta-a", server6, targets[1], b"left-over rules") < 0.5
    for _ in range(2):
        sites.command("a", "down")
        assert bridge_state(sites, "a") == without
    assert mail(sites, "mta-a", server, targets[0], b"no rules") < 0.5
    sites.command("a", "up")


def lifts(sites: Sites, letter: str) -> bool:
    """Whether frames of the bridge are shown to iptables, and our port of it is as it should be."""
    node = sites.home(letter)
    links, entries = sites.sh(node, "ip -o -d link"), sites.sh(node, "bridge fdb show")
    port = re.search(r": nm0@nm1: .*,UP,.* learning off flood off .*mcast_flood off bcast_flood off", links)
    return (
        "nf_call_iptables 1 nf_call_ip6tables 1" in links
        and port is not None
        and "02:4e:4d:00:00:19 dev nm0 master br0 static" in entries
    )


def decided(sites: Sites, letter: str) -> int:
    """Sessions of this gateway since its start, whatever became of them."""
    counted = sites.status(letter)["counters"]["decided"]
    return sum(number for each in counted.values() for kind in each.values() for number in kind.values())


@pytest.mark.parametrize(
    "harm",
    [
        "ip link del nm1",
        "bridge fdb del 02:4e:4d:00:00:19 dev nm0 master",
        "bridge link set dev nm0 learning on flood on",
        f"ip link set {BRIDGE} type bridge nf_call_iptables 0",
        "nft flush ruleset",
    ],
    ids=lambda harm: harm.replace(" ", "-"),
)
def test_what_others_take_away_is_put_back(sites: Sites, server: MailServer, harm: str) -> None:
    before = test_fail_open.ours(sites.kernel_state("a"))
    sites.sh("gw-a", harm)
    eventually(lambda: lifts(sites, "a"), what="the way out of the bridge and back")
    eventually(lambda: test_fail_open.ours(sites.kernel_state("a")) == before, what="all of our rules")
    eventually(lambda: not sites.status("a")["rules"]["missing"], what="a status without missing rules")
    eventually(lambda: sites.alarms("a", "rules-missing"), what="an alarm in the log")
    sites.wait_ready("a")
    known = decided(sites, "a")
    mail(sites, "mta-a", server, test_fail_open.targets(sites)[0], b"after harm")
    eventually(lambda: decided(sites, "a") == known + 1, what="a session of ours")


def test_a_bridge_that_is_made_is_taken_away_again(sites: Sites) -> None:
    """In the namespace of gateway b, whose bridge is taken apart for it."""
    gateways.kill(sites.gateway("b"))
    sites.command("b", "down")
    sites.sh("gw-b", f"ip link del {BRIDGE}", f"ip link set {INSIDE} down")
    sites.sh("gw-b", f"sysctl -qw net.ipv6.conf.{INSIDE}.disable_ipv6=0")
    without = bridge_state(sites, "b")
    try:
        assert f"add     ip link add {BRIDGE} type bridge" in sites.command("b", "plan")
        sites.command("b", "up")
        with MailServer(sites, "mta-b", False) as server:
            target = sites.address("mta-b", False)
            mail(sites, "mta-c", server, target, b"through a new bridge")
            sites.start("b")
            mail(sites, "mta-c", server, target, b"through a gateway on it")
        eventually(lambda: decided(sites, "b") == 1, what="a session")
        gateways.kill(sites.gateway("b"))
        sites.command("b", "down")
        assert bridge_state(sites, "b") == without
    finally:
        sites.sh("gw-b", f"ip link set {INSIDE} up")
        network.inside(sites.namespace("gw-b"), network._make_bridge)
        sites.command("b", "up")


IMPOSSIBLE = [
    ("ip link add nm0 type bridge", "ip link del nm0", "bridge.port: an interface nm0 is there already"),
    (f"ip link set {OUTSIDE} nomaster", f"ip link set {OUTSIDE} master {BRIDGE}", "no port of the bridge"),
    (
        f"ip link set {BRIDGE} type bridge stp_state 1",
        f"ip link set {BRIDGE} type bridge stp_state 0",
        "runs the spanning tree protocol",
    ),
]
"""What makes it so, what ends it, and what is said of it."""


def test_what_cannot_be_is_one_line_and_changes_nothing(sites: Sites) -> None:
    gateways.kill(sites.gateway("b"))
    sites.command("b", "down")
    for before, after, complaint in IMPOSSIBLE:
        sites.sh("gw-b", before)
        without = bridge_state(sites, "b")
        try:
            for word in ("plan", "up"):
                said = sites.command("b", word)
                assert complaint in said
                assert len(said.splitlines()) == 1
                assert bridge_state(sites, "b") == without
        finally:
            sites.sh("gw-b", after)
    sites.command("b", "up")


def test_an_up_that_fails_half_way_is_undone(sites: Sites) -> None:
    gateways.kill(sites.gateway("b"))
    sites.command("b", "down")
    without = bridge_state(sites, "b")
    one = sites.gateway("b")
    broken = one.folder / "bin"
    broken.mkdir()
    tool = broken / "ip6tables-restore"
    tool.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    tool.chmod(0o755)
    command = ["env", f"PATH={broken}:{os.environ['PATH']}"]
    command += gateways.nightmail_command("--config", str(one.configuration), "up")
    done = subprocess.run(
        processes.command_in(one.namespace, command), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (1, "nightmail: ip6tables-restore: no such luck\n")
    assert bridge_state(sites, "b") == without
    sites.command("b", "up")


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
