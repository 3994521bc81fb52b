"""A bridge that tells VLANs apart: in which of them frames without a tag are, and our port as one of them.

Such a bridge (vlan_filtering) takes a frame without a tag for one of the VLAN of the port by which it comes
(its PVID), and lets it out only by ports of that VLAN. What we send bears no tag, so the ports that are named
have to agree on one, and ours joins it. Changes no port but ours. Counterpart: `lifts`.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Final

from gateway.errors import EnvironmentFailureError
from gateway.intercept.kernel import nft
from gateway.intercept.objects import BridgeLift

_COMPRESSED: Final = 4  # RTEXT_FILTER_BRVLAN_COMPRESSED, <linux/rtnetlink.h>: thousands of VLANs as one range
_PVID, _UNTAGGED = 0x2, 0x4  # <linux/if_bridge.h>: a frame without a tag that comes in; that goes out
_BOTH_WAYS: Final = _PVID | _UNTAGGED
_ASKING: Final = "table bridge nightmail-asks {\n\tchain asking { meta ibrpvid 1 accept; }\n}\n"


class OtherVlansError(EnvironmentFailureError):
    """What rules that were made for other VLANs take would go nowhere."""


def can_ask() -> bool:
    """Whether nft can ask in which VLAN a frame without a tag is. Some kernels have no such expression."""
    return nft.is_taken(_ASKING)


def of(ip: Any, bridge: Any, links: Mapping[str, Any], lift: BridgeLift) -> int:
    """The VLAN of frames without a tag; 0 where the bridge knows none. Raises OtherVlansError where the ports
    do not agree: then there is none for all of them."""
    if not _tells_apart(bridge):
        return 0
    here = [port for port in lift.ports if port in links and _is_in(links[port], bridge)]
    vlans = _untagged(ip)
    each = {port: vlans.get(links[port]["index"], 0) for port in here}
    agreed = set(each.values())
    if len(agreed) == 1 and 0 not in agreed:
        return agreed.pop()
    told = ", ".join(f"{port} {f'in VLAN {vlan}' if vlan else 'in none'}" for port, vlan in each.items())
    raise OtherVlansError(
        f"bridge.name: {lift.bridge} tells VLANs apart, and its ports have none in common for frames without"
        f" a tag, in and out: {told}"
    )


def require(ip: Any, bridge: Any, links: Mapping[str, Any], lift: BridgeLift) -> None:
    """Raises OtherVlansError where frames without a tag are in another VLAN than this lift was made for."""
    now = of(ip, bridge, links, lift)
    if now != lift.vlan:
        was, is_now = (f"in VLAN {vlan}" if vlan else "in no VLAN" for vlan in (lift.vlan, now))
        raise OtherVlansError(
            f"bridge.name: frames without a tag on {lift.bridge} were {was}, and are {is_now} now"
        )


def is_joined(ip: Any, port: Any, vlan: int) -> bool:
    return not vlan or _untagged(ip).get(port["index"]) == vlan


def join(ip: Any, index: int, vlan: int) -> None:
    if vlan:
        ip.vlan_filter("add", index=index, vlan_info={"vid": vlan, "flags": _BOTH_WAYS})


def _is_in(port: Any, bridge: Any) -> bool:
    return bool(port.get_attr("IFLA_MASTER") == bridge["index"])


def _tells_apart(bridge: Any) -> bool:
    data = bridge.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    return data is not None and bool(data.get_attr("IFLA_BR_VLAN_FILTERING"))


def _untagged(ip: Any) -> dict[int, int]:
    """By the index of a port: the VLAN of frames without a tag, if it is the same in and out."""
    found = {}
    for port in ip.link("dump", family=socket.AF_BRIDGE, ext_mask=_COMPRESSED):
        known = port.get_attr("IFLA_AF_SPEC")
        for vlan in known.get_attrs("IFLA_BRIDGE_VLAN_INFO") if known is not None else ():
            if vlan["flags"] & _BOTH_WAYS == _BOTH_WAYS:
                found[port["index"]] = vlan["vid"]
    return found
