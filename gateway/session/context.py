"""What a session is told about its surroundings: keys, destination, memory, randomness. Read-only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.crypto.keys import EndorsedStatic, Ephemerals, IdentityKey
from gateway.crypto.messages import DialledAddress
from gateway.peers.pins import Pin


@dataclass(frozen=True, slots=True)
class GatewayKeys:
    """The identity of the site and the static key of the day; `repr` of both is redacted."""

    identity: IdentityKey
    endorsed: EndorsedStatic


@dataclass(frozen=True, slots=True)
class SendingContext:
    """Surroundings of one session at the sending gateway."""

    keys: GatewayKeys
    dialled: DialledAddress
    """The destination as the sender dialled it; goes, encrypted, into message 2."""
    pin: Pin | None
    """What is remembered of that destination, a snapshot."""
    today: int
    """Days since 1970-01-01 UTC."""
    entropy: Callable[[int], bytes]
    may_upgrade: bool = True
    """False: the operator lists this destination or source under `never`."""


@dataclass(frozen=True, slots=True)
class ReceivingContext:
    """Surroundings of one session at the receiving gateway."""

    keys: GatewayKeys
    dialled: DialledAddress
    """The original destination of the connection that we accepted."""
    own_addresses: Callable[[DialledAddress], bool]
    """Whether an address that a sending gateway dialled is one of ours behind NAT."""
    today: int
    entropy: Callable[[int], bytes]
    draw_ephemerals: Callable[[], Ephemerals]
    may_offer: bool = True
    """False: the operator lists this source under `never_offer`."""
