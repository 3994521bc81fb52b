"""Servers that offer nothing are left alone for a while: the kernel passes their SYNs. A gateway is found.

Seen in the kernel's count of queued packets, in the log, and in `status`. Namespaces nmf0-...
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import partial

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from gateway.config import Placement
from gateway.intercept import kernel
from gateway.lab import network
from gateway.policy import limits
from tests.lab import two_sites
from tests.lab.bridges import Cable, mac_of
from tests.lab.come_again import comes_again, deaf
from tests.lab.probes import Dialogue, MailServer, eventually, mail
from tests.lab.two_sites import BOTH_FAMILIES, Sites

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


@pytest.fixture(scope="module", params=list(Placement), ids=lambda one: one.value)
def sites(request: pytest.FixtureRequest) -> Iterator[Sites]:
    with standing(request.param, 30) as sites:
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


def learn(sites: Sites, server: MailServer, v6: bool) -> str:
    """Mail until it is a dead end; what the log says then."""
    address, seen = sites.address("mta-b", v6), begun(sites)
    dead = f"gate dead-end to={'[' + address + ']' if v6 else address}:25"
    send(sites, server, v6, limits.DEAD_END_AFTER_SESSIONS)
    eventually(lambda: dead in sites.log("a"), what="a dead end in the log")
    seen += limits.DEAD_END_AFTER_SESSIONS
    eventually(lambda: begun(sites) == seen, what="each of the first sessions seen")
    return dead


@BOTH_FAMILIES
def test_a_dead_end_is_not_judged_until_its_time_is_over_and_a_gateway_is_found_then(
    sites: Sites, v6: bool
) -> None:
    went_before, address = counted(sites), sites.address("mta-b", v6)
    with MailServer(sites, "mta-b", v6) as server:
        learn(sites, server, v6)
        seen, in_queues = begun(sites), sites.queued("a")
        assert sum(int(packets) for _, packets in in_queues) >= limits.DEAD_END_AFTER_SESSIONS

        send(sites, server, v6, SPARED)
        eventually(lambda: counted(sites) - went_before == SPARED, what="what went by in the status")
        assert sites.queued("a") == in_queues, "not one of them was put into a queue"
        assert begun(sites) == seen
        assert explained(sites, address) == "dead-end"

        sites.start("b")
        # What the kernel does by itself when the time is over.
        forgets = partial(kernel.DEAD_ENDS.remove, (address, 25))
        network.inside(sites.namespace(sites.home("a")), forgets)
        send(sites, server, v6, 4)
        eventually(lambda: protected(sites) >= 4, what="all of them encrypted, the first one, too")
        assert explained(sites, address) is None
    sites.kill("b")


# --- What was begun before -----------------------------------------------------------------------------


@contextlib.contextmanager
def a_dead_end(sites: Sites, address: str) -> Iterator[None]:
    """From one moment to the next."""
    inside = sites.namespace(sites.home("a"))
    network.inside(inside, lambda: kernel.DEAD_ENDS.add([(address, 25)], 600))
    try:
        yield
    finally:
        network.inside(inside, lambda: kernel.DEAD_ENDS.remove((address, 25)))


@BOTH_FAMILIES
def test_a_connection_that_is_taken_stays_so_when_its_syn_comes_again(sites: Sites, v6: bool) -> None:
    """The answer to its first one was lost, and when it comes again there is a dead end: one half of it must
    not be between client and server, and the other one at the gateway."""
    cable = "lo" if sites.placement is Placement.HOST else "eth0"
    answers = f"-i {cable} --sport 25 --tcp-flags SYN,ACK SYN,ACK"
    address = sites.address("mta-b", v6)
    deafness = deaf(sites, "mta-a", v6, answers)
    comes_again(sites, ("mta-a", address, 0), "taken", deafness, a_dead_end(sites, address))


@BOTH_FAMILIES
@pytest.mark.parametrize("sites", [Placement.BRIDGE], ids=["bridge"], indirect=True)
def test_a_connection_that_is_dialled_for_is_taken_when_its_syn_comes_again(sites: Sites, v6: bool) -> None:
    """The server has not answered the first one: the dial and the client's own SYN are not to meet there."""
    address = sites.address("mta-b", v6)
    deafness = deaf(sites, "mta-b", v6, "--dport 25")
    comes_again(sites, ("mta-a", address, 0), "dialled", deafness, a_dead_end(sites, address))


