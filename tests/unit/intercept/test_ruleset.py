"""Rules as text: golden files, the gate's swap, and the inverse of whatever iptables-save shows."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Config
from gateway.errors import EnvironmentFailureError, LocalMisuseError
from gateway.intercept import objects, ruleset
from gateway.intercept.dump import (
    expected_lines,
    gate_counts,
    own_lines,
    passed_counts,
    removal_text,
    with_withdrawal,
)
from gateway.intercept.objects import (
    BridgeLift,
    InterfaceRoute,
    IptablesRules,
    LocalRoute,
    NftTable,
    PolicyRule,
    Sysctl,
)
from gateway.intercept.placements.bridge import LIFT_MAC
from gateway.intercept.ruleset import Slot
from tests.unit.intercept.configs import (
    BRIDGE,
    CONFIGS,
    EVERY_CONFIG,
    HOST,
    PLAIN,
    RICH,
    RICH_BRIDGE,
    RICH_HOST,
)

GOLDEN = Path(__file__).with_name("golden")


NFT = {"inet": "nft", "bridge": "frames.nft"}


def texts(config: Config) -> dict[str, str]:
    rules = ruleset.render(config, ruleset.slots_of(config))
    live = [slot.queue for slot in rules.slots]
    return {
        **{f"v{each.family}.rules": each.restore_text(live) for each in rules.of(IptablesRules)},
        **{NFT[table.family]: table.text for table in rules.of(NftTable)},
    }


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in CONFIGS for kind in texts(CONFIGS[name])]
)
def test_golden(name: str, kind: str) -> None:
    assert texts(CONFIGS[name])[kind] == (GOLDEN / f"{name}.{kind}").read_text()


@EVERY_CONFIG
def test_the_families_differ_in_names_of_icmp_and_of_everybody_only(config: Config) -> None:
    config = replace(config, never=(), always=(), never_ipsets=())
    translated = texts(config)["v4.rules"]
    for v4, v6 in (
        ("icmp-host-unreachable", "icmp6-addr-unreachable"),
        ("icmp-net-unreachable", "icmp6-no-route"),
        ("icmp-admin-prohibited", "icmp6-adm-prohibited"),
        ("-p icmp ", "-p ipv6-icmp "),
        ("BROADCAST", "ANYCAST"),
    ):
        translated = translated.replace(v4, v6)
    assert translated == texts(config)["v6.rules"]


@EVERY_CONFIG
def test_every_mark_is_matched_under_the_mask(config: Config) -> None:
    """A mark without a mask would meet the site's own bits."""
    for kind, text in texts(config).items():
        marks = re.findall(r"mark(?: !)? --mark (0x\w+)(?:/(0x\w+))?", text)
        assert marks or kind in NFT.values()
        for value, mask in marks:
            assert mask, value
            assert int(mask, 16) & ~config.marks.mask == 0
            assert int(value, 16) & ~int(mask, 16) == 0


def test_routes_and_routing_rules() -> None:
    rules = ruleset.render(PLAIN, ruleset.slots_of(PLAIN))
    assert rules.of(LocalRoute) == (LocalRoute(4, 2525), LocalRoute(6, 2525))
    assert rules.of(PolicyRule) == tuple(
        PolicyRule(family, interface, mark, 2525)
        for family in (4, 6)
        for interface, mark in (("lan", 0x40000000), ("wan", 0x40000000), ("lo", 0xC0000000))
    )


def test_the_mail_server_itself_needs_one_routing_rule_a_family() -> None:
    rules = ruleset.render(HOST, ruleset.slots_of(HOST))
    assert rules.of(LocalRoute) == (LocalRoute(4, 2525), LocalRoute(6, 2525))
    assert rules.of(PolicyRule) == tuple(PolicyRule(family, "lo", 0x40000000, 2525) for family in (4, 6))
    assert rules.of(Sysctl) == ()


def test_on_the_mail_server_itself_all_but_the_loopback_is_outside_or_what_is_named() -> None:
    gates = [line for line in texts(HOST)["v4.rules"].splitlines() if line.endswith("-j NIGHTMAIL-GATE")]
    assert [line.split()[2:5] for line in gates] == [["!", "-o", "lo"], ["!", "-i", "lo"]]
    named = texts(RICH_HOST)["v4.rules"]
    for words in ("-o wan", "-o ppp0", "-i wan", "-i ppp0"):
        assert named.count(words) == 2, "the gate, and the counter behind it"
    assert " lan " not in named


