"""The rules of the router placement against a real kernel, in namespaces of their own (nmi-<pid>-...).

    A (10.1.0.2, inside) --lan-- G (the router) --wan-- B (10.2.0.2, outside)

The gate is `gate_process.py`, a process that can be killed; clients and servers are sockets of this
process, made inside the namespaces.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pyroute2 import netns

from gateway.config import Config, Placement
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel, ruleset
from tests.lab.own_namespaces import ip, remove_ours

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]

GATE_PROCESS = Path(__file__).with_name("gate_process.py")
CONFIG = Config(inside=("lan",), outside=("wan",))
A, G, B, R = (f"nmi-{os.getpid()}-{name}" for name in "agbr")
HOSTS = {A: ("10.1.0.2", "fd00:1::2"), B: ("10.2.0.2", "fd00:2::2")}
PATIENCE = 8.0
WAYS = [(A, B), (B, A)]
BOTH_WAYS = pytest.mark.parametrize(("client", "server"), WAYS, ids=["outbound", "inbound"])
BOTH_FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])


# --- Namespaces ---------------------------------------------------------------------------------------


def within(name: str, work: Callable):
    """Run `work` in a thread that lives in this namespace; what it makes there stays there."""

    def entered():
        netns.setns(name)
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(entered).result()


def sh(name: str, *commands: str) -> str:
    out = ""
    for command in commands:
        done = subprocess.run(
            ["ip", "netns", "exec", name, *command.split()], capture_output=True, text=True, timeout=20
        )
        assert done.returncode == 0, f"{name}: {command}: {done.stderr}"
        out += done.stdout
    return out


def link(here: str, name: str, v4: str, v6: str) -> None:
    ip(f"-n {here} addr add {v4} dev {name}", f"-n {here} addr add {v6} dev {name} nodad")
    ip(f"-n {here} link set {name} up")


@pytest.fixture(scope="module")
def net() -> Iterator[None]:
    remove_ours("nmi")
    try:
        for name in (A, G, B):
            ip(f"netns add {name}", f"-n {name} link set lo up")
        ip(f"link add lan netns {G} type veth peer name eth netns {A}")
        ip(f"link add wan netns {G} type veth peer name eth netns {B}")
        link(A, "eth", "10.1.0.2/24", "fd00:1::2/64")
        link(G, "lan", "10.1.0.1/24", "fd00:1::1/64")
        link(G, "wan", "10.2.0.1/24", "fd00:2::1/64")
        link(B, "eth", "10.2.0.2/24", "fd00:2::2/64")
        ip(f"-n {B} addr add 10.2.0.3/24 dev eth")
        for name, router in ((A, ("10.1.0.1", "fd00:1::1")), (B, ("10.2.0.1", "fd00:2::1"))):
            ip(
                f"-n {name} route add default via {router[0]}",
                f"-n {name} -6 route add default via {router[1]}",
            )
        for name in (A, G, B):
            # One ICMP error a second is the kernel's custom; the tests want one for each refusal.
            sh(name, "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0")
        # Strict reverse-path filter everywhere, and marks not taken into account: the rules must do with it.
        sh(G, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=1")
        sh(G, "sysctl -qw net.ipv4.conf.lan.rp_filter=1 net.ipv4.conf.wan.rp_filter=1")
        sh(G, "sysctl -qw net.ipv4.conf.all.src_valid_mark=0")
        yield
    finally:
        remove_ours("nmi")


SITE_RESET = "*raw\nCOMMIT\n*mangle\nCOMMIT\n*nat\nCOMMIT\n*filter\nCOMMIT\n"


@pytest.fixture
def router(net: None) -> Iterator[None]:
    """A router without any rules, and without memory of earlier connections."""
    clear_router()
    yield


def clear_router() -> None:
    within(G, kernel.KernelRules(CONFIG).remove)
    for tool in ("iptables-restore", "ip6tables-restore"):
        done = subprocess.run(
            ["ip", "netns", "exec", G, tool], input=SITE_RESET, text=True, capture_output=True
        )
        assert done.returncode == 0, done.stderr
    for name in (A, B):
        for tool in ("iptables", "ip6tables"):
            sh(name, f"{tool} -F INPUT")
    subprocess.run(["ip", "netns", "exec", G, "conntrack", "-F"], capture_output=True)
    sh(G, "sysctl -qw net.ipv4.tcp_syncookies=1")


def masquerade_and_filter() -> None:
    """What a usual site has: masquerading, and a stateful filter that lets in only mail from outside."""
    for tool in ("iptables", "ip6tables"):
        sh(
            G,
            f"{tool} -t nat -A POSTROUTING -o wan -j MASQUERADE",
            f"{tool} -P INPUT DROP",
            f"{tool} -A INPUT -i lo -j ACCEPT",
            f"{tool} -A INPUT -m conntrack --ctstate INVALID -j DROP",
            f"{tool} -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT",
            f"{tool} -P FORWARD DROP",
            f"{tool} -A FORWARD -m conntrack --ctstate INVALID -j DROP",
            f"{tool} -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            f"{tool} -A FORWARD -i lan -j ACCEPT",
            f"{tool} -A FORWARD -i wan -p tcp --dport 25 -j ACCEPT",
        )
    for kind in ("neighbour-solicitation", "neighbour-advertisement"):
        sh(G, f"ip6tables -I INPUT -p ipv6-icmp --icmpv6-type {kind} -j ACCEPT")


# --- Clients, servers, the gate -----------------------------------------------------------------------


def made(name: str, v6: bool) -> socket.socket:
    sock = within(name, lambda: socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_STREAM))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.settimeout(PATIENCE)
    return sock


class Server:
    """Says to whom it speaks, then sends back what it gets."""

    def __init__(
        self, name: str, v6: bool, address: str = "", port: int = 25, ends_first: bool = False
    ) -> None:
        self._ends_first = ends_first
        self.may_end = threading.Event()
        self.may_end.set()
        self._listener = made(name, v6)
        self._listener.bind((address or HOSTS[name][v6], port))
        self._listener.listen(64)
        self._listener.settimeout(None)
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, peer = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._echo, args=(sock, peer), daemon=True).start()

    def _echo(self, sock: socket.socket, peer: tuple) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(30)
            sock.sendall(f"220 you are {peer[0]} {peer[1]}\r\n".encode())
            while not self._ends_first and (octets := sock.recv(65536)):
                sock.sendall(octets)
            self.may_end.wait(PATIENCE)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class GateProcess:
    def __init__(self, **options: object) -> None:
        options.setdefault("inside_networks", ["10.1.0.0/24", "fd00:1::/64"])
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", G, sys.executable, "-u", str(GATE_PROCESS), json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(GATE_PROCESS.parents[2])},
        )
        self.events: list[dict] = []
        self._queue: queue.Queue = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self.wait("ready"), "the gate process has not started"

    def _read(self) -> None:
        for line in self.process.stdout:
            self._queue.put(json.loads(line))
        self._queue.put({"event": "ended"})

    def wait(self, event: str, seconds: float = PATIENCE) -> dict | None:
        """The next event of this name."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(queue.Empty):
            while (left := deadline - time.monotonic()) > 0:
                found = self._queue.get(timeout=left)
                self.events.append(found)
                if found["event"] == event:
                    return found
                if found["event"] == "ended":
                    break
        return None

    def count(self, event: str) -> int:
        while not self._queue.empty():
            self.events.append(self._queue.get())
        return sum(found["event"] == event for found in self.events)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)
        self._thread.join(5)
        self.process.stdout.close()

    def __enter__(self) -> GateProcess:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        if kind is not None:
            self.count("")
            print("the gate said", *self.events, sep="\n  ")  # shown where a test fails


