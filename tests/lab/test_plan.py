"""What `plan` lists is what `up` changes, neither more nor less; `down` takes back all that does not stay.

The real command, in a network namespace of its own (nmpl-<pid>) that looks like a router's, and on a disk of
its own: a layer over this machine's, in which whatever is written anywhere is found. The service is the real
daemon, and systemd a program of a few lines that starts and ends it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.own_disk import OwnDisk, own_disk
from tests.lab.own_namespaces import lonely_router
from tests.lab.probes import eventually

SOURCE = Path(__file__).parents[2]
NAME = f"nmpl-{os.getpid()}"
PATIENCE = 60.0
CONFIGURATION = """\
version = 1
[interfaces]
inside = ["lan"]
outside = ["wan"]
[log]
file = "/var/log/nightmail.log"
[metrics]
listen = "unix:/run/nightmail/metrics.sock"
"""
SYSTEMCTL = f"""\
#!/bin/sh
# What systemd does with nightmail.service, as far as `up` and `down` ask it to.
link=/etc/systemd/system/multi-user.target.wants/nightmail.service
pid=/run/fake-systemd.pid
case $1 in
show)
    echo LoadState=loaded
    if [ -e $pid ]; then echo ActiveState=active; else echo ActiveState=inactive; fi
    if [ -L $link ]; then echo UnitFileState=enabled; else echo UnitFileState=disabled; fi ;;
start)
    cd {SOURCE}
    {sys.executable} -m gateway run </dev/null >/dev/null 2>&1 &
    echo $! >$pid
    until [ -S /run/nightmail/control.sock ]; do kill -0 $! || exit 1; sleep 0.05; done ;;
stop)
    kill "$(cat $pid)"
    while kill -0 "$(cat $pid)" 2>/dev/null; do sleep 0.05; done
    rm -rf $pid /run/nightmail ;;
enable) ln -s /lib/systemd/system/nightmail.service $link ;;
disable) rm $link ;;
esac
"""


@dataclass
class Machine:
    """One namespace, and its disk."""

    disk: OwnDisk

    def inside(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(SOURCE)}
        environment["PATH"] = f"/usr/local/sbin:{environment['PATH']}"
        return subprocess.run(
            self.disk.command(NAME, *words),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=environment,
            check=False,
        )

    def run(self, *words: str) -> str:
        done = self.inside(sys.executable, "-m", "gateway", *words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def complaint(self, *words: str) -> str:
        """The one line that a command ends with."""
        done = self.inside(sys.executable, "-m", "gateway", *words)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done
        return done.stderr.strip()

    def look(self, words: str) -> list[str]:
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{NAME}", *words.split()],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    def files(self) -> set[str]:
        return self.disk.changed()

    def kernel(self) -> Kernel:
        rules = set()
        for tool in ("iptables", "ip6tables"):
            table = ""
            for line in self.look(f"{tool}-save"):
                table = line[1:] if line.startswith("*") else table
                if line.startswith("-A"):
                    rules.add(f"{tool} {table} {line}")
        for family in ("-4", "-6"):
            rules |= {f"ip {family} {told}" for told in map(routing_rule, self.look(f"ip {family} rule"))}
            for line in self.look(f"ip {family} route show table all"):
                # The kernel adds those of a link when it likes, some seconds after the link is up.
                if re.search("fe80|ff00", line):
                    continue
                rules.add(
                    f"ip {family} route {re.sub(' (proto|scope|metric|pref|src) [^ ]+', '', line).strip()}"
                )
        rules |= {f"sysctl {line.replace(' ', '')}" for line in self.look("sysctl -a --pattern ^net.ipv")}
        tables = {
            line for line in self.look("nft list tables") if not re.search("ip6? (filter|mangle|raw)", line)
        }
        ours = self.look("nft -t list table inet nightmail") if "table inet nightmail" in tables else []
        return Kernel(rules, tables, names_of(ours), self.look("ip -br link"))


@dataclass
class Kernel:
    """`rules` in the words of a plan. Of nft the tables, and the names of all in ours.

    Empty tables of iptables are left out: the tool makes them when it is asked for anything.
    """

    rules: set[str]
    tables: set[str]
    nft: set[str]
    links: list[str]


def routing_rule(line: str) -> str:
    priority, rest = line.split(":", 1)
    found = dict(re.findall(r"(iif|fwmark|lookup) (\S+)", rest))
    marked = f"fwmark {found['fwmark']} " if "fwmark" in found else ""
    return f"rule pref {priority} iif {found.get('iif', '-')} {marked}lookup {found.get('lookup')}"


def names_of(listing: list[str]) -> set[str]:
    """Sets, chains and counters of nft's own listing; notes of what was before are no rules."""
    found = (re.match(r"\s*((?:set|chain|counter) \S+) \{", line) for line in listing)
    return {match[1] for match in found if match and "former/" not in match[1]}


