"""What fails without gateways fails alike with them: same errno, not earlier, hardly later.

Each failure is provoked twice beside each other: past the gates (see `Sites.pass_by`) and through them. The
far ends are addresses at site b that nobody has, or that somebody refuses for. Namespaces nmf0-...
"""

from __future__ import annotations

import contextlib
import select
import socket
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gateway.lab import postfix, processes
from gateway.lab.postfix import Instance
from tests.lab import two_sites
from tests.lab.probes import Dialogue, MailServer, eventually, failure, mail
from tests.lab.turns import turn
from tests.lab.two_sites import TOOLS, Sites

FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
# Outbound and inbound at once from a; inbound alone from c, which has no gateway.
CLIENTS = pytest.mark.parametrize("client", ["mta-a", "mta-c"], ids=["both-gates", "inbound"])
LATER_SHARE = 0.05
LATER_SECONDS = 0.005
EARLIER_SECONDS = 0.005
"""Two measures of the same on a busy machine may differ so much."""
TRIES = 3
"""Other work on the machine comes and goes; what a gate adds is there in every one of them."""


@dataclass(frozen=True)
class Trouble:
    """One way to fail: the last part of the address at site b, and how often it is measured."""

    name: str
    host: int
    rounds: int
    errno4: str
    errno6: str


REFUSED = Trouble("refused", 0x71, 15, "ECONNREFUSED", "ECONNREFUSED")
NO_NEIGHBOUR = Trouble("no-neighbour", 0x72, 2, "EHOSTUNREACH", "EHOSTUNREACH")
HOST = Trouble("host-unreachable-by-router", 0x73, 10, "EHOSTUNREACH", "EHOSTUNREACH")
NET = Trouble("net-unreachable-by-router", 0x74, 10, "ENETUNREACH", "ENETUNREACH")
PROHIBITED = Trouble("prohibited-by-router", 0x75, 10, "EHOSTUNREACH", "EACCES")
SILENT = Trouble("black-hole", 0x76, 1, "timeout", "timeout")
TROUBLES = [REFUSED, NO_NEIGHBOUR, HOST, NET, PROHIBITED, SILENT]


def at(trouble: Trouble, v6: bool) -> str:
    return f"2001:db8:12::{trouble.host:x}" if v6 else f"10.12.0.{trouble.host}"


@pytest.fixture(scope="module")
def built() -> Iterator[Sites]:
    with two_sites.built() as sites:
        arrange(sites)
        yield sites


def arrange(sites: Sites) -> None:
    """Put every trouble in its place."""
    for length, v6 in ((24, False), (64, True)):
        more = " nodad" if v6 else ""
        sites.sh("mta-b", f"ip addr add {at(REFUSED, v6)}/{length} dev eth0{more}")
    for tool, v6 in zip(TOOLS, (False, True), strict=True):
        kind = "icmp6" if v6 else "icmp"
        rejects = {
            HOST: "icmp6-addr-unreachable" if v6 else "icmp-host-unreachable",
            NET: "icmp6-no-route" if v6 else "icmp-net-unreachable",
            PROHIBITED: f"{kind}-adm-prohibited" if v6 else f"{kind}-admin-prohibited",
        }
        for trouble, word in rejects.items():
            sites.sh("wire", f"{tool} -A FORWARD -d {at(trouble, v6)} -p tcp -j REJECT --reject-with {word}")
        sites.sh("wire", f"{tool} -A FORWARD -d {at(SILENT, v6)} -p tcp -j DROP")
    for family in ("ipv4", "ipv6"):
        # Three questions for a neighbour, as ever, but not a second apart.
        sites.sh("gw-b", f"sysctl -qw net.{family}.neigh.inside.retrans_time_ms=100")
    sites.pass_by("a", "b")


@CLIENTS
@FAMILIES
@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
def test_the_same_failure_at_the_same_time(sites: Sites, client: str, v6: bool, trouble: Trouble) -> None:
    assert_alike(sites, client, v6, trouble)


def assert_alike(sites: Sites, client: str, v6: bool, trouble: Trouble) -> None:
    """Through the gates as past them."""
    for attempt in range(TRIES):
        # Seconds of silence take nothing of the machine, and are not measured in milliseconds.
        with contextlib.nullcontext() if trouble is SILENT else turn():
            before, now = measured(sites, client, v6, trouble)
        told = f"{before * 1000:.2f} ms direct, {now * 1000:.2f} ms through the gates"
        print(told)
        earliest = before - max(EARLIER_SECONDS, LATER_SHARE * before)
        latest = before + max(LATER_SECONDS, LATER_SHARE * before)
        if earliest <= now <= latest:
            return
        assert attempt + 1 < TRIES, told


