"""What an observer has seen, in the past tense. Counterpart: `observer`, which makes these."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errors import IdentityHashed
from gateway.immutable import immutable

if TYPE_CHECKING:
    from gateway.errors import Reason


class Role(IdentityHashed):
    """Which gateway observes: the one on the sender's side, or the one on the receiver's."""

    SENDING = "sending"
    RECEIVING = "receiving"


@immutable
class Passed:
    """Octets that go on now, unaltered and in order; never empty."""

    to_receiver: bool
    octets: bytes


@immutable
class EhloReply:
    """The complete, well-formed 250 reply to the first EHLO. It has not passed: the caller passes it."""

    octets: bytes


@immutable
class Unparsed:
    """This session is never upgraded. What was held has been released just before; relay raw from here."""

    reason: Reason
    code: int | None = None
    """The receiver's code, for GREETING_REFUSED and EHLO_REFUSED, and a 421 behind the greeting: that says
    nothing about its offers."""
    led: bool = False
    """For HELO: the greeting before it does not name ESMTP, by which some senders choose."""


Observation = Passed | EhloReply | Unparsed