def connect(client: str, server: str, v6: bool, *, address: str = "", port: int = 0, timeout=PATIENCE):
    """Returns (socket, banner, own address and port)."""
    sock = made(client, v6)
    sock.settimeout(timeout)
    try:
        if port:
            sock.bind((HOSTS[client][v6], port))
        sock.connect((address or HOSTS[server][v6], 25))
        banner = b""
        while not banner.endswith(b"\n"):
            octets = sock.recv(200)
            if not octets:
                raise ConnectionError("no banner")
            banner += octets
    except BaseException:
        sock.close()
        raise
    return sock, banner.decode().strip(), sock.getsockname()[:2]


def talk(client: str, server: str, v6: bool, **words) -> tuple[str, float]:
    """One whole session; returns what the server says it saw and how long the connect took."""
    began = time.monotonic()
    sock, banner, _ = connect(client, server, v6, **words)
    took = time.monotonic() - began
    with sock:
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        # An orderly end: what comes next may use the same port.
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b""
    return banner, took


def apply(live: list[int] | None = None, config: Config = CONFIG) -> kernel.KernelRules:
    rules = kernel.KernelRules(config)
    wanted = ruleset.render(config, ruleset.slots_of(config))
    within(G, lambda: rules.apply(wanted, [CONFIG.first_queue] if live is None else live))
    return rules


