"""Everything that can happen to a session, in the past tense. The counterpart is `commands`."""

from __future__ import annotations

from gateway.errors import IdentityHashed
from gateway.immutable import immutable


class Side(IdentityHashed):
    """Which of a gateway's two connections: towards its own mail server, or towards the wire."""

    NEAR = "near"
    FAR = "far"

    @property
    def other(self) -> Side:
        return Side.FAR if self is Side.NEAR else Side.NEAR


@immutable
class OctetsReceived:
    """Octets came in; never empty."""

    side: Side
    octets: bytes


@immutable
class EndReceived:
    """A FIN came in: this side will send no more, and may still read."""

    side: Side


@immutable
class ResetReceived:
    """This side's connection is gone (RST, or an error of the kernel's)."""

    side: Side


@immutable
class DeadlineReached:
    """The time in `deadline` has come."""


@immutable
class Redialled:
    """A new far connection stands in the place of the old one."""


@immutable
class RedialFailed:
    """No new far connection could be had."""


@immutable
class OfferSigned:
    """The answer to `SignOffer`; None where there is no signature to be had now."""

    signature: bytes | None


Event = (
    OctetsReceived | EndReceived | ResetReceived | DeadlineReached | Redialled | RedialFailed | OfferSigned
)
