"""Connections that come back, and gateways that stand where one is already: mail passes, once and whole.

A gateway recognises its own identity, whoever leads a session back to it; its own dials bear its mark and
never come to its gate again. (A connection to the gateway's own address, mail between two servers inside, and
two gateways on one path: `test_overload`.)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from gateway.errors import Reason
from gateway.lab import gateways, processes
from gateway.lab.gateways import Gateway
from tests.lab import probes
from tests.lab.gateway_log import GatewayLog
from tests.lab.probes import MailServer, eventually, mail
from tests.lab.two_sites import BOTH_FAMILIES, TOOLS, Sites

PUBLIC = {False: "198.51.100.61", True: "2001:db8:100::61"}
"""By it the world, and whoever inside asks the DNS, knows site a's mail server."""


@pytest.fixture(scope="module")
def built(acquainted_sites: Sites) -> Sites:
    return acquainted_sites


def decided(one: Gateway, source: tuple[str, int], target: str) -> Reason | None:
    """Why that gateway did with the session what it did, once it is over."""
    return GatewayLog(one.log).ended(source, (target, 25), probes.PATIENCE).decided


@pytest.fixture(params=[False, True], ids=["v4", "v6"])
def hairpin(request: pytest.FixtureRequest, sites: Sites) -> Iterator[bool]:
    """The site's border, outside of the gateway, leads what inside sends to the public address back in."""
    v6 = request.param
    home = sites.address("mta-a", v6)
    to = f"[{home}]:25" if v6 else f"{home}:25"
    rules = [
        f"PREROUTING -p tcp -d {PUBLIC[v6]} --dport 25 -j DNAT --to-destination {to}",
        f"POSTROUTING -p tcp -d {home} --dport 25 -j MASQUERADE",
    ]
    for rule in rules:
        sites.sh("wire", f"{TOOLS[v6]} -t nat -A {rule}")
    yield v6
    for rule in rules:
        sites.sh("wire", f"{TOOLS[v6]} -t nat -D {rule}")


def test_a_hairpin_is_recognised_and_passes(sites: Sites, hairpin: bool) -> None:
    """Out by the gateway, around the border, in by the same gateway: it offers to itself, and sees that."""
    rang = sites.alarms("a")
    client = (sites.address("mta-a", hairpin), 42001)
    with MailServer(sites, "mta-a", hairpin) as server:
        took = mail(sites, "mta-a", server, PUBLIC[hairpin], b"to the site's own public address", port=42001)
    assert took < probes.PATIENCE / 2
    assert decided(sites.gateway("a"), client, PUBLIC[hairpin]) is Reason.OWN_IDENTITY
    assert sites.alarms("a") == rang


@BOTH_FAMILIES
def test_two_gateways_with_one_identity_let_mail_pass(sites: Sites, v6: bool) -> None:
    """A copied disk, or one site behind both: nothing is encrypted, nothing is lost.

    Where another identity is remembered it rings: somebody leads mail for that site back to us.
    """
    target = sites.address("mta-b", v6)
    mine, other = (sites.gateway(letter).folder / "state" for letter in "ab")
    sites.kill("b")
    kept = other.with_name("state-kept")
    shutil.copytree(other, kept)
    shutil.copy(mine / "identity", other / "identity")
    try:
        sites.start("b")
        assert sites.status("b")["identity"] == sites.status("a")["identity"]
        with MailServer(sites, "mta-b", v6) as server:
            mail(sites, "mta-a", server, target, b"from us to us", port=42002)
        client = (sites.address("mta-a", v6), 42002)
        assert decided(sites.gateway("a"), client, target) is Reason.OWN_IDENTITY
        eventually(lambda: sites.alarms("a", "own-identity"), what="an alarm")
    finally:
        sites.kill("b")
        shutil.rmtree(other)
        shutil.copytree(kept, other)
        shutil.rmtree(kept)
        sites.start("b")


@pytest.fixture
def provider(sites: Sites) -> Iterator[Gateway]:
    """A third gateway, on the wire: site a is inside of it, and its own gateway stands before it."""
    one = Gateway(
        sites.topology.nodes["wire"],
        sites.namespace("wire"),
        sites.folder / "wire",
        placement=sites.placement,
    )
    gateways.prepare(one)
    text = one.configuration.read_text()
    text = text.replace('inside = ["inside"]', 'inside = ["gw-a"]')
    one.configuration.write_text(text.replace('outside = ["outside"]', 'outside = ["gw-b"]'))
    gateways.start(one)
    gateways.wait_ready(one)
    yield one
    gateways.kill(one)
    processes.run_in(one.namespace, gateways.nightmail_command("--config", str(one.configuration), "down"))
    shutil.rmtree(one.folder)


@BOTH_FAMILIES
def test_two_gateways_in_series_on_the_senders_side_take_a_connection_one_behind_the_other(
    sites: Sites, provider: Gateway, v6: bool
) -> None:
    """The outer one takes the offer, so that the inner one has none, and rings, for it knows of one."""
    target = sites.address("mta-b", v6)
    with MailServer(sites, "mta-b", v6) as server:
        took = mail(sites, "mta-a", server, target, b"through three gateways", port=42003)
        assert server.peers == [sites.address("mta-a", v6)]
    assert took < probes.PATIENCE / 2
    client = (sites.address("mta-a", v6), 42003)
    assert decided(sites.gateway("a"), client, target) is Reason.OFFER_MISSING
    assert decided(provider, client, target) in (Reason.UPGRADED_NEW_PEER, Reason.UPGRADED)
    eventually(lambda: sites.alarms("a", "offer-missing"), what="an alarm")
