"""The gateway as a bridge, in the hand of an operator: up, down, plan; what others take away is put back."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from gateway.config import Placement
from gateway.lab import gateways, network, processes
from gateway.lab.topology import BRIDGE, INSIDE, OUTSIDE
from tests.lab import harms
from tests.lab.bridges import bridge_state, decided
from tests.lab.probes import MailServer, eventually, mail, mail_at_once
from tests.lab.two_sites import Sites


@pytest.fixture(scope="module")
def placement() -> Placement:
    return Placement.BRIDGE


def test_left_over_rules_are_harmless_and_down_takes_everything(
    sites: Sites, server: MailServer, server6: MailServer
) -> None:
    targets = harms.targets(sites)
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
    mail_at_once(sites, "mta-a", server, targets[0], b"left-over rules")
    mail_at_once(sites, "mta-a", server6, targets[1], b"left-over rules")
    for _ in range(2):
        sites.command("a", "down")
        assert bridge_state(sites, "a") == without
    mail_at_once(sites, "mta-a", server, targets[0], b"no rules")
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
    before = harms.ours(sites.kernel_state("a"))
    sites.sh("gw-a", harm)
    eventually(lambda: lifts(sites, "a"), what="the way out of the bridge and back")
    eventually(lambda: harms.ours(sites.kernel_state("a")) == before, what="all of our rules")
    eventually(lambda: not sites.status("a")["rules"]["missing"], what="a status without missing rules")
    eventually(lambda: sites.alarms("a", "rules-missing"), what="an alarm")
    sites.wait_ready("a")
    known = decided(sites, "a")
    mail(sites, "mta-a", server, harms.targets(sites)[0], b"after harm")
    eventually(lambda: decided(sites, "a") == known + 1, what="a session of ours")


def test_a_bridge_that_the_site_takes_down_is_left_for_the_site_to_make(
    sites: Sites, server: MailServer
) -> None:
    """Else its scripts would find one there, which has none of its settings."""
    sites.sh("gw-a", f"ip link del {BRIDGE}")
    try:
        gone = f"bridge.name: {BRIDGE}, which was there before us, is gone"
        eventually(lambda: sites.status("a")["rules"]["missing"] == [gone], what="what is said of it")
        assert sites.command("a", "status").startswith("NO")
        assert f"{BRIDGE}:" not in sites.sh("gw-a", "ip -o link show type bridge")
    finally:
        network.inside(sites.namespace("gw-a"), network._make_bridge)
    eventually(lambda: lifts(sites, "a"), what="the way out of the bridge and back")
    eventually(lambda: not sites.status("a")["rules"]["missing"], what="a status without missing rules")
    sites.wait_ready("a")
    known = decided(sites, "a")
    mail(sites, "mta-a", server, harms.targets(sites)[0], b"through the same bridge")
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


MADE_ANEW = (
    f"ip link del {BRIDGE}",
    f"ip link add {BRIDGE} type bridge",
    *(f"ip link set {port} master {BRIDGE}" for port in (INSIDE, OUTSIDE)),
)
BECOMES = {
    "has an address": (f"ip addr add 192.0.2.1/32 dev {BRIDGE}",),
    "has another port": (
        "ip link add site type veth peer name site-far",
        f"ip link set site master {BRIDGE}",
    ),
    "is made anew": MADE_ANEW,
}
"""How a bridge that we have made becomes the site's."""


@pytest.mark.parametrize("how", BECOMES)
def test_a_bridge_that_was_made_and_is_the_sites_since_stays(sites: Sites, how: str) -> None:
    """The site's scripts take what they find, where the daemon was quicker at a boot."""
    gateways.kill(sites.gateway("b"))
    sites.command("b", "down")
    sites.sh("gw-b", f"ip link del {BRIDGE}")
    try:
        sites.command("b", "up")
        sites.sh("gw-b", *BECOMES[how])
        sites.command("b", "up")
        assert lifts(sites, "b")
        theirs = re.findall(r"^\d+", sites.sh("gw-b", f"ip -o link show {BRIDGE}"))
        sites.command("b", "down")
        assert re.findall(r"^\d+", sites.sh("gw-b", f"ip -o link show {BRIDGE}")) == theirs
        ports = sites.sh("gw-b", f"ip -o link show master {BRIDGE}")
        assert f"{INSIDE}@" in ports
        assert f"{OUTSIDE}@" in ports
        assert "192.0.2.1" in sites.sh("gw-b", f"ip -o addr show dev {BRIDGE}") or how != "has an address"
        assert not lifts(sites, "b")
    finally:
        links = sites.sh("gw-b", "ip -o link")
        sites.sh("gw-b", *(f"ip link del {name}" for name in (BRIDGE, "site") if f" {name}" in links))
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
            assert re.search(f"BAD  interfaces: .*{complaint}", sites.command("b", "check"))
            assert ". no gateway in this bridge: " in (diagnosis := sites.command("b", "doctor"))
            assert complaint in diagnosis
            assert "does not take our rules" not in diagnosis
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
