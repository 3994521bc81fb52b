"""Where the gateway stands: one file for each placement, which says as data all that differs from the others.

layout   the form of that data
router   on a routing box in the path of the mail
host     on the mail server itself
bridge   between switch and mail server, a transparent bridge

Pure. The packet rules of a placement are its templates in `iptables/`; `ruleset` fills them and adds what
the layout lists, `kernel` puts the whole into the kernel. Workers ask for the sides and how to dial.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.config import Config, Placement
from gateway.intercept.placements import bridge, host, router
from gateway.intercept.placements.layout import InsideNetworks, Layout

__all__ = ["InsideNetworks", "Layout", "layout_of"]

_LAYOUTS: Final[dict[Placement, Callable[[Config], Layout]]] = {
    Placement.ROUTER: router.layout,
    Placement.HOST: host.layout,
    Placement.BRIDGE: bridge.layout,
}


def layout_of(config: Config) -> Layout:
    """Of the placement that this configuration asks for. Takes a resolved configuration."""
    return _LAYOUTS[config.placement](config)
