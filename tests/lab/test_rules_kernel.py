"""The rules in the kernel as a whole: put in, looked at, mended, taken out; nothing else changes."""

from __future__ import annotations

import os
import re
import select
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, Placement
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel, ruleset
from gateway.intercept.kernel import iptables
from gateway.policy import limits
from tests.lab.own_namespaces import ip
from tests.lab.rules_ground import (
    CONFIG,
    A,
    B,
    G,
    Server,
    apply,
    command_in,
    masquerade_and_filter,
    sh,
    talk,
    within,
)
from tests.lab.turns import turn


def kernel_state() -> list[str]:
    """All rules, routes and routing rules; without comments, counters, and chains that hold nothing."""
    lines: list[str] = []
    for command in ("iptables-save", "ip6tables-save"):
        for line in sh(G, command).splitlines():
            if line.startswith("-") or re.match(r":(\S+) (?!ACCEPT)", line):
                lines.append(f"{command} {re.sub(r' .[0-9:]+]$', '', line)}")
    lines += [f"nft {line}" for line in sh(G, "nft list tables").splitlines() if "nightmail" in line]
    for family in ("-4", "-6"):
        lines += sh(G, f"ip {family} rule").splitlines()
        routes = sh(G, f"ip {family} route show table all").splitlines()
        # The kernel's own come when an address has been tried, which takes a second.
        lines += [line for line in routes if "fe80::" not in line and "ff00::" not in line]
    lines += sh(
        G, "sysctl -a --pattern ^net.ipv[46].conf.*(rp_filter|forwarding|src_valid_mark)"
    ).splitlines()
    return lines


def full_set() -> ruleset.RuleSet:
    return ruleset.render(CONFIG, ruleset.slots_of(CONFIG))


def test_removal_leaves_what_was_there(router: None) -> None:
    masquerade_and_filter()
    sh(G, "iptables -t mangle -A PREROUTING -j MARK --set-xmark 0x1/0xff")
    before = kernel_state()
    rules = apply([2500, 2501])
    assert kernel_state() != before
    within(G, rules.remove)
    assert kernel_state() == before
    within(G, rules.remove)
    assert kernel_state() == before


HOST = Config(placement=Placement.HOST)


def early_demux() -> str:
    return sh(G, "sysctl -n net.ipv4.tcp_early_demux").strip()


def test_routing_rules_are_marked_as_ones_that_systemd_networkd_leaves_alone(router: None) -> None:
    """It takes out those of others when it starts, and at each `networkctl reconfigure`."""
    rules = apply([2500])
    for family in ("-4", "-6"):
        ours = [line for line in sh(G, f"ip -d {family} rule").splitlines() if line.startswith("25:")]
        assert ours
        assert all("proto kernel" in line for line in ours)
    within(G, rules.remove)
    assert "25:" not in sh(G, "ip -4 rule", "ip -6 rule")


def test_another_placement_takes_the_place_of_all_that_the_last_one_made(router: None) -> None:
    before = kernel_state()
    apply([2500, 2501])
    assert early_demux() == "0"
    apply([2500], HOST)
    wanted = ruleset.render(HOST, ruleset.slots_of(HOST))
    assert within(G, lambda: kernel.plan(HOST, wanted, [2500])) == []
    assert early_demux() == "1"
    within(G, kernel.KernelRules(CONFIG).remove)
    assert kernel_state() == before


