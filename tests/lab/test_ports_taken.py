"""The port of a client is taken on the gateway's machine: mail goes by another one, at once.

What a gateway dials bears the client's own port, which any program of that machine may have, too.
"""

from __future__ import annotations

import time

import pytest

from gateway.errors import Reason
from tests.lab import probes
from tests.lab.gateway_log import GatewayLog
from tests.lab.probes import Dialogue, MailServer, eventually, mail_at_once
from tests.lab.two_sites import BOTH_FAMILIES, Sites

PORT = 43_210


@pytest.fixture(scope="module")
def built(acquainted_sites: Sites) -> Sites:
    return acquainted_sites


@BOTH_FAMILIES
@pytest.mark.parametrize("letter", ["a", "b"])
def test_a_program_that_listens_there_for_all_addresses_is_in_nobodys_way(
    sites: Sites, letter: str, v6: bool
) -> None:
    """Such as one of NFS or of a container, whose ports are of those that clients have."""
    target = sites.address("mta-b", v6)
    with sites.socket(f"gw-{letter}", v6) as program, MailServer(sites, "mta-b", v6) as server:
        program.bind(("", PORT))
        program.listen()
        mail_at_once(sites, "mta-a", server, target, b"by another port", port=PORT)
    client = (sites.address("mta-a", v6), PORT)
    session = GatewayLog(sites.gateway("a").log).ended(client, (target, 25), probes.PATIENCE)
    assert session.decided is Reason.UPGRADED


@BOTH_FAMILIES
def test_what_is_left_of_the_last_connection_from_there_is_in_nobodys_way(sites: Sites, v6: bool) -> None:
    """A server without timestamps, as Windows has none: Linux connects from that port again in a minute."""
    target = sites.address("mta-c", v6)
    sites.sh("mta-c", "sysctl -qw net.ipv4.tcp_timestamps=0")
    try:
        with MailServer(sites, "mta-c", v6) as server:
            leave_behind(sites, target, v6)
            mail_at_once(sites, "mta-a", server, target, b"from the same port again", port=PORT)
    finally:
        sites.sh("mta-c", "sysctl -qw net.ipv4.tcp_timestamps=1")


def leave_behind(sites: Sites, target: str, v6: bool) -> None:
    """The client says QUIT and does not wait for the answer, as Postfix does: its kernel answers that with a
    reset and has the port free again, while at the gateway the first one to end was the dialled socket."""

    def is_left() -> bool:
        with Dialogue(sites.connect("mta-a", target, port=PORT)) as dialogue:
            dialogue.begin()
            dialogue.socket.sendall(b"QUIT\r\n")
        return eventually_in_time_wait(sites, target) and not in_time_wait(sites, "mta-a", target)

    eventually(is_left, seconds=60.0, what="TIME_WAIT at the gateway alone")


def eventually_in_time_wait(sites: Sites, target: str) -> bool:
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        if in_time_wait(sites, "gw-a", target):
            return True
    return False


def in_time_wait(sites: Sites, node: str, target: str) -> bool:
    host = f"[{target}]" if ":" in target else target
    return bool(sites.sh(node, f"ss -Htan state time-wait sport = :{PORT} and dst = {host}:25"))