def failure(client: str, server: str, v6: bool, **words) -> tuple[str, float]:
    """How a connect fails, as the client sees it."""
    began = time.monotonic()
    with pytest.raises(OSError) as caught:
        connect(client, server, v6, **words)[0].close()
    error = caught.value
    name = "silent" if isinstance(error, TimeoutError) else errno.errorcode.get(error.errno, repr(error))
    return name, time.monotonic() - began


SITE = pytest.mark.parametrize("site", ["plain", "masquerade"])
RELAYED = {"plain": lambda: None, "masquerade": masquerade_and_filter}


# --- Relaying, and falling open -----------------------------------------------------------------------


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
            _, took = talk(client, server, v6)
            assert took < 0.5
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
        assert gate.wait("accepted")
        assert gate.count("accepted") == 4


@BOTH_FAMILIES
@BOTH_WAYS
def test_a_large_transfer_is_whole(router: None, client: str, server: str, v6: bool) -> None:
    apply()
    with Server(server, v6), GateProcess():
        echo(client, server, v6, 3_000_000)


def echo(client: str, server: str, v6: bool, octets: int, **words) -> None:
    sock, _, _ = connect(client, server, v6, **words)
    sent = bytes(range(256)) * (octets // 256)
    with sock:
        sender = threading.Thread(target=send, args=(sock, sent), daemon=True)
        sender.start()
        got = bytearray()
        while len(got) < len(sent):
            more = sock.recv(1 << 20)
            assert more, "ended early"
            got += more
        sender.join(PATIENCE)
    assert got == sent


def send(sock: socket.socket, octets: bytes) -> None:
    with contextlib.suppress(OSError):
        sock.sendall(octets)


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


# --- What the client hears when the server does not answer ----------------------------------------------

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
    # IPv6: a second, for the error meets a socket that is still in connect(); so it does without us.
    direct, takes = failure(client, server, v6)
    RELAYED[site]()
    apply()
    with GateProcess() as gate:
        through, took = failure(client, server, v6)
        assert gate.wait("dialled")
    assert through == direct
    assert took < takes + 0.5


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
        assert failure(client, server, v6, timeout=2.5)[0] == "silent"
        assert gate.count("syn") >= 2
        assert gate.count("dialled") == 0


# --- Path MTU -------------------------------------------------------------------------------------------


@pytest.fixture
def narrow(router: None) -> Iterator[Config]:
    """A second way from the router to B, over R, with an MTU of 1300 two hops on."""
    ip(f"netns add {R}", f"-n {R} link set lo up")
    ip(f"link add r0 netns {R} type veth peer name far netns {G}")
    ip(f"link add r1 netns {R} type veth peer name eth2 netns {B}")
    link(G, "far", "10.3.0.1/24", "fd00:3::1/64")
    link(R, "r0", "10.3.0.2/24", "fd00:3::2/64")
    link(R, "r1", "10.4.0.1/24", "fd00:4::1/64")
    link(B, "eth2", "10.4.0.2/24", "fd00:4::2/64")
    # Only R's routes are narrow: a veth of 1300 would silently lose what B sends to it.
    ip(f"-n {R} route replace 10.4.0.0/24 dev r1 mtu lock 1300")
    ip(f"-n {R} -6 route replace fd00:4::/64 dev r1 metric 256 mtu lock 1300")
    sh(R, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    sh(R, "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0")
    sh(G, "sysctl -qw net.ipv4.conf.far.rp_filter=1")
    ip(f"-n {G} route add 10.4.0.0/24 via 10.3.0.2", f"-n {G} -6 route add fd00:4::/64 via fd00:3::2")
    ip(f"-n {R} route add default via 10.3.0.1", f"-n {R} -6 route add default via fd00:3::1")
    ip(f"-n {B} route replace 10.1.0.0/24 via 10.4.0.1 src 10.4.0.2")
    ip(f"-n {B} -6 route replace fd00:1::/64 via fd00:4::1 src fd00:4::2")
    try:
        yield Config(inside=("lan",), outside=("wan", "far"))
    finally:
        ip(f"-n {B} route del 10.1.0.0/24", f"-n {B} -6 route del fd00:1::/64")
        subprocess.run(["ip", "netns", "del", R], capture_output=True, timeout=20)
        ip(f"-n {G} route flush cache")


@BOTH_FAMILIES
@SITE
def test_no_black_hole_towards_the_dialled_side(narrow: Config, v6: bool, site: str) -> None:
    RELAYED[site]()
    if site == "masquerade":
        for tool in ("iptables", "ip6tables"):
            sh(G, f"{tool} -t nat -A POSTROUTING -o far -j MASQUERADE")
    apply(config=narrow)
    address = ("10.4.0.2", "fd00:4::2")[v6]
    return_way = "fd00:3::1" if v6 else "10.3.0.1"
    if site == "masquerade":
        ip(f"-n {B} {'-6 ' if v6 else ''}route add {return_way} via {('10.4.0.1', 'fd00:4::1')[v6]}")
    try:
        with Server(B, v6, address), GateProcess(config_outside=["wan", "far"]) as gate:
            echo(A, B, v6, 300_000, address=address)
            assert gate.wait("accepted")
    finally:
        if site == "masquerade":
            ip(f"-n {B} {'-6 ' if v6 else ''}route del {return_way}")


@BOTH_FAMILIES
def test_no_black_hole_towards_the_accepted_side(narrow: Config, v6: bool) -> None:
    apply(config=narrow)
    with Server(A, v6), GateProcess(config_outside=["wan", "far"]) as gate:
        echo(B, A, v6, 300_000)
        assert gate.wait("accepted")


@BOTH_FAMILIES
def test_no_black_hole_towards_a_client_behind_masquerading(narrow: Config, v6: bool) -> None:
    """The error is about what the accepted socket sent: the dialled connection's NAT must not touch it."""
    for tool in ("iptables", "ip6tables"):
        sh(G, f"{tool} -t nat -A POSTROUTING -o lan -j MASQUERADE")
        sh(G, f"{tool} -t nat -A INPUT -p udp -j ACCEPT")  # makes NAT look at what is delivered here
    apply(config=Config(inside=("far",), outside=("lan",)))
    options = {
        "config_inside": ["far"],
        "config_outside": ["lan"],
        "inside_networks": ["10.4.0.0/24", "fd00:4::/64"],
    }
    with Server(A, v6), GateProcess(**options) as gate:
        echo(B, A, v6, 300_000)
        assert gate.wait("accepted")


# --- Dying ----------------------------------------------------------------------------------------------


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
    """Sends, and gets a reset or an end within a second: no waiting for a timer."""
    began = time.monotonic()
    sock.settimeout(3)
    with sock, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        sock.sendall(b"MAIL FROM:<>\r\n")
        while sock.recv(100):
            pass
    assert time.monotonic() - began < 1


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


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)


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
        began = time.monotonic()
        server.may_end.set()
        wait_for(lambda: not sh(B, f"ss -Htan {here}"))
        assert time.monotonic() - began < 0.5
        sock.close()


@BOTH_FAMILIES
def test_a_syn_taken_for_nobody_is_lost_once(router: None, v6: bool) -> None:
    """The process dies between verdict and listener: the client's next SYN goes direct."""
    from gateway.intercept.marks import MarkBits
    from gateway.intercept.nfqueue import SynQueue

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
        began = time.monotonic()
        connect(A, B, v6, port=40077)[0].close()
        assert time.monotonic() - began < 0.5


# --- What is not ours -----------------------------------------------------------------------------------


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
    from ipaddress import ip_network

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
def test_marks_of_the_site_live(router: None, client: str, server: str, v6: bool) -> None:
    tool = "ip6tables" if v6 else "iptables"
    incoming = "lan" if client == A else "wan"
    here = f"{tool} -t mangle -A INPUT -i {incoming} -p tcp --dport 25"
    sh(G, f"{tool} -t raw -A PREROUTING -i {incoming} -p tcp --dport 25 -j MARK --set-xmark 0x5/0xff")
    apply()
    sh(G, f"{here} -m mark --mark 0x40000005/0x400000ff", here)
    with Server(server, v6), GateProcess() as gate:
        talk(client, server, v6)
        assert gate.wait("syn")["mark"] == 5
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
            _, took = talk(client, server, v6)
            assert took < 0.5
    finally:
        sh(G, f"sysctl -qw {name}=0")


# --- The queue -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", ["queue", "socket"])
def test_a_full_queue_lets_packets_pass(router: None, monkeypatch: pytest.MonkeyPatch, full: str) -> None:
    from gateway.intercept.nfqueue import SynQueue
    from gateway.policy import limits

    monkeypatch.setattr(limits, *(("QUEUE_LENGTH", 3) if full == "queue" else ("QUEUE_SOCKET_OCTETS", 1200)))
    apply()
    held: list = []
    made_queue = within(G, lambda: SynQueue(CONFIG.first_queue, lambda token, *_: held.append(token)))
    with Server(B, False) as server, contextlib.ExitStack() as stack:
        stack.callback(made_queue.close)
        socks = [stack.enter_context(made(A, False)) for _ in range(12)]
        for sock in socks:
            sock.setblocking(False)
            assert sock.connect_ex((HOSTS[B][0], 25)) == errno.EINPROGRESS
        wait_for(lambda: server.connections >= 6)
        made_queue.run()
        assert 0 < len(held) <= 6
        for token in held:
            made_queue.verdict(token)
        wait_for(lambda: server.connections == 12)


def test_a_child_does_not_keep_the_queue(router: None) -> None:
    from gateway.intercept.nfqueue import SynQueue

    made_queue = within(G, lambda: SynQueue(CONFIG.first_queue, lambda *_: None))
    assert bound_queues() == [CONFIG.first_queue]
    child = subprocess.Popen(["sleep", "30"], close_fds=False)
    try:
        made_queue.close()
        assert bound_queues() == []
    finally:
        child.kill()
        child.wait()


def test_a_bound_queue_is_told_in_one_line(router: None) -> None:
    from gateway.errors import EnvironmentFailureError
    from gateway.intercept.nfqueue import SynQueue

    first = within(G, lambda: SynQueue(CONFIG.first_queue, lambda *_: None))
    try:
        with pytest.raises(EnvironmentFailureError, match="cannot bind netfilter queue 2500"):
            within(G, lambda: SynQueue(CONFIG.first_queue, lambda *_: None))
    finally:
        first.close()


def bound_queues() -> list[int]:
    return [int(line.split()[0]) for line in sh(G, "cat /proc/net/netfilter/nfnetlink_queue").splitlines()]


# --- Applying, verifying, removing ---------------------------------------------------------------------


def kernel_state() -> list[str]:
    """All rules, routes and routing rules; without comments, counters, and chains that hold nothing."""
    lines: list[str] = []
    for command in ("iptables-save", "ip6tables-save"):
        saved = sh(G, command)
        filled = set(re.findall(r"-A (\S+)", saved))
        for line in saved.splitlines():
            if line.startswith("-") or re.match(r":(\S+) (?!ACCEPT)", line):
                lines.append(f"{command} {re.sub(r' .[0-9:]+]$', '', line)}")
        assert filled is not None
    lines += [f"nft {line}" for line in sh(G, "nft list tables").splitlines() if "nightmail" in line]
    for family in ("-4", "-6"):
        lines += sh(G, f"ip {family} rule").splitlines()
        routes = sh(G, f"ip {family} route show table all").splitlines()
        # The kernel's own come when an address has been tried, which takes a second.
        lines += [line for line in routes if "fe80::" not in line and "ff00::" not in line]
    lines += sh(
        G, "sysctl -a --pattern ^net.ipv[46].conf.*(rp_filter|forwarding|src_valid_mark)"
    ).splitlines()
    return lines


def full_set() -> ruleset.RuleSet:
    return ruleset.render(CONFIG, ruleset.slots_of(CONFIG))


def test_removal_leaves_what_was_there(router: None) -> None:
    masquerade_and_filter()
    sh(G, "iptables -t mangle -A PREROUTING -j MARK --set-xmark 0x1/0xff")
    before = kernel_state()
    rules = apply([2500, 2501])
    assert kernel_state() != before
    within(G, rules.remove)
    assert kernel_state() == before
    within(G, rules.remove)
    assert kernel_state() == before


HOST = Config(placement=Placement.HOST)


def early_demux() -> str:
    return sh(G, "sysctl -n net.ipv4.tcp_early_demux").strip()


def test_another_placement_takes_the_place_of_all_that_the_last_one_made(router: None) -> None:
    before = kernel_state()
    apply([2500, 2501])
    assert early_demux() == "0"
    apply([2500], HOST)
    wanted = ruleset.render(HOST, ruleset.slots_of(HOST))
    assert within(G, lambda: kernel.plan(HOST, wanted, [2500])) == []
    assert early_demux() == "1"
    within(G, kernel.KernelRules(CONFIG).remove)
    assert kernel_state() == before


@pytest.mark.parametrize("config", [CONFIG, HOST], ids=["router", "host"])
@pytest.mark.parametrize("step", ["nft", "ip6tables-restore"])
def test_if_a_step_fails_nothing_is_left(
    router: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: Config, step: str
) -> None:
    masquerade_and_filter()
    before = kernel_state()
    apply([2500, 2501], config)
    tool = shutil.which(step)
    broken = tmp_path / step
    # It still lists and removes, as on a machine where only what we bring is not taken.
    broken.write_text(
        f"#!/bin/sh\ntext=$(cat)\ncase $text in *tproxy*|*REJECT*) exit 1;; esac\n"
        f'printf \'%s\\n\' "$text" | {tool} "$@"\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EnvironmentFailureError, match=step):
        apply([2500, 2501], config)
    assert kernel_state() == before
    assert early_demux() == "1"


@pytest.mark.parametrize("before", ["0", "1"])
def test_a_switch_is_given_back_by_whoever_takes_the_rules_out(router: None, before: str) -> None:
    sh(G, f"sysctl -qw net.ipv4.tcp_early_demux={before}")
    try:
        apply()
        apply()
        assert early_demux() == "0"
        within(G, kernel.KernelRules(HOST).remove)
        assert early_demux() == before
    finally:
        sh(G, "sysctl -qw net.ipv4.tcp_early_demux=1")


def test_a_switch_that_somebody_turned_is_turned_again_and_still_given_back(router: None) -> None:
    """Also where all notes of it went with everybody's rules: the process remembers as well."""
    rules = apply()
    sh(G, "nft flush ruleset", "sysctl -qw net.ipv4.tcp_early_demux=1")
    assert "sysctl net.ipv4.tcp_early_demux=0" in within(G, rules.missing)
    within(G, lambda: rules.apply(full_set(), [2500]))
    assert early_demux() == "0"
    sh(G, "nft flush ruleset")
    within(G, rules.remove)
    assert early_demux() == "1"


def test_applying_twice_is_applying_once(router: None) -> None:
    masquerade_and_filter()
    apply([2500, 2501])
    once = kernel_state()
    apply([2500, 2501])
    assert kernel_state() == once


def test_what_an_older_version_left_is_replaced(router: None) -> None:
    for tool in ("iptables", "ip6tables"):
        sh(
            G,
            f"{tool} -t nat -N NIGHTMAIL-OLD",
            f"{tool} -t nat -A NIGHTMAIL-OLD -j RETURN",
            f"{tool} -t nat -A PREROUTING -p tcp -j NIGHTMAIL-OLD",
            f"{tool} -t raw -N NIGHTMAIL-OLD",
            f"{tool} -t raw -A PREROUTING -p tcp -j NIGHTMAIL-OLD",
        )
    apply()
    assert "NIGHTMAIL-OLD" not in sh(G, "iptables-save") + sh(G, "ip6tables-save")


DAMAGE = [
    ("iptables -t raw -F PREROUTING", "iptables raw -A PREROUTING"),
    ("iptables -t raw -F NIGHTMAIL-GATE", "iptables raw -A NIGHTMAIL-GATE"),
    ("iptables -D NIGHTMAIL-INPUT 1", "iptables filter -A NIGHTMAIL-INPUT -p icmp -j ACCEPT"),
    ("ip6tables -t mangle -F", "ip6tables mangle -A NIGHTMAIL-PREROUTING"),
    ("nft delete table inet nightmail", "nft table inet nightmail"),
    ("nft flush chain inet nightmail leaving", "nft table inet nightmail: its rules differ"),
    ("nft flush chain inet nightmail vouching", "nft chain inet nightmail vouching: its rules differ"),
    ("nft flush ruleset", "ip6tables filter -A FORWARD"),
    ("ip -6 rule del pref 25 iif wan", "ip -6 rule pref 25 iif wan"),
    ("ip route flush table 2525", "ip -4 route local default dev lo table 2525"),
]


@pytest.mark.parametrize(("damage", "word"), DAMAGE, ids=[damage for damage, _ in DAMAGE])
def test_what_others_remove_is_seen_and_put_back(router: None, damage: str, word: str) -> None:
    rules = apply([2500, 2501])
    assert within(G, rules.missing) == []
    sh(G, damage)
    assert any(word in line for line in within(G, rules.missing))
    within(G, lambda: rules.apply(full_set(), [2500, 2501]))
    assert within(G, rules.missing) == []


@pytest.mark.parametrize(("damage", "word"), DAMAGE, ids=[damage for damage, _ in DAMAGE])
def test_what_others_remove_is_mended_and_what_stands_is_left_alone(
    router: None, damage: str, word: str
) -> None:
    """Our table remembers connections: it is not made anew because a chain elsewhere was emptied."""
    rules = apply([2500, 2501])
    sh(G, "nft add element inet nightmail taken4 { 192.0.2.1 . 1 . 192.0.2.2 . 25 }")
    heard = within(G, kernel.changes)
    sh(G, damage)
    told, _, _ = select.select(heard, [], [], 0.0 if damage.startswith("ip route") else 5.0)
    assert bool(told) == (not damage.startswith("ip route")), "the kernel tells of it"
    assert any(word in line for line in within(G, rules.mend).gone)
    assert within(G, rules.mend) == kernel.Mended()
    assert within(G, rules.missing) == []
    table_was_gone = damage.startswith("nft") and "vouching" not in damage
    assert ("192.0.2.1" in sh(G, "nft list set inet nightmail taken4")) == (not table_was_gone)
    for each in heard:
        each.close()


def test_plan_tells_what_apply_would_change(router: None) -> None:
    masquerade_and_filter()
    before = kernel_state()
    lines = within(G, lambda: kernel.plan(CONFIG, full_set(), [2500, 2501]))
    assert kernel_state() == before
    assert any("NFQUEUE --queue-balance 2500:2501" in line for line in lines)
    assert any("ip -6 route" in line for line in lines)
    apply([2500, 2501])
    assert within(G, lambda: kernel.plan(CONFIG, full_set(), [2500, 2501])) == []


def test_swapping_the_gate_is_quick_and_touches_nothing_else(router: None) -> None:
    rules = apply([2500])
    before = [line for line in kernel_state() if not is_gate(line)]

    def swap() -> list[float]:
        took = []
        for live in ([2500, 2501], [], [2501]) * 3:
            began = time.monotonic()
            rules.swap_gate(live)
            took.append(time.monotonic() - began)
        return took

    took = within(G, swap)
    assert sorted(took)[len(took) // 2] < 0.05
    assert [line for line in kernel_state() if not is_gate(line)] == before
    assert within(G, rules.missing) == []
    assert "--queue-num 2501" in sh(G, "iptables -t raw -S NIGHTMAIL-GATE")
    assert sh(G, "nft list chain inet nightmail vouching").count("jump vouched_") == 1


def is_gate(line: str) -> bool:
    return "GATE -p" in line or line.strip().startswith("jump vouched_")


def test_looking_whether_all_stands_is_cheap(router: None) -> None:
    rules = apply()
    within(G, rules.missing)

    def look() -> float:
        began = time.process_time() + sum(os.times()[2:4])
        for _ in range(10):
            assert rules.missing() == []
        return (time.process_time() + sum(os.times()[2:4]) - began) / 10

    assert within(G, look) < 0.02


def test_the_kernel_counts_what_reached_the_gate(router: None) -> None:
    apply()
    with Server(A, True), Server(B, False):
        for _ in range(3):
            talk(A, B, False)
        talk(B, A, True)
    assert within(G, kernel.gate_counts) == {"lan": 3, "wan": 1}


def test_inside_networks_come_from_the_routes(router: None) -> None:
    ip(f"-n {G} route add 192.168.7.0/24 via 10.1.0.2", f"-n {G} route add default via 10.1.0.2")
    try:
        found = within(G, lambda: kernel.inside_networks(CONFIG))
    finally:
        ip(f"-n {G} route del 192.168.7.0/24", f"-n {G} route del default")
    assert sorted(map(str, found)) == ["10.1.0.0/24", "192.168.7.0/24", "fd00:1::/64"]


def test_trouble_is_told_in_one_line(router: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.errors import EnvironmentFailureError

    with pytest.raises(EnvironmentFailureError, match="inside: no interface 'lam'; there are lan, wan"):
        within(G, lambda: kernel.require_interfaces(Config(inside=("lam",), outside=("wan",))))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EnvironmentFailureError, match="nft is not installed"):
        apply()


def test_a_router_that_does_not_route_is_told(router: None) -> None:
    assert within(G, lambda: kernel.remarks(CONFIG)) == []
    sh(G, "sysctl -qw net.ipv6.conf.all.forwarding=0")
    try:
        assert "IPv6" in within(G, lambda: kernel.remarks(CONFIG))[0]
    finally:
        sh(G, "sysctl -qw net.ipv6.conf.all.forwarding=1")