def test_a_bridge_lifts_frames_to_an_interface_with_routes_of_its_own() -> None:
    rules = ruleset.render(BRIDGE, ruleset.slots_of(BRIDGE))
    assert rules.of(BridgeLift) == (BridgeLift("br0", ("lan", "wan"), "nm0", "nm1", LIFT_MAC),)
    assert rules.of(InterfaceRoute) == (InterfaceRoute(4, "nm1", 2526), InterfaceRoute(6, "nm1", 2526))
    assert rules.of(LocalRoute) == (LocalRoute(4, 2525), LocalRoute(6, 2525))
    assert rules.of(PolicyRule) == tuple(
        PolicyRule(family, *words)
        for family in (4, 6)
        for words in (
            ("nm1", 0x40000000, 2525),
            ("lo", 0x80000000, 2526),
            ("lo", 0x20000000, 2526),
            ("lo", 0x40000000, 2526),
            ("lo", 0, 2526, 40000),
        )
    )
    assert rules.of(Sysctl) == ()


@pytest.mark.parametrize("unfiltered", [(), (4,), (6,), (4, 6)], ids=str)
def test_frames_that_met_no_filter_meet_none(unfiltered: tuple[int, ...]) -> None:
    made = texts(replace(BRIDGE, unfiltered=unfiltered))
    for family, name in ((4, "ipv4"), (6, "ipv6")):
        spared = family in unfiltered
        assert ("-A NIGHTMAIL-FORWARD -i br0 -j ACCEPT" in made[f"v{family}.rules"]) == spared
        assert (f'meta nfproto {name} iifname "br0" notrack' in made["nft"]) == spared


def test_no_rule_matches_ports_of_a_bridge_in_iptables() -> None:
    """Its match for them loads br_netfilter with switches on that are for every bridge of the machine."""
    for kind, text in texts(RICH_BRIDGE).items():
        assert "physdev" not in text, kind


def test_a_one_armed_router_names_its_interface_once() -> None:
    config = Config(inside=("eth0",), outside=("eth0",))
    # One line for the gate, one for the counter behind it.
    assert texts(config)["v4.rules"].count("-i eth0") == 2


def test_a_reload_finds_its_slots_in_the_rules_that_stand() -> None:
    """Else the nft table, and with it the memory of connections, would be replaced under traffic."""
    used = (Slot(4, 9004, 20004), Slot(31, 9031, 20031))
    for config in (PLAIN, HOST):
        known = ruleset.slots_to_render(config, used)
        assert [slot.index for slot in known] == list(range(32))
        assert set(used) <= set(known)
        first = ruleset.render(config, ruleset.slots_to_render(config, ruleset.slots_of(config)))
        for later in range(2, 30, 2):
            again = ruleset.slots_to_render(config, ruleset.slots_of(config, later))
            assert ruleset.render(config, again).of(NftTable) == first.of(NftTable)
    assert [slot.index for slot in ruleset.slots_to_render(BRIDGE, used)] == [0, 1, 2, 3, 4, 31]


@pytest.mark.parametrize(
    ("workers", "taken", "slots"),
    [
        (16, set(), range(16)),
        (16, {3, 20}, range(4, 20)),
        (16, {3, 15, 20}, range(4, 15)),
        (2, {*range(32)} - {5, 9}, range(5, 6)),
    ],
)
def test_a_daemon_starts_with_fewer_workers_where_there_is_no_room_for_all(
    workers: int, taken: set[int], slots: range
) -> None:
    """Those of daemons that were killed may finish their sessions for hours, and it did not start at all."""
    found = ruleset.slots_with_room(replace(PLAIN, workers=workers), taken)
    assert [slot.index for slot in found] == list(slots)


def test_a_daemon_does_not_start_where_every_slot_is_taken() -> None:
    with pytest.raises(EnvironmentFailureError, match="no room for 1 workers"):
        ruleset.slots_with_room(PLAIN, {*range(32)})


def test_slots() -> None:
    assert ruleset.slots_of(PLAIN) == (Slot(0, 2500, 12525), Slot(1, 2501, 12526))
    assert ruleset.slots_of(PLAIN, first=30) == (Slot(30, 2530, 12555), Slot(31, 2531, 12556))
    with pytest.raises(LocalMisuseError):
        ruleset.slots_of(PLAIN, first=31)


