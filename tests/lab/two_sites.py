"""Two sites with real gateways and no mail servers of their own.

    mta-a -- gw-a -- wire -- gw-b -- mta-b
                      |
                    mta-c            (namespaces carry the prefix nmf0-)

Names, addresses and cables are the lab's; mail servers and clients are sockets of the test process, made
inside the namespaces, so that every connection can be timed and none hides behind a queue. Never touches the
machine's own namespace; everything that runs in the namespaces ends with them. Counterpart: `probes`, which
speak.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.config import Placement
from gateway.lab import gateways, network, processes
from gateway.lab.gateways import Gateway
from gateway.lab.topology import load
from tests.lab.probes import PATIENCE, MailServer, eventually, mail
from tests.lab.woken import require_connected

SLOTS: Final = 16
"""So many at once on one machine do not meet; each has its own prefix (nmf0- and so on), kept by a lock. A
process that runs tests has up to three."""
DIRECT_PORTS: Final = "50000:59999"
"""Clients with such a port pass the gates by: the path without gateways, beside the one with them."""
DIRECT_FROM: Final = 50000
MASQUERADED: Final = "masqueraded"
PLAIN: Final = "plain"
Socket = socket.socket
"""By a name that the sites' own method does not take."""
BOTH_FAMILIES: Final = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
TOOLS: Final = ("iptables", "ip6tables")
NO_TICKETS: Final = "\n[channel]\ntickets = false\n"
"""More configuration: each session has a whole handshake, and one dial."""


