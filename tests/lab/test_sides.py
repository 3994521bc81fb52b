"""Which ports, and which sides: other ports than 25, several inside interfaces, a router with one arm.

Real gateways and mail; site b is rebuilt for it. Namespaces nmf0-...
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from gateway.config import Placement
from gateway.lab import gateways
from tests.lab import two_sites
from tests.lab.probes import MailServer, eventually, mail
from tests.lab.two_sites import BOTH_FAMILIES, Sites


def decided(sites: Sites, letter: str) -> list[str]:
    """Whether each session was protected that this gateway has seen."""
    lines = [line for line in sites.log(letter).splitlines() if " session decided " in line]
    return [line.partition("protected=")[2].split()[0] for line in lines]


def assert_went(sites: Sites, expected: dict[str, list[str]], before: dict[str, list[str]]) -> None:
    """How sessions went at each gateway since then."""
    for letter, words in expected.items():
        after = len(before[letter]) + len(words)
        eventually(lambda letter=letter, after=after: len(decided(sites, letter)) >= after)
        assert decided(sites, letter)[len(before[letter]) :] == words


def seen(sites: Sites) -> dict[str, list[str]]:
    return {letter: decided(sites, letter) for letter in "ab"}


def configure(sites: Sites, letter: str, old: str, new: str) -> None:
    one = sites.gateway(letter)
    text = one.configuration.read_text()
    assert old in text
    one.configuration.write_text(text.replace(old, new))


# --- Ports -------------------------------------------------------------------------------------------


# Four reloads of two daemons for each; which ports are mail is the same template wherever the gateway stands.
ELSEWHERE = [pytest.param(one, marks=pytest.mark.long) for one in (Placement.HOST, Placement.BRIDGE)]


@pytest.fixture(scope="module", params=[Placement.ROUTER, *ELSEWHERE], ids=lambda one: one.value)
def ports(request: pytest.FixtureRequest) -> Iterator[Sites]:
    with two_sites.built(placement=request.param) as sites:
        yield sites


def test_submission_is_off_until_it_is_asked_for(ports: Sites) -> None:
    for v6 in (False, True):
        assert_submission_goes(ports, v6, ["yes"], "past both")
    for letter in "ab":
        configure(ports, letter, "[daemon]", "[mail]\nports = [25, 587]\n[daemon]")
        assert ports.command(letter, "reload").startswith("reloaded")
        ports.wait_ready(letter)
    for v6 in (False, True):
        assert_submission_goes(ports, v6, ["yes", "yes"], "through both")
    for v6 in (False, True):
        with MailServer(ports, "mta-b", v6, port=587) as submission:
            mail(ports, "mta-c", submission, ports.address("mta-b", v6), b"in clear", to_port=587)


def assert_submission_goes(ports: Sites, v6: bool, protected: list[str], where: str) -> None:
    """Beside mail, which is protected."""
    target = ports.address("mta-b", v6)
    with MailServer(ports, "mta-b", v6) as server, MailServer(ports, "mta-b", v6, port=587) as submission:
        before = seen(ports)
        mail(ports, "mta-a", submission, target, where.encode(), to_port=587)
        mail(ports, "mta-a", server, target, b"through both")
        assert_went(ports, {"a": protected, "b": protected}, before)


# --- Several inside interfaces ---------------------------------------------------------------------------

DMZ = {False: "10.99.0.10", True: "fd99::10"}


@pytest.fixture(scope="module")
def two_insides() -> Iterator[Sites]:
    """The mail server of site b has a second cable to the gateway, and an address on it."""
    with two_sites.built(start=False) as sites:
        sites.sh(
            "mta-b",
            f"ip link add dmz type veth peer name dmz netns {sites.namespace('gw-b')}",
            "ip link set dmz up",
            "ip address add 10.99.0.10/24 dev dmz",
            "ip address add fd99::10/64 dev dmz nodad",
            "ip route add default via 10.99.0.1 table 99",
            "ip rule add from 10.99.0.10 lookup 99",
        )
        sites.sh(
            "gw-b",
            "ip link set dmz up",
            "ip address add 10.99.0.1/24 dev dmz",
            "ip address add fd99::1/64 dev dmz nodad",
        )
        sites.sh(
            "mta-b", "ip -6 route add default via fd99::1 table 99", "ip -6 rule add from fd99::10 lookup 99"
        )
        for v6, network in ((False, "10.99.0.0/24"), (True, "fd99::/64")):
            hop = "2001:db8:100::12" if v6 else "198.51.100.12"
            sites.sh("wire", f"ip {'-6' if v6 else '-4'} route add {network} via {hop} dev gw-b")
        configure(sites, "b", 'inside = ["inside"]', 'inside = ["inside", "dmz"]')
        sites.start("a", "b")
        yield sites


@BOTH_FAMILIES
def test_mail_for_each_inside_interface(two_insides: Sites, v6: bool) -> None:
    sites = two_insides
    for address in (sites.address("mta-b", v6), DMZ[v6]):
        with MailServer(sites, "mta-b", v6, address=address) as server:
            before = seen(sites)
            mail(sites, "mta-a", server, address, b"from a peer")
            assert_went(sites, {"a": ["yes"], "b": ["yes"]}, before)
            mail(sites, "mta-c", server, address, b"from a stranger")
            assert_went(sites, {"b": ["yes", "no"]}, before)


@BOTH_FAMILIES
def test_mail_from_each_inside_interface(two_insides: Sites, v6: bool) -> None:
    sites, target = two_insides, two_insides.address("mta-a", v6)
    for source in (sites.address("mta-b", v6), DMZ[v6]):
        with MailServer(sites, "mta-a", v6) as server:
            before = seen(sites)
            mail(sites, "mta-b", server, target, b"to a peer", source=source)
            assert server.peers == [source]
            assert_went(sites, {"a": ["yes"], "b": ["yes"]}, before)


# --- One arm -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_armed() -> Iterator[Sites]:
    """A switch joins wire, mail server and gateway b, which has one cable to it. It is a bridge in the
    namespace of the mail server."""
    with two_sites.built(start=False) as sites:
        home = sites.namespace("mta-b")
        sites.sh("gw-b", f"ip link set outside netns {home}")
        sites.sh(
            "mta-b",
            "ip link add switch type bridge",
            "sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0",
            "sysctl -qw net.ipv4.conf.all.accept_redirects=0 net.ipv6.conf.all.accept_redirects=0",
            "ip address flush dev eth0",
            "ip link set eth0 master switch",
            "ip link set outside master switch",
            "ip link set outside up",
            "ip link set switch up",
            "sysctl -qw net.ipv4.conf.switch.accept_redirects=0 net.ipv6.conf.switch.accept_redirects=0",
            "ip address add 10.12.0.10/24 dev switch",
            "ip address add 2001:db8:12::10/64 dev switch nodad",
            "ip route replace default via 10.12.0.254",
            "ip -6 route replace default via 2001:db8:12::fe",
        )
        sites.sh(
            "gw-b",
            "sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.inside.send_redirects=0",
            "ip address add 198.51.100.12/32 dev inside",
            "ip address add 2001:db8:100::12/128 dev inside nodad",
            "ip route replace 198.51.100.1 dev inside scope link",
            "ip route replace default via 198.51.100.1 dev inside",
            "ip -6 route replace 2001:db8:100::1 dev inside",
            "ip -6 route replace default via 2001:db8:100::1 dev inside",
        )
        networks = 'inside_networks = ["10.12.0.0/24", "2001:db8:12::/64"]'
        configure(sites, "b", 'outside = ["outside"]', f'outside = ["inside"]\n{networks}')
        sites.start("a", "b")
        yield sites


@BOTH_FAMILIES
def test_a_router_with_one_arm(one_armed: Sites, v6: bool) -> None:
    """In and out, to a peer and to a stranger; and direct while nobody serves."""
    sites, here, there = one_armed, one_armed.address("mta-b", v6), one_armed.address("mta-a", v6)
    with MailServer(sites, "mta-b", v6) as server, MailServer(sites, "mta-a", v6) as other:
        before = seen(sites)
        mail(sites, "mta-a", server, here, b"from a peer")
        assert_went(sites, {"a": ["yes"], "b": ["yes"]}, before)
        mail(sites, "mta-b", other, there, b"to a peer")
        assert_went(sites, {"a": ["yes", "yes"], "b": ["yes", "yes"]}, before)
        mail(sites, "mta-c", server, here, b"from a stranger")
        assert_went(sites, {"b": ["yes", "yes", "no"]}, before)
        assert server.peers == [there, sites.address("mta-c", v6)]
        assert other.peers == [here]
        gateways.kill(sites.gateway("b"))
        try:
            mail(sites, "mta-c", server, here, b"direct")
        finally:
            sites.start("b")


def test_without_configuration_it_is_found(one_armed: Sites) -> None:
    """One interface and the site's addresses tell all."""
    one = one_armed.gateway("b")
    text = one.configuration.read_text()
    guessed = text.replace('inside = ["inside"]\n', "").replace('outside = ["inside"]\n', "")
    assert "inside_networks" in guessed
    one.configuration.write_text(guessed)
    try:
        assert "inside inside, outside inside" in one_armed.command("b", "check")
    finally:
        one.configuration.write_text(text)


