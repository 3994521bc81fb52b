"""Beside other firewalls, the real programs: our rules stand again, and theirs are as before.

Each runs beside the gateway of site b, on a disk of its own, so that nothing of this machine's configuration
is touched. None of them need be installed: `scripts/neighbours` does that in a layer. Namespaces nmf0-...
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from gateway.config import Placement
from gateway.lab import gateways
from tests.lab import two_sites
from tests.lab.own_disk import OwnDisk, own_disk
from tests.lab.probes import MailServer, eventually, failure, mail, mail_at_once
from tests.lab.two_sites import TOOLS, Sites

PUT_BACK_SECONDS = 1.0
"""Two looks at the rules, and the time that putting them in takes."""
ON_A_BUSY_MACHINE = 4.0
PATIENCE = 60.0


@dataclass
class Box:
    """The machine that gateway b runs on, with a disk of its own."""

    sites: Sites
    disk: OwnDisk

    @property
    def namespace(self) -> str:
        return self.sites.gateway("b").namespace

    def run(self, *words: str, text: str = "") -> str:
        done = subprocess.run(
            self.disk.command(self.namespace, *words),
            input=text,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """A daemon; it ends with the namespaces."""
        command = self.disk.command(self.namespace, *words)
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def others(self) -> list[str]:
        """Rules of everybody else's, in their order, without counters."""
        node = self.sites.home("b")
        lines = []
        for tool in TOOLS:
            for line in self.sites.sh(node, f"{tool}-save").splitlines():
                if not re.search("NIGHTMAIL|^#|SITE-", line):
                    lines.append(f"{tool} {line.split(' [')[0]}")
        listing = self.sites.sh(node, "nft -s list ruleset")
        tables = re.findall(
            r"^table (?!inet nightmail|ip6? (?:filter|mangle|raw|nat) )[^\n]* \{\n.*?^\}",
            listing,
            re.M | re.S,
        )
        return [*lines, *tables]

    def ours_stand(self) -> bool:
        status = gateways.ask(self.sites.gateway("b"))
        return status is not None and gateways.serves(status) and all(map(self.gated, TOOLS))

    def gated(self, tool: str) -> bool:
        saved = self.sites.sh(self.sites.home("b"), f"{tool}-save")
        jumps = re.findall(r"^-A (?:PREROUTING|INPUT|OUTPUT|FORWARD) .*-j NIGHTMAIL-", saved, re.M)
        return len(jumps) >= 4 and "NFQUEUE" in saved


@pytest.fixture(scope="module")
def routers() -> Iterator[Sites]:
    with two_sites.built() as sites:
        sites.acquaint()
        yield sites


@pytest.fixture
def box(routers: Sites) -> Iterator[Box]:
    """With nothing of others' at first, and nothing afterwards."""
    with own_disk(with_neighbours=True) as disk:
        before = times_rung(routers)
        clear(routers)
        eventually(lambda: times_rung(routers) > before, what="the alarm, which rings once ours stand again")
        eventually(lambda: Box(routers, disk).ours_stand())
        yield Box(routers, disk)
    clear(routers)


@pytest.fixture
def mail_server() -> Iterator[Box]:
    """The gateway on the mail server itself."""
    with two_sites.built(placement=Placement.HOST) as sites, own_disk(with_neighbours=True) as disk:
        sites.acquaint()
        yield Box(sites, disk)


def clear(sites: Sites) -> None:
    sites.sh(sites.home("b"), "nft flush ruleset")


def times_rung(sites: Sites) -> int:
    """How often rules of ours were gone."""
    return sum(1 + one["unheard"] for one in sites.alarms("b", "rules-missing"))


def assert_carries(box: Box) -> None:
    """Mail of a peer is encrypted on the wire, mail of a stranger goes direct; both arrive."""
    sites = box.sites
    for v6 in (False, True):
        with MailServer(sites, "mta-b", v6) as server:
            target = sites.address("mta-b", v6)
            before = decided(sites)
            mail(sites, "mta-a", server, target, b"from a peer")
            mail(sites, "mta-c", server, target, b"from a stranger")
            eventually(lambda before=before: decided(sites)[: len(before) + 2] != before)
            eventually(lambda before=before: len(decided(sites)) == len(before) + 2)
            assert sorted(decided(sites)[len(before) :]) == ["no", "yes"]


def decided(sites: Sites) -> list[str]:
    """Of sessions in which somebody spoke: a probe that only connected may be told of late."""
    lines = [line for line in sites.log("b").splitlines() if " session decided " in line]
    lines = [line for line in lines if "reason=ended-before-decision" not in line]
    return [line.partition("protected=")[2].split()[0] for line in lines]


def let_by(box: Box) -> None:
    """By the command that the doctor names for mail that passes by the gateway."""
    found = passing(box)
    assert found
    for one in found:
        box.run("sh", "-c", one["mend"])
    assert passing(box) == []


