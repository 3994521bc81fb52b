"""The lab's names and addresses, and the cables between its nodes: data, and nothing that acts on it.

    mta-a -- gw-a -- wire -- gw-b -- mta-b
                      |
                    mta-c

The table itself is `topology.json`, so that the Vagrant lab (whose description is written in another
language) reads the very same one. `wire` is a router here: the listener and the delay line stand on it.
Counterpart: `network`, which builds what this file says.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

TABLE: Final = Path(__file__).with_name("topology.json")
SMTP_PORT: Final = 25
INSIDE: Final = "inside"
OUTSIDE: Final = "outside"
BRIDGE: Final = "br0"
MAIL_INTERFACE: Final = "eth0"


class Role(enum.Enum):
    """What a node of the lab is for."""

    MAIL = "mail"
    GATEWAY = "gateway"
    WIRE = "wire"


class Family(enum.Enum):
    """The two kinds of address; the value is the key in the table."""

    V4 = "v4"
    V6 = "v6"

    @property
    def host_bits(self) -> int:
        return 32 if self is Family.V4 else 128


@dataclass(frozen=True, slots=True)
class Addresses:
    """One node's addresses on one network."""

    v4: str
    v6: str

    def of(self, family: Family) -> str:
        return self.v4 if family is Family.V4 else self.v6


@dataclass(frozen=True, slots=True)
class Node:
    """One namespace, and one guest of the Vagrant lab."""

    name: str
    role: Role
    addresses: dict[str, Addresses]
    domain: str = ""
    user: str = ""

    @property
    def six_domain(self) -> str:
        """The domain whose mail goes to the same server by IPv6."""
        return f"six.{self.domain}"

    @property
    def letter(self) -> str:
        return self.name.rpartition("-")[2]

    @property
    def home(self) -> Addresses:
        """A mail server's only addresses."""
        (addresses,) = self.addresses.values()
        return addresses


@dataclass(frozen=True, slots=True)
class End:
    """One end of a cable. `whole_network`: its addresses carry the network's prefix, not /32 and /128.

    A port of a bridge has no addresses.
    """

    node: str
    interface: str
    addresses: Addresses | None
    whole_network: bool


@dataclass(frozen=True, slots=True)
class Cable:
    """A veth pair."""

    left: End
    right: End


@dataclass(frozen=True, slots=True)
class Route:
    """`to` is a network, an address or "default"; `via` None means: directly on the interface."""

    node: str
    family: Family
    to: str
    interface: str
    via: str | None


@dataclass(frozen=True, slots=True)
class Network:
    """One network's prefixes."""

    v4: str
    v6: str

    def of(self, family: Family) -> str:
        return self.v4 if family is Family.V4 else self.v6


@dataclass(frozen=True, slots=True)
class Topology:
    """The whole table."""

    prefix: str
    networks: dict[str, Network]
    nodes: dict[str, Node]

    def with_role(self, role: Role) -> list[Node]:
        return [node for node in self.nodes.values() if node.role is role]

    def mail_server(self, letter: str) -> Node:
        """The mail server of site a, b or c. Raises KeyError for any other letter."""
        node = self.nodes[f"mta-{letter}"]
        if node.role is not Role.MAIL:
            raise KeyError(letter)
        return node

    def node_at(self, address: str) -> Node | None:
        """The node that has this address, if any."""
        for node in self.nodes.values():
            if any(address in (pair.v4, pair.v6) for pair in node.addresses.values()):
                return node
        return None


def load(table: Path = TABLE) -> Topology:
    """Read the table. Its errors are the developer's, so they come as they are (KeyError, ValueError)."""
    raw: dict[str, Any] = json.loads(table.read_text())
    networks = {name: Network(**prefixes) for name, prefixes in raw["networks"].items()}
    nodes = {name: _node(name, fields) for name, fields in raw["nodes"].items()}
    return Topology(raw["prefix"], networks, nodes)


def _node(name: str, fields: dict[str, Any]) -> Node:
    return Node(
        name=name,
        role=Role(fields["role"]),
        addresses={network: Addresses(**pair) for network, pair in fields["addresses"].items()},
        domain=fields.get("domain", ""),
        user=fields.get("user", ""),
    )


