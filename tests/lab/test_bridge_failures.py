"""The gateway as a bridge: troubles of others come as they are, and its own are nobody's trouble.

For a router the same is in `test_errors_of_others`, `test_fail_open` and `test_reload`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from gateway.config import Placement
from tests.lab import in_any_placement, probes, troubles, two_sites
from tests.lab.bridges import Cable, is_mail, mac_of
from tests.lab.harms import kill_all_workers, kill_everything
from tests.lab.probes import MailServer, eventually, wait_gone
from tests.lab.troubles import HOST, NET, NO_NEIGHBOUR, REFUSED, SILENT, Trouble, at
from tests.lab.two_sites import BOTH_FAMILIES, Sites


@pytest.fixture(scope="module")
def placement() -> Placement:
    return Placement.BRIDGE


# --- Failures -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_troubles(placement: Placement) -> Iterator[Sites]:
    with two_sites.built(placement=placement) as sites:
        # A bridge asks nobody: the router before it does.
        troubles.arrange(sites, asks=("wire", "gw-b"))
        yield sites


@pytest.mark.parametrize(
    ("trouble", "v6"),
    [
        *(pytest.param(each, False, id=f"{each.name}-v4") for each in (REFUSED, HOST, NET, SILENT)),
        pytest.param(REFUSED, True, id="refused-v6"),
        *(
            pytest.param(each, True, id=f"{each.name}-v6", marks=pytest.mark.long)
            for each in (HOST, NET, SILENT)
        ),
    ],
)
def test_the_same_failure_at_the_same_time(with_troubles: Sites, v6: bool, trouble: Trouble) -> None:
    troubles.assert_alike(with_troubles, "mta-a", v6, trouble)


@BOTH_FAMILIES
def test_a_refusal_of_the_mail_server_reaches_a_client_on_the_wire(with_troubles: Sites, v6: bool) -> None:
    troubles.assert_alike(with_troubles, "mta-c", v6, REFUSED)


@BOTH_FAMILIES
def test_a_missing_neighbour_is_told_by_the_network_itself(with_troubles: Sites, v6: bool) -> None:
    """There is no address here to tell it from, so the client's own SYN goes on: the same word, later."""
    target = at(NO_NEIGHBOUR, v6)
    name, direct = probes.failure(with_troubles, "mta-a", target, direct=True)
    gated, took = probes.failure(with_troubles, "mta-a", target)
    assert name == gated == "EHOSTUNREACH"
    print(f"{direct * 1000:.0f} ms direct, {took * 1000:.0f} ms through the gates")
    assert took < 3 * direct + 3.0


# --- Fail-open ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(acquainted_sites: Sites) -> Sites:
    return acquainted_sites


@pytest.mark.parametrize("letter", ["a", "b"])
@pytest.mark.parametrize(
    "event",
    [
        pytest.param(kill_all_workers, id="workers", marks=pytest.mark.long),
        pytest.param(kill_everything, id="everything"),
    ],
)
def test_a_kill_under_load_leaves_nobody_hanging(
    sites: Sites, server: MailServer, server6: MailServer, event: Callable, letter: str
) -> None:
    in_any_placement.assert_a_kill_under_load_leaves_nobody_hanging(sites, server, event, letter)


@pytest.mark.parametrize("letter", ["a", "b"])
def test_the_first_connection_behind_a_kill_passes_at_once(
    sites: Sites, server: MailServer, server6: MailServer, letter: str
) -> None:
    servers = (server, server6)
    in_any_placement.assert_the_first_connection_behind_a_kill_passes_at_once(sites, servers, letter)


def test_a_session_is_reset_when_its_gateway_dies(sites: Sites, server: MailServer) -> None:
    in_any_placement.assert_a_session_is_reset_when_its_gateway_dies(sites)


@BOTH_FAMILIES
@pytest.mark.parametrize(
    ("alive", "route"),
    [(True, ""), (False, ""), (False, "default dev lo")],
    ids=["a-listener", "nobody", "nobody-and-another-way-out"],
)
def test_what_finds_no_socket_is_reset_through_the_bridge(
    sites: Sites, v6: bool, alive: bool, route: str
) -> None:
    """Octets of a connection that was taken and is gone, on a machine that has no way to their client, or a
    wrong one: the client hears of it at once, and the wire nothing."""
    source, target, port = sites.address("mta-a", v6), sites.address("mta-b", v6), 47000
    if not alive:
        pids = [sites.supervisor("a"), *sites.workers("a")]
        probes.kill(*pids)
        wait_gone(*pids)
    word, six = ("-6", "6") if v6 else ("-4", "4")
    element = f"{{ {source} . {port} . {target} . 25 }}"
    sites.sh("gw-a", f"nft add element inet nightmail taken{six} {element}")
    if route:
        sites.sh("gw-a", f"ip {word} route add {route}")
    packet = (IPv6 if v6 else IP)(src=source, dst=target) / TCP(sport=port, dport=25, flags="A", seq=1, ack=1)
    station, router = mac_of(sites.namespace("mta-a"), "eth0"), mac_of(sites.namespace("wire"), "gw-a")
    frame = bytes(Ether(src=station.hex(":"), dst=router.hex(":")) / packet)
    try:
        with (
            Cable(sites.namespace("mta-a"), "eth0") as inside,
            Cable(sites.namespace("wire"), "gw-a") as wire,
        ):
            inside.send(frame)
            answer = eventually(lambda: reset_to(port, inside.arrived()), what="a reset")
            assert (answer[6:12], answer[:6]) == (router, station)
            assert frame not in wire.arrived()
    finally:
        if route:
            sites.sh("gw-a", f"ip {word} route del {route}")


def reset_to(port: int, frames: list[bytes]) -> bytes | None:
    for frame in frames:
        if is_mail(frame) and (tcp := Ether(frame)[TCP]).dport == port and "R" in tcp.flags:
            return frame
    return None


@pytest.mark.long
def test_a_reload_under_load_breaks_nothing(sites: Sites, server: MailServer) -> None:
    in_any_placement.assert_a_reload_under_load_breaks_nothing(sites, "a")
