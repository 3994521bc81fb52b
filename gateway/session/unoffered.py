"""What the sending gateway makes of a server without an offer: in its reply, or without a reply at all.

A pinned one that has lost its offer is told as such, however it was lost: one line feed put in on the wire
would else be a silent way back to clear. Counterparts: `session.attempt`, which judges an offer;
`policy.decision`, which decides.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import Reason
from gateway.peers.comparison import Observed, compare
from gateway.peers.looks import look_of
from gateway.peers.pins import Pin
from gateway.policy.cause import Sighting
from gateway.policy.decision import Decision, decide
from gateway.smtp.capability import host_name
from gateway.smtp.events import Unparsed
from gateway.smtp.grammar import CLOSING

_LOST_OFFER: Final = frozenset(
    {Reason.EHLO_REFUSED, Reason.ODD_REPLY, Reason.ODD_GREETING, Reason.GREETING_REFUSED}
)


def of_reply(pin: Pin | None, greeting: bytes, reply: bytes) -> tuple[Decision, Sighting | None]:
    """A complete EHLO reply without an offer; what was to be seen of it, where a peer is pinned."""
    look = Sighting(Reason.OFFER_MISSING, look_of(host_name(greeting), reply)) if pin is not None else None
    return _missing(pin), look


def of_no_reply(pin: Pin | None, unparsed: Unparsed) -> Decision:
    """A greeting or a reply that cannot carry an offer. A 421 is the receiver's own business; who talks out
    of turn is the sender, and so is who greets with HELO, if no greeting has led him to it."""
    lost = (unparsed.reason in _LOST_OFFER or unparsed.led) and unparsed.code != CLOSING and pin is not None
    return _missing(pin) if lost else Decision.in_clear(unparsed.reason)


def closes(unparsed: Unparsed) -> bool:
    """Whether the receiver has said that the session is over, in place of a greeting or a reply, or between
    them."""
    return unparsed.code == CLOSING


def closes_unasked(octets: bytes) -> bool:
    """The same, behind the reply."""
    return octets.startswith(b"%d" % CLOSING) and octets.endswith(b"\n")


def _missing(pin: Pin | None) -> Decision:
    return decide(compare(pin, Observed.missing()))
