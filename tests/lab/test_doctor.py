"""Troubles made for real, in namespaces of their own (`examined`).

The doctor names each in one line, and the command that it suggests, run by a shell there, mends it.

All troubles share one daemon. Each begins on a gateway that was all green.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from gateway.config import Placement
from gateway.lab import gateways
from tests.lab.conftest import guarded
from tests.lab.examined import A, B, G, Site, standing


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with standing(tmp_path_factory.mktemp("site")) as here:
        yield here


def test_all_green(site: Site) -> None:
    found = site.doctor()
    assert found["all_green"]
    assert not [note for note in found["notes"] if "trial" in note]
    told = site.shell(f"nightmail --config {site.configuration} doctor")
    assert told.stdout.splitlines()[0] == f"all green: {len(found['checks'])} checks, no trouble"


# --- Troubles ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """`make` and `restore` are for a shell on the gateway; what stands in braces is filled in.

    `check` finds it, saying `words` in its one line. `restore` gives back what the trouble took along and the
    suggested command does not know.
    """

    name: str
    make: str
    check: str
    words: str
    restore: str = ""


V6_OF_LAN = "ip address replace fd00:1::1/64 dev lan nodad"
V6_OF_WAN = "ip address replace fd00:2::1/64 dev wan nodad; ip -6 route replace default via fd00:2::2"
THIRD = (
    "ip link add mgmt type veth peer name far; ip link set far up;"
    " ip address add 10.3.0.1/24 dev mgmt; ip link set mgmt up;"
    " ip route del default; ip route add default via 10.2.0.2 metric 50;"
    " ip route add default via 10.3.0.2 dev mgmt metric 5"
)
NO_THIRD = (
    "ip link del mgmt; ip route del default; ip route add default via 10.2.0.2;"
    " sysctl -qw net.ipv4.conf.wan.rp_filter=0"
)
HEARD = "timeout 5 bash -c '</dev/tcp/10.2.0.2/9' || true; timeout 5 bash -c '</dev/tcp/fd00:2::2/9' || true;"

CASES = [
    Case("no-ipv4-forwarding", "sysctl -w net.ipv4.ip_forward=0", "forwarding", "does not route IPv4"),
    Case(
        "no-ipv6-forwarding", "sysctl -w net.ipv6.conf.all.forwarding=0", "forwarding", "does not route IPv6"
    ),
    Case(
        "one-interface-does-not-forward",
        "sysctl -w net.ipv4.conf.lan.forwarding=0",
        "forwarding",
        "lan does not route IPv4",
    ),
    Case("interface-down", "ip link set lan down", "links", "lan is down", V6_OF_LAN),
    Case("loopback-down", "ip link set lo down", "links", "lo is down"),
    Case("small-packets", "ip link set wan mtu 1000", "mtu", "wan carries packets of 1000", V6_OF_WAN),
    Case(
        "ipv6-off-inside",
        "sysctl -w net.ipv6.conf.lan.disable_ipv6=1",
        "families",
        "IPv6 is switched off on lan",
        V6_OF_LAN,
    ),
    Case("no-way-out", HEARD + "ip route del default", "default-route", "no IPv4 default route"),
    Case("no-ipv6-way-out", HEARD + "ip -6 route del default", "default-route", "no IPv6 default route"),
    Case("asymmetric-way-out", THIRD, "default-route", "leads by mgmt", NO_THIRD),
    Case("strict-reverse-path", THIRD, "reverse-path", "wan drops IPv4 packets whose way back", NO_THIRD),
    Case("inside-routed-out", "ip route add 10.1.0.0/25 dev wan", "inside-routes", "10.1.0.0/25 lies inside"),
    Case(
        "routing-rule-first",
        "ip route add default via 10.2.0.2 table 77; ip rule add priority 9 lookup 77",
        "routing-rules",
        "priority 9, lookup 77",
        "ip rule del priority 1000 lookup 77; ip route flush table 77",
    ),
    Case(
        "routed-by-interface",
        "ip route add default via 10.2.0.2 table 77; ip rule add priority 1000 iif lan lookup 77",
        "uplinks",
        "for what comes in by lan (priority 1000, lookup 77)",
        "while ip rule del priority 1000; do :; done; ip route flush table 77",
    ),
    Case(
        "smaller-segments-forwarded",
        "iptables -t mangle -A FORWARD -i lan -o wan -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1200",
        "segments",
        "mangle -A FORWARD -i lan",
        "iptables -t mangle -F FORWARD; iptables -t mangle -F POSTROUTING",
    ),
    Case(
        "impatient-conntrack",
        "sysctl -w net.netfilter.nf_conntrack_tcp_timeout_established=300",
        "conntrack-patience",
        "forgets a silent connection after 300 s",
    ),
    Case(
        "zone-of-ours",
        "iptables -t raw -A PREROUTING -i wan -p tcp --dport 443 -j CT --zone 2525",
        "conntrack-zone",
        "zone 2525",
    ),
    Case(
        "untracked", "iptables -t raw -A PREROUTING -p tcp --dport 25 -j NOTRACK", "untracked", "--dport 25"
    ),
    Case(
        "drop-before-the-gate",
        "iptables -t raw -I PREROUTING -i lan -p tcp -m multiport --dports 25,587"
        " -m comment --comment 'no mail; touch {folder}/pasted' -j DROP",
        "drops",
        "raw -A PREROUTING",
    ),
    Case(
        "accepted-before-the-gate",
        "iptables -t raw -I PREROUTING -p tcp --dport 25 -j ACCEPT",
        "bypasses",
        "raw -A PREROUTING",
    ),
    Case(
        "drop-by-a-chain-of-theirs",
        "iptables -t mangle -N site; iptables -t mangle -A site -p tcp --dport 25 -j DROP;"
        " iptables -t mangle -I PREROUTING -j site",
        "drops",
        "mangle -A site",
        "iptables -t mangle -D PREROUTING -j site; iptables -t mangle -X site",
    ),
    Case(
        "reject-in-input",
        "ip6tables -I INPUT -p tcp --dport 25 -j REJECT --reject-with tcp-reset",
        "drops",
        "ip6tables -t filter -A INPUT",
    ),
    Case("no-dials", "iptables -A OUTPUT -p tcp --dport 25 -j REJECT", "drops-of-dials", "filter -A OUTPUT"),
    Case(
        "redirected",
        "iptables -t nat -A PREROUTING -i lan -p tcp --dport 25 -j REDIRECT --to-ports 2525",
        "redirections",
        "REDIRECT",
    ),
    Case(
        "translated",
        "ip6tables -t nat -A PREROUTING -p tcp --dport 25 -j DNAT --to-destination [fd00:1::9]:25",
        "redirections",
        "DNAT",
    ),
    Case(
        "marks-overwritten",
        "iptables -t mangle -A PREROUTING -i lan -j MARK --set-mark 0x2a",
        "marks",
        "0x2a/0xffffffff",
        "iptables -t mangle -D PREROUTING -i lan -j MARK --set-xmark 0x2a/0xffffff",
    ),
    Case(
        "drop-in-nftables",
        "nft add table inet site;"
        " nft add chain inet site pre '{{ type filter hook prerouting priority -310; }}';"
        " nft add rule inet site pre iifname lan tcp dport '{{ 25, 587 }}' counter drop",
        "nftables",
        "inet site pre",
        "nft delete table inet site",
    ),
    Case(
        "closed-nftables-input",
        "nft add table ip site; nft add chain ip site input '{{ type filter hook input priority 0;"
        " policy drop; }}'; nft add rule ip site input ct state established,related accept;"
        " nft add rule ip site input tcp dport 22 accept",
        "closed",
        "the chain ip site input drops all mail that comes to the gateway by lan, wan",
        "nft delete table ip site",
    ),
    Case(
        "closed-to-some",
        "nft add table ip site; nft add chain ip site input '{{ type filter hook input priority 0;"
        " policy drop; }}'; nft add rule ip site input ip saddr 10.1.0.0/24 accept",
        "connection",
        "the chain ip site input drops what it does not know",
        "nft delete table ip site",
    ),
    Case(
        "closed-output",
        "iptables -P OUTPUT DROP; iptables -A OUTPUT -o lo -j ACCEPT;"
        " iptables -A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "closed",
        "the chain OUTPUT of iptables drops all mail that leaves the gateway by lan, wan",
        "iptables -P OUTPUT ACCEPT; iptables -F OUTPUT",
    ),
    Case(
        "closed-forward",
        "iptables -P FORWARD DROP; iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "passing",
        "the chain FORWARD of iptables drops all mail that passes by the gateway from lan to wan, ",
        "iptables -P FORWARD ACCEPT; iptables -F FORWARD",
    ),
    Case(
        "closed-nftables-forward",
        "nft add table inet site; nft add chain inet site forward '{{ type filter hook forward priority 0;"
        " policy drop; }}'; nft add rule inet site forward iifname lan oifname wan accept",
        "passing",
        "the chain inet site forward drops all mail that passes by the gateway from wan to lan",
        "nft delete table inet site",
    ),
    Case(
        "what-only-the-trial-sees",
        "iptables -I INPUT -m mark --mark 0x40000000/0x40000000 -j DROP",
        "connection",
        "what ended it: iptables -t filter -A INPUT -m mark",
    ),
    Case(
        "passed-by",
        "iptables -t raw -I PREROUTING -s 198.18.0.0/15 -p tcp --dport 25 -j ACCEPT",
        "connection",
        "passed by the gateway; what let it by: iptables -t raw -A PREROUTING -s 198.18.0.0/15",
    ),
    Case(
        "others-look-into-the-state", "chmod 755 {folder}/state", "state-directory", "others may look into it"
    ),
    Case(
        "disk-full",
        "head -c 100M /dev/zero >{folder}/state/filler || true",
        "state-directory",
        "the disk is full",
        "rm {folder}/state/filler",
    ),
    Case("identity-others-can-read", "chmod 644 {folder}/state/identity", "identity", "mode 0644"),
    Case("identity-of-somebody-else", "chown 4711 {folder}/state/identity", "identity", "user 4711"),
    Case(
        "identity-damaged",
        "cp -p {folder}/state/identity {folder}/kept; echo damaged >{folder}/state/identity",
        "identity",
        "not an identity file",
        "cp -p {folder}/kept {folder}/state/identity",
    ),
    Case(
        "memory-unreadable",
        "rm -f {folder}/state/peers.db-*; cp {folder}/nightmail.toml {folder}/state/peers.db",
        "memory",
        "file is not a database",
    ),
    Case(
        "memory-set-aside",
        "rm -f {folder}/state/peers.db-*; cp {folder}/nightmail.toml {folder}/state/peers.db;"
        " nightmail --config {folder}/nightmail.toml reload",
        "memory",
        "was damaged, and set aside: peers.db.corrupt-",
    ),
    Case("log-folder-gone", "rm -r {folder}/log", "log", "no such directory"),
    Case(
        "interface-misspelt",
        "sed -i s/lan/lna/ {folder}/nightmail.toml",
        "interfaces",
        "there is no interface lna here; it is likely lan",
    ),
    Case("taken-down", "nightmail --config {folder}/nightmail.toml down", "wanted", "`nightmail down`"),
    Case("wanted-garbled", "echo garbled >{folder}/state/wanted.json", "wanted", "says neither up nor down"),
    Case("worker-stopped", "kill -STOP {worker}", "workers", "hangs: somebody has stopped it"),
    Case("signer-stopped", "kill -STOP {signer}", "signer", "the process that holds the identity"),
    Case("daemon-stopped", "kill -STOP {daemon}", "daemon", "does not answer: somebody has stopped it"),
    Case(
        "rules-flushed-while-it-is-stopped",
        "kill -STOP {daemon}; iptables -t raw -F NIGHTMAIL-PREROUTING",
        "rules",
        "of our rules are missing, the first: iptables raw -A NIGHTMAIL-PREROUTING",
    ),
    Case(
        "rules-in-old-tables",
        "iptables-legacy -A INPUT -s 192.0.2.66 -j DROP",
        "legacy",
        "1 rule stands in the old tables of iptables-legacy",
        "iptables -D INPUT -s 192.0.2.66 -j DROP",
    ),
    Case("daemon-killed", "kill -KILL {daemon}; while kill -0 {daemon}; do :; done", "daemon", "no daemon"),
]


LONG = {
    "no-ipv6-forwarding", "one-interface-does-not-forward", "loopback-down", "no-ipv6-way-out", "translated",
    "closed-to-some", "closed-output", "identity-of-somebody-else", "memory-set-aside", "wanted-garbled",
    "impatient-conntrack",
}  # fmt: skip
"""Much like another one, or slow: with --all only."""


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[pytest.mark.long] if case.name in LONG else [])
        for case in CASES
    ],
)
def test_trouble(site: Site, case: Case) -> None:
    pids = site.pids()
    try:
        site.shell(case.make.format(folder=site.folder, **pids))
        troubles = site.until("the trouble is not named", lambda troubles: named(troubles, case))
        (found,) = named(troubles, case)
        assert "\n" not in found["what"] + found["why"] + found["mend"]
        assert found["why"]
        site.shell(found["mend"])
        site.until("it is not mended", lambda left: not (named(left, case) if case.restore else left))
    finally:
        site.shell(case.restore.format(folder=site.folder, **pids), must=False)
    assert not (site.folder / "pasted").exists()


IPTABLES = ("{tool} -P FORWARD DROP", "{tool} -P FORWARD ACCEPT; {tool} -F FORWARD")
NFTABLES = (
    "nft add table inet site;"
    " nft add chain inet site forward '{{ type filter hook forward priority 0; policy drop; }}'",
    "nft delete table inet site",
)


@pytest.mark.parametrize(
    ("v6", "make", "restore"),
    [
        pytest.param(False, *IPTABLES, id="v4-iptables"),
        pytest.param(True, *NFTABLES, id="v6-nftables"),
        pytest.param(True, *IPTABLES, id="v6-iptables", marks=pytest.mark.long),
        pytest.param(False, *NFTABLES, id="v4-nftables", marks=pytest.mark.long),
    ],
)
def test_what_is_let_by_passes_without_a_daemon(site: Site, v6: bool, make: str, restore: str) -> None:
    """A filter at FORWARD stops mail once the daemon is dead, and what the doctor names opens it."""
    address, tool = ("fd00:2::2", "ip6tables") if v6 else ("10.2.0.2", "iptables")
    site.until("a trouble is left", lambda troubles: not troubles)
    try:
        site.shell(make.format(tool=tool))
        (found,) = site.troubles()
        assert found["check"] == "passing"
        with greeted(address) as greeting:
            site.shell("kill -KILL {daemon}; while kill -0 {daemon}; do :; done".format(**site.pids()))
            assert not greeting()
            site.shell(found["mend"])
            assert greeting()
    finally:
        site.shell(restore.format(tool=tool))
        site.start()


@contextmanager
def greeted(address: str) -> Iterator[Callable[[], bool]]:
    """A server outside that says one line, and whether a client inside gets it."""
    words = ["nsenter", f"--net=/run/netns/{B}", sys.executable, "-c", SERVER, address]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listens\n"
        client = ["nsenter", f"--net=/run/netns/{A}", sys.executable, "-c", CLIENT, address]
        try:
            yield lambda: subprocess.run(client, check=False, stderr=subprocess.DEVNULL).returncode == 0
        finally:
            server.terminate()


SERVER = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.create_server((sys.argv[1], 25), family=family) as listener:
    print("listens", flush=True)
    while True:
        with listener.accept()[0] as client:
            client.sendall(b"220 here\\r\\n")
"""
CLIENT = """
import socket, sys
assert socket.create_connection((sys.argv[1], 25), 3).recv(3) == b"220"
"""


