"""Clients that ignore offers get fewer, and no sending gateway misses one for that: with real gateways.

First nobody has met anybody: gateway b runs alone, and site a's mail server ignores what it offers. Then
gateway a is started, with an empty memory. Gateway b keeps its memory through all tests: each has clients in
networks of its own, which b has not met. What passes at the gate is in `test_resting_clients`. Namespaces
nmf0-...
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gateway.lab.topology import MAIL_INTERFACE
from gateway.peers.pins import Destination
from tests.lab import probes, two_sites
from tests.lab.offered import MANY, ONE_IN, REST, configure, one_round, rests, session
from tests.lab.probes import MailServer, eventually
from tests.lab.strangers import await_known_at_b, told
from tests.lab.two_sites import BOTH_FAMILIES, Sites

_NUMBERS = itertools.count(101)


@dataclass(frozen=True, slots=True)
class Clients:
    """Addresses of site a's mail server: two of one network (/24, or /48); and one of a stranger."""

    first: str
    second: str
    stranger: str

    @classmethod
    def of(cls, sites: Sites, v6: bool) -> Clients:
        """In networks that nobody has met, with the ways back to them."""
        number = next(_NUMBERS)
        if v6:
            made = cls(f"2001:db8:{number}::10", f"2001:db8:{number}:9::77", f"2001:db8:{number + 100}::30")
        else:
            made = cls(f"10.{number}.0.10", f"10.{number}.0.77", f"10.{number + 100}.0.30")
        ip, bits, more = ("ip -6", 128, " nodad") if v6 else ("ip", 32, "")
        gateway = sites.topology.nodes["gw-a"].addresses["wire"]
        for one in (made.first, made.second):
            sites.sh("mta-a", f"{ip} addr add {one}/{bits} dev {MAIL_INTERFACE}{more}")
            sites.sh("gw-a", f"{ip} route add {one}/{bits} via {sites.address('mta-a', v6)}")
            sites.sh("wire", f"{ip} route add {one}/{bits} via {gateway.v6 if v6 else gateway.v4}")
        sites.sh("mta-c", f"{ip} addr add {made.stranger}/{bits} dev {MAIL_INTERFACE}{more}")
        sites.sh("wire", f"{ip} route add {made.stranger}/{bits} dev mta-c")
        return made


@pytest.fixture(scope="module")
def built() -> Iterator[Sites]:
    with two_sites.built(start=False) as sites:
        configure(sites, "b", rest=True)
        sites.start("b")
        yield sites


@pytest.fixture
def sites(built: Sites) -> Sites:
    """Gateway a has never run, and nobody has met it."""
    built.kill("a")
    for path in (built.gateway("a").folder / "state").iterdir():
        path.unlink()
    # Behind a first upgrade nobody rests at its gate for a minute.
    built.kill("b")
    built.start("b")
    return built


@pytest.fixture
def clients(sites: Sites, v6: bool) -> Clients:
    return Clients.of(sites, v6)


@pytest.fixture
def server(sites: Sites, v6: bool) -> Iterator[MailServer]:
    with MailServer(sites, "mta-b", v6) as server:
        yield server


def decided(sites: Sites, letter: str, *about: str) -> list[str]:
    return [fields["reason"] for fields in told(sites, letter, "session decided", *about)]


@BOTH_FAMILIES
def test_who_ignores_offers_gets_one_in_four(sites: Sites, server: MailServer, clients: Clients) -> None:
    """Each address for itself; log and `status` say why, `status` alone of those that pass at the gate."""

    def counted() -> tuple[int, int]:
        clear = sites.status("b")["counters"]["decided"]["in"]["clear"]
        return int(clear.get("offers-ignored", 0)), int(clear.get("client-rests", 0))

    before = counted()
    rests(sites, clients.first)
    assert one_round(sites, clients.first) == REST
    assert session(sites, clients.stranger, "mta-c")
    assert decided(sites, "b", clients.first).count("offers-ignored") == 1
    eventually(lambda: counted() == (before[0] + 1, before[1] + ONE_IN - 1), what="the counters")
    for address, words in (
        (clients.first, f"in one session of {ONE_IN} only"),
        (clients.first, "pass at the gate"),
        (clients.stranger, "has ignored 1 offer,"),
    ):
        assert words in sites.command("b", "explain", address)
    assert sites.alarms("b", "offers-ignored") == []


@BOTH_FAMILIES
def test_a_gateway_at_a_resting_client_is_found_by_the_fourth_session(
    sites: Sites, server: MailServer, clients: Clients
) -> None:
    """It is met as anybody is; from then on each session of it is protected, and nothing rings."""
    rests(sites, clients.first)
    sites.start("a")
    one_round(sites, clients.first)
    # A session that begins at the same moment meets a stranger, too.
    eventually(lambda: probes.pins(sites.gateway("a")), what="the peer in gateway a's memory")
    for _ in range(ONE_IN):
        session(sites, clients.first)
    first = ["no-offer"] * (ONE_IN - 1) + ["upgraded-new-peer"]
    wanted = first + ["upgraded"] * ONE_IN
    eventually(lambda: len(decided(sites, "a", clients.first)) == len(wanted), what="all decisions")
    assert decided(sites, "a", clients.first) == wanted
    ends = clients.first, str(Destination(sites.address("mta-b", ":" in clients.first), 25))
    for letter in "ab":
        assert not [alarm for alarm in sites.alarms(letter) if alarm["subject"] in ends]


@BOTH_FAMILIES
def test_another_address_of_a_site_that_has_been_met_rests_no_more(
    sites: Sites, server: MailServer, clients: Clients
) -> None:
    """Its gateway remembers us, and would ring: in whichever worker it is counted, and wherever it is."""
    rests(sites, clients.first)
    rests(sites, clients.second)
    rests(sites, clients.stranger, "mta-c")
    sites.start("a")
    eventually(
        lambda: (
            session(sites, clients.first, turn=True)
            or "upgraded-new-peer" in decided(sites, "a", clients.first)
        ),
        what="the first channel",
    )
    await_known_at_b(sites, clients.first)
    eventually(lambda: probes.pins(sites.gateway("a")), what="the peer in gateway a's memory")
    assert session(sites, clients.stranger, "mta-c"), "a stranger elsewhere, who might be of that site"
    for _ in range(ONE_IN):
        session(sites, clients.second)
    eventually(lambda: len(decided(sites, "a", clients.second)) >= ONE_IN, what="all decisions")
    assert decided(sites, "a", clients.second) == ["upgraded"] * ONE_IN
    assert sites.alarms("a", "offer-missing") == []


@BOTH_FAMILIES
def test_no_neighbour_of_one_that_has_upgraded_ever_rests(
    sites: Sites, server: MailServer, clients: Clients
) -> None:
    sites.start("a")
    session(sites, clients.first)
    await_known_at_b(sites, clients.first)
    sites.kill("a")
    sites.kill("b")
    sites.start("b")
    for address in (clients.second, clients.first):
        assert all(session(sites, address) for _ in range(MANY + ONE_IN))
    rests(sites, clients.stranger, "mta-c")


@pytest.mark.parametrize("v6", [False], ids=["v4"])
def test_with_the_switch_off_nobody_rests(sites: Sites, server: MailServer, clients: Clients) -> None:
    sites.kill("b")
    configure(sites, "b", rest=False)
    try:
        sites.start("b")
        assert all(session(sites, clients.first) for _ in range(MANY + ONE_IN))
    finally:
        sites.kill("b")
        configure(sites, "b", rest=True)
