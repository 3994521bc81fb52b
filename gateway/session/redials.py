"""The dials of one session at the sending gateway: which failures count, and the reply that is kept back.

An offer with a ticket that S does not know costs a dial, and is no failure: that is how a gateway that was
started anew begins (docs/protocol.md, 4.6). The EHLO reply that it came with is kept back from the sender.
Counterparts: `session.sending`, which dials; `session.second_look`, which holds a redial's reply against the
one that the sender has seen.
"""

from __future__ import annotations

from gateway.errors import Reason
from gateway.policy import limits
from gateway.policy.cause import Sighting
from gateway.session.commands import Command, SendOctets
from gateway.session.events import Side


class Redials:
    """What a session remembers of its dials up to now."""

    __slots__ = ("_forgiven", "dials", "ehlo_sent_at", "failure", "reply_is_kept_back")

    def __init__(self) -> None:
        self.dials = 1
        self.failure: Sighting | None = None
        """Of the last dial that has failed."""
        self.reply_is_kept_back = False
        self.ehlo_sent_at = 0.0
        """From when on the sender waits for that reply."""
        self._forgiven = 0

    def failed(self, failure: Sighting, now: float) -> None:
        """The dial of now has; another one follows."""
        self.failure = failure
        self.dials += 1
        in_time = now < self.ehlo_sent_at + limits.TICKETS_FORGIVEN_SECONDS
        if failure.failure is Reason.TICKET_UNKNOWN and in_time:
            self._forgiven = min(self._forgiven + 1, limits.TICKETS_FORGIVEN)

    @property
    def were_enough(self) -> bool:
        """The dial of now is the last one: it goes on in clear."""
        return self.dials - self._forgiven >= limits.DIALS_PER_SESSION

    def told(self) -> str:
        """In words for the log, once one has failed."""
        assert self.failure is not None
        return f"cause={self.failure.failure.value} dials={self.dials}"

    def show(self, reply: bytes, then: list[Command], *, dials_again: bool) -> list[Command]:
        """To the sender, that has seen none: the reply of the dial of now, and `then` behind it.

        Where S dials again because of a ticket that it does not know, the reply is kept back: the sender is
        shown that of the next dial instead, which a farm may answer with another machine.
        """
        unknown = self.failure is not None and self.failure.failure is Reason.TICKET_UNKNOWN
        self.reply_is_kept_back = dials_again and unknown
        return then if self.reply_is_kept_back else [SendOctets(Side.NEAR, reply), *then]
