"""Router: a box that forwards between the site's mail servers and the Internet.

SYNs are held in PREROUTING, what is for us is delivered here by a routing rule for each interface, and what
we dial has the client's own address and port. Templates: `iptables/router.*`.
"""

from __future__ import annotations

from gateway.config import Config
from gateway.intercept.marks import MarkBits
from gateway.intercept.objects import FAMILIES, LOOPBACK, LocalRoute, PolicyRule, Sysctl
from gateway.intercept.placements.layout import InsideNetworks, Layout

EARLY_DEMUX = Sysctl("net/ipv4/tcp_early_demux", "0")
"""Both families have this one switch. With it the kernel looks for a socket of this box before it routes a
packet, finds what a session has left in TIME_WAIT, and drops the packet instead of forwarding it: a client
that uses its port again, within a minute and past a gateway that has died, would get no answer."""


def layout(config: Config) -> Layout:
    interfaces = tuple(dict.fromkeys(config.inside + config.outside))
    bits = MarkBits(config.marks.mask)
    return Layout(
        iptables={family: f"router.v{family}.rules" for family in FAMILIES},
        nft={"inet": "router.nft"},
        inside=config.inside,
        outside=config.outside,
        inside_networks=InsideNetworks.ROUTED,
        keeps_port=True,
        routes_for_others=True,
        objects=(
            *(
                PolicyRule(family, name, mark, config.table)
                for family in FAMILIES
                for name, mark in [*((name, bits.taken) for name in interfaces), (LOOPBACK, bits.turned)]
            ),
            *(LocalRoute(family, config.table) for family in FAMILIES),
            EARLY_DEMUX,
        ),
        values={"interfaces": _quoted(interfaces), "inside": _quoted(config.inside)},
        repeated={"interface": interfaces},
    )


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)
