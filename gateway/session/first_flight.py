"""What the sender has sent since the EHLO reply, until the receiving gateway has proven itself.

Keeps all of it, because a failed handshake sends it again over another connection; holds back what could be
content of a mail, because content that never left cannot be delivered twice.
Counterpart: `smtp.firstflight.ContentScan`, which finds where content begins.
"""

from __future__ import annotations

from gateway.policy import limits
from gateway.smtp.firstflight import ContentScan


class FirstFlight:
    """At most `limits.FIRST_FLIGHT_OCTETS`, plus what one read brought in before the pause."""

    def __init__(self) -> None:
        self._octets = bytearray()
        self._scan: ContentScan | None = None
        self.held = b""

    def hold(self, octets: bytes) -> None:
        """Octets of the sender while nothing may go out: no verb is."""
        self._octets += octets

    def begin(self) -> bytes:
        """The verb goes out, on the first connection or on a new one; answers what may go with it."""
        self._scan = ContentScan()
        may_send, self.held = self._scan.feed(bytes(self._octets))
        return may_send

    def add(self, octets: bytes) -> bytes:
        """More of the sender, behind the verb; answers what may go out now."""
        assert self._scan is not None, "more of a flight that has not begun"
        self._octets += octets
        may_send, self.held = self._scan.feed(octets)
        return may_send

    @property
    def everything(self) -> bytes:
        return bytes(self._octets)

    @property
    def octets_kept(self) -> int:
        """Those of content twice, as they stand in memory."""
        return len(self._octets) + len(self.held)

    @property
    def is_empty(self) -> bool:
        return not self._octets

    @property
    def is_full(self) -> bool:
        return len(self._octets) >= limits.FIRST_FLIGHT_OCTETS