class Sites:
    """The namespaces and the two gateways. Use `built`, which takes everything away again."""

    def __init__(
        self, slot: int, placement: Placement = Placement.ROUTER, source: Path | None = None
    ) -> None:
        self.placement = placement
        self._source = source
        self.topology = load()
        self.folder = Path(f"/run/nmf{slot}-gateways")
        self._prefix = f"nmf{slot}-"
        self.namespaces = [self.namespace(name) for name in self.topology.nodes]
        self._direct_port = DIRECT_FROM

    def namespace(self, node: str) -> str:
        return self._prefix + node

    def build(self) -> None:
        self.clear()
        network.create(self.namespaces)
        network.build(self.topology, self.namespace, bridged=self.placement is Placement.BRIDGE)
        for name in self.topology.nodes:
            # One ICMP error a second is the kernel's custom; the tests want one for each refusal.
            self.sh(name, "sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0")
        for one in self.gateways:
            gateways.prepare(one)

    def clear(self) -> None:
        processes.kill_all_in(self.namespaces)
        network.remove(self.namespaces)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- Nodes ----------------------------------------------------------------------------------------

    def gateway(self, letter: str) -> Gateway:
        name = f"gw-{letter}"
        namespace = self.namespace(self.home(letter))
        node, folder = self.topology.nodes[name], self.folder / name
        return Gateway(node, namespace, folder, source=self._source, placement=self.placement)

    def home(self, letter: str) -> str:
        """The node that this gateway lives on: its router, or the mail server itself."""
        return f"mta-{letter}" if self.placement is Placement.HOST else f"gw-{letter}"

    @property
    def gateways(self) -> list[Gateway]:
        return [self.gateway("a"), self.gateway("b")]

    def address(self, node: str, v6: bool) -> str:
        (pair,) = self.topology.nodes[node].addresses.values()
        return pair.v6 if v6 else pair.v4

    def sh(self, node: str, *commands: str) -> str:
        """Run commands in a node's namespace; what they say."""
        return "".join(
            processes.run_in(self.namespace(node), command.split()).stdout.decode() for command in commands
        )

    def restore(self, node: str, tool: str, text: str) -> None:
        processes.run_in(self.namespace(node), [f"{tool}-restore"], stdin=text.encode())

    def restore_beside(self, node: str, tool: str, text: str) -> None:
        """The same, with what stands there left standing."""
        processes.run_in(self.namespace(node), [f"{tool}-restore", "--noflush"], stdin=text.encode())

    # --- Gateways -------------------------------------------------------------------------------------

    def start(self, *letters: str) -> None:
        """Start these gateways, with a fresh log each, and wait until they serve."""
        for letter in letters:
            one = self.gateway(letter)
            one.log.write_text("")
            gateways.start(one)
        for letter in letters:
            self.wait_ready(letter)

    def wait_ready(self, letter: str) -> None:
        """Until both workers serve, and the rules send them SYNs (that comes some milliseconds later)."""
        gateways.wait_ready(self.gateway(letter))
        eventually(
            lambda: all(any("queue-balance" in rule for rule in self.gate(letter, tool)) for tool in TOOLS),
            what="both queues in the gate",
        )

    def acquaint(self) -> None:
        """Let gateway b learn that this client's site has a gateway: the client's addresses, and gateway a's.

        A client that it has never upgraded, and that twice goes away right behind an offer as `Load` does,
        gets none for a day; then every later mail here would travel in clear.
        """
        known = 0
        for site in (PLAIN, MASQUERADED) if self.placement is Placement.ROUTER else (PLAIN,):
            self.surround(site)
            for v6 in (False, True):
                with MailServer(self, "mta-b", v6) as server:
                    mail(self, "mta-a", server, self.address("mta-b", v6), b"how do you do")
                    known += len(set(server.peers))
        self.surround(PLAIN)
        eventually(lambda: self.status("b")["sources"]["upgraded"] == known, what="all addresses known at b")

    def settle(self) -> None:
        """Both gateways serve, whatever the test before this one did to them."""
        for one in self.gateways:
            status = gateways.ask(one)
            if status is None or not gateways.serves(status) or status["wanted"] != "up":
                self.kill(one.node.letter)
                self.start(one.node.letter)

    def kill(self, letter: str) -> None:
        processes.kill_all_in([self.gateway(letter).namespace])

    def command(self, letter: str, *words: str) -> str:
        """`nightmail ...` as the operator of that gateway."""
        one = self.gateway(letter)
        arguments = gateways.nightmail_command("--config", str(one.configuration), *words, source=one.source)
        done = subprocess.run(
            processes.command_in(one.namespace, arguments), capture_output=True, text=True, timeout=60
        )
        assert done.returncode in (0, 1), done.stderr
        return done.stdout + done.stderr

    def status(self, letter: str) -> dict[str, Any]:
        answer = gateways.ask(self.gateway(letter))
        assert answer is not None, f"gw-{letter} does not answer"
        return answer

    def log(self, letter: str) -> str:
        return self.gateway(letter).log.read_text()

    def alarms(self, letter: str, reason: str = "") -> list[dict[str, Any]]:
        """What its bell has rung for: for this reason, or for any; the newest first.

        Of the daemon itself: its log tells it a moment later, and says nothing of what it has not told yet.
        """
        rung: list[dict[str, Any]] = self.status(letter)["alarms"]
        return [alarm for alarm in rung if reason in ("", alarm["reason"])]

    def supervisor(self, letter: str) -> int:
        process = self.gateway(letter).process
        assert process is not None, f"gw-{letter} does not run"
        return process.pid

    def workers(self, letter: str) -> list[int]:
        return [worker["pid"] for worker in self.status(letter)["workers"]]

    def serving(self, letter: str) -> int:
        """How many workers serve; 0 without a daemon."""
        answer = gateways.ask(self.gateway(letter)) or {"workers": []}
        return sum(worker["state"] == "serving" for worker in answer["workers"])

    def bound_queues(self, letter: str) -> list[int]:
        listing = self.sh(self.home(letter), "cat /proc/net/netfilter/nfnetlink_queue")
        return [int(line.split()[0]) for line in listing.splitlines()]

    def queued(self, letter: str) -> list[tuple[str, str]]:
        """Each queue of a gateway, and how many packets the kernel has put into it."""
        table = self.sh(self.home(letter), "cat /proc/net/netfilter/nfnetlink_queue")
        return [(columns[0], columns[7]) for columns in map(str.split, table.splitlines())]

    def gate(self, letter: str, tool: str = "iptables") -> list[str]:
        """The rules that hand SYNs to a queue."""
        saved = self.sh(self.home(letter), f"{tool}-save -t raw")
        return [line for line in saved.splitlines() if "NFQUEUE" in line]

    def kernel_state(self, letter: str) -> list[str]:
        """All that `up` may change: rules without counters, routing rules, routes, one sysctl."""
        node = self.home(letter)
        lines = [self.sh(node, "sysctl net.ipv4.tcp_early_demux").strip()]
        for tool in TOOLS:
            saved = self.sh(node, f"{tool}-save")
            lines += [line.split(" [")[0] for line in saved.splitlines() if not line.startswith("#")]
        lines += self.sh(node, "nft -s list ruleset", "ip rule", "ip -6 rule").splitlines()
        lines += self.sh(node, "ip route show table all", "ip -6 route show table all").splitlines()
        return lines

    # --- What a usual site has --------------------------------------------------------------------------

    def surround(self, site: str) -> None:
        """Masquerading and a stateful filter that lets in nothing but mail, on both gateways; or nothing."""
        for one in self.gateways:
            for tool in TOOLS:
                words = MASQUERADE_AND_FILTER if site == MASQUERADED else OPEN
                if tool == "ip6tables":
                    words = words.replace("-p icmp", "-p ipv6-icmp")
                processes.run_in(one.namespace, [f"{tool}-restore", "--noflush"], stdin=words.encode())

    def pass_by(self, *letters: str) -> None:
        """Let connections from DIRECT_PORTS by at these gates, for a measure of the path without them."""
        for letter in letters:
            for tool in TOOLS:
                for chain in ("PREROUTING", "OUTPUT"):
                    rule = f"-I {chain} -p tcp --sport {DIRECT_PORTS} -j ACCEPT"
                    self.sh(self.home(letter), f"{tool} -t raw {rule}")
        for name in self.topology.nodes:
            # Or else a client that is to meet the gates is given such a port by chance, one in three times.
            reserved = DIRECT_PORTS.replace(":", "-")
            self.sh(name, f"sysctl -qw net.ipv4.ip_local_reserved_ports={reserved}")

    # --- Sockets --------------------------------------------------------------------------------------

    def socket(self, node: str, v6: bool, timeout: float = PATIENCE) -> socket.socket:
        family = socket.AF_INET6 if v6 else socket.AF_INET
        made = network.socket_in(self.namespace(node), family, socket.SOCK_STREAM)
        made.settimeout(timeout)
        return made

    def connect(
        self,
        client: str,
        target: str,
        *,
        direct: bool = False,
        port: int = 0,
        timeout: float = PATIENCE,
        source: str = "",
        to_port: int = 25,
    ) -> Socket:
        """A connection to TARGET, past the gates if `direct`; from `source` or the node's own address, from
        `port` if that matters. Raises what connect raises."""
        v6 = ":" in target
        made = self.socket(client, v6, timeout)
        try:
            if direct:
                self._direct_port = DIRECT_FROM + (self._direct_port + 1 - DIRECT_FROM) % 9999
                port = self._direct_port
            if port or source:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind((source or self.address(client, v6), port))
            made.connect((target, to_port))
            require_connected(made)
        except BaseException:
            made.close()
            raise
        return made


