"""A pin, the words, and what a statement does to them (docs/protocol.md, 10)."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.second.messages import Offer, Statement


@dataclass
class Seen:
    accepted: bool
    epoch: int = 0
    full: bool = False
    in_channel: bool = True
    serial: int = 0
    """The highest of a statement by this identity that has counted."""
    led_by: bytes | None = None


FAILURES_IN_A_ROW = 3
REST, MOST_REST = 3600.0, 86400.0


@dataclass
class Failures:
    """Of one dialled address and port that has never upgraded: when S tries again (7)."""

    in_a_row: int = 0
    until: float = 0.0

    def rests(self, now: float) -> bool:
        return now < self.until

    def count(self, now: float) -> None:
        """A session has failed, and went on in clear or was put off."""
        self.in_a_row += 1
        more = self.in_a_row - FAILURES_IN_A_ROW
        if more >= 0:
            self.until = now + min(REST * 2.0**more, MOST_REST)


@dataclass
class Pin:
    """One dialled address and port."""

    identities: dict[bytes, Seen] = field(default_factory=dict)

    def accepts(self, identity: bytes) -> bool:
        return identity in self.identities and self.identities[identity].accepted

    def word(self, offer: Offer, room: str | None) -> str:
        """`room` is the form that the size rule allows."""
        seen = self.identities.get(offer.identity)
        if not self.identities:
            return "NEW"
        if seen is None:
            return "CHANGED"
        if not offer.full and room == "full":
            return "WEAKER"
        if not seen.accepted:
            return "CHANGED"
        return "OLD" if offer.epoch < seen.epoch else "SAME"

    def counts(self, statement: Statement | None, proven: bytes) -> bool:
        """Whether it leads to `proven`."""
        return statement is not None and statement.new == proven and self._leads(statement)

    def learns(self, statement: Statement, proven: bytes) -> bool:
        """Whether it leads from `proven` to what comes later."""
        return statement.old == proven and self._leads(statement)

    def _leads(self, statement: Statement) -> bool:
        old = self.identities.get(statement.old)
        return old is not None and old.accepted and statement.serial > old.serial

    def remember(self, offer: Offer, accepted: bool) -> None:
        seen = self.identities.setdefault(offer.identity, Seen(accepted))
        seen.accepted |= accepted
        seen.epoch, seen.full = max(seen.epoch, offer.epoch), seen.full or offer.full
        seen.in_channel = True

    def lead(self, statement: Statement) -> None:
        """A statement that counts, or one to learn from ahead: its old identity is accepted here."""
        self.identities[statement.old].serial = statement.serial
        for identity, seen in list(self.identities.items()):
            if seen.led_by == statement.old and not seen.in_channel and identity != statement.new:
                del self.identities[identity]
        led = self.identities.setdefault(statement.new, Seen(True, in_channel=False, led_by=statement.old))
        led.accepted = True
