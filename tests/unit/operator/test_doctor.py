"""Each check on machines that nobody has at hand; what is said, and how."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, Placement
from gateway.operator import doctor
from gateway.operator.doctor import machine
from gateway.operator.doctor.snapshot import (
    Address,
    Clock,
    Daemon,
    Disk,
    File,
    Identity,
    Link,
    Neighbour,
    RoutingRule,
)
from gateway.operator.doctor.table import CHECKS
from gateway.operator.doctor.trouble import Trouble
from gateway.operator.needs import alarms_unheard
from tests.unit.operator.healthy import NOW, STATUS, found, healthy, only, route


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


@pytest.mark.parametrize(
    ("chosen", "is_said"),
    [
        ({}, True),
        ({"alarm_server": ("192.0.2.25", 25)}, True),
        ({"alarm_mail_to": "postmaster@a.test"}, False),
        ({"alarm_command": ("/usr/local/sbin/ring",)}, False),
    ],
)
def test_alarms_that_reach_nobody_are_a_note(chosen: dict[str, Any], is_said: bool) -> None:
    """A server alone is nobody either."""
    seen = healthy()
    seen = replace(seen, config=replace(seen.config, **chosen))
    assert found(seen) == []
    assert any("alarms.mail_to" in note for note in doctor._notes(seen)) == is_said


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
    # The daemon's socket is closed to who asks: its ports are no other program's, and it may well run.
    closed = healthy(
        root=False, daemon=Daemon(), ports_taken=(12525, 12526), wanted_unreadable="wanted.json: denied"
    )
    assert only(closed, "privileges").mend == "sudo nightmail doctor"


def test_another_version_runs() -> None:
    assert only(healthy(version="2"), "version").mend == "nightmail reload"


def test_no_network_inside() -> None:
    daemon = Daemon(4, {**STATUS, "inside_networks": []}, {4: "S"})
    assert only(healthy(daemon=daemon), "inside").mend.startswith("#")


def test_a_mail_server_without_an_address() -> None:
    daemon = Daemon(4, {**STATUS, "inside_networks": []}, {4: "S"})
    config = Config(placement=Placement.HOST, state_dir=Path("/state"))
    assert only(healthy(config=config, daemon=daemon), "inside").what.startswith(
        "this machine has no address"
    )


def test_programs_that_alarms_go_out_by(tmp_path: Path) -> None:
    ring, sendmail = tmp_path / "ring", tmp_path / "sendmail"
    config = Config(alarm_command=(str(ring),), alarm_mail_to="postmaster@a.test", alarm_sendmail=sendmail)
    assert alarms_unheard(Config()) == ""
    assert alarms_unheard(config) == f"alarms.command: {ring} is no program here"
    ring.touch(0o755)
    assert alarms_unheard(config) == f"alarms.sendmail: {sendmail} is no program here"
    assert alarms_unheard(replace(config, alarm_server=("192.0.2.25", 25))) == ""
    assert only(healthy(alarms_unheard=alarms_unheard(config)), "alarms").mend.startswith(f"# put {sendmail}")


def test_a_bridge_that_cannot_be_had() -> None:
    config = Config(placement=Placement.BRIDGE, inside=("lan",), outside=("wan",), state_dir=Path("/state"))
    refusal = "interfaces: lan is a port of another bridge, not of br7"
    assert refusal in only(healthy(config=config, bridge_refused=refusal), "bridge").what


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


@pytest.mark.parametrize(
    ("state", "told", "mend"),
    [("T", "hangs: somebody has stopped it", "kill -CONT 9"), ("S", "hangs", "kill -KILL 9")],
)
def test_signer_that_hangs(state: str, told: str, mend: str) -> None:
    status = {**STATUS, "signer": {"pid": 9, "hangs": True}}
    found = only(healthy(daemon=Daemon(4, status, {4: "S", 9: state})), "signer")
    assert told in found.what
    assert found.mend == mend


def test_signer_that_does_not_stay_up() -> None:
    status = {**STATUS, "signer": {"pid": None, "restarts": 3}}
    assert only(healthy(daemon=Daemon(4, status, {4: "S"})), "signer").mend == "nightmail reload"


def test_daemon_that_does_not_answer() -> None:
    seen = healthy(daemon=Daemon(4, None, {4: "R"}), systemd=True)
    assert only(seen, "daemon").mend == "kill -KILL 4; sleep 1; systemctl restart nightmail"


def test_no_daemon_is_mended_for_the_next_boot_too() -> None:
    assert only(healthy(daemon=Daemon(), systemd=True), "daemon").mend == "nightmail up"
    assert only(healthy(daemon=Daemon()), "daemon").mend.startswith("setsid -f nightmail run")


def test_rules_that_no_daemon_has_put_in_place_are_no_trouble_beside_that() -> None:
    seen = healthy(daemon=Daemon(), systemd=True, missing_rules=("iptables raw -A PREROUTING",))
    assert only(seen, "daemon").what == "no daemon is running"


def test_workers_without_a_daemon_are_named_instead_of_their_ports_and_not_ended() -> None:
    """Sessions are open in them, and a new daemon takes other ports."""
    found = only(healthy(daemon=Daemon(), orphans=(7, 8), ports_taken=(12525,)), "daemon")
    assert "(7, 8) finish their sessions" in found.what
    assert found.mend.startswith("setsid -f nightmail run")


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


@pytest.mark.parametrize("addresses", [True, False])
@pytest.mark.parametrize("placement", [Placement.ROUTER, Placement.BRIDGE])
def test_ipv6_is_delivered_by_lo(placement: Placement, addresses: bool) -> None:
    """Who uses none on a router has none; what crosses a bridge asks for no address."""
    seen = healthy()
    sysctls = {**seen.sysctls, "net/ipv6/conf/lo/disable_ipv6": "1"}
    config = replace(seen.config, placement=placement)
    v4 = tuple(one for one in seen.addresses if one.address.version == 4)
    changed = replace(seen, config=config, sysctls=sysctls, addresses=seen.addresses if addresses else v4)
    mends = [one.mend for name, one in found(changed) if name == "families"]
    is_missed = addresses or placement is Placement.BRIDGE
    assert mends == (["sysctl -w net/ipv6/conf/lo/disable_ipv6=0"] if is_missed else [])


def test_frames_that_come_to_the_gate_of_a_mail_server() -> None:
    """By the bridge of its way out; those of its guests alone lead nobody from elsewhere to it."""
    links = (Link(1, "lo"), Link(2, "wan", kind="bridge"), Link(3, "docker0", kind="bridge"))
    sysctls = {**healthy().sysctls, "net/bridge/bridge-nf-call-iptables": "1"}
    host = healthy(config=Config(placement=Placement.HOST), links=links, sysctls=sysctls)
    mends = [one.mend for name, one in found(host) if name == "bridge-nf"]
    assert mends == ["sysctl -w net/bridge/bridge-nf-call-iptables=0"]
    elsewhere = replace(host, links=(Link(1, "lo"), Link(2, "wan"), Link(3, "docker0", kind="bridge")))
    assert not [name for name, _ in found(elsewhere) if name == "bridge-nf"]


def test_a_narrower_route_leads_out_of_a_summary_of_the_inside() -> None:
    """Here that of the cable to the provider, without which there is no way out."""
    routes = (
        *healthy().routes,
        route("192.0.0.0/8", "lan", gateway="10.1.0.7"),
        route("192.0.2.0/24", "wan"),
    )
    assert found(healthy(routes=routes)) == []


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


@pytest.mark.root
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
