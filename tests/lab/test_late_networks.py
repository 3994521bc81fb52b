"""A gateway that is up before its network, as at boot: it learns what lies inside when that comes. nmf0-"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.lab import processes
from gateway.policy import limits
from tests.lab import two_sites
from tests.lab.probes import MailServer, eventually, mail
from tests.lab.two_sites import Sites

INSIDE = {4: "10.12.0.254/24", 6: "2001:db8:12::fe/64"}
NETWORKS = {"10.12.0.0/24", "2001:db8:12::/64"}


@pytest.fixture
def sites() -> Iterator[Sites]:
    with two_sites.built(start=False) as sites:
        yield sites


def address(sites: Sites, verb: str, family: int) -> None:
    nodad = " nodad" if family == 6 and verb == "add" else ""
    sites.sh("gw-b", f"ip addr {verb} {INSIDE[family]} dev inside{nodad}")


def inside(sites: Sites) -> set[str]:
    return set(sites.status("b")["inside_networks"])


def test_what_lies_inside_may_come_after_the_start(sites: Sites) -> None:
    for family in INSIDE:
        address(sites, "del", family)
    sites.start("a", "b")
    assert inside(sites) == set()
    for family in INSIDE:
        address(sites, "add", family)
    eventually(lambda: inside(sites) == NETWORKS, what="both networks")
    for v6 in (False, True):
        with MailServer(sites, "mta-b", v6) as server:
            mail(sites, "mta-a", server, sites.address("mta-b", v6), b"hello")
    eventually(
        lambda: sites.log("b").count("session decided direction=in protected=yes") == 2,
        what="two protected sessions",
    )


def test_an_interface_without_addresses_for_a_moment_changes_nothing(sites: Sites) -> None:
    sites.start("a", "b")
    assert inside(sites) == NETWORKS
    sites.sh("gw-b", "ip addr add 10.13.0.254/24 dev inside")
    eventually(lambda: inside(sites) == NETWORKS | {"10.13.0.0/24"}, what="a third network")
    address(sites, "del", 6)
    sites.sh("gw-b", "ip addr del 10.13.0.254/24 dev inside")
    # The third one has gone, so the same look has seen that there is none of IPv6.
    eventually(lambda: inside(sites) == NETWORKS, what="the networks of the beginning")


def test_more_networks_than_can_be_told_end_no_daemon_at_a_reload(sites: Sites) -> None:
    """It goes on with those that it knows; a start would fail, and fail again."""
    sites.start("a", "b")
    supervisor, home = sites.supervisor("b"), sites.namespace("gw-b")
    many = range(0, 2 * limits.INSIDE_NETWORKS + 2, 2)
    routes = [f"10.200.{number >> 8}.{number & 255}/32 dev inside\n" for number in many]
    processes.run_in(
        home, ["ip", "-batch", "-"], stdin="".join(f"route add {one}" for one in routes).encode()
    )
    try:
        eventually(lambda: "daemon inside-unknown" in sites.log("b"), what="too many of them in the log")
        refused = sites.command("b", "reload")
        assert "nothing has changed" in refused
        assert "name those of your mail servers as inside_networks" in refused
        assert (sites.supervisor("b"), inside(sites)) == (supervisor, NETWORKS)
    finally:
        text = "".join(f"route del {one}" for one in routes)
        processes.run_in(home, ["ip", "-batch", "-"], stdin=text.encode())
