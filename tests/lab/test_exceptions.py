"""What the operator said of addresses, with real gateways and mail, in each placement.

Seen in the kernel's counter at the gate, in the log, and in `explain`. Namespaces nmf0-...
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from gateway.config import Placement
from gateway.lab import gateways
from gateway.policy import limits
from tests.lab import two_sites
from tests.lab.probes import MailServer, eventually, mail
from tests.lab.two_sites import NO_TICKETS, Sites

ENDS = pytest.mark.parametrize("end", ["mta-a", "mta-b"], ids=["source", "destination"])


# A reload for each test makes minutes of them, and the rules for it are the same templates in each placement.
GOES = 3
SLOW = [pytest.param(one, marks=pytest.mark.long) for one in (Placement.HOST, Placement.BRIDGE)]


@pytest.fixture(scope="module", params=[Placement.ROUTER, *SLOW], ids=lambda one: one.value)
def sites(request: pytest.FixtureRequest) -> Iterator[Sites]:
    # A reload loses the tickets of the sending gateway; its next session would be two for the other one.
    with two_sites.built(placement=request.param, configuration=NO_TICKETS) as sites:
        yield sites


@pytest.fixture
def plain(sites: Sites) -> None:
    """Without exceptions, whatever the test before has said."""
    for letter in "ab":
        unsay(sites, letter)


def unsay(sites: Sites, letter: str) -> None:
    """A reload takes longer than all that a test here sends: only where something has been said."""
    one = sites.gateway(letter)
    text = one.configuration.read_text()
    if "[exceptions]" in text:
        one.configuration.write_text(text.split("[exceptions]")[0])
        assert sites.command(letter, "reload").startswith("reloaded")
        sites.wait_ready(letter)


def say(sites: Sites, letter: str, **lists: list[str]) -> None:
    """Exceptions of this gateway alone, from now on. A list whose name is none of theirs is one of [sets]."""
    unsay(sites, "b" if letter == "a" else "a")
    one = sites.gateway(letter)
    kinds = ("always", "never", "never_offer")
    exceptions = [f"{name} = {json.dumps(lists[name])}" for name in kinds if name in lists]
    sets = [f"{name} = {json.dumps(entries)}" for name, entries in lists.items() if name not in kinds]
    text = one.configuration.read_text().split("[exceptions]")[0]
    one.configuration.write_text("\n".join([text, "[exceptions]", *exceptions, "[sets]", *sets, ""]))
    said = sites.command(letter, "reload")
    assert said.startswith("reloaded"), said
    sites.wait_ready(letter)


def send(sites: Sites, v6: bool, count: int = 1) -> None:
    with MailServer(sites, "mta-b", v6) as server:
        for number in range(count):
            mail(sites, "mta-a", server, sites.address("mta-b", v6), b"mail %d" % number)


def decided(sites: Sites, letter: str) -> list[str]:
    """How each session went that this gateway has seen."""
    lines = [line for line in sites.log(letter).splitlines() if " session decided " in line]
    return [line.rpartition("reason=")[2].split()[0] for line in lines]


def went(sites: Sites, letter: str, v6: bool) -> str:
    """How the next session goes at this gateway; both see it, and their logs tell it before this returns."""
    see_next(sites, v6, "ab")
    return decided(sites, letter)[-1]


def passes_by(sites: Sites, v6: bool) -> bool:
    """Whether the next session is seen by gateway b alone, which has no exceptions, and in clear."""
    before = len(decided(sites, "a"))
    see_next(sites, v6, "b")
    return len(decided(sites, "a")) == before and not decided(sites, "b")[-1].startswith("upgraded")


def see_next(sites: Sites, v6: bool, letters: str) -> None:
    """Send until one session is seen by all of these: a worker that gets no core lets one pass."""
    for _ in range(GOES):
        before = {each: len(decided(sites, each)) for each in letters}
        send(sites, v6)
        try:
            eventually(
                lambda before=before: all(len(decided(sites, each)) == before[each] + 1 for each in letters)
            )
        except AssertionError as error:
            missed = error
        else:
            return
    raise missed


@ENDS
@pytest.mark.usefixtures("plain")
def test_never_by_source_and_by_destination(sites: Sites, end: str) -> None:
    for v6 in (False, True):
        assert went(sites, "a", v6).startswith("upgraded")
    for v6 in (False, True):
        say(sites, "a", never=[sites.address(end, v6)])
        assert passes_by(sites, v6)
        assert went(sites, "a", not v6).startswith("upgraded")


@ENDS
def test_always_comes_before_never(sites: Sites, end: str) -> None:
    """However narrow the other entry is."""
    networks, addresses = ["0.0.0.0/0", "::/0"], [sites.address(end, v6) for v6 in (False, True)]
    for always, never in ((networks, addresses), (addresses, networks)):
        say(sites, "a", always=always, never=never)
        for v6 in (False, True):
            assert went(sites, "a", v6).startswith("upgraded")
    for v6 in (False, True):
        assert explained(sites, sites.address("mta-b", v6)) == (None if end == "mta-b" else "never")


def explained(sites: Sites, address: str) -> str | None:
    (story,) = json.loads(sites.command("a", "explain", "--json", address))
    word: str | None = story["stays_in_clear"]
    return word


def test_offers(sites: Sites) -> None:
    clients = [sites.address("mta-a", v6) for v6 in (False, True)]
    say(sites, "b", never_offer=clients)
    for v6 in (False, True):
        assert went(sites, "b", v6) == "never-offer"
    say(sites, "b", never_offer=clients, always=clients)
    for v6 in (False, True):
        assert went(sites, "b", v6).startswith("upgraded")


def test_a_named_list(sites: Sites) -> None:
    servers = [sites.address("mta-b", v6) for v6 in (False, True)]
    say(sites, "a", never=["partners"], partners=["192.0.2.1", *servers])
    for v6 in (False, True):
        assert passes_by(sites, v6)


def test_a_set_of_the_kernels(sites: Sites) -> None:
    """Whoever is put into it counts from the next connection on, as a source and as a destination."""
    node, sets = sites.home("a"), {False: "traps", True: "traps6"}
    for v6, name in sets.items():
        sites.sh(node, f"ipset create {name} hash:net family {'inet6' if v6 else 'inet'}")
    try:
        say(sites, "a", never=["ipset:traps", "ipset6:traps6"])
        for v6, name in sets.items():
            for end in ("mta-a", "mta-b"):
                assert went(sites, "a", v6).startswith("upgraded")
                sites.sh(node, f"ipset add {name} {sites.address(end, v6)}")
                assert passes_by(sites, v6)
                assert went(sites, "a", not v6).startswith("upgraded")
                listed = end == "mta-b"
                assert explained(sites, sites.address("mta-b", v6)) == ("never" if listed else None)
                sites.sh(node, f"ipset del {name} {sites.address(end, v6)}")
                assert went(sites, "a", v6).startswith("upgraded")
        assert json.loads(sites.command("a", "plan", "--json"))["rules"] == []
    finally:
        unsay(sites, "a")
        for name in sets.values():
            sites.sh(node, f"ipset destroy {name}")


@pytest.mark.usefixtures("plain")
def test_a_set_that_is_not_there(sites: Sites) -> None:
    """Mail passes in clear, and everybody who is asked says why."""
    gateways.kill(sites.gateway("a"))
    sites.command("a", "down")
    one = sites.gateway("a")
    plain = one.configuration.read_text()
    one.configuration.write_text(plain + '[exceptions]\nnever = ["ipset:traps"]\n')
    without = sites.kernel_state("a")
    try:
        assert "no set traps, which exceptions.never names" in sites.command("a", "plan")
        assert "no set traps, which exceptions.never names" in sites.command("a", "check")
        said = sites.command("a", "up")
        assert "no set traps, which exceptions.never names" in said
        assert len(said.splitlines()) == 1
        assert sites.kernel_state("a") == without
        assert passes_by(sites, False)
    finally:
        one.configuration.write_text(plain)
        sites.command("a", "up")
        sites.start("a")


@pytest.mark.usefixtures("plain")
def test_always_comes_before_a_dead_end(sites: Sites) -> None:
    one = sites.gateway("a")
    text = one.configuration.read_text()
    one.configuration.write_text(text.replace("minutes = 0\n", "minutes = 30\n"))
    addresses = {v6: sites.address("mta-b", v6) for v6 in (False, True)}
    sites.kill("b")
    for address in addresses.values():
        sites.command("a", "peers", "forget", address)  # who is remembered is never a dead end
    say(sites, "a", always=list(addresses.values()))
    try:
        for v6, address in addresses.items():
            before, many = len(decided(sites, "a")), limits.DEAD_END_AFTER_SESSIONS
            dead = f"gate dead-end to={'[' + address + ']' if v6 else address}:25"
            at = len(sites.log("a"))
            send(sites, v6, many)
            eventually(lambda dead=dead, at=at: dead in sites.log("a")[at:], what="a dead end in the log")
            send(sites, v6, 3)
            after = before + many + 3
            eventually(lambda after=after: len(decided(sites, "a")) == after, what="each of them seen")
            assert explained(sites, address) is None
    finally:
        one.configuration.write_text(text)
        sites.command("a", "reload")
        sites.start("b")