@BOTH_FAMILIES
def test_a_session_under_way_goes_on(sites: Sites, v6: bool) -> None:
    address = sites.address("mta-b", v6)
    with MailServer(sites, "mta-b", v6) as server, Dialogue(sites.connect("mta-a", address)) as dialogue:
        dialogue.begin()
        with a_dead_end(sites, address):
            dialogue.send_mail(b"in one piece")
            dialogue.say(b"QUIT")
        assert server.mails == [b"in one piece\r\n"]


@BOTH_FAMILIES
@pytest.mark.parametrize("sites", [Placement.BRIDGE], ids=["bridge"], indirect=True)
def test_on_a_bridge_a_syn_to_a_dead_end_is_the_same_frame_behind_it(sites: Sites, v6: bool) -> None:
    """What the gateway dials is another one, and what it takes is at its own interface before."""
    source, address = sites.address("mta-a", v6), sites.address("mta-b", v6)
    frame = syn(sites, source, address, 47001)
    in_queues = sites.queued("a")
    with (
        a_dead_end(sites, address),
        Cable(sites.namespace("mta-a"), "eth0") as inside,
        Cable(sites.namespace("gw-a"), "nm1") as lifted,
        Cable(sites.namespace("wire"), "gw-a") as wire,
    ):
        inside.send(frame)
        eventually(lambda: frame in wire.arrived(), what="the very same frame on the wire")
        assert lifted.arrived() == []
    assert sites.queued("a") == in_queues


@BOTH_FAMILIES
@pytest.mark.parametrize("kind", ["taken", "dialled"])
@pytest.mark.parametrize("sites", [Placement.BRIDGE], ids=["bridge"], indirect=True)
def test_on_a_bridge_a_syn_of_ours_does_not_pass_to_a_dead_end(sites: Sites, kind: str, v6: bool) -> None:
    source, address = sites.address("mta-a", v6), sites.address("mta-b", v6)
    frame, in_queues = syn(sites, source, address, 47002), sites.queued("a")
    element = f"{{ {source} . 47002 . {address} . 25 }}"
    sites.sh("gw-a", f"nft add element inet nightmail {kind}{6 if v6 else 4} {element}")
    with (
        a_dead_end(sites, address),
        Cable(sites.namespace("mta-a"), "eth0") as inside,
        Cable(sites.namespace("wire"), "gw-a") as wire,
    ):
        inside.send(frame)
        eventually(lambda: sites.queued("a") != in_queues, what="a SYN in a queue")
        assert frame not in wire.arrived()


def syn(sites: Sites, source: str, address: str, port: int) -> bytes:
    """As it comes from the mail server at a, for its router."""
    station, router = mac_of(sites.namespace("mta-a"), "eth0"), mac_of(sites.namespace("wire"), "gw-a")
    kind = IPv6 if ":" in address else IP
    packet = kind(src=source, dst=address) / TCP(sport=port, dport=25, flags="S", seq=2525)
    return bytes(Ether(src=station.hex(":"), dst=router.hex(":")) / packet)


# --- And after its time ---------------------------------------------------------------------------------


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
        in_queues = sites.queued("a")
        send(sites, server, False, SPARED)
        assert sites.queued("a") == in_queues
        eventually(lambda: begun(sites) == seen + 1, what="one session that was looked at, and no other")


def explained(sites: Sites, address: str) -> str | None:
    (story,) = json.loads(sites.command("a", "explain", "--json", address))
    word: str | None = story["stays_in_clear"]
    return word
