"""Everything a session can ask for, in the imperative. Executed in order by `runtime.worker.connection`."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from gateway.immutable import immutable

if TYPE_CHECKING:
    from gateway.crypto.records import VerifiedPeer
    from gateway.errors import Reason
    from gateway.peers.looks import Look
    from gateway.peers.pins import MetStatement
    from gateway.peers.sources import SourceSeen
    from gateway.policy.cause import Sighting
    from gateway.session.events import Side


@immutable
class SendOctets:
    """Write these octets to this side."""

    side: Side
    octets: bytes | bytearray
    last: bool = field(default=False, compare=False)
    """The next command ends this direction: its FIN may travel in the same segment."""


@immutable
class SendEnd:
    """Close this side for writing (FIN) once all octets given to it are out."""

    side: Side


@immutable
class SendReset:
    """Reset this side at once (RST)."""

    side: Side


@immutable
class CloseBoth:
    """Both directions have ended: close both sides once what was given to them is out."""


@immutable
class PauseReading:
    """Read no more from this side until `ResumeReading`."""

    side: Side


@immutable
class ResumeReading:
    """Read from this side again."""

    side: Side


@immutable
class RelayInClear:
    """From here on move octets, ends and resets between the sides as they come; the machine is done."""


@immutable
class Redial:
    """Reset the far connection and make a new one to the same destination, from the same source."""


@immutable
class SignOffer:
    """Have the site's identity sign this as an offer; the answer is `OfferSigned`."""

    to_sign: bytes


@immutable
class RememberPeer:
    """Store this peer under the dialled destination, with the statement that it has shown."""

    peer: VerifiedPeer
    statement: MetStatement | None = None
    look: Look | None = field(default=None, compare=False)
    """How its server looks when all is well."""
    rang: bool = field(default=False, compare=False)
    """The session has rung for what it saw; else whoever stores a stranger beside others does."""


@immutable
class NoteSource:
    """What there is to learn about the client of a receiving gateway; said only where it is news."""

    seen: SourceSeen
    name: bytes = b""
    """As it greeted."""
    identity: bytes = b""
    """Of its gateway, where it has upgraded; and the epoch of that gateway's static key."""
    epoch: int = 0


@immutable
class NoteDecision:
    """Log and count what was decided; `alarm` also rings the bell."""

    upgraded: bool
    reason: Reason
    alarm: bool = False
    detail: str = ""
    seen: Sighting | None = field(default=None, compare=False)
    """Where something went wrong: what there was to see of it, so that its cause can be named."""
    likely: Reason | None = None
    """The cause, where the session can name it itself."""
    resumed: bool = False
    """Upgraded with a ticket."""


@immutable
class NoteFact:
    """Log one fact; `detail` holds words of ours or escaped ones, never a secret or a person's address."""

    event: str
    reason: Reason | None = None
    detail: str = ""
    seen: Sighting | None = field(default=None, compare=False)
    """As in `NoteDecision`."""


Command = (
    SendOctets
    | SendEnd
    | SendReset
    | CloseBoth
    | PauseReading
    | ResumeReading
    | RelayInClear
    | Redial
    | SignOffer
    | RememberPeer
    | NoteSource
    | NoteDecision
    | NoteFact
)
