"""What a session is told about its surroundings: keys, destination, memory, randomness. Read-only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.crypto.keys import EndorsedStatic, EndorsementCache, Ephemerals, IdentityPublic
from gateway.crypto.messages import DialledAddress
from gateway.crypto.tickets import HeldTickets, TicketsOfPair
from gateway.errors import Reason
from gateway.immutable import immutable
from gateway.peers.pins import Pin
from gateway.peers.sources import NOBODY, Sender, Source


@dataclass(frozen=True, slots=True)
class GatewayKeys:
    """Whose gateway this is, and the static key of the day. Never the identity's own private key: a session
    that needs a signature asks for it (`SignOffer`)."""

    identity: IdentityPublic
    endorsed: EndorsedStatic


@immutable
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
    draw_ephemerals: Callable[[], Ephemerals]
    tickets: HeldTickets | None = None
    """Those of this worker as S; None where the operator wants none."""
    refusal: Reason | None = None
    """Why no upgrade is tried: NEVER (the operator's list), RECENTLY_FAILED (a path that never upgraded)."""


@immutable
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
    tickets: TicketsOfPair | None = None
    """Those of this connection's two addresses; None where the operator wants none."""
    draw_for_ticket: Callable[[], Ephemerals] | None = None
    """X25519 alone, which is all that an offer with a ticket needs; None: as for any other offer."""
    endorsements: EndorsementCache | None = None
    """Endorsements of sending gateways that have verified, so that each costs one verification a day."""
    statements: tuple[bytes, ...] = ()
    """STATEMENT records to show (docs/protocol.md, "Rollover"), in order; mostly none."""
    may_offer: bool = True
    """False: the operator lists this source under `never_offer`."""
    source: Source = NOBODY
    """What is remembered of this client, a snapshot."""
    overloaded: bool = False
    """So many offers are made already that this connection gets none."""
    source_rests: bool = False
    """It dropped our offers, and gets none now."""
    offers_ignored: Callable[[], bool] = lambda: False
    """Whether its client ignores offers, and gets none now; asked once, where one would be made."""
    sender_of: Callable[[bytes], Sender] = Sender
    """What is remembered of an identity of a sending gateway."""