OPEN: Final = """\
*nat
:POSTROUTING ACCEPT [0:0]
-F POSTROUTING
COMMIT
*filter
:FORWARD ACCEPT [0:0]
:INPUT ACCEPT [0:0]
-F SITE-FORWARD
-F SITE-INPUT
COMMIT
"""
MASQUERADE_AND_FILTER: Final = """\
*nat
:POSTROUTING ACCEPT [0:0]
-F POSTROUTING
-A POSTROUTING -o outside -j MASQUERADE
COMMIT
*filter
:FORWARD DROP [0:0]
:INPUT DROP [0:0]
-F SITE-FORWARD
-F SITE-INPUT
-A SITE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A SITE-FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A SITE-FORWARD -i inside -j ACCEPT
-A SITE-FORWARD -i outside -p tcp --dport 25 -j ACCEPT
-A SITE-INPUT -i lo -j ACCEPT
-A SITE-INPUT -m conntrack --ctstate INVALID -j DROP
-A SITE-INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A SITE-INPUT -p icmp -j ACCEPT
COMMIT
"""
SITE_CHAINS: Final = """\
*filter
:SITE-FORWARD - [0:0]
:SITE-INPUT - [0:0]
-A FORWARD -j SITE-FORWARD
-A INPUT -j SITE-INPUT
COMMIT
"""


def add_site_chains(one: Gateway) -> None:
    """Where `surround` puts a site's rules; again after somebody has flushed everything."""
    for tool in TOOLS:
        for table in ("FORWARD", "INPUT"):
            processes.run_in(
                one.namespace,
                ["sh", "-c", f"{tool} -D {table} -j SITE-{table} 2>/dev/null; exit 0"],
            )
        processes.run_in(one.namespace, [f"{tool}-restore", "--noflush"], stdin=SITE_CHAINS.encode())


@contextlib.contextmanager
def built(
    *,
    start: bool = True,
    configuration: str = "",
    placement: Placement = Placement.ROUTER,
    source: Path | None = None,
) -> Iterator[Sites]:
    """Both sites, with gateways that serve; gone afterwards, whatever happened. `source`: another tree to run
    them from."""
    with _slot() as number:
        sites = Sites(number, placement, source)
        try:
            sites.build()
            for one in sites.gateways:
                if configuration:
                    one.configuration.write_text(one.configuration.read_text() + configuration)
                add_site_chains(one)
            if start:
                sites.start("a", "b")
            yield sites
        finally:
            sites.clear()


@contextlib.contextmanager
def _slot() -> Iterator[int]:
    """A number that no other test run on this machine has."""
    for number in range(SLOTS):
        path = Path(f"/run/nmf{number}-gateways.lock")
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            # Its last holder may have unlinked it after we opened it: then it locks nothing any more.
            if not path.exists() or not os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                continue
            try:
                yield number
            finally:
                path.unlink(missing_ok=True)
            return
    raise AssertionError(f"{SLOTS} test runs are at work on this machine")