def names_told(of_nft: set[str]) -> set[str]:
    """The same of a plan's lines."""
    found = (re.match(r"nft (set|chain|counter) inet nightmail (\S+)", line) for line in of_nft)
    return {f"{match[1]} {match[2]}" for match in found if match}


@pytest.fixture
def machine() -> Iterator[Machine]:
    with own_disk() as disk, lonely_router(NAME):
        yield Machine(disk)


def paths(lines: list[str], *, stay: bool = False) -> set[str]:
    """Of a plan's files, or of those alone that stay."""
    return {line.split()[2].rstrip(":") for line in lines if not stay or line.endswith("(stays)")}


def assert_summed_up(plan: dict[str, Any], fresh: set[str]) -> None:
    """What the last sentence counts is what the kernel has got."""
    adds, told = plan["summary"]["adds"], plan["summary"]["told"]
    tables = {tuple(line.split()[:2]) for line in fresh if line.startswith(("iptables", "ip6tables"))}
    kinds = {
        "rules": r"ip6?tables ",
        "routing_rules": r"ip -\d rule",
        "routes": r"ip -\d route",
        "switches": "sysctl",
    }
    counted = {kind: sum(bool(re.match(begins, line)) for line in fresh) for kind, begins in kinds.items()}
    files = {"files": len(plan["files"])} if plan["files"] else {}
    assert adds == {**counted, "tables": len(tables), "nft_tables": 1, **files}
    assert plan["summary"]["removes"] == {}
    assert told.startswith(
        f"in all: `up` would add {counted['rules']} rules of iptables in {len(tables)} tables, "
    )
    assert told.endswith("; nothing of yours is removed")


def assert_told(plan: dict[str, Any], before: Kernel, after: Kernel) -> None:
    """The plan's rules are the difference between the two, to the last one."""
    told = {line.removeprefix("add").strip() for line in plan["rules"]}
    assert all(line.startswith("add ") for line in plan["rules"])
    of_nft = {line for line in told if line.startswith("nft ")}
    assert after.rules - before.rules == told - of_nft
    assert after.tables - before.tables == {"table inet nightmail"}
    assert names_told(of_nft) == after.nft
    assert_summed_up(plan, after.rules - before.rules)
    changed = {line.partition("=")[0] for line in after.rules - before.rules}
    gone = {line for line in before.rules - after.rules if line.partition("=")[0] not in changed}
    assert gone == set(), "a switch has another value; nothing else is taken away"
    assert (after.links, before.tables - after.tables) == (before.links, set())


