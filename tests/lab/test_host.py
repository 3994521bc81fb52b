"""The gateway on the mail server itself: all that holds for a router holds here, but for the far source port.

Real mail and dialogues. Each part has its counterpart among the tests of the router placement, whose tools it
uses: `test_real_mail`, `test_equality`, `test_darkness`. Counterpart: `test_host_failures`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from gateway.config import Placement
from gateway.lab import processes
from gateway.lab.lab import Lab
from gateway.lab.overview import overview
from gateway.lab.topology import Family
from gateway.policy import limits
from tests.lab import in_any_placement, probes
from tests.lab.conftest import Guarded
from tests.lab.darkness import SPOKEN, assert_dark
from tests.lab.dialogues import DIALOGUES, Dialogue
from tests.lab.equality import BOTH, ROUTES, UPGRADED, Route, assert_equal, through
from tests.lab.exchange import MailSites
from tests.lab.tls_ends import TlsContexts

# --- Real mail ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def post() -> Iterator[Lab]:
    """Three Postfix; the daemons are not started yet, and will run beside two of them."""
    with in_any_placement.post_offices(Placement.HOST) as lab:
        yield lab


def test_real_mail_is_the_same_and_dark_between_gateways_alone(post: Lab) -> None:
    in_any_placement.assert_real_mail_is_the_same_and_dark_between_gateways_alone(post)
    nodes = overview(post)["nodes"]
    assert [nodes[name]["gateway"] for name in ("mta-a", "mta-b")] == ["serves", "serves"], (
        "told where it is not"
    )


# --- Dialogues ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def on_hosts(tls_contexts: TlsContexts) -> Iterator[Guarded]:
    """Gateways on the mail servers, which have met."""
    with in_any_placement.acquainted(tls_contexts, Placement.HOST) as made:
        yield made


SELECTED = [
    one for number, one in enumerate(DIALOGUES) if number % 4 == 0 and not (one.long or one.takes_its_time)
]


@pytest.mark.parametrize("dialogue", [pytest.param(one, id=one.name.replace(" ", "-")) for one in SELECTED])
def test_dialogue(dialogue: Dialogue, on_hosts: Guarded, bare_sites: MailSites) -> None:
    compare(dialogue, on_hosts, bare_sites, ROUTES, Family.V4)


@pytest.mark.parametrize(
    "dialogue", [pytest.param(one, id=one.name.replace(" ", "-")) for one in SELECTED[::4]]
)
def test_dialogue_by_ipv6(dialogue: Dialogue, on_hosts: Guarded, bare_sites: MailSites) -> None:
    compare(dialogue, on_hosts, bare_sites, ROUTES, Family.V6)


def compare(
    dialogue: Dialogue, on_hosts: Guarded, bare: MailSites, routes: tuple[Route, ...], family: Family
) -> None:
    for route in routes:
        direct = bare.run(dialogue.steps, route.sender, route.receiver, family, dialogue.patience)
        via = through(on_hosts, dialogue, route, family)
        assert via.seen_source[0] == via.source[0]
        assert via.seen_source[1] != via.source[1], "not through a gateway"
        if "b" in route.gateways:
            assert (
                limits.FIRST_SPARE_PORT <= via.seen_source[1] < limits.FIRST_SPARE_PORT + limits.SPARE_PORTS
            )
        assert_equal(replace(via, seen_source=via.source), direct, dialogue)
        if route.gateways == "b" or dialogue.may_end_unbegun:
            continue
        session = on_hosts.logs["a"].ended(via.source, via.destination)
        expected = route.expected(dialogue)["a"]
        assert (session.decided, session.protected) == (expected, expected in UPGRADED), session
    for log in on_hosts.logs.values():
        assert not log.errors


def test_what_is_dialled_in_a_clients_name_never_has_a_port_of_its_live_connections(
    on_hosts: Guarded,
) -> None:
    """Else the mail server's answers to the two could not be told apart, and one would end the other."""
    sites = on_hosts.sites
    _, accepted = first = sites.connect("c", "b", Family.V4)
    wire_port = accepted.getpeername()[1]
    with first[0], accepted:
        for _ in range(3):
            step = (wire_port - limits.FIRST_SPARE_PORT + 1) % limits.SPARE_PORTS
            coming = limits.FIRST_SPARE_PORT + step
            client, server = sites.connect("c", "b", Family.V4, port=coming)
            with client, server:
                wire_port = server.getpeername()[1]
                assert wire_port != coming
                server.sendall(b"220 one of two\r\n")
                assert client.recv(100) == b"220 one of two\r\n"
            accepted.sendall(b"220 the other\r\n")
            assert first[0].recv(100) == b"220 the other\r\n"


@pytest.mark.parametrize("dialogue", [pytest.param(one, id=one.name.replace(" ", "-")) for one in SPOKEN[:4]])
def test_between_gateways_nothing_is_readable(dialogue: Dialogue, on_hosts: Guarded) -> None:
    outcome = on_hosts.sites.run(dialogue.steps, BOTH.sender, BOTH.receiver, Family.V4)
    assert_dark(on_hosts.sites.on_the_wire(outcome), outcome)


def test_a_flush_of_conntrack_lets_nothing_out_in_clear(on_hosts: Guarded) -> None:
    """What the mail servers send to each other goes on over lo: the wire sees no octet of it, nor an end."""
    began = time.time()
    made, accepted = on_hosts.sites.connect("a", "b", Family.V4)
    accepted.settimeout(probes.PATIENCE)
    lines = made.makefile("rb")
    with made, accepted, lines:
        accepted.sendall(b"220 mx.test ESMTP\r\n")
        assert lines.readline()
        made.sendall(b"EHLO client.test\r\n")
        assert accepted.recv(100) == b"EHLO client.test\r\n"
        accepted.sendall(b"250 mx.test\r\n")
        assert lines.readline() == b"250 mx.test\r\n"
        for letter in "ab":
            namespace = on_hosts.sites.lab.gateway(letter).namespace
            processes.run_in(namespace, ["conntrack", "-F"])
        for said in (b"MAIL FROM:<moonlit@a.test>\r\n", b"RCPT TO:<heron@b.test>\r\n"):
            made.sendall(said)
            assert accepted.recv(100) == said
            accepted.sendall(b"250 saltmarsh\r\n")
            assert lines.readline() == b"250 saltmarsh\r\n"
        sessions = on_hosts.sites.lab.wire_sessions(began)
    assert sessions
    for session in sessions:
        for word in (b"moonlit", b"heron", b"saltmarsh"):
            assert word not in session.from_client + session.from_server
