"""What there is of a lab that is up: its nodes, what runs in them, the listener, the line."""

from __future__ import annotations

from typing import Any

from gateway.config import Placement
from gateway.lab import gateways, processes, wan
from gateway.lab.lab import Lab
from gateway.lab.topology import Role


def overview(lab: Lab) -> dict[str, Any]:
    """Facts of a lab that is up."""
    line = wan.now(lab.line)
    return {
        "folder": str(lab.place.folder),
        "nodes": _nodes(lab),
        "listener": {
            "runs": lab.listener.process is not None,
            "capture": str(lab.listener.pcap),
            "octets": lab.listener.pcap.stat().st_size if lab.listener.pcap.exists() else 0,
        },
        "wan": {"rtt_ms": line.rtt_seconds * 1000, "loss": line.loss},
    }


def _nodes(lab: Lab) -> dict[str, dict[str, Any]]:
    nodes: dict[str, dict[str, Any]] = {}
    bridges = lab.topology.with_role(Role.GATEWAY) if lab.gateways_stand is Placement.BRIDGE else []
    for node in lab.topology.nodes.values():
        namespace = lab.namespace(node.name)
        addresses = {} if node in bridges else node.addresses
        nodes[node.name] = {
            "namespace": namespace,
            "role": node.role.value,
            "addresses": {name: {"v4": pair.v4, "v6": pair.v6} for name, pair in addresses.items()},
            "processes": len(processes.living_in([namespace])),
        }
    for one in lab.gateways:
        answer = gateways.ask(one)
        # In the placement host that is the mail server's.
        stands = next(node for node in nodes.values() if node["namespace"] == one.namespace)
        stands["configuration"] = str(one.configuration)
        stands["gateway"] = (
            "off" if answer is None else "serves" if gateways.serves(answer) else "does not serve"
        )
    for instance in lab.mail_servers:
        nodes[instance.node.name]["address"] = f"{instance.node.user}@{instance.node.domain}"
        nodes[instance.node.name]["address_by_ipv6"] = f"{instance.node.user}@{instance.node.six_domain}"
    return nodes