def test_without_a_service(machine: Machine) -> None:
    machine.disk.write("/etc/nightmail/nightmail.toml", CONFIGURATION)
    machine.run("plan")  # iptables makes its empty tables
    before, at_first = machine.kernel(), machine.files()
    plan = json.loads(machine.run("plan", "--json"))
    assert (machine.kernel(), machine.files()) == (before, at_first), "a plan changes nothing"
    assert plan["services"] == []

    machine.run("up")
    assert_told(plan, before, machine.kernel())
    assert machine.files() - at_first == paths(plan["files"])
    assert json.loads(machine.run("plan", "--json")) == {
        "rules": [], "files": [], "services": [], "remarks": plan["remarks"],
        "summary": {"told": "nothing to change: all rules are in place", "adds": {}, "removes": {}},
    }  # fmt: skip
    machine.run("up")
    assert_told(plan, before, machine.kernel())
    assert machine.files() - at_first == paths(plan["files"])

    for _ in range(2):
        machine.run("down")
        assert machine.kernel() == before
        assert machine.files() - at_first == paths(plan["files"], stay=True)


def test_with_the_service(machine: Machine) -> None:
    machine.disk.write("/etc/nightmail/nightmail.toml", CONFIGURATION)
    machine.disk.write("/run/systemd/system/.there", "")
    machine.disk.write("/usr/local/sbin/systemctl", SYSTEMCTL, 0o755)
    machine.disk.write("/etc/systemd/system/multi-user.target.wants/.there", "")
    machine.run("plan")
    before, at_first = machine.kernel(), machine.files()
    plan = json.loads(machine.run("plan", "--json"))
    assert (machine.kernel(), machine.files()) == (before, at_first)
    assert plan["services"] == ["start   service nightmail.service", "enable  service nightmail.service"]

    said = machine.run("up")
    assert said == "rules are in place, and the daemon keeps them\n"
    # The workers come after their rules, and the gate opens with them.
    for tool in ("iptables", "ip6tables"):
        eventually(
            lambda tool=tool: any("queue-balance" in line for line in machine.look(f"{tool}-save -t raw"))
        )
    assert_told(plan, before, machine.kernel())
    systemds = {"/run/fake-systemd.pid", "/etc/systemd/system/multi-user.target.wants/nightmail.service"}
    assert machine.files() - at_first - systemds == paths(plan["files"])

    machine.run("down")
    assert machine.kernel() == before
    assert machine.files() - at_first == paths(plan["files"], stay=True)


def test_a_service_that_does_not_come_up(machine: Machine) -> None:
    """Whatever `up` had done by then is undone."""
    machine.disk.write("/etc/nightmail/nightmail.toml", CONFIGURATION)
    machine.disk.write("/run/systemd/system/.there", "")
    broken = SYSTEMCTL.replace(" -m gateway run ", " -c pass ").replace('kill "$(cat $pid)"', ":")
    machine.disk.write("/usr/local/sbin/systemctl", broken, 0o755)
    machine.run("plan")
    before, at_first = machine.kernel(), machine.files()
    done = machine.inside(sys.executable, "-m", "gateway", "up")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("nightmail: systemctl start: ")
    assert (machine.kernel(), machine.files()) == (before, at_first)


# --- What is in the way is said before anything is done ----------------------------------------------


@pytest.fixture
def router(machine: Machine) -> Machine:
    machine.disk.write("/etc/nightmail/nightmail.toml", CONFIGURATION)
    machine.run("plan")
    return machine


@pytest.mark.parametrize("tool", ["iptables-save", "ip6tables-restore", "nft"])
def test_a_tool_is_missing(router: Machine, tool: str) -> None:
    before = router.kernel()
    assert router.inside("rm", f"/usr/sbin/{tool}").returncode == 0
    at_first = router.files()
    for word in ("plan", "up"):
        assert router.complaint(word) == f"nightmail: {tool} is not installed"
    assert (router.kernel(), router.files()) == (before, at_first)


def test_a_tool_cannot_be_run(router: Machine) -> None:
    assert router.inside("sh", "-c", "rm /usr/sbin/nft; mkdir /usr/sbin/nft").returncode == 0
    assert router.complaint("plan").startswith("nightmail: nft cannot be started: ")