def examined(sites: Sites, letter: str) -> dict[str, list[object]]:
    found: dict[str, list[object]] = json.loads(sites.command(letter, "doctor", "--json"))
    return {"troubles": found["troubles"], "trial": [note for note in found["notes"] if "trial" in str(note)]}


def test_the_doctor_finds_nothing_at_one_arm(one_armed: Sites) -> None:
    note = (
        "no trial connection: one interface is both sides: a connection of ours would not be told from others"
    )
    assert examined(one_armed, "b") == {"troubles": [], "trial": [note]}


# --- Named interfaces of a mail server -------------------------------------------------------------------


@pytest.fixture(scope="module")
def named_outside() -> Iterator[Sites]:
    with two_sites.built(start=False, placement=Placement.HOST) as sites:
        for letter in "ab":
            configure(sites, letter, "[daemon]", '[interfaces]\noutside = ["eth0"]\n[daemon]')
        sites.start("a", "b")
        yield sites


@BOTH_FAMILIES
def test_a_mail_server_that_names_its_outside(named_outside: Sites, v6: bool) -> None:
    sites, target = named_outside, named_outside.address("mta-b", v6)
    with MailServer(sites, "mta-b", v6) as server:
        before = seen(sites)
        mail(sites, "mta-a", server, target, b"from a peer")
        assert_went(sites, {"a": ["yes"], "b": ["yes"]}, before)


def test_the_doctor_finds_nothing_there(named_outside: Sites) -> None:
    for letter in "ab":
        note = "no trial connection: the outside is named: a cable of ours would be none of it"
        assert examined(named_outside, letter) == {"troubles": [], "trial": [note]}
