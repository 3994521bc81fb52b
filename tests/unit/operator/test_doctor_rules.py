"""How the doctor reads rules of others: whom they mean, and what they do to mail."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import Any

import pytest

from gateway.config import Config, Placement
from gateway.operator.doctor import nftables, trial
from gateway.operator.doctor.saved import parse
from tests.unit.operator.healthy import found, healthy, matched, only


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


SMALLER = "-A FORWARD -i lan -o wan -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400"


def test_a_smaller_mss_for_what_is_forwarded_is_wanted_for_what_is_sent_as_well() -> None:
    trouble = only(healthy(dumps=dump("mangle", SMALLER)), "segments")
    wanted = "-A POSTROUTING -o wan -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400"
    assert trouble.mend == f"iptables -t mangle {wanted}"
    assert found(healthy(dumps=dump("mangle", SMALLER, wanted))) == []


@pytest.mark.parametrize(
    "rule",
    [
        "-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu",
        "-A FORWARD -s 10.9.0.0/16 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400",
        "-A FORWARD -p tcp -m tcp --dport 443 --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400",
        "-A OUTPUT -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1400",
    ],
    ids=["to the path's", "for some", "of another port", "what this machine sends"],
)
def test_other_rules_about_the_mss_are_nobodys_trouble(rule: str) -> None:
    assert found(healthy(dumps=dump("mangle", rule))) == []


def test_old_tables_beside_new_ones() -> None:
    old = "*filter\n:INPUT ACCEPT [0:0]\n[0:0] -A INPUT -s 203.0.113.9/32 -j DROP\nCOMMIT\n"
    assert "iptables-legacy-save | iptables-restore" in only(healthy(legacy={4: old}), "legacy").mend
    assert found(healthy(legacy={4: old}, dumps={4: old})) == []


def nft_rule(*expression: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    at = {"family": "inet", "table": "site", "chain": "pre"}
    chain = {"family": "inet", "table": "site", "name": "pre", "hook": "prerouting", "prio": -310}
    return ({"chain": chain}, {"rule": {**at, "handle": 7, "expr": list(expression)}})


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


NOT_BY = {"match": {"op": "!=", "left": IN, "right": "wg0"}}
FROM_OTHERS = {
    "match": {"op": "!=", "left": {"fib": {"result": "type", "flags": ["saddr"]}}, "right": "local"}
}
TO = {"payload": {"protocol": "ip", "field": "daddr"}}
OF_LOOPBACK = {"meta": {"key": "iif"}}


@pytest.mark.parametrize(
    ("expression", "is_told"),
    [
        ([NOT_BY, matched(TO, "192.0.2.1"), FROM_OTHERS, {"drop": None}], True),
        ([FROM_OTHERS, {"counter": None}, {"drop": None}], True),
        ([matched(IN, "lo"), FROM_OTHERS, {"drop": None}], True),
        ([NOT_BY, matched(TO, "192.0.2.77"), FROM_OTHERS, {"drop": None}], False),
        ([matched(IN, "wg0"), FROM_OTHERS, {"drop": None}], False),
        ([NOT_BY, matched(TO, "192.0.2.1"), {"drop": None}], False),
        ([NOT_BY, matched(PORT, 22), FROM_OTHERS, {"drop": None}], False),
        ([NOT_BY, FROM_OTHERS, {"accept": None}], False),
    ],
    ids=["wg-quick's", "all", "of lo", "to nobody here", "of the tunnel", "from anybody", "some", "let by"],
)
def test_what_others_say_over_lo_may_come_on_a_mail_server(
    expression: list[dict[str, Any]], is_told: bool
) -> None:
    """There the gateway turns back over lo what bears the addresses of servers and clients elsewhere."""
    rules = nft_rule(*expression)
    host = replace(healthy(), config=Config(placement=Placement.HOST))
    told = [one.mend for name, one in found(replace(host, nft=rules)) if name == "nftables"]
    assert told == (["nft insert rule inet site pre iifname lo accept"] if is_told else [])
    assert found(healthy(nft=rules)) == []
    accepted = {**rules[1]["rule"], "expr": [matched(OF_LOOPBACK, "lo"), {"accept": None}]}
    assert found(replace(host, nft=(rules[0], {"rule": accepted}, rules[1]))) == []


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
