"""Each check on machines that nobody has at hand; how rules of others are read; what is said, and how."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.shell import shown
from gateway.config import Config, load
from gateway.operator import doctor
from gateway.operator.doctor import machine, nftables, trial
from gateway.operator.doctor.configfile import setting
from gateway.operator.doctor.saved import parse
from gateway.operator.doctor.snapshot import (
    Address,
    Clock,
    Daemon,
    Disk,
    File,
    Identity,
    Link,
    Neighbour,
    Route,
    RoutingRule,
    Snapshot,
)
from gateway.operator.doctor.table import CHECKS
from gateway.operator.doctor.trouble import Trouble, shell

STATUS = {
    "version": "1",
    "inside_networks": ["10.1.0.0/24"],
    "workers": [{"slot": 0, "state": "serving", "pid": 5}],
}
NOW = 1_800_000_000.0


def route(to: str, *interfaces: str, gateway: str = "", metric: int = 0) -> Route:
    return Route(ip_network(to), interfaces, gateway, metric)


def healthy(**changes: Any) -> Snapshot:
    """A router without a trouble."""
    seen = Snapshot(
        Config(inside=("lan",), outside=("wan",), state_dir=Path("/state")),
        Path("/etc/nightmail/nightmail.toml"),
        version="1",
        sysctls={
            "net/ipv4/ip_forward": "1",
            "net/ipv6/conf/all/forwarding": "1",
            "net/netfilter/nf_conntrack_max": "262144",
            "net/netfilter/nf_conntrack_count": "12",
        },
        links=(Link(1, "lo"), Link(2, "lan"), Link(3, "wan")),
        addresses=tuple(
            Address(name, ip_interface(one))
            for name, one in (
                ("lan", "10.1.0.1/24"),
                ("lan", "fd00:1::1/64"),
                ("wan", "192.0.2.1/24"),
                ("wan", "fd00:2::1/64"),
            )
        ),
        routes=(
            route("10.1.0.0/24", "lan"),
            route("0.0.0.0/0", "wan", gateway="192.0.2.2"),
            route("::/0", "wan", gateway="fd00:2::2"),
        ),
        daemon=Daemon(4, STATUS, {4: "S", 5: "S"}),
        clock=Clock(NOW),
        disk=Disk(Path("/state"), 1 << 30),
    )
    return replace(seen, **changes)


def found(seen: Snapshot) -> list[tuple[str, Trouble]]:
    return [(name, one) for name, troubles in doctor.judged(seen).items() for one in troubles]


def only(seen: Snapshot, check: str) -> Trouble:
    ((name, trouble),) = found(seen)
    assert name == check, trouble
    assert "\n" not in trouble.what + trouble.why
    assert shown(trouble.mend) == trouble.mend
    return trouble


def test_healthy_is_green() -> None:
    assert found(healthy()) == []


# --- What no test can make on a shared machine -------------------------------------------------------


def test_table_of_connections_nearly_full() -> None:
    sysctls = {**healthy().sysctls, "net/netfilter/nf_conntrack_count": "250000"}
    trouble = only(healthy(sysctls=sysctls), "conntrack-room")
    assert "250000 of 262144" in trouble.what
    assert trouble.mend == "sysctl -w net/netfilter/nf_conntrack_max=524288"


def test_table_of_connections_tiny() -> None:
    sysctls = {**healthy().sysctls, "net/netfilter/nf_conntrack_max": "4096"}
    assert only(healthy(sysctls=sysctls), "conntrack-room").mend.endswith("=16384")


def test_clock_before_the_identity() -> None:
    identity = Identity(File(Path("/state/identity"), "file", 0o600), born=int(NOW) + 90_000)
    trouble = only(healthy(identity=identity), "clock")
    assert "the site's identity was made" in trouble.what
    almost = replace(identity, born=int(NOW) + 80_000)
    assert found(healthy(identity=almost)) == []


def test_clock_before_our_own_files() -> None:
    clock = Clock(NOW, newest="/state/peers.db", newest_at=NOW + 200_000)
    assert "/state/peers.db was written" in only(healthy(clock=clock, systemd=True), "clock").what


def test_unsynchronised_clock_is_a_note() -> None:
    seen = healthy(clock=Clock(NOW, synchronised=False))
    assert found(seen) == []
    assert any("synchronised" in note for note in doctor._notes(seen))


def test_module_missing() -> None:
    seen = healthy(missing_rules=("nft table inet nightmail",), rules_refused="Error: tproxy: No such file")
    troubles = dict(found(seen))
    assert "tproxy" in troubles["kernel"].what
    assert "nft_tproxy" in troubles["kernel"].mend
    assert troubles["rules"].mend == "nightmail up"


def test_tools_missing() -> None:
    assert "nft" in only(healthy(missing_tools=("nft",)), "tools").what


def test_not_root() -> None:
    assert only(healthy(root=False), "privileges").mend == "sudo nightmail doctor"


def test_another_version_runs() -> None:
    assert only(healthy(version="2"), "version").mend == "nightmail reload"


def test_no_network_inside() -> None:
    daemon = Daemon(4, {**STATUS, "inside_networks": []}, {4: "S"})
    assert only(healthy(daemon=daemon), "inside").mend.startswith("#")


def test_a_network_inside_that_the_daemon_remembers_and_no_route_leads_to() -> None:
    routes = (route("fe80::/64", "lan"), *healthy().routes[1:])
    assert only(healthy(routes=routes), "inside").mend.startswith("#")


def test_worker_that_hangs_by_itself_is_killed() -> None:
    status = {**STATUS, "workers": [{"slot": 0, "state": "hung", "pid": 5}]}
    assert only(healthy(daemon=Daemon(4, status, {4: "S", 5: "R"})), "workers").mend == "kill -KILL 5"


def test_worker_that_does_not_stay_up() -> None:
    status = {**STATUS, "workers": [{"slot": 0, "state": "dead", "pid": None, "restarts": 9}]}
    seen = healthy(daemon=Daemon(4, status, {4: "S"}), systemd=True)
    assert only(seen, "workers").mend == "systemctl restart nightmail"


def test_signer_that_does_not_stay_up() -> None:
    status = {**STATUS, "signer": {"pid": None, "restarts": 3}}
    assert only(healthy(daemon=Daemon(4, status, {4: "S"})), "signer").mend == "nightmail reload"


def test_daemon_that_does_not_answer() -> None:
    seen = healthy(daemon=Daemon(4, None, {4: "R"}), systemd=True)
    assert only(seen, "daemon").mend == "kill -KILL 4; sleep 1; systemctl restart nightmail"


def test_workers_without_a_daemon_are_named_instead_of_their_ports() -> None:
    seen = healthy(daemon=Daemon(), orphans=(7, 8), ports_taken=(12525,))
    assert only(seen, "daemon").mend.startswith("kill -KILL 7 8; setsid -f nightmail run")


def test_read_only_disk() -> None:
    disk = Disk(Path("/state"), 1 << 30, read_only=True)
    assert only(healthy(disk=disk), "state-directory").mend == "mount -o remount,rw /state"


def test_full_disk_that_is_no_memory() -> None:
    assert "journalctl" in only(healthy(disk=Disk(Path("/"), 1000, kind="ext4")), "state-directory").mend


def test_identity_of_another_machine() -> None:
    identity = Identity(File(Path("/state/identity"), "file", 0o600), of_another_machine=True)
    mend = only(healthy(identity=identity), "identity").mend
    assert mend == "nightmail identity import --replace /state/identity"


def test_no_link() -> None:
    links = (Link(1, "lo"), Link(2, "lan"), Link(3, "wan", carrier=False))
    assert only(healthy(links=links), "links").mend.startswith("# ")


def test_inside_network_without_a_route() -> None:
    config = replace(healthy().config, inside_networks=(ip_network("10.9.0.0/24"),))
    assert only(healthy(config=config), "inside-routes").mend == "ip -4 route add 10.9.0.0/24 dev lan"


def test_a_narrow_routing_rule_is_nobodys_trouble() -> None:
    assert found(healthy(routing_rules=(RoutingRule(4, 5, 77, narrow=True),))) == []


def test_a_site_that_names_all_networks_needs_no_default_route() -> None:
    routes = (route("10.1.0.0/24", "lan"), route("198.51.100.0/24", "wan", gateway="192.0.2.2"))
    troubles = [one.what for name, one in found(healthy(routes=routes)) if name == "default-route"]
    assert troubles == ["no IPv6 default route by wan"]


def test_sides_that_are_named_the_wrong_way_round_are_told_so() -> None:
    """And no default route is proposed that leads by a mail server."""
    config = replace(healthy().config, inside=("wan",), outside=("lan",))
    neighbours = (Neighbour("lan", "10.1.0.10"),)
    seen = healthy(config=config, neighbours=neighbours, routes=healthy().routes[:2])
    troubles = [one for name, one in found(seen) if name == "default-route" and "IPv4" in one.what]
    assert [one.mend for one in troubles] == [
        "# name the sides the other way round in /etc/nightmail/nightmail.toml,"
        " or lead the default route outside"
    ]


def test_a_site_without_ipv6_need_not_route_it() -> None:
    without = {**healthy().sysctls, "net/ipv6/conf/all/forwarding": "0"}
    assert only(healthy(sysctls=without), "forwarding").what.startswith("this machine does not route IPv6")
    links = tuple(Address(name, ip_interface("fe80::1/64")) for name in ("lan", "wan"))
    alone = tuple(one for one in healthy().addresses if one.address.version == 4)
    assert found(healthy(sysctls=without, addresses=alone + links, routes=healthy().routes[:2])) == []


def test_a_bridge_inside_with_br_netfilter() -> None:
    links = (Link(1, "lo"), Link(2, "lan", kind="bridge"), Link(3, "wan"))
    on = {"net/bridge/bridge-nf-call-iptables": "1", "net/bridge/bridge-nf-call-ip6tables": "1"}
    seen = healthy(links=links, sysctls={**healthy().sysctls, **on})
    assert only(seen, "bridge-nf").mend == (
        "sysctl -w net/bridge/bridge-nf-call-iptables=0 net/bridge/bridge-nf-call-ip6tables=0"
    )
    # Bridges of others, Docker's for one, are not ours to judge.
    assert found(healthy(sysctls={**healthy().sysctls, **on})) == []


# --- Rules of others ---------------------------------------------------------------------------------


def dump(table: str, *lines: str) -> dict[int, str]:
    """iptables-save, our own jump last, as in raw."""
    chains = ":PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:SITE - [0:0]"
    rules = "\n".join(f"[1:60] {line}" for line in lines)
    return {4: f"*{table}\n{chains}\n{rules}\n[0:0] -A PREROUTING -p tcp -j NIGHTMAIL-PREROUTING\nCOMMIT\n"}


@pytest.mark.parametrize(
    "line",
    [
        "-A PREROUTING -p tcp -m tcp --dport 25 -j DROP",
        "-A PREROUTING -p tcp -m multiport --dports 22,25,443 -j DROP",
        "-A PREROUTING -p tcp -m tcp --dport 1:1023 -j DROP",
        "-A PREROUTING -i lan -p tcp -m tcp --dport 25 --tcp-flags FIN,SYN,RST,ACK SYN -j DROP",
        "-A PREROUTING -p tcp -m tcp --dport 25 -m conntrack --ctstate INVALID,NEW -j DROP",
        '-A PREROUTING -p tcp -m tcp --dport 25 -m comment --comment "it\'s so" -j DROP',
        "-A PREROUTING -j DROP",
    ],
)
def test_rules_that_mean_all_mail(line: str) -> None:
    trouble = only(healthy(dumps=dump("raw", line)), "drops")
    again = subprocess.run(["sh", "-c", f"printf '%s\\n' {trouble.mend}"], capture_output=True, text=True)
    assert again.stdout.split("\n")[:4] == ["iptables", "-t", "raw", "-D"]


@pytest.mark.parametrize(
    "line",
    [
        "-A PREROUTING -p tcp -m tcp --dport 22 -j DROP",
        "-A PREROUTING -p udp -m udp --dport 25 -j DROP",
        "-A PREROUTING -s 203.0.113.9/32 -p tcp -m tcp --dport 25 -j DROP",
        "-A PREROUTING ! -s 10.1.0.0/24 -p tcp -m tcp --dport 25 -j DROP",
        "-A PREROUTING -i dmz -p tcp -m tcp --dport 25 -j DROP",
        "-A PREROUTING -p tcp -m tcp --dport 25 -m connlimit --connlimit-above 50 -j DROP",
        "-A PREROUTING -p tcp -m tcp --dport 25 -m conntrack --ctstate INVALID -j DROP",
        "-A PREROUTING -m set --match-set f2b-postfix src -j DROP",
        "-A PREROUTING -p tcp -m tcp --dport 25 -j LOG",
        "-A SITE -p tcp -m tcp --dport 25 -j DROP",
    ],
)
def test_rules_that_mean_others_or_some(line: str) -> None:
    assert found(healthy(dumps=dump("raw", line))) == []


def test_a_chain_of_theirs_counts_where_a_jump_leads_to_it() -> None:
    inner = "-A SITE -p tcp -m tcp --dport 25 -j DROP"
    assert only(healthy(dumps=dump("raw", "-A PREROUTING -j SITE", inner)), "drops")
    narrow = "-A PREROUTING -s 203.0.113.0/24 -j SITE"
    assert found(healthy(dumps=dump("raw", narrow, inner))) == []
    looping = dump("raw", "-A PREROUTING -j SITE", "-A SITE -j SITE")
    assert found(healthy(dumps=looping)) == []


def test_a_published_port_of_docker_is_none_of_ours() -> None:
    lines = (
        "-A PREROUTING -m addrtype --dst-type LOCAL -j SITE",
        "-A SITE ! -i docker0 -p tcp -m tcp --dport 25 -j DNAT --to-destination 172.17.0.2:25",
    )
    assert found(healthy(dumps=dump("nat", *lines))) == []


def test_the_end_of_a_closed_input_chain_is_no_trouble() -> None:
    """Ours stands first there; what comes behind it, or will, does not meet our packets."""
    text = "*filter\n:INPUT ACCEPT [0:0]\n[1:60] -A INPUT -j DROP\nCOMMIT\n"
    assert found(healthy(dumps={4: text})) == []


def test_old_tables_beside_new_ones() -> None:
    old = "*filter\n:INPUT ACCEPT [0:0]\n[0:0] -A INPUT -s 203.0.113.9/32 -j DROP\nCOMMIT\n"
    assert "iptables-legacy-save | iptables-restore" in only(healthy(legacy={4: old}), "legacy").mend
    assert found(healthy(legacy={4: old}, dumps={4: old})) == []


def nft_rule(*expression: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    at = {"family": "inet", "table": "site", "chain": "pre"}
    chain = {"family": "inet", "table": "site", "name": "pre", "hook": "prerouting", "prio": -310}
    return ({"chain": chain}, {"rule": {**at, "handle": 7, "expr": list(expression)}})


def matched(left: dict[str, Any], right: Any) -> dict[str, Any]:
    return {"match": {"op": "==", "left": left, "right": right}}


SOURCE = {"payload": {"protocol": "ip", "field": "saddr"}}
IN = {"meta": {"key": "iifname"}}
PORT = {"payload": {"protocol": "tcp", "field": "dport"}}


@pytest.mark.parametrize(
    ("expression", "verb"),
    [
        ([matched(PORT, 25), {"drop": None}], "drop"),
        ([matched(PORT, {"set": [587, {"range": [20, 30]}]}), {"reject": None}], "reject"),
        ([matched(IN, "wan"), matched(PORT, 25), {"redirect": {"port": 1}}], "redirect"),
        ([matched(PORT, 25), {"notrack": None}], "notrack"),
        ([matched(PORT, 587), {"drop": None}], ""),
        ([matched(IN, "dmz"), matched(PORT, 25), {"drop": None}], ""),
        ([matched(SOURCE, "203.0.113.9"), matched(PORT, 25), {"drop": None}], ""),
        ([matched(PORT, 25), {"limit": {"rate": 9}}, {"drop": None}], ""),
        ([matched(PORT, 25), {"accept": None}], ""),
        ([{"drop": None}], ""),
    ],
)  # fmt: skip
def test_rules_of_nftables(expression: list[dict[str, Any]], verb: str) -> None:
    seen = healthy(nft=nft_rule(*expression))
    if not verb:
        assert found(seen) == []
        return
    trouble = only(seen, "nftables")
    assert f"has {verb} for port 25" in trouble.what
    assert trouble.mend == "nft delete rule inet site pre handle 7"


def test_iptables_own_tables_are_not_read_twice() -> None:
    chain, rule = nft_rule(matched(PORT, 25), {"drop": None})
    chain["chain"] |= {"family": "ip", "table": "raw", "name": "PREROUTING"}
    rule["rule"] |= {"family": "ip", "table": "raw", "chain": "PREROUTING"}
    assert found(healthy(nft=(chain, rule))) == []


def test_a_closed_chain_that_knows_our_marks() -> None:
    chain = {"family": "inet", "table": "t", "name": "in", "hook": "input", "policy": "drop"}
    seen = healthy(nft=({"chain": chain},))
    ((_, trouble),) = nftables.closed_chains(seen)
    assert trouble.mend.endswith("meta mark and 0x40000000 '!=' 0 accept")
    firewalld = {**chain, "table": "firewalld"}
    ((_, trouble),) = nftables.closed_chains(replace(seen, nft=({"chain": firewalld},)))
    assert trouble.mend.startswith("for i in lan wan; do firewall-cmd --permanent")
    mark = {"&": [{"meta": {"key": "mark"}}, 0x40000000]}
    rule = {
        "family": "inet",
        "table": "t",
        "chain": "in",
        "handle": 1,
        "expr": [matched(mark, 1), {"accept": None}],
    }
    assert list(nftables.closed_chains(replace(seen, nft=({"chain": chain}, {"rule": rule})))) == []


def test_the_rule_whose_counter_moved() -> None:
    before = {
        4: "*filter\n:INPUT ACCEPT [0:0]\n[5:1] -A INPUT -i eth7 -j DROP\n[5:1] -A INPUT -j LOG\nCOMMIT\n"
    }
    after = {4: before[4].replace("[5:1]", "[6:1]")}
    assert [rule.removal for rule in trial.moved(healthy(), before, after)] == [
        "iptables -t filter -D INPUT -i eth7 -j DROP"
    ]
    assert list(trial.moved(healthy(), before, before)) == []


@pytest.mark.parametrize(
    "text", ["", "*", "*raw\n-A", ":x", '*raw\n:P - [0:0]\n[0:0] -A P -m comment --comment "x']
)
def test_a_dump_of_any_kind_is_read(text: str) -> None:
    parse(text, 4, [25])


# --- Lines for a shell -------------------------------------------------------------------------------


def run(line: str) -> None:
    """As it is printed, for that is what is copied."""
    subprocess.run(["sh", "-c", shown(line)], check=True, timeout=20)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 1\n",
        'version = 1\n[kernel]\nzone = 7\n[interfaces]\ninside = ["lan"]\n',
        "version = 1\n[kernel]\nfirst_queue = 4\n",
        "version = 1\n\n[interfaces]\n# inside\n\n[log]\nlevel = 'info'\n",
    ],
)
def test_a_key_is_set_by_the_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "etc" / "night mail.toml"
    if text:
        path.parent.mkdir()
        path.write_text(text)
    before = tomllib.loads(text)
    for key, value in (("kernel.first_queue", "2532"), ("interfaces.inside", '["eth1"]'), ("log.file", '""')):
        now = path.read_text() if path.exists() else ""
        run(setting(healthy(config_path=path, config_text=now, daemon=Daemon()), key, value))
    config = load(path)
    assert (config.first_queue, config.inside, config.log_file) == (2532, ("eth1",), None)
    after = tomllib.loads(path.read_text())
    assert after.get("kernel", {}).get("zone") == before.get("kernel", {}).get("zone")


def test_two_interfaces_that_cannot_be_guessed_are_set_by_one_line(tmp_path: Path) -> None:
    path = tmp_path / "nightmail.toml"
    links = tuple(Link(number, name) for number, name in enumerate(("lo", "wan", "lan", "dmz"), start=1))
    seen = healthy(
        config=Config(), config_path=path, links=links, interfaces_unknown="name them", daemon=Daemon()
    )
    run(next(one.mend for name, one in found(seen) if name == "interfaces"))
    assert (load(path).inside, load(path).outside) == (("lan",), ("wan",))


def test_a_list_over_several_lines_is_for_an_editor(tmp_path: Path) -> None:
    text = '[interfaces]\ninside = [\n"lan",\n]\n'
    assert "EDITOR" in setting(healthy(config_text=text), "interfaces.inside", '["eth1"]')


def test_a_running_daemon_loads_what_was_set() -> None:
    seen = healthy(config_is_default=False, config_path=Path("/etc/x.toml"))
    assert setting(seen, "kernel.zone", "7").endswith("&& nightmail --config /etc/x.toml reload")


def test_shell_quotes_what_others_wrote() -> None:
    assert shell("echo", "$(reboot)", 25) == "echo '$(reboot)' 25"


# --- What is said ------------------------------------------------------------------------------------


def test_the_first_line_answers() -> None:
    assert next(doctor.told(doctor.Diagnosis({"a": [], "b": []}))) == "all green: 2 checks, no trouble"
    one = Trouble("it is so", "because", "do that")
    lines = list(doctor.told(doctor.Diagnosis({"a": [one], "b": []}, ["a note"])))
    assert lines == [
        "1 trouble found by 2 checks",
        "",
        "1. it is so",
        "   why:  because",
        "   mend: do that",
        "",
        "note: a note",
    ]
    assert doctor.as_json(doctor.Diagnosis({"a": [one]}))["troubles"] == [
        {"check": "a", "what": "it is so", "why": "because", "mend": "do that"}
    ]


def test_every_check_is_in_the_docs() -> None:
    text = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text()
    named = re.findall(r"^\| `([a-z0-9-]+)` \|", text, re.MULTILINE)
    assert named == [*CHECKS, doctor.CONNECTION]


# --- Reading the machine -----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Config]:
    yield Config(inside=("lo",), outside=("lo",), state_dir=tmp_path / "state", run_dir=tmp_path / "run")


def test_a_machine_without_anything_is_read(folder: Config, tmp_path: Path) -> None:
    seen = machine.snapshot(folder, tmp_path / "none.toml", is_default=False)
    assert seen.daemon.pid is None
    assert seen.state.kind == ""
    assert seen.disk is not None
    assert seen.link("lo") is not None
    assert any(name == "daemon" for name, _ in found(seen))


def test_log_file(tmp_path: Path) -> None:
    assert machine._log_trouble(None) == ""
    assert machine._log_trouble(tmp_path / "log") == ""
    assert "no such directory" in machine._log_trouble(tmp_path / "none" / "log")
    assert "no regular file" in machine._log_trouble(tmp_path)
