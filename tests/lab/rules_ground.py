"""A router between two hosts, without a daemon: for the tests of the rules against a real kernel.

    A (10.1.0.2, inside) --lan-- G (the router) --wan-- B (10.2.0.2, outside)     (namespaces nmi-<pid>-...)

The gate is `gate_process.py`, a process that can be killed; clients and servers are sockets of this
process, made inside the namespaces.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pyroute2 import netns

from gateway.config import Config
from gateway.intercept import kernel, ruleset
from tests.lab.own_namespaces import build_router_between, ip, remove_ours
from tests.lab.probes import sent_again

GATE_PROCESS = Path(__file__).with_name("gate_process.py")
CONFIG = Config(inside=("lan",), outside=("wan",))
A, G, B, R = (f"nmi-{os.getpid()}-{name}" for name in "agbr")
HOSTS = {A: ("10.1.0.2", "fd00:1::2"), B: ("10.2.0.2", "fd00:2::2")}
PATIENCE = 8.0
WAYS = [(A, B), (B, A)]
BOTH_WAYS = pytest.mark.parametrize(("client", "server"), WAYS, ids=["outbound", "inbound"])


Made = TypeVar("Made")


# --- Namespaces ---------------------------------------------------------------------------------------


def within(name: str, work: Callable[[], Made]) -> Made:
    """Run `work` in a thread that lives in this namespace; what it makes there stays there."""

    def entered() -> Made:
        netns.setns(name)
        return work()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(entered).result()


def command_in(name: str, *words: str) -> list[str]:
    """Without the mounts of `ip netns exec`, which take longer than most commands here."""
    return ["nsenter", f"--net=/run/netns/{name}", *words]


def sh(name: str, *commands: str, stdin: str = "") -> str:
    """What they say, one after the other; each gets the same to read."""
    out = ""
    for command in commands:
        done = subprocess.run(
            command_in(name, *command.split()), input=stdin, capture_output=True, text=True, timeout=20
        )
        assert done.returncode == 0, f"{name}: {command}: {done.stderr}"
        out += done.stdout
    return out


@contextlib.contextmanager
def standing() -> Iterator[None]:
    """The namespaces; gone behind it."""
    remove_ours("nmi")
    try:
        build_router_between(A, G, B)
        ip(f"-n {B} addr add 10.2.0.3/24 dev eth")
        ip(f"-n {B} route add default via 10.2.0.1", f"-n {B} -6 route add default via fd00:2::1")
        for name in (A, G, B):
            # One ICMP error a second is the kernel's custom; the tests want one for each refusal.
            sh(name, "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0")
        # Strict reverse-path filter everywhere, and marks not taken into account: the rules must do with it.
        sh(G, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=1")
        sh(G, "sysctl -qw net.ipv4.conf.lan.rp_filter=1 net.ipv4.conf.wan.rp_filter=1")
        sh(G, "sysctl -qw net.ipv4.conf.all.src_valid_mark=0")
        for family in ("ipv4", "ipv6"):
            # Three questions for a neighbour, as ever, but not a second apart.
            for port in ("lan", "wan"):
                sh(G, f"sysctl -qw net.{family}.neigh.{port}.retrans_time_ms=100")
        yield
    finally:
        remove_ours("nmi")


SITE_RESET = "*raw\nCOMMIT\n*mangle\nCOMMIT\n*nat\nCOMMIT\n*filter\nCOMMIT\n"


def clear_router() -> None:
    """No rules, and no memory of earlier connections."""
    within(G, kernel.KernelRules(CONFIG).remove)
    sh(G, "iptables-restore", "ip6tables-restore", stdin=SITE_RESET)
    for name in (A, B):
        sh(name, "iptables -F INPUT", "ip6tables -F INPUT")
    sh(G, "conntrack -F")
    sh(G, "sysctl -qw net.ipv4.tcp_syncookies=1")


SITE_RULES = """\
*nat
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -i lan -j ACCEPT
-A FORWARD -i wan -p tcp --dport 25 -j ACCEPT
COMMIT
"""
NEIGHBOURS = """\
*filter
-I INPUT -p ipv6-icmp --icmpv6-type neighbour-solicitation -j ACCEPT
-I INPUT -p ipv6-icmp --icmpv6-type neighbour-advertisement -j ACCEPT
COMMIT
"""


def masquerade_and_filter() -> None:
    """What a usual site has: masquerading, and a stateful filter that lets in only mail from outside."""
    sh(G, "iptables-restore --noflush", "ip6tables-restore --noflush", stdin=SITE_RULES)
    sh(G, "ip6tables-restore --noflush", stdin=NEIGHBOURS)


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
            command_in(G, sys.executable, "-u", str(GATE_PROCESS), json.dumps(options)),
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(GATE_PROCESS.parents[2])},
        )
        self.events: list[dict[str, Any]] = []
        self._queue: queue.Queue[dict[str, Any]] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self.wait("ready"), "the gate process has not started"

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(json.loads(line))
        self._queue.put({"event": "ended"})

    def wait(self, event: str, seconds: float = PATIENCE) -> dict[str, Any]:
        """The next event of this name; empty where it does not come."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(queue.Empty):
            while (left := deadline - time.monotonic()) > 0:
                found = self._queue.get(timeout=left)
                self.events.append(found)
                if found["event"] == event:
                    return found
                if found["event"] == "ended":
                    break
        return {}

    def count(self, event: str) -> int:
        while not self._queue.empty():
            self.events.append(self._queue.get())
        return sum(found["event"] == event for found in self.events)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(5)
        self._thread.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> GateProcess:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()
        if kind is not None:
            self.count("")
            print("the gate said", *self.events, sep="\n  ")  # shown where a test fails


def connect(
    client: str, server: str, v6: bool, *, address: str = "", port: int = 0, timeout: float = PATIENCE
) -> tuple[socket.socket, str, tuple[str, int]]:
    """The socket, the banner, and its own address and port."""
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


def talk(client: str, server: str, v6: bool, **words: Any) -> tuple[str, int]:
    """One whole session; returns what the server says it saw, and how often the SYN was sent again."""
    sock, banner, _ = connect(client, server, v6, **words)
    with sock:
        again = sent_again(sock)
        sock.sendall(b"hello")
        assert sock.recv(100) == b"hello"
        # An orderly end: what comes next may use the same port.
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b""
    return banner, again


def apply(live: list[int] | None = None, config: Config = CONFIG) -> kernel.KernelRules:
    rules = kernel.KernelRules(config)
    wanted = ruleset.render(config, ruleset.slots_of(config))
    within(G, lambda: rules.apply(wanted, [CONFIG.first_queue] if live is None else live))
    return rules


def failure(client: str, server: str, v6: bool, **words: Any) -> tuple[str, float]:
    """How a connect fails, as the client sees it."""
    began = time.monotonic()
    with pytest.raises(OSError) as caught:
        connect(client, server, v6, **words)[0].close()
    error = caught.value
    name = "silent" if isinstance(error, TimeoutError) else errno.errorcode.get(error.errno or 0, repr(error))
    return name, time.monotonic() - began


SITE = pytest.mark.parametrize("site", ["plain", "masquerade"])
RELAYED = {"plain": lambda: None, "masquerade": masquerade_and_filter}


def echo(client: str, server: str, v6: bool, octets: int, **words: Any) -> None:
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


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.02)
