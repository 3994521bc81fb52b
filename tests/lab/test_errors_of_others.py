"""What fails without gateways fails alike with them: same errno, not earlier, hardly later.

Counterpart: `troubles`, the ways to fail.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator

import pytest

from gateway.intercept.marks import MarkBits
from gateway.lab import postfix, processes
from gateway.lab.postfix import Instance
from tests.lab import two_sites
from tests.lab.probes import PATIENCE, Dialogue, MailServer, eventually, failure, mail_at_once
from tests.lab.troubles import NO_NEIGHBOUR, REFUSED, SILENT, TROUBLES, Trouble, arrange, assert_alike, at
from tests.lab.two_sites import BOTH_FAMILIES, TOOLS, Sites

CONNECT_SECONDS = 6.0
"""Of Postfix, for one server: a busy machine goes on to the next one much sooner where it is told."""
# Outbound and inbound at once from a; inbound alone from c, which has no gateway.
CLIENTS = pytest.mark.parametrize("client", ["mta-a", "mta-c"], ids=["both-gates", "inbound"])


@pytest.fixture(scope="module")
def built() -> Iterator[Sites]:
    with two_sites.built() as sites:
        arrange(sites)
        yield sites


@CLIENTS
@BOTH_FAMILIES
@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
def test_the_same_failure_at_the_same_time(sites: Sites, client: str, v6: bool, trouble: Trouble) -> None:
    assert_alike(sites, client, v6, trouble)


OPENS_LATER = {False: "10.12.0.120", True: "2001:db8:12::78"}
"""At site b, and nobody else's: dials that other tests have left under way must not find it open."""


@BOTH_FAMILIES
def test_a_black_hole_that_opens_in_time_is_a_connection(sites: Sites, v6: bool) -> None:
    """The dial's own retransmission finds the way, and nobody was told anything in between."""
    target, tool = OPENS_LATER[v6], TOOLS[v6]
    hole = f"FORWARD -d {target} -p tcp -j DROP"
    sites.sh("wire", f"{tool} -A {hole}")
    sites.sh("mta-b", f"ip addr add {target}/{64 if v6 else 24} dev eth0" + (" nodad" if v6 else ""))
    try:
        with MailServer(sites, "mta-b", v6, address=target) as server, sites.socket("mta-a", v6) as client:
            client.setblocking(False)
            began = time.monotonic()
            assert client.connect_ex((target, 25)) != 0
            eventually(lambda: swallowed(sites, tool, target), what="the dial's SYN in the hole")
            sites.sh("wire", f"{tool} -D {hole}")
            opened = time.monotonic() - began
            wait_writable(client)
            took = time.monotonic() - began
            client.settimeout(5.0)
            with Dialogue(client) as dialogue:
                dialogue.begin()
            # SYNs are sent again after 1, 3, 7 seconds, by newer kernels more often.
            assert took < 2 * opened + 1.0 + 1.0
            assert len(server.peers) == 1
    finally:
        with contextlib.suppress(Exception):
            sites.sh("wire", f"{tool} -D {hole}")
        sites.sh("mta-b", f"ip addr del {target}/{64 if v6 else 24} dev eth0")


def swallowed(sites: Sites, tool: str, target: str) -> bool:
    """Whether a packet to it has ended in the hole: the gateway's, since the client's own SYN is held."""
    rules = sites.sh("wire", f"{tool} -nvxL FORWARD").splitlines()
    return any(int(rule.split()[0]) > 0 for rule in rules if target in rule.split())


def wait_writable(client: socket.socket) -> None:
    poll = select.poll()
    poll.register(client, select.POLLOUT)
    assert poll.poll(PATIENCE * 1000)


@BOTH_FAMILIES
def test_errors_leave_nothing_that_harms_the_next_connection(sites: Sites, v6: bool) -> None:
    """A client that meets refusals for a while is served at once when the server is back."""
    target = at(REFUSED, v6)
    for _ in range(5):
        assert failure(sites, "mta-a", target, port=21000)[0] == "ECONNREFUSED"
    with MailServer(sites, "mta-b", v6, address=target) as server:
        mail_at_once(sites, "mta-a", server, target, b"at last", port=21000)