@pytest.mark.parametrize(
    ("live", "words"),
    [
        ([], None),
        ([7], "--queue-num 7 "),
        ([8, 7], "--queue-balance 7:8 "),
        ([1, 3, 4, 5, 9], "--queue-balance 3:5 "),
        ([1, 3], "--queue-num 1 "),
    ],
)
def test_the_gate_serves_the_longest_run_of_live_queues(live: list[int], words: str | None) -> None:
    rules = objects.gate_rules(live)
    if words is None:
        assert rules == []
        return
    assert len(rules) == 1
    assert f"NFQUEUE {words}" in rules[0]
    assert rules[0].endswith("--queue-bypass")


def test_the_swap_touches_the_gate_chain_alone() -> None:
    assert objects.render_gate([5, 6]).splitlines() == [
        "*raw",
        ":NIGHTMAIL-GATE - [0:0]",
        "-A NIGHTMAIL-GATE -p tcp -j NFQUEUE --queue-balance 5:6 --queue-bypass",
        "COMMIT",
    ]
    assert "-A" not in objects.render_gate([])


# --- Dumps ---------------------------------------------------------------------------------------------

SITE = """\
# Generated by iptables-save
*raw
:PREROUTING ACCEPT [0:0]
-A PREROUTING -s 192.0.2.0/24 -j DROP
COMMIT
*filter
:INPUT DROP [3:180]
:FORWARD ACCEPT [0:0]
:SITE - [0:0]
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A FORWARD -j SITE
-A SITE -m comment --comment "-j NIGHTMAIL-GATE" -j ACCEPT
COMMIT
"""


def test_nothing_of_ours_nothing_to_remove() -> None:
    assert removal_text(SITE) == ""
    assert own_lines(SITE) == []


def test_what_was_applied_is_recognised_and_removed() -> None:
    applied = simulated(SITE, texts(PLAIN)["v4.rules"])
    assert own_lines(as_dump(applied)) == expected_lines(texts(PLAIN)["v4.rules"])
    assert simulated(as_dump(applied), removal_text(as_dump(applied))) == simulated(SITE, "")


@pytest.mark.parametrize(
    "before", [SITE, "", "*nat\n:NIGHTMAIL-OLD - [0:0]\n-A PREROUTING -j NIGHTMAIL-OLD\nCOMMIT\n"]
)
@EVERY_CONFIG
def test_applying_again_and_over_another_configuration(before: str, config: Config) -> None:
    once = as_dump(simulated(before, texts(RICH)["v4.rules"]))
    text = texts(config)["v4.rules"]
    again = as_dump(simulated(once, with_withdrawal(text, once)))
    assert own_lines(again) == expected_lines(text)
    clean = as_dump(simulated(again, removal_text(again)))
    assert own_lines(clean) == []
    assert ":NIGHTMAIL" not in clean


def test_the_gate_is_the_first_to_go() -> None:
    removal = removal_text(as_dump(simulated(SITE, texts(PLAIN)["v4.rules"])))
    assert removal.startswith("*raw\n-D PREROUTING")


def test_passed_counts() -> None:
    dump = (
        "*mangle\n"
        "[9:540] -A NIGHTMAIL-PREROUTING -p tcp -j CONNMARK --save-mark\n"
        "[4:240] -A NIGHTMAIL-PREROUTING -i lan -p tcp -m mark --mark 0x0/0xff000000 -j NIGHTMAIL-PASSED\n"
        "[0:0] -A NIGHTMAIL-PREROUTING -i wan -p tcp -m mark --mark 0x0/0xff000000 -j NIGHTMAIL-PASSED\n"
        "COMMIT\n"
    )
    assert passed_counts(dump) == {"lan": 4, "wan": 0}
    assert gate_counts(dump) == {}


def test_gate_counts() -> None:
    dump = "\n".join(
        [
            "*raw",
            "[9:540] -A PREROUTING -p tcp -j NIGHTMAIL-PREROUTING",
            "[3:180] -A NIGHTMAIL-PREROUTING -i lan -p tcp -m mark --mark 0x0/0xff -j NIGHTMAIL-GATE",
            "[2:120] -A NIGHTMAIL-PREROUTING -i wan -p tcp -j NIGHTMAIL-GATE",
            "[5:300] -A NIGHTMAIL-GATE -p tcp -j NFQUEUE --queue-num 5 --queue-bypass",
        ]
    )
    assert gate_counts(dump) == {"lan": 3, "wan": 2}


