"""Tickets between real gateways of two workers each: used, lost, not wanted; in each placement.

A session resumes only where the kernel gives two addresses to the same worker at both ends again and again:
so these tests are about that, too.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.config import Placement
from tests.lab import two_sites
from tests.lab.probes import MailServer, eventually, mail
from tests.lab.strangers import Strangers
from tests.lab.two_sites import NO_TICKETS, Sites

MAILS = 6


BRIDGE = pytest.param(Placement.BRIDGE, marks=pytest.mark.long)


@pytest.fixture(scope="module", params=[Placement.ROUTER, BRIDGE], ids=lambda one: one.value)
def sites(request: pytest.FixtureRequest) -> Iterator[Sites]:
    with two_sites.built(placement=request.param) as sites:
        yield sites


@pytest.fixture
def v6() -> bool:
    """A test that is for both families has a parameter of this name."""
    return False


@pytest.fixture
def strangers(sites: Sites, v6: bool) -> Strangers:
    sites.settle()
    return Strangers.of(sites, v6)


@pytest.fixture
def server(strangers: Strangers, v6: bool) -> Iterator[MailServer]:
    with MailServer(strangers.sites, "mta-b", v6, address=strangers.target) as server:
        yield server


def form(decided: dict[str, str]) -> str:
    """Of the channel that was made, and by which dial."""
    words = dict(word.split("=", 1) for word in decided["detail"].split())
    return f"{words['form']} {words['dials']}"


def resumed(sites: Sites, letter: str) -> int:
    tallies: dict[str, int] = sites.status(letter)["counters"]["tallies"]
    return tallies.get("resumed", 0)


@pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
def test_each_session_leaves_the_next_one_a_ticket(
    sites: Sites, strangers: Strangers, server: MailServer, v6: bool
) -> None:
    before = {letter: resumed(sites, letter) for letter in "ab"}
    forms = [form(strangers.send(server, b"mail %d" % number)) for number in range(MAILS)]
    assert forms == ["full 1", *["resumed 1"] * (MAILS - 1)]
    for letter in "ab":
        wanted = before[letter] + MAILS - 1
        eventually(lambda letter=letter, wanted=wanted: resumed(sites, letter) == wanted, what="the counter")


def test_a_sending_gateway_that_was_killed_dials_twice_once(
    sites: Sites, strangers: Strangers, server: MailServer
) -> None:
    assert [form(strangers.send(server)) for _ in range(2)] == ["full 1", "resumed 1"]
    sites.kill("a")
    sites.start("a")
    assert [form(strangers.send(server)) for _ in range(2)] == ["full 2", "full 1"]
    (failed,) = strangers.told("a", "session handshake-failed")
    assert failed["reason"] == "ticket-unknown"
    assert not [line for line in sites.log("a").splitlines() if "alarm rings" in line]


def test_a_receiving_gateway_that_was_killed_has_whole_handshakes_again(
    sites: Sites, strangers: Strangers, server: MailServer
) -> None:
    assert [form(strangers.send(server)) for _ in range(2)] == ["full 1", "resumed 1"]
    sites.kill("b")
    sites.start("b")
    assert [form(strangers.send(server)) for _ in range(2)] == ["full 1", "resumed 1"]


@pytest.mark.parametrize("letter", ["a", "b"])
def test_an_operator_who_wants_none_gets_whole_handshakes(
    sites: Sites, strangers: Strangers, server: MailServer, letter: str
) -> None:
    one = sites.gateway(letter)
    before = one.configuration.read_text()
    one.configuration.write_text(before + NO_TICKETS)
    try:
        assert sites.command(letter, "reload").startswith("reloaded")
        sites.wait_ready(letter)
        assert [form(strangers.send(server)) for _ in range(2)] == ["full 1", "full 1"]
    finally:
        one.configuration.write_text(before)
        assert sites.command(letter, "reload").startswith("reloaded")
        sites.wait_ready(letter)


def test_mail_servers_with_a_gateway_each_do_so_too() -> None:
    with two_sites.built(placement=Placement.HOST) as sites:
        for v6 in (False, True):
            with MailServer(sites, "mta-b", v6) as server:
                for number in range(MAILS):
                    mail(sites, "mta-a", server, sites.address("mta-b", v6), b"mail %d" % number)
        wanted = 2 * (MAILS - 1)
        for letter in "ab":
            eventually(lambda letter=letter: resumed(sites, letter) == wanted, what="the counter")
