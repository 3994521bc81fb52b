"""Clients that ignore offers get fewer, and no sending gateway misses one for that: with real gateways.

First nobody has met anybody: gateway b runs alone, and site a's mail server ignores what it offers. Then
gateway a is started. Each test begins with an empty memory. Namespaces nmf0-...
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from gateway.policy import limits
from tests.lab import two_sites
from tests.lab.probes import Dialogue, MailServer, eventually
from tests.lab.two_sites import Sites

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
MANY = limits.OFFERS_IGNORED_IN_A_ROW
ONE_IN = limits.OFFERS_REST_ONE_IN
REST = [False] * (ONE_IN - 1) + [True]
SECOND = {False: "10.11.0.77", True: "2001:db8:11:9::77"}
"""Of the same mail server: in its /24, and in its /48."""


@pytest.fixture(scope="module")
def built() -> Iterator[Sites]:
    with two_sites.built(start=False) as sites:
        configure(sites, "b", rest=True)
        yield sites


def configure(sites: Sites, letter: str, *, rest: bool) -> None:
    path = sites.gateway(letter).configuration
    text = path.read_text()
    wanted, other = ("rest = true\n", "rest = false\n") if rest else ("rest = false\n", "rest = true\n")
    assert wanted in text or other in text
    path.write_text(text.replace(other, wanted))


@pytest.fixture
def sites(built: Sites) -> Sites:
    for letter in "ab":
        built.kill(letter)
        for path in (built.gateway(letter).folder / "state").glob("peers.db*"):
            path.unlink()
    built.start("b")
    return built


@pytest.fixture
def server(sites: Sites, v6: bool) -> Iterator[MailServer]:
    with MailServer(sites, "mta-b", v6) as server:
        yield server


def session(sites: Sites, v6: bool, *, client: str = "mta-a", address: str = "") -> bool:
    """One mail; whether its client saw an offer."""
    connection = sites.socket(client, v6)
    connection.bind((address or sites.address(client, v6), 0))
    connection.connect((sites.address("mta-b", v6), 25))
    with Dialogue(connection) as dialogue:
        seen = b"XNIGHTMAIL" in dialogue.begin()
        dialogue.send_mail(b"in clear or not")
        dialogue.say(b"QUIT")
    return seen


def rests(sites: Sites, v6: bool, **whose: str) -> None:
    assert [session(sites, v6, **whose) for _ in range(MANY + ONE_IN)] == [True] * MANY + REST


def decided(sites: Sites, letter: str) -> list[str]:
    lines = [line for line in sites.log(letter).splitlines() if " session decided " in line]
    return [line.partition("reason=")[2].split()[0] for line in lines]


@FAMILIES
def test_who_ignores_offers_gets_one_in_four(sites: Sites, server: MailServer, v6: bool) -> None:
    """Each address for itself, and the log and `status` say why."""
    rests(sites, v6)
    assert session(sites, v6, client="mta-c")
    eventually(lambda: decided(sites, "b").count("offers-ignored") == ONE_IN - 1, what="the log")

    def counted() -> int:
        return int(sites.status("b")["counters"]["decided"]["in"]["clear"].get("offers-ignored", 0))

    eventually(lambda: counted() == ONE_IN - 1, what="the counters")
    for client, words in (("mta-a", f"in one session of {ONE_IN} only"), ("mta-c", "has ignored 1 offer,")):
        assert words in sites.command("b", "explain", sites.address(client, v6))
    assert sites.alarms("b", "offers-ignored") == []


@FAMILIES
def test_a_gateway_at_a_resting_client_is_found_by_the_fourth_session(
    sites: Sites, server: MailServer, v6: bool
) -> None:
    """It is met as anybody is; from then on each session of it is protected, and nothing rings."""
    rests(sites, v6)
    sites.start("a")
    for _ in range(2 * ONE_IN):
        session(sites, v6)
    first = ["no-offer"] * (ONE_IN - 1) + ["upgraded-new-peer"]
    wanted = first + ["upgraded"] * ONE_IN
    eventually(lambda: len(decided(sites, "a")) == len(wanted), what="all decisions")
    assert decided(sites, "a") == wanted
    assert " alarm rings " not in sites.log("a") + sites.log("b")


@FAMILIES
def test_another_address_of_a_site_that_has_been_met_rests_no_more(
    sites: Sites, server: MailServer, v6: bool
) -> None:
    """Its gateway remembers us, and would ring: in whichever worker it is counted, and wherever it is."""
    add_address(sites, v6)
    rests(sites, v6)
    rests(sites, v6, address=SECOND[v6])
    rests(sites, v6, client="mta-c")
    sites.start("a")
    eventually(
        lambda: session(sites, v6) or "upgraded-new-peer" in decided(sites, "a"), what="the first channel"
    )
    eventually(lambda: sites.status("b")["sources"]["upgraded"] == 1, what="the client in b's memory")
    assert session(sites, v6, client="mta-c"), "a stranger elsewhere, who might be of that site"
    before = len(decided(sites, "a"))
    for _ in range(ONE_IN):
        session(sites, v6, address=SECOND[v6])
    eventually(lambda: len(decided(sites, "a")) >= before + ONE_IN, what="all decisions")
    assert decided(sites, "a")[-ONE_IN:] == ["upgraded"] * ONE_IN
    assert sites.alarms("a", "offer-missing") == []


@FAMILIES
def test_no_neighbour_of_one_that_has_upgraded_ever_rests(sites: Sites, server: MailServer, v6: bool) -> None:
    add_address(sites, v6)
    sites.start("a")
    session(sites, v6)
    eventually(lambda: sites.status("b")["sources"]["upgraded"] == 1, what="the client in b's memory")
    sites.kill("a")
    sites.kill("b")
    sites.start("b")
    for address in (SECOND[v6], ""):
        assert all(session(sites, v6, address=address) for _ in range(MANY + ONE_IN))
    rests(sites, v6, client="mta-c")


@pytest.mark.parametrize("v6", [False], ids=["v4"])
def test_with_the_switch_off_nobody_rests(sites: Sites, server: MailServer, v6: bool) -> None:
    sites.kill("b")
    configure(sites, "b", rest=False)
    try:
        sites.start("b")
        assert all(session(sites, v6) for _ in range(MANY + ONE_IN))
    finally:
        sites.kill("b")
        configure(sites, "b", rest=True)


def add_address(sites: Sites, v6: bool) -> None:
    """A second one of site a's mail server, which the way back to it is known for."""
    one = SECOND[v6]
    interface = sites.sh("mta-a", "ip -o route show default").split(" dev ")[1].split()[0]
    bits = 128 if v6 else 32
    sites.sh("mta-a", f"ip addr replace {one}/{bits} dev {interface}" + (" nodad" if v6 else ""))
    sites.sh("gw-a", f"ip route replace {one}/{bits} via {sites.address('mta-a', v6)}")
    if v6:
        way = sites.address("mta-a", True).replace("2001:db8:11::10", "2001:db8:100::11")
        for node in ("wire", "gw-b"):
            sites.sh(
                node, f"ip route replace {one}/{bits} via {way if node == 'wire' else '2001:db8:100::1'}"
            )
