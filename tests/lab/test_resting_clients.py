"""Clients that rest pass at the gate, in the kernel, but for connections whose turn it is by their port.

Seen in the kernel's count of queued packets, in the log, and in `status`. Gateway b is alone at first, and
its clients ignore what it offers. Namespaces nmf0-...
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest

from gateway.config import Placement
from gateway.intercept import kernel
from gateway.lab import network
from gateway.peers.pins import Destination
from tests.lab import two_sites
from tests.lab.come_again import comes_again, deaf
from tests.lab.offered import MANY, REST, configure, one_round, rests, session
from tests.lab.probes import Dialogue, MailServer, eventually
from tests.lab.strangers import add_address, told
from tests.lab.two_sites import BOTH_FAMILIES, TOOLS, Sites

_NOT_THEIR_TURN = iter(range(47_002, 49_000, 8))
"""Ports."""
_MORE = iter(range(120, 250))
"""Last parts of addresses."""


@pytest.fixture(scope="module", params=list(Placement), ids=lambda one: one.value)
def built(request: pytest.FixtureRequest) -> Iterator[Sites]:
    with two_sites.built(start=False, placement=request.param) as sites:
        configure(sites, "b", rest=True)
        yield sites


@pytest.fixture
def sites(built: Sites) -> Iterator[Sites]:
    """Nobody has met anybody."""
    for one in built.gateways:
        for path in (one.folder / "state").glob("*"):
            path.unlink()
    built.start("b")
    yield built
    built.kill("a")
    built.kill("b")
    configure(built, "b", rest=True)


@pytest.fixture
def server(sites: Sites, v6: bool) -> Iterator[MailServer]:
    with MailServer(sites, "mta-b", v6) as server:
        yield server


def begun(sites: Sites) -> int:
    return sites.log("b").count(" session begun ")


def passed(sites: Sites) -> int:
    clear = sites.status("b")["counters"]["decided"]["in"]["clear"]
    return int(clear.get("client-rests", 0))


@BOTH_FAMILIES
def test_between_its_turns_a_client_passes_at_the_gate(sites: Sites, server: MailServer, v6: bool) -> None:
    client, other = (add_address(sites, "mta-c", next(_MORE), v6) for _ in range(2))
    rests(sites, client, "mta-c")
    seen, in_queues, arrived = begun(sites), sites.queued("b"), len(server.mails)
    assert not any(session(sites, client, "mta-c") for _ in range(20))
    assert sites.queued("b") == in_queues, "not one of them was put into a queue"
    assert begun(sites) == seen
    assert len(server.mails) == arrived + 20
    eventually(lambda: passed(sites) == 20, what="what went by in the status")
    (story,) = json.loads(sites.command("b", "explain", "--json", client))
    assert story["passes_at_gate"] == [str(Destination(sites.address("mta-b", v6), 25))]

    assert [one_round(sites, client, "mta-c") for _ in range(3)] == [REST] * 3
    eventually(lambda: begun(sites) == seen + 3, what="the sessions whose turn it was")
    assert session(sites, other, "mta-c"), "a client that has ignored none"


@BOTH_FAMILIES
def test_a_first_upgrade_ends_it_for_all_before_the_next_connection(
    sites: Sites, server: MailServer, v6: bool
) -> None:
    """Whoever is met first may remember us before the daemon has heard of it: no connection of his passes."""
    stranger, client = add_address(sites, "mta-c", next(_MORE), v6), sites.address("mta-a", v6)
    rests(sites, stranger, "mta-c")
    rests(sites, client)
    sites.start("a")

    def reasons() -> list[str]:
        return [fields["reason"] for fields in told(sites, "a", "session decided", client)]

    def is_met() -> bool:
        for turn in (True, False, False):
            session(sites, client, turn=turn)
        return "upgraded-new-peer" in reasons()

    eventually(is_met, what="the first channel")
    came = len(reasons())
    assert [session(sites, stranger, "mta-c") for _ in range(4)] == [True] * 4
    session(sites, client)
    eventually(lambda: len(reasons()) > came, what="all decisions")
    behind = reasons()[reasons().index("upgraded-new-peer") :]
    assert set(behind) <= {"upgraded-new-peer", "upgraded"}
    eventually(lambda: "gate clients-rest-no-more" in sites.log("b"), what="that in the log")
    assert sites.alarms("a") == []
    assert listed(sites, v6) == []


def listed(sites: Sites, v6: bool) -> list[str]:
    """Who rests in the kernel."""
    listing = sites.sh(sites.home("b"), f"nft list set inet nightmail resting{6 if v6 else 4}")
    return [line for line in listing.splitlines() if "expires" in line]


@pytest.mark.parametrize("v6", [False], ids=["v4"])
def test_a_reload_keeps_it_and_one_without_it_ends_it(sites: Sites, server: MailServer, v6: bool) -> None:
    client = add_address(sites, "mta-c", next(_MORE), v6)
    rests(sites, client, "mta-c")
    assert listed(sites, v6)
    sites.command("b", "reload")
    in_queues = sites.queued("b")
    assert not any(session(sites, client, "mta-c") for _ in range(4))
    # Workers of before may end meanwhile, and their queues with them.
    assert set(sites.queued("b")) <= set(in_queues)
    (story,) = json.loads(sites.command("b", "explain", "--json", client))
    assert story["passes_at_gate"] == [str(Destination(sites.address("mta-b", v6), 25))]

    configure(sites, "b", rest=False)
    sites.command("b", "reload")
    eventually(lambda: not listed(sites, v6), what="nobody in the set")
    assert all(session(sites, client, "mta-c") for _ in range(4))


@pytest.mark.parametrize("v6", [False], ids=["v4"])
def test_rules_that_were_lost_are_put_back_and_it_is_found_again(
    sites: Sites, server: MailServer, v6: bool
) -> None:
    """By a session that is looked at, as anybody's."""
    client = add_address(sites, "mta-c", next(_MORE), v6)
    rests(sites, client, "mta-c")
    session(sites, client, "mta-c")
    eventually(lambda: passed(sites) == 1, what="what went by in the status")
    sites.sh(sites.home("b"), "nft flush ruleset")
    eventually(lambda: " rules put-back " in sites.log("b"), what="the rules back")
    assert not listed(sites, v6)

    def found_again() -> bool:
        session(sites, client, "mta-c")
        return len(told(sites, "b", "gate client-rests", client)) == 2

    eventually(found_again, what="at rest once more")
    in_queues = sites.queued("b")
    assert not session(sites, client, "mta-c")
    assert sites.queued("b") == in_queues