def test_counts_by_interface_on_the_mail_server_itself() -> None:
    dump = "\n".join(
        [
            "*raw",
            "[3:180] -A NIGHTMAIL-OUTPUT ! -o lo -p tcp -m mark --mark 0x0/0xff -j NIGHTMAIL-GATE",
            "[2:120] -A NIGHTMAIL-OUTPUT -o eth1 -p tcp -m mark --mark 0x0/0xff -j NIGHTMAIL-GATE",
            "[1:60] -A NIGHTMAIL-PREROUTING ! -i lo -p tcp -j NIGHTMAIL-GATE",
        ]
    )
    assert gate_counts(dump) == {"! -o lo": 3, "-o eth1": 2, "! -i lo": 1}


@given(st.text(max_size=300))
def test_any_dump_can_be_read(dump: str) -> None:
    own_lines(dump)
    removal_text(dump)
    gate_counts(dump)


@pytest.mark.parametrize(
    "server", ["192.0.2.7 }; add table x", "mx.example", "", "192.0.2.7\n", "::1%lo; flush ruleset", "0x7f.1"]
)
def test_what_is_no_address_is_asked_of_nobody(server: str) -> None:
    """It comes from a worker, and would be read by nft as root."""
    for pair in ((server, "192.0.2.8"), ("192.0.2.8", server)):
        with pytest.raises(ValueError, match=r"address|scope|at least"):
            ruleset.reset_query("odd", *pair)


Tables = dict[str, dict[str, list[str]]]


def simulated(dump: str, restore: str) -> Tables:
    """What `iptables-restore --noflush` makes of a dump, as far as our texts use it; raises if it fails."""
    tables: Tables = {}
    table = ""
    for fresh, line in [
        *((False, line) for line in dump.splitlines()),
        *((True, line) for line in restore.splitlines()),
    ]:
        word = line.split(" ")[0]
        if line.startswith("*"):
            table = line[1:]
            chains = tables.setdefault(table, {})
            for builtin in ("PREROUTING", "INPUT", "FORWARD", "OUTPUT"):
                chains.setdefault(builtin, [])
        elif line.startswith(":"):
            name = line[1:].split()[0]
            if not fresh or name not in chains or name.startswith("NIGHTMAIL"):
                chains[name] = []
        elif word == "-A":
            chains[line.split()[1]].append(line)
        elif word == "-I":
            chains[line.split()[1]].insert(
                0, line.replace(f"-I {line.split()[1]} 1", f"-A {line.split()[1]}")
            )
        elif word == "-D":
            chains[line.split()[1]].remove(line.replace("-D", "-A", 1))
        elif word == "-F":
            chains[line.split()[1]].clear()
        elif word == "-X":
            name = line.split()[1]
            assert not any(rule.endswith(f"-j {name}") for rules in chains.values() for rule in rules)
            del chains[name]
    return {name: chains for name, chains in tables.items() if any(chains.values()) or len(chains) > 4}


def as_dump(tables: Tables) -> str:
    lines: list[str] = []
    for table, chains in tables.items():
        lines += [f"*{table}", *(f":{name} - [0:0]" for name in chains)]
        lines += [rule for rules in chains.values() for rule in rules]
        lines.append("COMMIT")
    return "\n".join([*lines, ""])


def test_questions_about_resets_name_sets_that_there_are() -> None:
    text = texts(PLAIN)["nft"]
    for server, client in (("192.0.2.7", "10.0.0.1"), ("2001:db8::7", "2001:db8::1")):
        for kind in ("odd", "plain"):
            *_, name, where = ruleset.reset_query(kind, server, client)
            assert f"set {name} {{" in text
            assert where == f"{{ {server} . {client} }}"


def test_all_of_a_family_is_written_as_iptables_shows_it() -> None:
    config = replace(PLAIN, never=(ip_network("0.0.0.0/0"),), always=(ip_network("::/0"),))
    made = texts(config)
    assert "-A NIGHTMAIL-EXCEPTIONS -j MARK --set-xmark 0x5000000/0xff000000\n" in made["v4.rules"]
    assert "-A NIGHTMAIL-EXCEPTIONS -j RETURN\n" in made["v6.rules"]
