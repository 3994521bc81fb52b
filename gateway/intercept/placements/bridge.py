"""Bridge: the box sits in the cable, between switch and mail server, without an address on either side.

br_netfilter shows bridged frames to iptables, so SYNs are held as on a router. Frames that are for us are
lifted out of the bridge to an interface of this machine; what our sockets send goes back into the bridge by
it and gets the MACs of those in whose name it is. Templates: `iptables/bridge.*`.
"""

from __future__ import annotations

from typing import Final

from gateway.config import Config
from gateway.intercept.marks import MarkBits
from gateway.intercept.objects import (
    FAMILIES,
    LAST_RESORT_PRIORITY,
    LOOPBACK,
    BridgeLift,
    InterfaceRoute,
    LocalRoute,
    PolicyRule,
)
from gateway.intercept.placements.layout import InsideNetworks, Layout
from gateway.policy import limits

LIFT_MAC: Final = "02:4e:4d:00:00:19"
"""Locally administered; on no cable ever, so that it may be the same on every gateway."""


def layout(config: Config) -> Layout:
    ports = config.inside + config.outside
    return Layout(
        iptables={family: f"bridge.v{family}.rules" for family in FAMILIES},
        nft={"bridge": "bridge.frames.nft", "inet": "bridge.nft"},
        inside=config.inside,
        outside=config.outside,
        inside_networks=InsideNetworks.SIDE,
        keeps_port=True,
        routes_for_others=False,
        has_every_slot=False,
        bridged=True,
        objects=(
            _lift(config, ports),
            *_routing(config),
        ),
        values={
            "bridge": config.bridge,
            "port": config.bridge_port,
            "lift": config.bridge_interface,
            "mac": LIFT_MAC,
            "inside": _quoted(config.inside),
            "outside": _quoted(config.outside),
            "interfaces": _quoted(ports),
            "untagged": str(config.untagged_vlan),
            "untouched": hex(MarkBits(config.marks.mask).untouched),
            "gone_seconds": str(limits.GONE_SECONDS),
            "mac_fresh_seconds": str(limits.MAC_FRESH_SECONDS),
            "mac_now_seconds": str(limits.MAC_NOW_SECONDS),
            "mac_last_seconds": str(limits.MAC_LAST_SECONDS),
            "mac_side_seconds": str(limits.MAC_SIDE_SECONDS),
            "mac_fresh": str(limits.MAC_FRESH),
            "mac_addresses": str(limits.MAC_ADDRESSES),
            "mac_stations": str(limits.MAC_STATIONS),
        },
        repeated={
            "vlan": (str(config.untagged_vlan),) if config.vlan_asked else (),
            **{
                f"unfiltered{family}": (config.bridge,) if family in config.unfiltered else ()
                for family in FAMILIES
            },
        },
    )


def _lift(config: Config, ports: tuple[str, ...]) -> BridgeLift:
    ends = (config.bridge_port, config.bridge_interface)
    return BridgeLift(config.bridge, ports, *ends, LIFT_MAC, config.untagged_vlan)


def _routing(config: Config) -> tuple[PolicyRule | LocalRoute | InterfaceRoute, ...]:
    """What has been lifted is delivered here; what our sockets send leaves by the lift, wherever it goes.

    The way back of what is lifted is there, too, for a strict reverse-path check, by mark. The last resort is
    for REJECT, which asks for a route to the client and then answers on the bridge anyway.
    """
    bits = MarkBits(config.marks.mask)
    lift, back = config.bridge_interface, (bits.dialled, bits.accepted, bits.taken)
    found: list[PolicyRule | LocalRoute | InterfaceRoute] = []
    for family in FAMILIES:
        found.append(PolicyRule(family, lift, bits.taken, config.table))
        found += [PolicyRule(family, LOOPBACK, mark, config.bridge_table) for mark in back]
        found.append(PolicyRule(family, LOOPBACK, 0, config.bridge_table, LAST_RESORT_PRIORITY))
        found += [LocalRoute(family, config.table), InterfaceRoute(family, lift, config.bridge_table)]
    return tuple(found)


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)
