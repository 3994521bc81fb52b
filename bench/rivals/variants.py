"""The table of variants. A new one is a name, what it says for people, and what stands on its gateways.

Every plane has the same five namespaces and the same hops (`bench.planes`); a variant without a word about a
gateway has a plain router there.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.planes import Plane
from bench.rivals import haproxy, postfix, stunnel


@dataclass(frozen=True, slots=True)
class Made:
    """How a variant is made."""

    words: str
    gateways: tuple[str, ...] = ()
    """The nodes on which our daemon runs."""
    stand: Callable[[Plane], None] | None = None
    """Starts a rival, after the network stands."""
    nodes: tuple[str, ...] = ()
    """The nodes on which something runs that costs memory."""
    stores: bool = False
    """Answers the sender before the receiver has the mail."""
    settings: tuple[str, str] | None = None
    """A line of the lab's configuration of our gateways, and what it is here."""
    sealed: Callable[[Plane], int] | None = None
    """How many sessions so far were encrypted, by the rival's own account."""


class Rival(enum.Enum):
    """In the order in which tables and plots have them."""

    DIRECT = "direct"
    HAPROXY = "haproxy"
    CLEAR = "clear"
    STUNNEL = "stunnel"
    POSTFIX = "postfix"
    CHANNEL = "channel"
    DEAD_END = "dead-end"

    @property
    def made(self) -> Made:
        return VARIANTS[self]

    @property
    def gateway_names(self) -> tuple[str, ...]:
        return self.made.gateways


VARIANTS: Final[dict[Rival, Made]] = {
    Rival.DIRECT: Made("no gateway, plain routers"),
    Rival.HAPROXY: Made("HAProxy, transparent, clear", stand=haproxy.stand, nodes=("gw-a",)),
    Rival.CLEAR: Made("Nightmail, the other side has none", gateways=("gw-a",), nodes=("gw-a",)),
    Rival.STUNNEL: Made(
        "stunnel pair, STARTTLS, TLS 1.3",
        stand=stunnel.stand,
        nodes=("gw-a", "gw-b"),
        sealed=stunnel.sealed_sessions,
    ),
    Rival.POSTFIX: Made(
        "Postfix relay pair, opportunistic TLS",
        stand=postfix.stand,
        nodes=("gw-a", "gw-b"),
        stores=True,
        sealed=postfix.sealed_sessions,
    ),
    Rival.CHANNEL: Made("Nightmail pair, in the channel", gateways=("gw-a", "gw-b"), nodes=("gw-a", "gw-b")),
    Rival.DEAD_END: Made(
        "Nightmail, the servers known as dead ends",
        gateways=("gw-a",),
        settings=("minutes = 0", "minutes = 30"),
    ),
}


def configured(plane: Plane, text: str) -> str:
    """The configuration of the plane's gateways. Raises ValueError where the lab's is not what it was."""
    assert isinstance(plane.variant, Rival)
    settings = plane.variant.made.settings
    return text if settings is None else replaced(text, *settings)


def replaced(text: str, line: str, by: str) -> str:
    if text.count(line + "\n") != 1:
        raise ValueError(f"the lab's configuration does not hold {line!r} once")
    return text.replace(line + "\n", by + "\n")


def stand_all(planes: dict[Rival, Plane]) -> None:
    for variant, plane in planes.items():
        if variant.made.stand is not None:
            variant.made.stand(plane)
