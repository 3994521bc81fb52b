"""Everything a session can ask for, in the imperative. Executed in order by `runtime.connection`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.crypto.records import VerifiedPeer
    from gateway.errors import Reason
    from gateway.session.events import Side


@dataclass(frozen=True, slots=True)
class SendOctets:
    """Write these octets to this side."""

    side: Side
    octets: bytes


@dataclass(frozen=True, slots=True)
class SendEnd:
    """Close this side for writing (FIN) once all octets given to it are out."""

    side: Side


@dataclass(frozen=True, slots=True)
class SendReset:
    """Reset this side at once (RST)."""

    side: Side


@dataclass(frozen=True, slots=True)
class CloseBoth:
    """Both directions have ended: close both sides once what was given to them is out."""


@dataclass(frozen=True, slots=True)
class PauseReading:
    """Read no more from this side until `ResumeReading`."""

    side: Side


@dataclass(frozen=True, slots=True)
class ResumeReading:
    """Read from this side again."""

    side: Side


@dataclass(frozen=True, slots=True)
class RelayInClear:
    """From here on move octets, ends and resets between the sides as they come; the machine is done."""


@dataclass(frozen=True, slots=True)
class Redial:
    """Reset the far connection and make a new one to the same destination, from the same source."""


@dataclass(frozen=True, slots=True)
class RememberPeer:
    """Store this peer under the dialled destination."""

    peer: VerifiedPeer


@dataclass(frozen=True, slots=True)
class NoteDecision:
    """Log and count what was decided; `alarm` also rings the bell."""

    upgraded: bool
    reason: Reason
    alarm: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class NoteFact:
    """Log one fact; `detail` holds words of ours or escaped ones, never a secret or a person's address."""

    event: str
    reason: Reason | None = None
    detail: str = ""


Command = (
    SendOctets
    | SendEnd
    | SendReset
    | CloseBoth
    | PauseReading
    | ResumeReading
    | RelayInClear
    | Redial
    | RememberPeer
    | NoteDecision
    | NoteFact
)
