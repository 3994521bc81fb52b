"""Tickets: what a finished handshake leaves, so that one later handshake of the same two gateways is cheap.

R keeps them by the pair of addresses (`OfferedTickets`), S by their name (`HeldTickets`). Each serves once:
what is taken is gone, whatever becomes of it. They never leave the process that made them, and they age.
Counterparts: `handshake` and `resumption`, which make them; `resumption`, which is made with one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final, NoReturn

from gateway.crypto.keys import IdentityPublic
from gateway.crypto.messages import TICKET_NAME_OCTETS, TICKET_SECRET_OCTETS
from gateway.crypto.noise import HandshakeState
from gateway.errors import LocalMisuseError
from gateway.policy import limits

_LABEL: Final = b"nightmail ticket\0"


@dataclass(frozen=True, slots=True, repr=False)
class Ticket:
    """One later handshake's secret, and who the other side was. A finished handshake makes it (`of`)."""

    name: bytes
    secret: bytes
    identity: IdentityPublic
    epoch: int
    root: float | None
    """When the full handshake was that it goes back to, in seconds of the clock of whoever keeps it; None
    for the one that this handshake was: then it is when the ticket is kept."""

    @classmethod
    def of(cls, noise: HandshakeState, identity: IdentityPublic, epoch: int, root: float | None) -> Ticket:
        """Of a handshake that is read and written to its end, before its split. Raises LocalMisuseError."""
        first, second = noise.derived(_LABEL)
        return cls(second[:TICKET_NAME_OCTETS], first[:TICKET_SECRET_OCTETS], identity, epoch, root)

    def __repr__(self) -> str:
        return "<Ticket: redacted>"

    def __reduce__(self) -> NoReturn:
        raise LocalMisuseError("a Ticket must not be serialised")


@dataclass(frozen=True, slots=True, repr=False)
class _Kept:
    ticket: Ticket
    until: float


def _kept(ticket: Ticket, now: float, grace: float = 0.0) -> _Kept:
    """With its end: so long after it was made, and so long after the full handshake."""
    root = ticket.root
    if root is None:
        root = now
        ticket = Ticket(ticket.name, ticket.secret, ticket.identity, ticket.epoch, root)
    until = min(now + limits.TICKET_SECONDS, root + limits.TICKET_ROOT_SECONDS) + grace
    return _Kept(ticket, until)


class HeldTickets:
    """S's, by name. Bounded: S asks whether there is room, for R would offer in vain what S has forgotten.

    Sessions that are on their way at the same moment may be a few too many; then the oldest goes.
    """

    def __init__(self, capacity: int = limits.TICKETS_KEPT) -> None:
        self._capacity = capacity
        self._of: OrderedDict[bytes, _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._of)

    @property
    def has_room(self) -> bool:
        return len(self._of) < self._capacity

    def keep(self, ticket: Ticket, now: float) -> None:
        self._of[ticket.name] = _kept(ticket, now, limits.TICKET_GRACE_SECONDS)
        if len(self._of) > self._capacity:
            self._of.popitem(last=False)

    def take(self, name: bytes, now: float) -> Ticket | None:
        """The ticket, once; None for one that is not known, or too old."""
        kept = self._of.pop(name, None)
        return kept.ticket if kept is not None and now < kept.until else None

    def forget_old(self, now: float) -> None:
        for name in [name for name, kept in self._of.items() if kept.until <= now]:
            del self._of[name]


class OfferedTickets:
    """R's, by source and destination. Bounded: the source that has been silent longest loses its own."""

    def __init__(self, capacity: int = limits.TICKETS_KEPT) -> None:
        self._capacity = capacity
        self._of: OrderedDict[str, dict[str, deque[_Kept]]] = OrderedDict()
        self._count = 0
        self._resting: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    def keep(self, source: str, destination: str, ticket: Ticket, now: float) -> None:
        """For a later offer to that source at that destination; of too many the oldest goes.

        `now`: when it was made, which may be long ago.
        """
        pairs = self._of.setdefault(source, {})
        self._of.move_to_end(source)
        stack = pairs.setdefault(destination, deque())
        if len(stack) == limits.TICKETS_OF_A_PAIR:
            stack.popleft()
            self._count -= 1
        stack.append(_kept(ticket, now))
        self._count += 1
        while self._count > self._capacity:
            self._drop(next(iter(self._of)))

    def take(self, source: str, destination: str, now: float) -> Ticket | None:
        """The youngest, once; None where there is none, or the source rests."""
        stack = self._of.get(source, {}).get(destination)
        if not stack or self._rests(source, now):
            return None
        while stack:
            kept = stack.pop()
            self._count -= 1
            if now < kept.until:
                return kept.ticket
        return None

    def not_taken(self, source: str, now: float) -> None:
        """An offer with a ticket was for nothing: whoever is there has lost his, or never had any."""
        self._drop(source)
        self._resting[source] = now + limits.TICKETS_REST_SECONDS
        self._resting.move_to_end(source)
        if len(self._resting) > self._capacity:
            self._resting.popitem(last=False)

    def forget_old(self, now: float) -> None:
        for pairs in self._of.values():
            for stack in pairs.values():
                while stack and stack[0].until <= now:
                    stack.popleft()
                    self._count -= 1
        for source in [source for source, pairs in self._of.items() if not any(pairs.values())]:
            del self._of[source]
        for source in [source for source, until in self._resting.items() if until <= now]:
            del self._resting[source]

    def _rests(self, source: str, now: float) -> bool:
        return now < self._resting.get(source, now)

    def _drop(self, source: str) -> None:
        self._count -= sum(map(len, self._of.pop(source, {}).values()))


@dataclass(frozen=True, slots=True)
class TicketsOfPair:
    """R's tickets as one session sees them: those of its own two addresses."""

    tickets: OfferedTickets
    source: str
    destination: str

    def keep(self, ticket: Ticket, now: float) -> None:
        self.tickets.keep(self.source, self.destination, ticket, now)

    def take(self, now: float) -> Ticket | None:
        return self.tickets.take(self.source, self.destination, now)

    def not_taken(self, now: float) -> None:
        self.tickets.not_taken(self.source, now)