def cables(topology: Topology, *, bridged: bool = False) -> list[Cable]:
    """Each site's mail server to its gateway, and everything that is on the wire to the wire's router.

    The wire's ends carry single addresses (/32, /128), so that all of them can be on one network and
    still be apart: every packet between two of them is routed, and so passes the delay line.

    With `bridged` gateways, which have no addresses, the wire's router has theirs on the sites' networks.
    """
    if bridged:
        return _bridged_cables(topology)
    result = []
    wire = next(iter(topology.with_role(Role.WIRE)))
    for node in topology.nodes.values():
        for network, addresses in node.addresses.items():
            if network == "wire" and node.role is not Role.WIRE:
                interface = OUTSIDE if node.role is Role.GATEWAY else MAIL_INTERFACE
                result.append(
                    Cable(
                        End(node.name, interface, addresses, whole_network=False),
                        End(wire.name, node.name, wire.addresses["wire"], whole_network=False),
                    )
                )
            elif node.role is Role.GATEWAY:
                mail = _mail_server_on(topology, network)
                result.append(
                    Cable(
                        End(mail.name, MAIL_INTERFACE, mail.home, whole_network=True),
                        End(node.name, INSIDE, addresses, whole_network=True),
                    )
                )
    return result


def _bridged_cables(topology: Topology) -> list[Cable]:
    result = []
    (wire,) = topology.with_role(Role.WIRE)
    for gateway in topology.with_role(Role.GATEWAY):
        (network,) = (name for name in gateway.addresses if name != "wire")
        mail = _mail_server_on(topology, network)
        inside, outside = (End(gateway.name, side, None, whole_network=False) for side in (INSIDE, OUTSIDE))
        router = End(wire.name, gateway.name, gateway.addresses[network], whole_network=True)
        result.append(Cable(End(mail.name, MAIL_INTERFACE, mail.home, whole_network=True), inside))
        result.append(Cable(outside, router))
    return [*result, *(cable for cable in cables(topology) if _is_between_wire_and_mail(topology, cable))]


def _is_between_wire_and_mail(topology: Topology, cable: Cable) -> bool:
    roles = {topology.nodes[end.node].role for end in (cable.left, cable.right)}
    return roles == {Role.WIRE, Role.MAIL}


def routes(topology: Topology, *, bridged: bool = False) -> list[Route]:
    """In an order in which the kernel takes them: each next hop is reachable before it is used."""
    if bridged:
        # To whatever was behind a gateway the wire's router is connected now; a gateway needs none.
        gateways = {node.name for node in topology.with_role(Role.GATEWAY)}
        return [each for each in routes(topology) if not {each.node, each.interface} & gateways]
    result = []
    wire = next(iter(topology.with_role(Role.WIRE)))
    for family in Family:
        router = wire.addresses["wire"].of(family)
        for node in topology.nodes.values():
            if node.role is Role.WIRE:
                continue
            if "wire" in node.addresses:
                interface = OUTSIDE if node.role is Role.GATEWAY else MAIL_INTERFACE
                own = node.addresses["wire"].of(family)
                result.append(Route(node.name, family, f"{router}/{family.host_bits}", interface, None))
                result.append(Route(node.name, family, "default", interface, router))
                result.append(Route(wire.name, family, f"{own}/{family.host_bits}", node.name, None))
                for network in node.addresses:
                    if network != "wire":
                        prefix = topology.networks[network].of(family)
                        result.append(Route(wire.name, family, prefix, node.name, own))
            else:
                gateway = _gateway_on(topology, next(iter(node.addresses)))
                via = gateway.addresses[next(iter(node.addresses))].of(family)
                result.append(Route(node.name, family, "default", MAIL_INTERFACE, via))
    return result


def _mail_server_on(topology: Topology, network: str) -> Node:
    (node,) = (n for n in topology.with_role(Role.MAIL) if network in n.addresses)
    return node


def _gateway_on(topology: Topology, network: str) -> Node:
    (node,) = (n for n in topology.with_role(Role.GATEWAY) if network in n.addresses)
    return node
