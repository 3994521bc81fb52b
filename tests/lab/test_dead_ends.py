"""Servers that offer nothing are left alone for a while: the kernel passes their SYNs. A gateway is found.

Seen in the kernel's counter at the gate, in the log, and in `status`. Namespaces nmf0-...
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from gateway.config import Placement
from gateway.policy import limits
from tests.lab import probes
from tests.lab.probes import MailServer, Sites, eventually, mail

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
FAMILIES = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
CONFIGURATION = "minutes = 30\n"


@pytest.fixture(scope="module", params=[Placement.ROUTER, Placement.HOST], ids=lambda one: one.value)
def sites(request: pytest.FixtureRequest) -> Iterator[Sites]:
    with probes.built(start=False, placement=request.param) as sites:
        for one in sites.gateways:
            text = one.configuration.read_text()
            assert "minutes = 0\n" in text
            one.configuration.write_text(text.replace("minutes = 0\n", CONFIGURATION))
        sites.start("a")
        yield sites


def begun(sites: Sites) -> int:
    """Sessions that the sending gateway has seen."""
    return sites.log("a").count(" session begun ")


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


@FAMILIES
def test_a_dead_end_is_not_judged_until_a_gateway_is_found_there(sites: Sites, v6: bool) -> None:
    """Site b has no gateway at first."""
    went_before, seen = counted(sites), begun(sites)
    address = sites.address("mta-b", v6)
    with MailServer(sites, "mta-b", v6) as server:
        dead = f"gate dead-end to={'[' + address + ']' if v6 else address}:25"
        send(sites, server, v6, limits.DEAD_END_AFTER_SESSIONS)
        eventually(lambda: dead in sites.log("a"), what="a dead end in the log")
        seen += limits.DEAD_END_AFTER_SESSIONS
        eventually(lambda: begun(sites) == seen, what="each of the first sessions seen")

        # The first of a round is judged or the last: of all exactly one is.
        send(sites, server, v6, limits.DEAD_END_ONE_IN)
        went_by = limits.DEAD_END_ONE_IN - 1
        eventually(lambda: counted(sites) - went_before == went_by, what="what went by in the status")
        eventually(lambda: begun(sites) == seen + 1, what="one that was judged all the same")
        assert explained(sites, address) == "dead-end"

        sites.start("b")
        send(sites, server, v6, limits.DEAD_END_ONE_IN)
        eventually(lambda: "gate dead-end-no-more" in sites.log("a")[sites.log("a").index(dead) :])
        send(sites, server, v6, 3)
        eventually(lambda: protected(sites) >= 4, what="these and the one that found it, encrypted")
        assert explained(sites, address) is None
    sites.kill("b")


def explained(sites: Sites, address: str) -> str | None:
    (story,) = json.loads(sites.command("a", "explain", "--json", address))
    word: str | None = story["stays_in_clear"]
    return word
