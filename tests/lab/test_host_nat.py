"""The gateway on the mail server itself, beside others' NAT and filters for what comes and goes over lo.

What stays on the machine keeps its addresses, and those are of clients and servers elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from gateway.config import Placement
from gateway.lab import processes
from tests.lab import two_sites
from tests.lab.probes import MailServer, mail
from tests.lab.two_sites import BOTH_FAMILIES, TOOLS, Sites

OTHER = {False: "10.11.0.99", True: "2001:db8:11::99"}


@pytest.fixture(scope="module")
def built() -> Iterator[Sites]:
    with two_sites.built(placement=Placement.HOST) as sites:
        yield sites


@pytest.fixture
def nat(request: pytest.FixtureRequest, sites: Sites, v6: bool) -> Iterator[None]:
    """On both mail servers, by the words behind POSTROUTING."""
    words = request.param.format(
        source=OTHER[v6], clients=sites.address("mta-c", v6) + ("/64" if v6 else "/24")
    )
    for node in ("mta-a", "mta-b"):
        sites.sh(node, f"{TOOLS[v6]} -t nat -A POSTROUTING {words}")
    yield
    for node in ("mta-a", "mta-b"):
        sites.sh(node, f"{TOOLS[v6]} -t nat -F POSTROUTING")


@BOTH_FAMILIES
@pytest.mark.parametrize(
    "nat",
    ["-p tcp --dport 25 -j MASQUERADE", "-s {clients} ! -o docker0 -j MASQUERADE"],
    ids=["all", "as Docker does"],
    indirect=True,
)
def test_a_client_comes_to_the_mail_server_from_its_own_address(sites: Sites, v6: bool, nat: None) -> None:
    """From the server's own it would be trusted, and might relay."""
    with MailServer(sites, "mta-b", v6) as server:
        for client in ("mta-a", "mta-c"):
            mail(sites, client, server, sites.address("mta-b", v6), b"from elsewhere")
        assert server.peers == [sites.address(client, v6) for client in ("mta-a", "mta-c")]


@BOTH_FAMILIES
@pytest.mark.parametrize("nat", ["-p tcp --dport 25 -j SNAT --to-source {source}"], ids=[""], indirect=True)
def test_what_leaves_the_machine_has_the_address_that_nat_gives_it(sites: Sites, v6: bool, nat: None) -> None:
    words = f"{OTHER[v6]}/{64 if v6 else 24} dev eth0"
    sites.sh("mta-a", f"ip address add {words}" + (" nodad" if v6 else ""))
    with MailServer(sites, "mta-b", v6) as server:
        mail(sites, "mta-a", server, sites.address("mta-b", v6), b"from another address")
        assert server.peers == [OTHER[v6]]
    sites.sh("mta-a", f"ip address del {words}")


@BOTH_FAMILIES
@pytest.mark.parametrize("chain", ["OUTPUT", "PREROUTING"])
def test_a_site_that_restores_whole_marks(sites: Sites, v6: bool, chain: str) -> None:
    """As is usual where a connection is to be answered by the way that it came by."""
    rules = [
        "PREROUTING -i eth0 -m conntrack --ctstate NEW -j CONNMARK --set-xmark 0x2/0xff",
        f"{chain} -j CONNMARK --restore-mark",
    ]
    for node in ("mta-a", "mta-b"):
        sites.sh(node, *(f"{TOOLS[v6]} -t mangle -A {rule}" for rule in rules))
    try:
        with MailServer(sites, "mta-b", v6) as server:
            for client in ("mta-a", "mta-c"):
                mail(sites, client, server, sites.address("mta-b", v6), b"by the way it came")
            assert server.peers == [sites.address(client, v6) for client in ("mta-a", "mta-c")]
    finally:
        for node in ("mta-a", "mta-b"):
            sites.sh(node, *(f"{TOOLS[v6]} -t mangle -D {rule}" for rule in rules))


TUNNELS: Final = """\
table ip wg-quick-wg0 {
    chain preraw {
        type filter hook prerouting priority raw; policy accept;
        iifname != "eth0" ip daddr %s fib saddr type != local drop
    }
}
"""


def test_what_wg_quick_drops_is_named_and_mended(sites: Sites) -> None:
    """By its own words, where all that the mail server sends leaves by its tunnel."""
    home = sites.address("mta-b", False)
    processes.run_in(sites.namespace("mta-b"), ["nft", "-f", "-"], stdin=(TUNNELS % home).encode())
    try:
        told = sites.command("b", "doctor")
        mend = "nft insert rule ip wg-quick-wg0 preraw iifname lo accept"
        assert f"mend: {mend}" in told
        assert "lo from addresses of others" in sites.command("b", "check")
        sites.sh("mta-b", mend)
        assert "all green" in sites.command("b", "doctor")
        with MailServer(sites, "mta-b", False) as server:
            mail(sites, "mta-c", server, home, b"by the tunnel")
        with MailServer(sites, "mta-c", False) as server:
            mail(sites, "mta-b", server, sites.address("mta-c", False), b"by the tunnel")
    finally:
        sites.sh("mta-b", "nft delete table ip wg-quick-wg0")