def passing(box: Box) -> list[dict[str, str]]:
    told, _ = json.JSONDecoder().raw_decode(box.sites.command("b", "doctor", "--json"))
    return [one for one in told["troubles"] if one["check"] == "passing"]


def assert_passes_without_a_daemon(box: Box) -> None:
    """By FORWARD, which wants a word of the site's."""
    gateways.stop(box.sites.gateway("b"))
    with MailServer(box.sites, "mta-b", False) as server:
        mail_at_once(box.sites, "mta-c", server, box.sites.address("mta-b", False), b"direct")
    box.sites.start("b")


def assert_put_back(box: Box, work: Callable[[], object]) -> None:
    """While a peer's client goes on connecting: none waits longer than for one SYN, and ours stand again."""
    work()
    done = time.monotonic()
    eventually(box.ours_stand, what="our rules again")
    took = time.monotonic() - done
    assert took < PUT_BACK_SECONDS + ON_A_BUSY_MACHINE, f"put back after {took:.2f} s"


def assert_untouched(box: Box, theirs: list[str]) -> None:
    """By our going, and by our coming again."""
    box.sites.command("b", "down")
    assert [line for line in box.others() if line not in theirs] == []
    assert [line for line in theirs if line not in box.others()] == []
    box.sites.command("b", "up")
    eventually(box.ours_stand)
    assert box.others() == theirs


def test_ufw(box: Box) -> None:
    """Enabled, reloaded, switched off. Mail that goes direct needs its own word with `ufw route`."""
    server = box.sites.address("mta-b", False)
    assert_put_back(box, lambda: box.run("ufw", "--force", "enable"))
    let_by(box)
    assert_put_back(box, lambda: box.run("ufw", "reload"))
    assert_carries(box)
    theirs = box.others()
    assert any("ufw-user-forward" in line for line in theirs)
    assert_put_back(box, lambda: box.run("ufw", "reload"))
    assert box.others() == theirs
    assert_carries(box)
    assert_untouched(box, theirs)
    # For some seconds the gateway lets clients in before it asks a server that has answered.
    eventually(lambda: failure(box.sites, "mta-a", server)[0] == "ECONNREFUSED", what="a refusal")
    assert_put_back(box, lambda: box.run("ufw", "disable"))
    assert_carries(box)


def test_firewalld(box: Box) -> None:
    """Started, reloaded, reloaded as a whole. Both interfaces in a zone that lets mail pass.

    In a zone that does not, mail that passes by the gateway has a policy of its own.
    """
    box.run("mkdir", "-p", "/run/dbus")
    bus = box.start("dbus-daemon", "--system", "--nofork", "--nopidfile")
    eventually(lambda: box.disk.path("/run/dbus/system_bus_socket").exists())
    daemon = box.start("firewalld", "--nofork", "--nopid")
    try:
        eventually(
            lambda: (
                "running"
                in subprocess.run(
                    box.disk.command(box.namespace, "firewall-cmd", "--state"),
                    capture_output=True,
                    text=True,
                    check=False,
                ).stdout.split()
            ),
            seconds=PATIENCE,
        )
        let_by(box)
        assert_passes_without_a_daemon(box)
        words = ["--permanent", "--zone=trusted", "--add-interface=inside", "--add-interface=outside"]
        box.run("firewall-cmd", *words)
        for how in ("--reload", "--complete-reload"):
            assert_put_back(box, lambda how=how: box.run("firewall-cmd", how))
            assert_carries(box)
        theirs = box.others()
        assert any("firewalld" in table for table in theirs)
        assert_untouched(box, theirs)
    finally:
        for process in (daemon, bus):
            process.terminate()
            process.wait(PATIENCE)


def test_the_service_of_nftables(box: Box) -> None:
    """Its configuration begins with `flush ruleset`, as Debian's does."""
    box.disk.write("/etc/nftables.conf", NFTABLES)
    assert_put_back(box, lambda: box.run("nft", "-f", "/etc/nftables.conf"))
    theirs = box.others()
    assert any("table inet filter" in table for table in theirs)
    assert_carries(box)
    assert_untouched(box, theirs)


NFTABLES = """\
#!/usr/sbin/nft -f
flush ruleset
table inet filter {
    chain input { type filter hook input priority filter; policy drop;
        iif "lo" accept
        meta mark and 0x40000000 != 0 accept
        ct state established,related accept
        meta l4proto { icmp, ipv6-icmp } accept
    }
    chain forward { type filter hook forward priority filter; policy drop;
        ct state established,related accept
        tcp dport 25 accept
        meta l4proto { icmp, ipv6-icmp } accept
    }
}
"""


