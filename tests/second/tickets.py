"""Tickets, and the resumed form made with them (docs/protocol.md, 4.6)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tests.second.curve25519 import x25519_public
from tests.second.lines import RESUMED_OCTETS
from tests.second.messages import ANSWER_OCTETS, u16
from tests.second.noise import RESUMED, Refused, Symmetric, dh

KEEPS_TICKET = 0x0002
NAME = 16
UNKNOWN_TICKET = "no ticket of this name"
R_KEEPS, S_KEEPS = 600.0, 660.0
R_SINCE_FULL, S_SINCE_FULL = 3600.0, 3660.0
NOT_TAKEN_REST = 600.0

Pair = tuple[bytes, tuple[bytes, int]]
"""Source, original destination."""


@dataclass(frozen=True)
class Ticket:
    secret: bytes
    name: bytes
    identity: bytes
    """The other side's, as its epoch."""
    epoch: int
    made: float
    full_made: float
    """When the full handshake was that it goes back to."""

    def lives(self, now: float, after_making: float, after_full: float) -> bool:
        return now - self.made < after_making and now - self.full_made < after_full


def ticket_of(
    state: Symmetric, now: float, identity: bytes, epoch: int, before: Ticket | None = None
) -> Ticket:
    """The ticket that this handshake leaves; `before` is the one that it was made with."""
    secret, name = state.ticket()
    if before is not None:
        return replace(before, secret=secret, name=name, made=now)
    return Ticket(secret, name, identity, epoch, now, now)


@dataclass
class TicketsOfR:
    """By source and original destination."""

    _kept: dict[Pair, list[Ticket]] = field(default_factory=dict)
    _rests: dict[bytes, float] = field(default_factory=dict)

    def keep(self, pair: Pair, ticket: Ticket) -> None:
        self._kept.setdefault(pair, []).append(ticket)

    def use(self, pair: Pair, now: float) -> Ticket | None:
        """The youngest that may still be offered. It is gone with that."""
        if now < self._rests.get(pair[0], now):
            return None
        tickets = self._kept.get(pair, [])
        while tickets:
            ticket = tickets.pop()
            if ticket.lives(now, R_KEEPS, R_SINCE_FULL):
                return ticket
        return None

    def not_taken(self, source: bytes, now: float) -> None:
        """Of that source there is none any more, and for a while no resumed offer."""
        self._rests[source] = now + NOT_TAKEN_REST
        for pair in [pair for pair in self._kept if pair[0] == source]:
            del self._kept[pair]

    def __len__(self) -> int:
        return sum(map(len, self._kept.values()))


@dataclass
class TicketsOfS:
    """By name."""

    room: int = 1000
    _kept: dict[bytes, Ticket] = field(default_factory=dict)

    def has_room(self, now: float) -> bool:
        """None is forgotten to make room: R would offer it in vain."""
        living = {name: one for name, one in self._kept.items() if one.lives(now, S_KEEPS, S_SINCE_FULL)}
        self._kept = living
        return len(living) < self.room

    def keep(self, ticket: Ticket) -> None:
        self._kept[ticket.name] = ticket

    def use(self, name: bytes, now: float) -> Ticket:
        """It is gone with that, whatever follows."""
        ticket = self._kept.pop(name, None)
        if ticket is None or not ticket.lives(now, S_KEEPS, S_SINCE_FULL):
            raise Refused(UNKNOWN_TICKET)
        return ticket

    def __len__(self) -> int:
        return len(self._kept)


def _begun(prologue: bytes, secret: bytes) -> Symmetric:
    state = Symmetric.named(RESUMED, prologue)
    state.mix_key_and_hash(secret)
    return state


def _mix_e(state: Symmetric, public: bytes) -> None:
    """The token `e` of a handshake with a psk (Noise, 9.2)."""
    state.mix_hash(public)
    state.mix_key(public)


@dataclass
class ResumingInitiator:
    """R."""

    prologue: bytes
    ticket: Ticket
    ephemeral: bytes
    state: Symmetric = field(init=False)

    def begin(self) -> bytes:
        """psk, e of message 1; the payload is the caller's to add."""
        self.state = _begun(self.prologue, self.ticket.secret)
        e = x25519_public(self.ephemeral)
        _mix_e(self.state, e)
        return e

    def offer(self, flags: int) -> bytes:
        """The name and message 1."""
        return self.ticket.name + self.begin() + self.state.encrypt_and_hash(u16(flags))

    def read(self, message: bytes) -> bytes:
        """The payload of message 2."""
        _mix_e(self.state, message[:32])
        self.state.mix_key(dh(self.ephemeral, message[:32]))
        return self.state.decrypt_and_hash(message[32:])

    def read_answer(self, message: bytes) -> tuple[int, bytes, int]:
        """Flags, dialled address and port."""
        if len(message) != ANSWER_OCTETS["resumed"]:
            raise Refused("length of the answer")
        payload = self.read(message)
        return int.from_bytes(payload[:2], "big"), payload[2:18], int.from_bytes(payload[18:], "big")


@dataclass
class ResumingResponder:
    """S."""

    prologue: bytes
    ticket: Ticket
    ephemeral: bytes
    state: Symmetric = field(init=False)

    def read_offer(self, offer: bytes) -> int:
        """The flags. What follows the name is message 1."""
        if len(offer) != RESUMED_OCTETS:
            raise Refused("length of the offer")
        return int.from_bytes(self.begin(offer[NAME:]), "big")

    def begin(self, message: bytes) -> bytes:
        """The payload of message 1."""
        self.state = _begun(self.prologue, self.ticket.secret)
        self._e = message[:32]
        _mix_e(self.state, self._e)
        return self.state.decrypt_and_hash(message[32:])

    def answer(self, flags: int, dialled: tuple[bytes, int]) -> bytes:
        return self.write(u16(flags) + dialled[0] + u16(dialled[1]))

    def write(self, payload: bytes) -> bytes:
        """Message 2."""
        e = x25519_public(self.ephemeral)
        _mix_e(self.state, e)
        self.state.mix_key(dh(self.ephemeral, self._e))
        return e + self.state.encrypt_and_hash(payload)
