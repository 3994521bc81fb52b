"""Host: the mail server itself.

SYNs are held in OUTPUT (what the mail server sends) and PREROUTING (what comes for it). What is for us though
its address is elsewhere is turned back over lo by one routing rule. Both connections have the same address
here, and a socket of the mail server owns the port, so what we dial has another one.
Templates: `iptables/host.*`.
"""

from __future__ import annotations

from gateway.config import Config
from gateway.intercept.marks import MarkBits
from gateway.intercept.objects import FAMILIES, LOOPBACK, LocalRoute, PolicyRule
from gateway.intercept.placements.layout import InsideNetworks, Layout


def layout(config: Config) -> Layout:
    bits = MarkBits(config.marks.mask)
    named = config.outside
    return Layout(
        iptables={family: f"host.v{family}.rules" for family in FAMILIES},
        nft={"inet": "host.nft"},
        inside=("",),
        outside=named or None,
        inside_networks=InsideNetworks.OWN,
        keeps_port=False,
        routes_for_others=False,
        holds_own=True,
        objects=(
            *(PolicyRule(family, LOOPBACK, bits.taken, config.table) for family in FAMILIES),
            *(LocalRoute(family, config.table) for family in FAMILIES),
        ),
        values={"elsewhere": f"iifname != {{ {_quoted(named)} }}" if named else f'iifname "{LOOPBACK}"'},
        repeated={
            "arriving": tuple(f"-i {name}" for name in named) or (f"! -i {LOOPBACK}",),
            "leaving": tuple(f"-o {name}" for name in named) or (f"! -o {LOOPBACK}",),
        },
    )


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)
