"""Servers that offer nothing are left alone for a while: the kernel passes their SYNs. A gateway is found.

Seen in the kernel's count of queued packets, in the log, and in `status`. Namespaces nmf0-...
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from functools import partial

import pytest

from gateway.config import Placement
from gateway.intercept import kernel
from gateway.lab import network
from gateway.policy import limits
from tests.lab import two_sites
from tests.lab.probes import MailServer, eventually, mail
from tests.lab.two_sites import Sites

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
SPARED = 40


@contextlib.contextmanager
def standing(placement: Placement, minutes: int) -> Iterator[Sites]:
    """Site b has no gateway at first."""
    with two_sites.built(start=False, placement=placement) as sites:
        for one in sites.gateways:
            text = one.configuration.read_text()
            assert "minutes = 0\n" in text
            one.configuration.write_text(text.replace("minutes = 0\n", f"minutes = {minutes}\n"))
        sites.start("a")
        yield sites


@pytest.fixture(scope="module", params=[Placement.ROUTER, Placement.HOST], ids=lambda one: one.value)
def sites(request: pytest.FixtureRequest) -> Iterator[Sites]:
    with standing(request.param, 30) as sites:
        yield sites


def begun(sites: Sites) -> int:
    """Sessions that the sending gateway has seen."""
    return sites.log("a").count(" session begun ")


def queued(sites: Sites) -> list[tuple[str, str]]:
    """Each queue of the sending gateway, and how many packets the kernel has put into it."""
    table = sites.sh(sites.home("a"), "cat /proc/net/netfilter/nfnetlink_queue")
    return [(columns[0], columns[7]) for columns in map(str.split, table.splitlines())]


def protected(sites: Sites) -> int:
    """The last sessions in a row that went encrypted."""
    decided = [line for line in sites.log("a").splitlines() if " session decided " in line]
    return next((n for n, line in enumerate(reversed(decided)) if "protected=yes" not in line), len(decided))


def send(sites: Sites, server: MailServer, v6: bool, count: int) -> None:
    for number in range(count):
        mail(sites, "mta-a", server, sites.address("mta-b", v6), b"mail %d" % number)


def counted(sites: Sites) -> int:
    clear = sites.status("a")["counters"]["decided"]["out"]["clear"]
    return int(clear.get("dead-end", 0))


def learn(sites: Sites, server: MailServer, v6: bool) -> str:
    """Mail until it is a dead end; what the log says then."""
    address, seen = sites.address("mta-b", v6), begun(sites)
    dead = f"gate dead-end to={'[' + address + ']' if v6 else address}:25"
    send(sites, server, v6, limits.DEAD_END_AFTER_SESSIONS)
    eventually(lambda: dead in sites.log("a"), what="a dead end in the log")
    seen += limits.DEAD_END_AFTER_SESSIONS
    eventually(lambda: begun(sites) == seen, what="each of the first sessions seen")
    return dead


@FAMILIES
def test_a_dead_end_is_not_judged_until_its_time_is_over_and_a_gateway_is_found_then(
    sites: Sites, v6: bool
) -> None:
    went_before, address = counted(sites), sites.address("mta-b", v6)
    with MailServer(sites, "mta-b", v6) as server:
        learn(sites, server, v6)
        seen, in_queues = begun(sites), queued(sites)
        assert sum(int(packets) for _, packets in in_queues) >= limits.DEAD_END_AFTER_SESSIONS

        send(sites, server, v6, SPARED)
        eventually(lambda: counted(sites) - went_before == SPARED, what="what went by in the status")
        assert queued(sites) == in_queues, "not one of them was put into a queue"
        assert begun(sites) == seen
        assert explained(sites, address) == "dead-end"

        sites.start("b")
        # What the kernel does by itself when the time is over.
        forgets = partial(kernel.remove_dead_end, address, 25)
        network.inside(sites.namespace(sites.home("a")), forgets)
        send(sites, server, v6, 4)
        eventually(lambda: protected(sites) >= 4, what="all of them encrypted, the first one, too")
        assert explained(sites, address) is None
    sites.kill("b")


@pytest.mark.long
def test_when_its_time_is_over_one_session_makes_it_a_dead_end_again() -> None:
    """A minute, by the kernel's clock."""
    with standing(Placement.ROUTER, 1) as sites, MailServer(sites, "mta-b", False) as server:
        dead = learn(sites, server, False)
        seen, address = begun(sites), sites.address("mta-b", False)
        send(sites, server, False, SPARED)
        assert begun(sites) == seen
        eventually(lambda: explained(sites, address) is None, 70, "the end of its time")
        send(sites, server, False, 1)
        eventually(lambda: sites.log("a").count(dead) == 2, what="a dead end once more")
        in_queues = queued(sites)
        send(sites, server, False, SPARED)
        assert queued(sites) == in_queues
        eventually(lambda: begun(sites) == seen + 1, what="one session that was looked at, and no other")


def explained(sites: Sites, address: str) -> str | None:
    (story,) = json.loads(sites.command("a", "explain", "--json", address))
    word: str | None = story["stays_in_clear"]
    return word