def test_the_older_iptables(router: Machine) -> None:
    """Our rules go into its tables, and are taken out of them."""
    before, at_first = router.kernel(), router.files()
    for tool in ("iptables", "ip6tables"):
        for word in ("", "-save", "-restore"):
            router.inside("ln", "-sf", f"/usr/sbin/{tool}-legacy{word}", f"/usr/local/sbin/{tool}{word}")
    assert "note: iptables is the legacy one here" in router.run("plan")
    router.run("up")
    assert any("NIGHTMAIL-GATE" in line for line in router.look("iptables-legacy-save"))
    assert not any("NIGHTMAIL" in line for line in router.look("iptables-nft-save"))
    assert router.run("plan").startswith("nothing to change")
    router.run("down")
    assert not any("NIGHTMAIL" in line for line in router.look("iptables-legacy-save"))
    assert router.kernel() == before
    tools = {path for path in router.files() if path.startswith("/usr/local/sbin/")}
    # The old tools' own lock, wherever they were first called.
    left = router.files() - at_first - tools - {"/run/xtables.lock"}
    assert left == {"/var/lib/nightmail", "/var/lib/nightmail/wanted.json"}


def test_rules_in_older_tables(router: Machine) -> None:
    router.look("iptables-legacy -A INPUT -s 192.0.2.66 -j DROP")
    told = "note: 1 rule stands in the old tables of iptables-legacy, beside those of nftables"
    assert told in router.run("plan")
    assert "ip6tables-legacy" not in router.run("plan")
    assert router.inside("rm", "/usr/sbin/iptables-legacy-save").returncode == 0
    assert "note: rules may stand in the old tables of iptables-legacy" in router.run("plan")


CLOSED = """\
table inet filter {
    chain input { type filter hook input priority filter; policy drop;
        iif "lo" accept
        ct state vmap { established : accept, related : accept, invalid : drop }
        iifname "lan" accept
        tcp dport { 22, 443 } accept
    }
}
"""


@pytest.mark.parametrize("service", ["serves", "is off"])
def test_a_firewall_that_would_drop_what_comes_in(router: Machine, service: str) -> None:
    """Said before the first mail is lost there, with the command that lets it by; ours stand or not."""
    if service == "serves":
        router.run("up")
    router.disk.write("/etc/site.nft", CLOSED)
    router.inside("nft", "-f", "/etc/site.nft")
    told = "the chain inet filter input drops all mail that comes to the gateway by wan; "
    assert f"note: {told}" in router.run("plan")
    done = router.inside(sys.executable, "-m", "gateway", "check")
    assert done.returncode == 1
    assert f"BAD  firewall: {told}" in done.stdout
    (mend,) = re.findall("^     mend: (.*)$", done.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1] == "1 BAD: `nightmail doctor` names the command that mends it"
    router.inside("sh", "-c", mend)
    assert told not in router.run("plan")
    assert "ok   firewall: no rule of others stands in mail's way" in router.run("check")


def test_a_kernel_without_br_netfilter(machine: Machine) -> None:
    """Its switches are hidden, and modprobe has no such module."""
    configuration = CONFIGURATION.replace("version = 1\n", 'version = 1\nplacement = "bridge"\n')
    machine.disk.write("/etc/nightmail/nightmail.toml", configuration)
    machine.disk.write("/usr/local/sbin/modprobe", "#!/bin/sh\nexit 1\n", 0o755)
    for name in ("lan", "wan"):
        machine.look(f"ip address flush dev {name}")
    machine.run("plan")
    before, at_first = machine.kernel(), machine.files()
    assert machine.inside("mount", "-t", "tmpfs", "none", "/proc/sys/net").returncode == 0
    told = "br_netfilter is missing: this kernel cannot show bridged frames to iptables"
    assert f"note: {told}" in machine.run("plan")
    assert machine.complaint("up") == f"nightmail: {told}"
    assert machine.inside("umount", "/proc/sys/net").returncode == 0
    assert (machine.kernel(), machine.files()) == (before, at_first)