def measured(sites: Sites, client: str, v6: bool, trouble: Trouble) -> tuple[float, float]:
    """Seconds past the gates and through them, the middle ones of all rounds; each has the same error."""
    target = at(trouble, v6)
    direct, gated = [], []
    # An ICMPv6 error that comes back within the very call of connect() is only believed a SYN later (1 s).
    rounds = min(trouble.rounds, 2) if v6 and trouble in (HOST, NET, PROHIBITED) else trouble.rounds
    words = {"timeout": 3.0} if trouble is SILENT else {}
    if rounds > 2:
        failure(sites, client, target, **words)
    for _ in range(rounds):
        direct.append(failure(sites, client, target, direct=True, **words))
        gated.append(failure(sites, client, target, **words))
    expected = trouble.errno6 if v6 else trouble.errno4
    assert {name for name, _ in direct} == {expected}
    assert {name for name, _ in gated} == {expected}
    before, now = (statistics.median(seconds for _, seconds in each) for each in (direct, gated))
    return before, now


@FAMILIES
def test_a_black_hole_that_opens_in_time_is_a_connection(sites: Sites, v6: bool) -> None:
    """The client's own retransmission finds the way, and nobody was told anything in between."""
    target, tool = at(SILENT, v6), TOOLS[v6]
    sites.sh("mta-b", f"ip addr add {target}/{64 if v6 else 24} dev eth0" + (" nodad" if v6 else ""))
    try:
        with MailServer(sites, "mta-b", v6, address=target) as server:
            took: list[float] = []
            client = sites.socket("mta-a", v6)
            with client:
                client.setblocking(False)
                began = time.monotonic()
                assert client.connect_ex((target, 25)) != 0
                eventually(lambda: held(sites), what="a held SYN")
                sites.sh("wire", f"{tool} -D FORWARD -d {target} -p tcp -j DROP")
                client.settimeout(5.0)
                with Dialogue(client) as dialogue:
                    wait_writable(client)
                    took.append(time.monotonic() - began)
                    dialogue.begin()
            assert took[0] < 3.5
            assert len(server.peers) == 1
    finally:
        with contextlib.suppress(Exception):
            sites.sh("wire", f"{tool} -D FORWARD -d {target} -p tcp -j DROP")
        sites.sh("wire", f"{tool} -A FORWARD -d {target} -p tcp -j DROP")
        sites.sh("mta-b", f"ip addr del {target}/{64 if v6 else 24} dev eth0")


def held(sites: Sites) -> bool:
    """Whether the kernel has a packet in the queues of gateway a."""
    listing = sites.sh("gw-a", "cat /proc/net/netfilter/nfnetlink_queue")
    return any(int(line.split()[2]) > 0 for line in listing.splitlines())


def wait_writable(client: socket.socket) -> None:
    poll = select.poll()
    poll.register(client, select.POLLOUT)
    assert poll.poll(5000)


@FAMILIES
def test_errors_leave_nothing_that_harms_the_next_connection(sites: Sites, v6: bool) -> None:
    """A client that meets refusals for a while is served at once when the server is back."""
    target = at(REFUSED, v6)
    for _ in range(5):
        assert failure(sites, "mta-a", target, port=41000)[0] == "ECONNREFUSED"
    with MailServer(sites, "mta-b", v6, address=target) as server:
        assert mail(sites, "mta-a", server, target, b"at last", port=41000) < 1.0


# --- Postfix: the next mail server is tried --------------------------------------------------------------


@pytest.fixture(scope="module")
def sender(built: Sites) -> Iterator[Instance]:
    """A real Postfix at site a, whose mail for b.test goes to two servers in order, the first one dead."""
    node = built.topology.nodes["mta-a"]
    instance = Instance(node, built.namespace(node.name), built.folder / "postfix")
    built.folder.chmod(0o755)
    postfix.prepare(instance, built.topology)
    lines = [
        f"{trouble.name}.{family}.test smtp:[{at(trouble, v6)}]:25, [{built.address('mta-b', v6)}]:25"
        for trouble in TROUBLES
        for family, v6 in (("v4", False), ("v6", True))
    ]
    (instance.config / "transport").write_text("\n".join(lines) + "\n")
    with (instance.config / "main.cf").open("a") as file:
        file.write("smtp_connect_timeout = 3s\nsmtp_tls_security_level = none\n")
    postfix.start(instance)
    yield instance


@FAMILIES
@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
def test_postfix_goes_on_to_the_next_server(
    sites: Sites, sender: Instance, v6: bool, trouble: Trouble
) -> None:
    family = "v6" if v6 else "v4"
    with MailServer(sites, "mta-b", v6) as server:
        began = time.monotonic()
        send(sender, f"bob@{trouble.name}.{family}.test")
        eventually(lambda: server.mails, 20.0, "the mail at the second server")
        took = time.monotonic() - began
    assert len(server.mails) == 1
    limit = {SILENT: 3.0, NO_NEIGHBOUR: 0.5}.get(trouble, 0.0) + 1.5
    assert took < limit, f"{took:.1f} s"


def send(sender: Instance, recipient: str) -> None:
    text = f"From: alice@a.test\nTo: {recipient}\nSubject: next\n\nhello\n".encode()
    command = ["sendmail", "-C", str(sender.config), "-f", "alice@a.test", recipient]
    processes.run_in(sender.namespace, command, stdin=text)
