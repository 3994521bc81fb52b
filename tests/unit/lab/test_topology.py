"""The table of names and addresses, and what is derived from it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from gateway.lab.topology import Family, Role, cables, load, routes

TOPOLOGY = load()


def test_the_six_nodes_and_their_roles() -> None:
    assert {name: node.role for name, node in TOPOLOGY.nodes.items()} == {
        "mta-a": Role.MAIL,
        "gw-a": Role.GATEWAY,
        "wire": Role.WIRE,
        "gw-b": Role.GATEWAY,
        "mta-b": Role.MAIL,
        "mta-c": Role.MAIL,
    }


@pytest.mark.parametrize("family", Family)
def test_every_address_is_on_its_network_and_nobody_elses(family: Family) -> None:
    seen = set()
    for node in TOPOLOGY.nodes.values():
        for network, addresses in node.addresses.items():
            address = ip_address(addresses.of(family))
            assert address in ip_network(TOPOLOGY.networks[network].of(family))
            assert address not in seen
            seen.add(address)


def test_five_cables_and_both_sites_mail_servers_have_only_their_gateway() -> None:
    pairs = {frozenset((cable.left.node, cable.right.node)) for cable in cables(TOPOLOGY)}
    assert pairs == {
        frozenset(pair)
        for pair in [
            ("mta-a", "gw-a"),
            ("mta-b", "gw-b"),
            ("gw-a", "wire"),
            ("gw-b", "wire"),
            ("mta-c", "wire"),
        ]
    }
    assert len(cables(TOPOLOGY)) == 5


def test_gateways_that_are_bridges_have_no_address_and_the_router_has_theirs() -> None:
    found = cables(TOPOLOGY, bridged=True)
    ends = [end for cable in found for end in (cable.left, cable.right)]
    assert len(found) == 5
    assert {(end.node, end.interface) for end in ends if end.addresses is None} == {
        (node, port) for node in ("gw-a", "gw-b") for port in ("inside", "outside")
    }
    for letter in "ab":
        (router,) = (end for end in ends if (end.node, end.interface) == ("wire", f"gw-{letter}"))
        assert router.addresses == TOPOLOGY.nodes[f"gw-{letter}"].addresses[f"site-{letter}"]
        assert router.whole_network
    for route in routes(TOPOLOGY, bridged=True):
        assert not {route.node, route.interface} & {"gw-a", "gw-b"}
    for letter in "ab":
        ways = [each for each in routes(TOPOLOGY, bridged=True) if each.node == f"mta-{letter}"]
        assert {each.via for each in ways} == {router_of(letter, family) for family in Family}


def router_of(letter: str, family: Family) -> str:
    return TOPOLOGY.nodes[f"gw-{letter}"].addresses[f"site-{letter}"].of(family)


@pytest.mark.parametrize("family", Family)
def test_each_next_hop_is_reachable_before_it_is_used(family: Family) -> None:
    for node in TOPOLOGY.nodes.values():
        reachable = [
            ip_network(TOPOLOGY.networks[name].of(family)) for name in node.addresses if name != "wire"
        ]
        for route in routes(TOPOLOGY):
            if (route.node, route.family) != (node.name, family):
                continue
            if route.via is None:
                reachable.append(ip_network(route.to))
            else:
                assert any(ip_address(route.via) in network for network in reachable), route


@pytest.mark.parametrize("family", Family)
def test_the_wire_knows_the_way_to_both_sites(family: Family) -> None:
    ways = {route.to: route.interface for route in routes(TOPOLOGY) if route.node == "wire"}
    assert ways[TOPOLOGY.networks["site-a"].of(family)] == "gw-a"
    assert ways[TOPOLOGY.networks["site-b"].of(family)] == "gw-b"


def test_names_and_addresses_find_their_node() -> None:
    assert TOPOLOGY.mail_server("b").six_domain == "six.b.test"
    assert TOPOLOGY.node_at("2001:db8:12::10") is TOPOLOGY.nodes["mta-b"]
    assert TOPOLOGY.node_at("192.0.2.1") is None
    with pytest.raises(KeyError):
        TOPOLOGY.mail_server("d")


def test_interface_names_fit_the_kernel() -> None:
    for cable in cables(TOPOLOGY):
        for end in (cable.left, cable.right):
            assert len(end.interface) <= 15
