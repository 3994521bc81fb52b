"""Who is who: each role by interface and addresses, in every placement."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from gateway.errors import Reason
from gateway.intercept.marks import Verdict
from gateway.intercept.roles import Refusal, Roles
from gateway.intercept.syn import Flow
from gateway.smtp.events import Role

SENDING, RECEIVING = Role.SENDING, Role.RECEIVING
ROLES = Roles(
    ["lan"],
    ["wan"],
    [ip_network("10.1.0.0/16"), ip_network("2001:db8:1::/48")],
    [ip_network("10.1.9.0/24")],
)
PASS = Refusal(Verdict.PASS, Reason.NOT_OURS)
SPOOFED = Refusal(Verdict.DROP, Reason.SPOOFED_INSIDE_SOURCE)


@pytest.mark.parametrize(
    ("interface", "source", "destination", "expected"),
    [
        ("lan", "10.1.0.2", "192.0.2.1", SENDING),
        ("lan", "2001:db8:1::2", "2001:db8:2::1", SENDING),
        ("lan", "192.0.2.9", "192.0.2.1", SENDING),
        ("lan", "10.1.0.2", "10.1.5.5", PASS),
        ("wan", "192.0.2.1", "10.1.0.2", RECEIVING),
        ("wan", "2001:db8:2::1", "2001:db8:1::2", RECEIVING),
        ("wan", "192.0.2.1", "192.0.2.2", PASS),
        ("wan", "10.1.0.3", "10.1.0.2", SPOOFED),
        ("wan", "10.1.0.3", "192.0.2.2", SPOOFED),
        ("wan", "10.1.9.3", "10.1.0.2", RECEIVING),
        ("dmz", "192.0.2.1", "10.1.0.2", PASS),
        ("", "10.1.0.2", "192.0.2.1", PASS),
    ],
)
def test_roles(interface: str, source: str, destination: str, expected: Role | Refusal) -> None:
    assert ROLES.of(Flow(source, 40025, destination, 25), interface) == expected


@pytest.mark.parametrize(
    ("address", "other"),
    [
        ("0.0.0.0", "10.1.0.2"),
        ("255.255.255.255", "10.1.0.2"),
        ("::", "2001:db8:1::2"),
        ("fe80::1", "2001:db8:1::2"),
        ("fe80::1", "fe80::2"),
        ("ff02::1", "2001:db8:1::2"),
        ("::1", "2001:db8:1::2"),
        ("::ffff:192.0.2.1", "2001:db8:1::2"),
        ("127.0.0.1", "10.1.0.2"),
        ("224.0.0.1", "10.1.0.2"),
    ],
)
@pytest.mark.parametrize("interface", ["lan", "wan"])
def test_from_and_to_what_is_nobodys_address_nothing_is_dialled(
    interface: str, address: str, other: str
) -> None:
    for roles in (ROLES, Roles(["lan"], ["wan"], [], side_tells=True)):
        assert roles.of(Flow(address, 40025, other, 25), interface) == PASS
        assert roles.of(Flow(other, 40025, address, 25), interface) == PASS


@pytest.mark.parametrize(
    ("interface", "source", "destination", "expected"),
    [
        ("", "10.1.0.2", "192.0.2.1", SENDING),
        ("", "10.1.0.2", "10.1.0.3", PASS),
        ("eth0", "192.0.2.1", "10.1.0.2", RECEIVING),
        ("ppp7", "2001:db8:2::1", "2001:db8:1::2", RECEIVING),
        ("eth0", "192.0.2.1", "192.0.2.2", PASS),
        ("eth0", "10.1.0.2", "10.1.0.3", SPOOFED),
    ],
)
def test_roles_on_the_mail_server_itself(
    interface: str, source: str, destination: str, expected: Role | Refusal
) -> None:
    """What this machine sends comes in by no interface; every interface is outside."""
    own = [ip_network("10.1.0.2/32"), ip_network("10.1.0.3/32"), ip_network("2001:db8:1::2/128")]
    assert Roles([""], None, own).of(Flow(source, 1025, destination, 25), interface) == expected


@pytest.mark.parametrize(
    ("networks", "port", "source", "expected"),
    [
        ((), "eth1", "10.1.0.2", Role.SENDING),
        ((), "eth0", "10.1.0.2", Role.RECEIVING),
        ((), "eth2", "10.1.0.2", Refusal(Verdict.PASS, Reason.NOT_OURS)),
        (("10.1.0.0/16",), "eth1", "10.1.0.2", Role.SENDING),
        (("10.1.0.0/16",), "eth0", "10.1.0.2", Refusal(Verdict.DROP, Reason.SPOOFED_INSIDE_SOURCE)),
    ],
)
def test_on_a_bridge_the_port_tells_the_side_and_named_networks_more(
    networks: tuple[str, ...], port: str, source: str, expected: Role | Refusal
) -> None:
    roles = Roles(["eth1"], ["eth0"], map(ip_network, networks), side_tells=True)
    assert roles.of(Flow(source, 1025, "192.0.2.9", 25), port) == expected


@pytest.mark.parametrize(
    ("source", "destination", "expected"),
    [
        ("10.1.0.2", "192.0.2.1", SENDING),
        ("192.0.2.1", "10.1.0.2", RECEIVING),
        ("10.1.0.2", "10.1.0.3", PASS),
        ("192.0.2.1", "192.0.2.2", PASS),
    ],
)
def test_roles_of_a_one_armed_router(source: str, destination: str, expected: Role | Refusal) -> None:
    roles = Roles(["eth0"], ["eth0"], [ip_network("10.1.0.0/16")])
    assert roles.of(Flow(source, 40025, destination, 25), "eth0") == expected