def test_a_restore_of_saved_rules(box: Box) -> None:
    """netfilter-persistent and the like: all tables become what was saved once, with ours among it."""
    for tool in TOOLS:
        box.run(tool, "-A", "FORWARD", "-p", "tcp", "--dport", "23", "-j", "DROP")
        box.disk.write(f"/etc/iptables/{tool}", box.run(f"{tool}-save"))
    theirs = box.others()

    def restore() -> None:
        for tool in TOOLS:
            box.run(f"{tool}-restore", f"/etc/iptables/{tool}")

    assert_put_back(box, restore)
    assert_carries(box)
    assert_untouched(box, theirs)

    # At boot, before the daemon: what was saved of ours sends SYNs to nobody, and goes with `down`.
    gateways.stop(box.sites.gateway("b"), take_rules_down=True)
    restore()
    assert any("NIGHTMAIL" in line for line in box.run("iptables-save").splitlines())
    with MailServer(box.sites, "mta-b", False) as server:
        mail_at_once(box.sites, "mta-c", server, box.sites.address("mta-b", False), b"direct")
    box.sites.command("b", "down")
    assert box.others() == theirs
    assert "NIGHTMAIL" not in box.run("iptables-save")
    box.sites.command("b", "up")
    box.sites.start("b")
    assert_carries(box)


def test_fail2ban(mail_server: Box) -> None:
    """A ban stays a ban, and goes; ours are none of its business."""
    box, sites = mail_server, mail_server.sites
    target = sites.address("mta-b", False)
    box.disk.write("/var/log/mail.test", "")
    box.disk.write("/etc/fail2ban/jail.local", JAIL)
    box.disk.write("/etc/fail2ban/jail.d/defaults-debian.conf", "[DEFAULT]\n")
    box.disk.write("/etc/fail2ban/filter.d/none.conf", "[Definition]\nfailregex = nobody <HOST>\n")
    daemon = box.start("fail2ban-server", "-f", "-x", "start")
    try:
        eventually(lambda: box.disk.path("/run/fail2ban/fail2ban.sock").exists(), seconds=PATIENCE)
        eventually(lambda: "mail" in box.run("fail2ban-client", "status"), seconds=PATIENCE)
        assert_carries(box)
        box.run("fail2ban-client", "set", "mail", "banip", sites.address("mta-a", False))
        eventually(lambda: "f2b-mail" in box.run("iptables-save"))
        with MailServer(sites, "mta-b", False) as server:
            # Its chain is there before the rule of the ban.
            eventually(lambda: failure(sites, "mta-a", target)[0] == "ECONNREFUSED", what="a ban")
            before = len(decided(sites))
            mail(sites, "mta-c", server, target, b"not banned")
            eventually(lambda: len(decided(sites)) > before, what="its line, which comes behind it")
            eventually(box.ours_stand, what="our rules")
            box.run("fail2ban-client", "set", "mail", "unbanip", sites.address("mta-a", False))
            eventually(lambda: failure(sites, "mta-a", target)[0] == "connected")
        assert_carries(box)
        box.run("fail2ban-client", "set", "mail", "banip", "192.0.2.66")
        eventually(lambda: "192.0.2.66" in box.run("iptables-save"))
        assert_untouched(box, box.others())
        assert not sites.alarms("b", "rules-missing")
    finally:
        daemon.terminate()
        daemon.wait(PATIENCE)


JAIL = """\
[mail]
enabled = true
filter = none
backend = polling
logpath = /var/log/mail.test
port = smtp
banaction = iptables-multiport
bantime = 600
"""


def test_docker(box: Box) -> None:
    """On a machine that it makes a router of, so that FORWARD drops what it does not know; restarted."""
    home = box.sites.home("b")
    rung = times_rung(box.sites)
    box.sites.sh(home, "sysctl -qw net.ipv4.ip_forward=0")
    daemon = start_docker(box)
    try:
        eventually(box.ours_stand)
        theirs = box.others()
        assert "iptables :FORWARD DROP" in theirs
        assert_carries(box)
        daemon.terminate()
        daemon.wait(PATIENCE)
        daemon = start_docker(box)
        assert box.others() == theirs
        assert_carries(box)
        assert_untouched(box, theirs)
        assert times_rung(box.sites) == rung

        let_by(box)
        assert_passes_without_a_daemon(box)
    finally:
        daemon.terminate()
        daemon.wait(PATIENCE)
        box.sites.sh(home, "ip link delete docker0", "sysctl -qw net.ipv4.ip_forward=1")


def start_docker(box: Box) -> subprocess.Popen[bytes]:
    daemon = box.start("dockerd", "--storage-driver=vfs")
    command = box.disk.command(box.namespace, "docker", "info")

    def runs() -> bool:
        assert daemon.poll() is None, "dockerd has ended"
        return subprocess.run(command, capture_output=True, check=False).stdout.count(b"Server Version") == 1

    eventually(runs, PATIENCE)
    return daemon
