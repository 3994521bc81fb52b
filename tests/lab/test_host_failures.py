"""The gateway on the mail server itself: failures of servers, of others' rules and of the gateway.

Each part has its counterpart among the tests of the router placement, whose tools it uses:
`test_errors_of_others`, `test_fail_open`, `test_reload`. Counterpart: `test_host`.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from gateway.config import Placement
from gateway.lab import gateways, network, processes
from tests.lab import harms, in_any_placement, probes, troubles, two_sites
from tests.lab.gateway_log import GatewayLog
from tests.lab.harms import kill_all_workers, kill_everything
from tests.lab.in_any_placement import reached_the_gate
from tests.lab.probes import MailServer, eventually, mail, mail_at_once
from tests.lab.troubles import HOST, PROHIBITED, REFUSED, SILENT, TROUBLES, Trouble
from tests.lab.two_sites import BOTH_FAMILIES, TOOLS, Sites

# --- Failures -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_troubles() -> Iterator[Sites]:
    with two_sites.built(placement=Placement.HOST) as sites:
        troubles.arrange(sites)
        yield sites


SLOW = {(HOST, True), (PROHIBITED, True), (SILENT, False)}
"""Some seconds each, and their likes are here: by the other family, or by another answer of a router."""
FAILURES = [
    pytest.param(
        trouble,
        v6,
        id=f"{trouble.name}-{'v6' if v6 else 'v4'}",
        marks=[pytest.mark.long] if (trouble, v6) in SLOW else [],
    )
    for trouble in TROUBLES
    for v6 in (False, True)
]


@pytest.mark.parametrize(("trouble", "v6"), FAILURES)
def test_the_same_failure_at_the_same_time(with_troubles: Sites, trouble: Trouble, v6: bool) -> None:
    troubles.assert_alike(with_troubles, "mta-a", v6, trouble)


@BOTH_FAMILIES
def test_a_refusal_of_the_mail_server_reaches_a_client_on_the_wire(with_troubles: Sites, v6: bool) -> None:
    troubles.assert_alike(with_troubles, "mta-c", v6, REFUSED)


@BOTH_FAMILIES
def test_a_ban_of_the_site_stays_a_ban(with_troubles: Sites, v6: bool) -> None:
    """A rule in INPUT refuses one source: it is refused, though what we dial comes by lo, which is open."""
    sites, tool = with_troubles, TOOLS[v6]
    target, source = sites.address("mta-b", v6), sites.address("mta-c", v6)
    rules = [
        f"-I INPUT -s {source} -p tcp --dport 25 -j REJECT --reject-with tcp-reset",
        "-I INPUT -i lo -j ACCEPT",
    ]
    with MailServer(sites, "mta-b", v6) as server:
        for rule in rules:
            sites.sh("mta-b", f"{tool} {rule}")
        try:
            for _ in range(3):
                assert probes.failure(sites, "mta-c", target)[0] == "ECONNREFUSED"
        finally:
            for rule in rules:
                sites.sh("mta-b", f"{tool} {rule.replace('-I', '-D')}")
        mail(sites, "mta-c", server, target, b"no ban any more")


# --- Fail-open ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built() -> Iterator[Sites]:
    with two_sites.built(placement=Placement.HOST) as sites:
        for letter in "ab":
            # Strict, as some distributions have it.
            sites.sh(
                sites.home(letter), "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1"
            )
        sites.acquaint()
        yield sites


FILTER = """\
*filter
:INPUT DROP [0:0]
:OUTPUT DROP [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -p icmp -j ACCEPT
-A INPUT -i eth0 -p tcp --dport 25 -m conntrack --ctstate NEW -j ACCEPT
-A OUTPUT -o lo -j ACCEPT
-A OUTPUT -m conntrack --ctstate INVALID -j DROP
-A OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A OUTPUT -p icmp -j ACCEPT
-A OUTPUT -o eth0 -p tcp --dport 25 -m conntrack --ctstate NEW -j ACCEPT
COMMIT
"""
"""What a mail server's own filter looks like, both ways and stateful."""
OPEN = """\
*filter
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
COMMIT
"""


@pytest.fixture
def filtered(sites: Sites) -> Iterator[Sites]:
    for letter in "ab":
        for tool in TOOLS:
            text = FILTER.replace("-p icmp", "-p ipv6-icmp") if tool == "ip6tables" else FILTER
            sites.restore_beside(sites.home(letter), tool, text)
    yield sites
    for letter in "ab":
        for tool in TOOLS:
            rules = "".join(
                line.replace("-A", "-D", 1) + "\n" for line in FILTER.splitlines() if "-A" in line
            )
            rules = rules.replace("-p icmp", "-p ipv6-icmp") if tool == "ip6tables" else rules
            sites.restore_beside(sites.home(letter), tool, OPEN.replace("COMMIT", rules + "COMMIT"))


@BOTH_FAMILIES
def test_a_stateful_filter_of_the_site_is_no_hindrance(filtered: Sites, v6: bool) -> None:
    """With the gateways, when they have died, and again with them."""
    target = filtered.address("mta-b", v6)
    with MailServer(filtered, "mta-b", v6) as server:
        for port in range(42000, 42003):
            assert mail(filtered, "mta-a", server, target, b"x" * 200_000, port=port) < 5.0
            assert_protected(filtered, port, target)
        for letter in "ab":
            gateways.kill(filtered.gateway(letter))
            for _ in range(3):
                mail_at_once(filtered, "mta-a", server, target, b"direct")
        filtered.start("a", "b")
        mail(filtered, "mta-a", server, target, b"and back")


def assert_protected(sites: Sites, port: int, target: str) -> None:
    """The session that began at this port of the mail server at a."""
    log = GatewayLog(sites.gateway("a").log)
    try:
        session = log.ended((sites.address("mta-a", ":" in target), port), (target, 25))
    finally:
        log.close()
    assert session.protected, session


@BOTH_FAMILIES
def test_syn_cookies_are_answered_as_well(sites: Sites, v6: bool) -> None:
    """Forced for all: what comes back has no socket, and must find the listener that gave the cookie."""
    target = sites.address("mta-b", v6)
    for letter in "ab":
        sites.sh(sites.home(letter), "sysctl -qw net.ipv4.tcp_syncookies=2")
    try:
        with MailServer(sites, "mta-b", v6) as server:
            for port in range(43000, 43005):
                mail_at_once(sites, "mta-a", server, target, b"by cookie", port=port)
                assert_protected(sites, port, target)
    finally:
        for letter in "ab":
            sites.sh(sites.home(letter), "sysctl -qw net.ipv4.tcp_syncookies=1")


@pytest.mark.parametrize("letter", ["a", "b"])
@pytest.mark.parametrize("event", [kill_all_workers, kill_everything], ids=lambda event: event.__name__)
def test_a_kill_under_load_leaves_nobody_hanging(
    sites: Sites, server: MailServer, server6: MailServer, event: Callable, letter: str
) -> None:
    in_any_placement.assert_a_kill_under_load_leaves_nobody_hanging(sites, server, event, letter)


@BOTH_FAMILIES
def test_a_hung_worker_does_not_keep_what_this_very_machine_sent(
    sites: Sites, server: MailServer, server6: MailServer, v6: bool
) -> None:
    """The kernel sends no SYN again while it holds the first one itself: so it has to be let go of."""
    target = harms.targets(sites)[v6]
    pids = sites.workers("a")
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        sites.connect("mta-a", target, timeout=30.0).close()
        took = time.monotonic() - began
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    # In a queue for 0.5 s, and then it comes with the kernel's first timer; the next one is after 3 s.
    assert 0.5 < took < 2.8
    mail_at_once(sites, "mta-a", server6 if v6 else server, target, b"and the next one at once")
    eventually(lambda: sites.serving("a") == 2, 30.0, "the workers again")


@pytest.mark.parametrize("letter", ["a", "b"])
def test_the_first_connection_behind_a_kill_passes_at_once(
    sites: Sites, server: MailServer, server6: MailServer, letter: str
) -> None:
    servers = (server, server6)
    in_any_placement.assert_the_first_connection_behind_a_kill_passes_at_once(sites, servers, letter)


def test_a_session_is_reset_when_its_gateway_dies(sites: Sites, server: MailServer) -> None:
    in_any_placement.assert_a_session_is_reset_when_its_gateway_dies(sites)


def test_left_over_rules_are_harmless_and_down_takes_them_all(
    sites: Sites, server: MailServer, server6: MailServer
) -> None:
    targets = harms.targets(sites)
    gateways.kill(sites.gateway("a"))
    sites.command("a", "down")
    without = sites.kernel_state("a")
    assert sites.gate("a") == []
    plan = sites.command("a", "plan").splitlines()
    assert [line for line in plan if line.startswith("add ")]
    assert sites.kernel_state("a") == without, "plan changes nothing"
    sites.command("a", "up")
    assert sites.gate("a")
    assert sites.command("a", "plan").startswith("nothing to change")
    mail_at_once(sites, "mta-a", server, targets[0], b"left-over rules")
    mail_at_once(sites, "mta-a", server6, targets[1], b"left-over rules")
    sites.command("a", "down")
    assert sites.kernel_state("a") == without
    mail_at_once(sites, "mta-a", server, targets[0], b"no rules")
    sites.command("a", "up")


@pytest.mark.parametrize(
    "flush",
    ["iptables -F", "iptables -t mangle -F", "ip6tables -t raw -F", "nft flush ruleset"],
    ids=lambda flush: flush.replace(" ", "-"),
)
def test_what_others_flush_is_put_back_and_nothing_goes_round(
    sites: Sites, server: MailServer, flush: str
) -> None:
    before = harms.ours(sites.kernel_state("a"))
    sites.sh(sites.home("a"), flush)
    eventually(lambda: harms.ours(sites.kernel_state("a")) == before, 5.0, "all of our rules")
    eventually(lambda: not sites.status("a")["rules"]["missing"], what="a status without missing rules")
    gated, peers = reached_the_gate(sites, "a"), len(server.peers)
    for _ in range(3):
        mail(sites, "mta-a", server, harms.targets(sites)[0], b"after a flush")
    assert reached_the_gate(sites, "a") == gated + 3, "what we dial never comes to the gate"
    assert len(server.peers) == peers + 3


@BOTH_FAMILIES
def test_local_mail_to_own_addresses_is_not_touched(sites: Sites, v6: bool) -> None:
    gated, at = reached_the_gate(sites, "b"), len(sites.log("b"))
    own, other = sites.address("mta-b", v6), sites.address("mta-c", v6)

    def begun_from(address: str) -> list[str]:
        """Sessions from there to here that the gateway has told of since."""
        ends = [f" {key}={f'[{one}]' if v6 else one}:" for key, one in (("source", address), ("to", own))]
        lines = [line for line in sites.log("b")[at:].splitlines() if " session begun " in line]
        return [line for line in lines if all(end in line for end in ends)]

    with MailServer(sites, "mta-b", v6) as server:
        mail(sites, "mta-b", server, own, b"from here to here")
        assert server.peers == [own]
        assert reached_the_gate(sites, "b") == gated
        mail(sites, "mta-c", server, own, b"from elsewhere, and behind it")
    eventually(lambda: begun_from(other), what="the other one in the log")
    assert not begun_from(own)


@BOTH_FAMILIES
def test_what_is_no_mail_bears_no_mark_of_ours(sites: Sites, v6: bool) -> None:
    rule = "INPUT -p udp -m mark ! --mark 0x0 -j DROP"
    tool, kind = ("ip6tables", socket.AF_INET6) if v6 else ("iptables", socket.AF_INET)
    with (
        network.socket_in(sites.namespace("mta-a"), kind, socket.SOCK_DGRAM) as sender,
        network.socket_in(sites.namespace("mta-b"), kind, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind((sites.address("mta-b", v6), 25))
        receiver.settimeout(probes.PATIENCE)
        sites.sh(sites.home("b"), f"{tool} -w -I {rule}")
        try:
            sender.sendto(b"no mail", receiver.getsockname()[:2])
            assert receiver.recv(100) == b"no mail"
        finally:
            sites.sh(sites.home("b"), f"{tool} -w -D {rule}")


@pytest.mark.parametrize("letter", ["a", pytest.param("b", marks=pytest.mark.long)])
def test_a_reload_under_load_breaks_nothing(sites: Sites, server: MailServer, letter: str) -> None:
    in_any_placement.assert_a_reload_under_load_breaks_nothing(sites, letter)


def test_another_placement_does_not_slip_in_by_a_reload(sites: Sites) -> None:
    one = sites.gateway("a")
    text = one.configuration.read_text()
    interfaces = '[interfaces]\ninside = ["eth0"]\noutside = ["eth0"]\ninside_networks = ["10.11.0.0/24"]'
    routed = text.replace('placement = "host"', interfaces)
    one.configuration.write_text(routed)
    try:
        assert "placement: changes with a restart only" in sites_reload(one)
    finally:
        one.configuration.write_text(text)
    eventually(lambda: gateways.serves(sites.status("a")), what="a gateway that serves")


def sites_reload(one: gateways.Gateway) -> str:
    command = gateways.nightmail_command("--config", str(one.configuration), "reload")
    arguments = processes.command_in(one.namespace, command)
    done = subprocess.run(arguments, capture_output=True, check=False, timeout=60, text=True)
    assert done.returncode == 1
    return done.stderr