LISTENERS = """
import socket, sys
held = [socket.create_server(("127.0.0.1", port)) for port in range(int(sys.argv[1]), int(sys.argv[2]))]
print("listens", flush=True)
sys.stdin.read()
"""


def test_numbers_of_other_programs(site: Site) -> None:
    """The queues are those of another gateway's daemon, which has its own folders and the same numbers."""
    second = site.beside("second")
    assert not [one for one in second.troubles() if one["check"] == "ports"], "a daemon would pass them over"
    words = [sys.executable, "-c", LISTENERS, "12527", "12557"]
    command = ["nsenter", f"--net=/run/netns/{G}", *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as others:
        assert others.stdout is not None
        assert others.stdout.readline() == b"listens\n"
        for told in (
            "kernel.first_listen_port: another program has port",
            "kernel.first_queue: another program",
        ):
            (found,) = [one for one in second.troubles() if told in one["what"]]
            second.shell(found["mend"])
            assert not [one for one in second.troubles() if told in one["what"]]
        others.communicate()


def test_frames_of_a_bridge(site: Site) -> None:
    """As Docker leaves a machine: br_netfilter is on for every bridge, here for one that is an inside."""
    second = site.beside("bridged", lan="br-in")
    site.shell(
        "ip link add br-in type bridge; ip link set br-in up; sysctl -qw net.bridge.bridge-nf-call-iptables=1"
    )
    try:
        (found,) = [one for one in second.troubles() if one["check"] == "bridge-nf"]
        second.shell(found["mend"])
        assert not [one for one in second.troubles() if one["check"] == "bridge-nf"]
    finally:
        site.shell("ip link del br-in")


def test_nothing_is_left(site: Site) -> None:
    """Of the troubles, of the commands that mended them, and of the doctor's own trials."""
    site.until("a trouble is left", lambda troubles: not troubles)
    assert not [note for note in site.doctor()["notes"] if "trial" in note]
    links = {link["ifname"] for link in json.loads(site.shell("ip -json link").stdout)}
    assert links == {"lo", "lan", "wan"}
    for family in (4, 6):
        rules = json.loads(site.shell(f"ip -json -{family} rule").stdout)
        assert {rule["priority"] for rule in rules} <= {0, 25, 32766, 32767}
        assert "2525000" not in site.shell(f"ip -{family} route show table all").stdout


def test_rules_that_a_killed_doctor_has_left_go_with_the_next(site: Site) -> None:
    for version, to in ((4, "198.19.1.1"), (6, "2001:2:0:26::1")):
        for priority, table in ((26, 25_250_001), (27, 25_250_001), (28, 25_250_002)):
            site.shell(f"ip -{version} rule add to {to} priority {priority} lookup {table}")
        site.shell(f"ip -{version} route add {to} dev wan table 25250002")
    test_nothing_is_left(site)


def named(troubles: list[dict[str, str]], case: Case) -> list[dict[str, str]]:
    return [one for one in troubles if one["check"] == case.check and case.words in one["what"]]


@pytest.mark.long
def test_a_doctor_that_is_killed_leaves_nothing_that_lasts(site: Site) -> None:
    """In the middle of a trial that gets no answer."""
    site.shell("iptables -I INPUT -m mark --mark 0x40000000/0x40000000 -j DROP")
    inside = ["nsenter", f"--net=/run/netns/{G}"]
    with subprocess.Popen([*inside, "ip", "monitor", "link"], stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        words = [str(site.folder / "bin" / "nightmail"), "--config", str(site.configuration), "doctor"]
        with subprocess.Popen([*inside, *words], stdout=subprocess.DEVNULL) as doctor:
            next(line for line in watch.stdout if "nm-doctor-out" in line)
            doctor.kill()
        next(line for line in watch.stdout if line.startswith("Deleted") and "nm-doctor-out" in line)
        watch.terminate()
    site.shell("iptables -D INPUT -m mark --mark 0x40000000/0x40000000 -j DROP")
    test_nothing_is_left(site)


# --- The other placements ----------------------------------------------------------------------------


@pytest.mark.parametrize("placement", [Placement.HOST, Placement.BRIDGE], ids=lambda one: one.value)
def test_all_green_in_the_lab(placement: Placement) -> None:
    """Also with the routes of a site that has no default route. A bridge has no trial."""
    with guarded(placement=placement) as sites:
        lab = sites.sites.lab
        for letter in "ab":
            one = lab.gateway(letter)
            command = gateways.nightmail_command("--config", str(one.configuration), "doctor", "--json")
            done = subprocess.run(
                ["nsenter", f"--net=/run/netns/{one.namespace}", *command],
                capture_output=True,
                text=True,
                check=False,
            )
            found = json.loads(done.stdout)
            assert found["troubles"] == [], done.stderr
            tried = not [note for note in found["notes"] if "trial" in note]
            assert tried == (placement is Placement.HOST), found["notes"]
