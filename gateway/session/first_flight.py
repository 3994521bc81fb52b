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
        self._scan = ContentScan()
        self.held = b""

    def add(self, octets: bytes) -> bytes:
        """Take octets of the sender; answers what may go out now."""
        self._octets += octets
        may_send, self.held = self._scan.feed(octets)
        return may_send

    def again(self) -> bytes:
        """Start over on a new connection; answers what may go out there at once."""
        octets = bytes(self._octets)
        self._octets.clear()
        self._scan = ContentScan()
        self.held = b""
        return self.add(octets) if octets else b""

    @property
    def everything(self) -> bytes:
        return bytes(self._octets)

    @property
    def is_empty(self) -> bool:
        return not self._octets

    @property
    def is_full(self) -> bool:
        return len(self._octets) >= limits.FIRST_FLIGHT_OCTETS