# --- Whose is judged all the same -----------------------------------------------------------------------


@contextlib.contextmanager
def at_rest(sites: Sites, client: str, target: str) -> Iterator[None]:
    inside = sites.namespace(sites.home("b"))
    network.inside(inside, lambda: kernel.RESTING.add([(client, target, 25)], 600))
    try:
        yield
    finally:
        network.inside(inside, lambda: kernel.RESTING.remove((client, target, 25)))


@BOTH_FAMILIES
def test_a_connection_that_is_taken_stays_so_when_its_syn_comes_again(sites: Sites, v6: bool) -> None:
    client, target = sites.address("mta-c", v6), sites.address("mta-b", v6)
    deafness = deaf(sites, "mta-c", v6, "--sport 25 --tcp-flags SYN,ACK SYN,ACK")
    ends = ("mta-c", target, next(_NOT_THEIR_TURN))
    comes_again(sites, ends, "taken", deafness, at_rest(sites, client, target), at="b")


@BOTH_FAMILIES
@pytest.mark.parametrize("built", [Placement.BRIDGE], ids=["bridge"], indirect=True)
def test_a_connection_that_is_dialled_for_is_taken_when_its_syn_comes_again(sites: Sites, v6: bool) -> None:
    client, target = sites.address("mta-c", v6), sites.address("mta-b", v6)
    ends = ("mta-c", target, next(_NOT_THEIR_TURN))
    deafness = deaf(sites, "mta-b", v6, "--dport 25")
    comes_again(sites, ends, "dialled", deafness, at_rest(sites, client, target), at="b")


