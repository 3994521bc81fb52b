"""Everything that can happen to a session, in the past tense. The counterpart is `commands`."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.errors import IdentityHashed


class Side(IdentityHashed):
    """Which of a gateway's two connections: towards its own mail server, or towards the wire."""

    NEAR = "near"
    FAR = "far"

    @property
    def other(self) -> Side:
        return Side.FAR if self is Side.NEAR else Side.NEAR


@dataclass(frozen=True, slots=True)
class OctetsReceived:
    """Octets came in; never empty."""

    side: Side
    octets: bytes


@dataclass(frozen=True, slots=True)
class EndReceived:
    """A FIN came in: this side will send no more, and may still read."""

    side: Side


@dataclass(frozen=True, slots=True)
class ResetReceived:
    """This side's connection is gone (RST, or an error of the kernel's)."""

    side: Side


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The time in `deadline` has come."""


@dataclass(frozen=True, slots=True)
class Redialled:
    """A new far connection stands in the place of the old one."""


@dataclass(frozen=True, slots=True)
class RedialFailed:
    """No new far connection could be had."""


@dataclass(frozen=True, slots=True)
class OfferSigned:
    """The answer to `SignOffer`; None where there is no signature to be had now."""

    signature: bytes | None


Event = (
    OctetsReceived | EndReceived | ResetReceived | DeadlineReached | Redialled | RedialFailed | OfferSigned
)