@BOTH_FAMILIES
def test_a_route_of_the_gateways_machine_that_swallows_is_silence_and_no_alarm(
    sites: Sites, v6: bool
) -> None:
    """Many a router has such a route for nobody's networks, and many a domain its mail server there."""
    network, target = ("2001:db8:bad::/64", "2001:db8:bad::9") if v6 else ("203.0.113.0/24", "203.0.113.9")
    words = "-6 route" if v6 else "route"
    sites.sh("gw-a", f"ip {words} add blackhole {network}")
    try:
        assert failure(sites, "mta-a", target, timeout=1.5, port=21002)[0] == "timeout"
    finally:
        sites.sh("gw-a", f"ip {words} del blackhole {network}")
    told = eventually(
        lambda: [line for line in sites.log("a").splitlines() if f"to={name(target)}" in line],
        what="its line",
    )
    assert all("reason=dial-silent" in line for line in told), told
    assert not sites.alarms("a", "overloaded")


@BOTH_FAMILIES
def test_a_machine_that_keeps_the_gateway_from_dialling_lets_mail_pass_and_rings_for_what_it_is(
    sites: Sites, v6: bool
) -> None:
    """By a policy of IPsec for what is sent from here: what is forwarded it does not mean."""
    target = sites.address("mta-b", v6)
    ours = MarkBits(0xFF000000).dialled
    policy = f"dir out src ::/0 dst {target}" if v6 else f"dir out src 0.0.0.0/0 dst {target}"
    mark = f"mark {ours:#x} mask {ours:#x}"
    sites.sh("gw-a", f"ip xfrm policy add {policy} {mark} action block")
    try:
        with MailServer(sites, "mta-b", v6) as server:
            mail_at_once(sites, "mta-a", server, target, b"past the gateway", port=21003)
    finally:
        sites.sh("gw-a", f"ip xfrm policy delete {policy} {mark}")
    client = (sites.address("mta-a", v6), 21003)
    told = eventually(
        lambda: [line for line in sites.log("a").splitlines() if f"source={name(*client)}" in line],
        what="its line",
    )
    assert all("reason=dial-impossible" in line for line in told), told
    assert "EPERM" in str(sites.alarms("a", "dial-impossible"))
    assert not sites.alarms("a", "overloaded")


def name(target: str, port: int = 25) -> str:
    return f"[{target}]:{port}" if ":" in target else f"{target}:{port}"


# --- Postfix: the next mail server is tried --------------------------------------------------------------


@pytest.fixture(scope="module")
def sender(built: Sites) -> Iterator[Instance]:
    """A real Postfix at site a, whose mail for b.test goes to two servers in order, the first one dead."""
    node = built.topology.nodes["mta-a"]
    instance = Instance(node, built.namespace(node.name), built.folder / "postfix")
    built.folder.chmod(0o755)
    postfix.prepare(instance, built.topology)
    lines = [
        f"{trouble.name}.{family}.test smtp:[{at(trouble, v6)}]:25, [{built.address('mta-b', v6)}]:25"
        for trouble in TROUBLES
        for family, v6 in (("v4", False), ("v6", True))
    ]
    (instance.config / "transport").write_text("\n".join(lines) + "\n")
    with (instance.config / "main.cf").open("a") as file:
        file.write(f"smtp_connect_timeout = {int(CONNECT_SECONDS)}s\nsmtp_tls_security_level = none\n")
    postfix.start(instance)
    yield instance


@BOTH_FAMILIES
@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.name)
def test_postfix_goes_on_to_the_next_server(
    sites: Sites, sender: Instance, v6: bool, trouble: Trouble
) -> None:
    family = "v6" if v6 else "v4"
    with MailServer(sites, "mta-b", v6) as server:
        began = time.monotonic()
        send(sender, f"bob@{trouble.name}.{family}.test")
        eventually(lambda: server.mails, 20.0, "the mail at the second server")
        took = time.monotonic() - began
    assert len(server.mails) == 1
    limit = {SILENT: CONNECT_SECONDS, NO_NEIGHBOUR: 0.5}.get(trouble, 0.0) + 4.0
    assert took < limit, f"{took:.1f} s"


def send(sender: Instance, recipient: str) -> None:
    text = f"From: alice@a.test\nTo: {recipient}\nSubject: next\n\nhello\n".encode()
    command = ["sendmail", "-C", str(sender.config), "-f", "alice@a.test", recipient]
    processes.run_in(sender.namespace, command, stdin=text)