@pytest.mark.parametrize("config", [CONFIG, HOST], ids=["router", "host"])
@pytest.mark.parametrize("step", ["nft", "ip6tables-restore"])
def test_if_a_step_fails_nothing_is_left(
    router: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, config: Config, step: str
) -> None:
    masquerade_and_filter()
    before = kernel_state()
    apply([2500, 2501], config)
    tool = shutil.which(step)
    broken = tmp_path / step
    # It still lists and removes, as on a machine where only what we bring is not taken.
    broken.write_text(
        f"#!/bin/sh\ntext=$(cat)\ncase $text in *tproxy*|*REJECT*) exit 1;; esac\n"
        f'printf \'%s\\n\' "$text" | {tool} "$@"\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(EnvironmentFailureError, match=step):
        apply([2500, 2501], config)
    assert kernel_state() == before
    assert early_demux() == "1"


@pytest.mark.parametrize("before", ["0", "1"])
def test_a_switch_is_given_back_by_whoever_takes_the_rules_out(router: None, before: str) -> None:
    sh(G, f"sysctl -qw net.ipv4.tcp_early_demux={before}")
    try:
        apply()
        apply()
        assert early_demux() == "0"
        within(G, kernel.KernelRules(HOST).remove)
        assert early_demux() == before
    finally:
        sh(G, "sysctl -qw net.ipv4.tcp_early_demux=1")


def test_a_switch_that_somebody_turned_is_turned_again_and_still_given_back(router: None) -> None:
    """Also where all notes of it went with everybody's rules: the process remembers as well."""
    rules = apply()
    sh(G, "nft flush ruleset", "sysctl -qw net.ipv4.tcp_early_demux=1")
    assert "sysctl net.ipv4.tcp_early_demux=0" in within(G, rules.missing)
    within(G, lambda: rules.apply(full_set(), [2500]))
    assert early_demux() == "0"
    sh(G, "nft flush ruleset")
    within(G, rules.remove)
    assert early_demux() == "1"


def test_applying_twice_is_applying_once(router: None) -> None:
    masquerade_and_filter()
    apply([2500, 2501])
    once = kernel_state()
    apply([2500, 2501])
    assert kernel_state() == once


def test_what_an_older_version_left_is_replaced(router: None) -> None:
    for tool in ("iptables", "ip6tables"):
        sh(
            G,
            f"{tool} -t nat -N NIGHTMAIL-OLD",
            f"{tool} -t nat -A NIGHTMAIL-OLD -j RETURN",
            f"{tool} -t nat -A PREROUTING -p tcp -j NIGHTMAIL-OLD",
            f"{tool} -t raw -N NIGHTMAIL-OLD",
            f"{tool} -t raw -A PREROUTING -p tcp -j NIGHTMAIL-OLD",
        )
    apply()
    assert "NIGHTMAIL-OLD" not in sh(G, "iptables-save") + sh(G, "ip6tables-save")


DAMAGE = [
    ("iptables -t raw -F PREROUTING", "iptables raw -A PREROUTING"),
    ("iptables -t raw -F NIGHTMAIL-GATE", "iptables raw -A NIGHTMAIL-GATE"),
    ("iptables -D NIGHTMAIL-INPUT 1", "iptables filter -A NIGHTMAIL-INPUT -p icmp -j ACCEPT"),
    ("ip6tables -t mangle -F", "ip6tables mangle -A NIGHTMAIL-PREROUTING"),
    ("nft delete table inet nightmail", "nft table inet nightmail"),
    ("nft flush chain inet nightmail leaving", "nft table inet nightmail: its rules differ"),
    ("nft flush chain inet nightmail vouching", "nft chain inet nightmail vouching: its rules differ"),
    ("nft flush ruleset", "ip6tables filter -A FORWARD"),
    ("ip -6 rule del pref 25 iif wan", "ip -6 rule pref 25 iif wan"),
    ("ip route flush table 2525", "ip -4 route local default dev lo table 2525"),
]


@pytest.mark.parametrize(("damage", "word"), DAMAGE, ids=[damage for damage, _ in DAMAGE])
def test_what_others_remove_is_seen_and_put_back(router: None, damage: str, word: str) -> None:
    rules = apply([2500, 2501])
    assert within(G, rules.missing) == []
    sh(G, damage)
    assert any(word in line for line in within(G, rules.missing))
    within(G, lambda: rules.apply(full_set(), [2500, 2501]))
    assert within(G, rules.missing) == []


@pytest.mark.parametrize(("damage", "word"), DAMAGE, ids=[damage for damage, _ in DAMAGE])
def test_what_others_remove_is_mended_and_what_stands_is_left_alone(
    router: None, damage: str, word: str
) -> None:
    """Our table remembers connections: it is not made anew because a chain elsewhere was emptied."""
    rules = apply([2500, 2501])
    sh(G, "nft add element inet nightmail taken4 { 192.0.2.1 . 1 . 192.0.2.2 . 25 }")
    heard = within(G, kernel.changes)
    sh(G, damage)
    told, _, _ = select.select(heard, [], [], 0.0 if damage.startswith("ip route") else 5.0)
    assert bool(told) == (not damage.startswith("ip route")), "the kernel tells of it"
    assert any(word in line for line in within(G, rules.mend).gone)
    assert within(G, rules.mend) == kernel.Mended()
    assert within(G, rules.missing) == []
    table_was_gone = damage.startswith("nft") and "vouching" not in damage
    assert ("192.0.2.1" in sh(G, "nft list set inet nightmail taken4")) == (not table_was_gone)
    for each in heard:
        each.close()


def test_what_goes_while_it_is_put_back_costs_our_table_nothing(
    router: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever flushes does so table by table, and is at the second one when the first is seen to be gone."""
    rules = apply([2500, 2501])
    sh(G, "nft add element inet nightmail taken4 { 192.0.2.1 . 1 . 192.0.2.2 . 25 }")
    sh(G, "iptables -t mangle -F")
    further = ["ip6tables -t mangle -F", "iptables -t raw -F", "iptables -t filter -F"]
    look = iptables._looked_at

    def looked_at(wanted: Any) -> Any:
        seen = look(wanted)
        if further:
            subprocess.run(further.pop(0).split(), check=True)
        return seen

    monkeypatch.setattr(iptables, "_looked_at", looked_at)
    gone = within(G, rules.mend).gone
    assert any("mangle" in line for line in gone)
    assert not further
    assert within(G, rules.missing) == []
    assert "192.0.2.1" in sh(G, "nft list set inet nightmail taken4")


def test_a_comment_of_anybody_s_in_any_encoding_is_in_nobody_s_way(router: None) -> None:
    """iptables takes it and shows it again; one such rule kept ours from going in or out."""
    comment = [b"-m", b"comment", b"--comment", b"B\xfcro"]
    subprocess.run([*command_in(G, "iptables", "-A", "INPUT", "-j", "ACCEPT"), *comment], check=True)
    rules = apply([2500])
    sh(G, "iptables -t raw -F NIGHTMAIL-GATE")
    assert within(G, rules.mend).gone
    within(G, rules.remove)
    assert "NIGHTMAIL" not in sh(G, "iptables -t raw -S")


@pytest.mark.parametrize(
    ("family", "route", "told"),
    [
        ("-4", "default via 10.2.0.2 dev wan", "default via 10.2.0.2 dev wan"),
        ("-4", "unreachable default", "default"),
        ("-4", "198.51.100.0/24 dev wan", "198.51.100.0/24 dev wan"),
        ("-6", "default dev wan", "default dev wan"),
    ],
)
def test_a_routing_table_of_others_is_told(router: None, family: str, route: str, told: str) -> None:
    """Ours took the place of a default route without a word."""
    assert within(G, lambda: kernel.table_refusal(CONFIG)) == ""
    sh(G, f"ip {family} route add {route} table {CONFIG.table}")
    refusal = within(G, lambda: kernel.table_refusal(CONFIG))
    sh(G, f"ip {family} route flush table {CONFIG.table}")
    assert refusal == (
        f"kernel.table: routing table {CONFIG.table} has a route of others ({told}); name another one"
    )
    apply([2500, 2501])
    assert within(G, lambda: kernel.table_refusal(CONFIG)) == "", "that is ours"


def test_plan_tells_what_apply_would_change(router: None) -> None:
    masquerade_and_filter()
    before = kernel_state()
    lines = within(G, lambda: kernel.plan(CONFIG, full_set(), [2500, 2501]))
    assert kernel_state() == before
    assert any("NFQUEUE --queue-balance 2500:2501" in line for line in lines)
    assert any("ip -6 route" in line for line in lines)
    apply([2500, 2501])
    assert within(G, lambda: kernel.plan(CONFIG, full_set(), [2500, 2501])) == []


SWAP_SECONDS = 0.5 - limits.HUNG_AFTER_SECONDS - limits.WATCH_SECONDS
"""What is left of half a second to take a hung worker's queue out of the rules."""


def test_swapping_the_gate_is_quick_and_touches_nothing_else(router: None) -> None:
    rules = apply([2500])
    before = [line for line in kernel_state() if not is_gate(line)]

    def swap() -> list[float]:
        took = []
        for live in ([2500, 2501], [], [2501]) * 3:
            began = time.monotonic()
            rules.swap_gate(live)
            took.append(time.monotonic() - began)
        return took

    # Other work on the machine comes and goes; a swap that takes long does so in each of three tries.
    with turn():
        middle = (statistics.median(within(G, swap)) for _ in range(3))
        assert next((took for took in middle if took < SWAP_SECONDS), None)
    assert [line for line in kernel_state() if not is_gate(line)] == before
    assert within(G, rules.missing) == []
    assert "--queue-num 2501" in sh(G, "iptables -t raw -S NIGHTMAIL-GATE")
    assert sh(G, "nft list chain inet nightmail vouching").count("jump vouched_") == 1


def is_gate(line: str) -> bool:
    return "GATE -p" in line or line.strip().startswith("jump vouched_")


def test_looking_whether_all_stands_is_cheap(router: None) -> None:
    rules = apply()
    within(G, rules.missing)

    def look() -> float:
        began = time.process_time() + sum(os.times()[2:4])
        for _ in range(10):
            assert rules.missing() == []
        return (time.process_time() + sum(os.times()[2:4]) - began) / 10

    # Also a processor's time is more where others want its caches.
    assert any(within(G, look) < 0.02 for _ in range(3))


def test_the_kernel_counts_what_reached_the_gate(router: None) -> None:
    apply()
    with Server(A, True), Server(B, False):
        for _ in range(3):
            talk(A, B, False)
        talk(B, A, True)
    assert within(G, kernel.gate_counts) == {"lan": 3, "wan": 1}


def test_inside_networks_come_from_the_routes(router: None) -> None:
    ip(f"-n {G} route add 192.168.7.0/24 via 10.1.0.2", f"-n {G} route add default via 10.1.0.2")
    try:
        found = within(G, lambda: kernel.inside_networks(CONFIG))
    finally:
        ip(f"-n {G} route del 192.168.7.0/24", f"-n {G} route del default")
    assert sorted(map(str, found)) == ["10.1.0.0/24", "192.168.7.0/24", "fd00:1::/64"]


def test_trouble_is_told_in_one_line(router: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EnvironmentFailureError, match="inside: no interface 'lam'; there are lan, wan"):
        within(G, lambda: kernel.require_interfaces(Config(inside=("lam",), outside=("wan",))))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(EnvironmentFailureError, match="nft is not installed"):
        apply()


def test_a_router_that_does_not_route_is_told(router: None) -> None:
    assert within(G, lambda: kernel.remarks(CONFIG)) == []
    sh(G, "sysctl -qw net.ipv6.conf.all.forwarding=0")
    try:
        assert "IPv6" in within(G, lambda: kernel.remarks(CONFIG))[0]
    finally:
        sh(G, "sysctl -qw net.ipv6.conf.all.forwarding=1")
