"""Where the gateway stands: one file for each placement, which says as data all that differs from the others.

layout   the form of that data
router   on a routing box in the path of the mail
host     on the mail server itself

Pure. The packet rules of a placement are its templates in `iptables/`; `ruleset` fills them and adds what
the layout lists, `kernel` puts the whole into the kernel. Workers ask for the sides and how to dial.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.config import Config, Placement
from gateway.errors import EnvironmentFailureError
from gateway.intercept.placements import host, router
from gateway.intercept.placements.layout import InsideNetworks, Layout

__all__ = ["InsideNetworks", "Layout", "layout_of"]

_LAYOUTS: Final[dict[Placement, Callable[[Config], Layout]]] = {
    Placement.ROUTER: router.layout,
    Placement.HOST: host.layout,
}


def layout_of(config: Config) -> Layout:
    """Of the placement that this configuration asks for. Takes a resolved configuration."""
    if config.placement not in _LAYOUTS:
        raise EnvironmentFailureError(f"placement: {config.placement.value} is not in this version")
    return _LAYOUTS[config.placement](config)
