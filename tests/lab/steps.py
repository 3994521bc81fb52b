"""What the two parties of an exchange do, a step at a time. Counterparts: `exchange`, `dialogues`."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Party(enum.Enum):
    SENDER = "sender"
    RECEIVER = "receiver"

    @property
    def other(self) -> Party:
        return Party.RECEIVER if self is Party.SENDER else Party.SENDER


@dataclass(frozen=True, slots=True)
class Say:
    """Send octets, in pieces of these sizes (again and again); `heard`: and wait until all has arrived."""

    party: Party
    octets: bytes
    pieces: tuple[int, ...] = ()
    heard: bool = True


@dataclass(frozen=True, slots=True)
class Hear:
    """Wait until this party has so many octets in all; None: all that the other has said."""

    party: Party
    octets: int | None = None


@dataclass(frozen=True, slots=True)
class End:
    """Half-close: a FIN."""

    party: Party


@dataclass(frozen=True, slots=True)
class HearEnd:
    party: Party


@dataclass(frozen=True, slots=True)
class Close:
    """Close altogether: a FIN, and a reset for whatever comes after it."""

    party: Party


@dataclass(frozen=True, slots=True)
class Reset:
    party: Party


@dataclass(frozen=True, slots=True)
class HearReset:
    """Wait for a reset; behind an end as well, where it shows on the socket only."""

    party: Party


@dataclass(frozen=True, slots=True)
class Pause:
    """A mail server that takes its time: the one thing here that is about time."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Tls:
    """Both parties begin TLS here, and then say this to each other inside of it."""

    talk: tuple[tuple[Party, bytes], ...]


Step = Say | Hear | End | HearEnd | Close | Reset | HearReset | Pause | Tls