@BOTH_FAMILIES
@pytest.mark.parametrize("built", [Placement.ROUTER], ids=["router"], indirect=True)
def test_where_a_filter_drops_what_passes_it_is_taken_when_its_syn_comes_again(
    sites: Sites, server: MailServer, v6: bool
) -> None:
    """Many a site lets nothing through FORWARD that the gateway does not carry: its mail waits a second."""
    client, target = sites.address("mta-c", v6), sites.address("mta-b", v6)
    closed = f"FORWARD -d {target} -p tcp --dport 25 -j DROP"
    tool, node = TOOLS[v6], sites.home("b")
    sites.sh(node, f"{tool} -A {closed}")
    try:
        with at_rest(sites, client, target):
            seen = begun(sites)
            with Dialogue(sites.connect("mta-c", target, port=next(_NOT_THEIR_TURN))) as dialogue:
                dialogue.begin()
            eventually(lambda: begun(sites) == seen + 1, what="its session")
    finally:
        sites.sh(node, f"{tool} -D {closed}")


@BOTH_FAMILIES
@pytest.mark.parametrize("built", [Placement.ROUTER], ids=["router"], indirect=True)
def test_what_has_been_answered_passes_when_its_syn_comes_again(
    sites: Sites, server: MailServer, v6: bool
) -> None:
    """The client has not heard the answer: its server stands ready, and nobody else speaks for it."""
    client, target = sites.address("mta-c", v6), sites.address("mta-b", v6)
    with at_rest(sites, client, target), deaf(sites, "mta-c", v6, "--sport 25 --tcp-flags SYN,ACK SYN,ACK"):
        seen, in_queues = begun(sites), sites.queued("b")
        with sites.socket("mta-c", v6) as made:
            made.bind((client, next(_NOT_THEIR_TURN)))
            made.setblocking(False)
            made.connect_ex((target, 25))
            eventually(lambda: rested(sites) >= 2, what="the SYN that comes again")
        assert (begun(sites), sites.queued("b")) == (seen, in_queues)


def rested(sites: Sites) -> int:
    """SYNs that have passed so, by the kernel's own count."""
    listing = sites.sh(sites.home("b"), "nft list counter inet nightmail rested")
    return int(listing.split("packets ")[1].split()[0])


@BOTH_FAMILIES
def test_mail_that_leaves_the_site_is_looked_at_whoever_rests(sites: Sites, v6: bool) -> None:
    """A client from outside rests; what a mail server inside sends to the same address does not."""
    client, own = sites.address("mta-c", v6), sites.address("mta-b", v6)
    with MailServer(sites, "mta-c", v6), at_rest(sites, client, own):
        in_queues = sites.queued("b")
        with Dialogue(sites.connect("mta-b", client, port=next(_NOT_THEIR_TURN))) as dialogue:
            dialogue.begin()
        assert sites.queued("b") != in_queues


@BOTH_FAMILIES
def test_what_is_always_looked_at_does_not_rest(sites: Sites, server: MailServer, v6: bool) -> None:
    client, own = sites.address("mta-c", v6), sites.address("mta-b", v6)
    path = sites.gateway("b").configuration
    text = path.read_text()
    path.write_text(f'{text}\n[exceptions]\nalways = ["{client}"]\n')
    try:
        sites.command("b", "reload")
        with at_rest(sites, client, own):
            assert session(sites, client, "mta-c")
    finally:
        path.write_text(text)


@BOTH_FAMILIES
def test_who_ignores_no_more_than_the_others_does_not_rest(
    sites: Sites, server: MailServer, v6: bool
) -> None:
    client = add_address(sites, "mta-c", next(_MORE), v6)
    assert all(session(sites, client, "mta-c") for _ in range(MANY))
    assert listed(sites, v6) == []
