"""Two gateways that meet several times, and what each keeps between the sessions. For tests only."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.crypto.tickets import HeldTickets, OfferedTickets, TicketsOfPair
from gateway.peers.pins import Pin
from gateway.peers.sources import Sender as KnownSender
from gateway.session.events import ResetReceived, Side
from tests.holding import HeldKeys, ReceivingMachine
from tests.pair import Pair, Receiver, Sender, Tamperer
from tests.playbook import (
    EHLO,
    R_KEYS,
    REPLY,
    receiving,
    sending,
)
from tests.unit.session.sending_steps import MAIL, R_PIN

SOURCE, HERE = "192.0.2.1", "198.51.100.1"
MAIL_STEPS = [
    (1, EHLO),
    (2, MAIL + b"RCPT TO:<bob@b.example>\r\nDATA\r\n"),
    (5, b"Subject: x\r\n\r\nhello\r\n.\r\n"),
    (6, b"QUIT\r\n"),
]
RESUMED_OFFER_LINES = 1
UNKNOWN = b"250-mx.b.example\r\n250 XNIGHTMAIL 1 1/1 " + b"A" * 88 + b"\r\n"
"""A reply whose offer names a ticket that nobody has."""


@dataclass
class Site:
    """Two gateways that meet several times: what each of them keeps between the sessions."""

    held: HeldTickets | None = field(default_factory=HeldTickets)
    offered: OfferedTickets | None = field(default_factory=OfferedTickets)
    pin: Pin | None = R_PIN
    r_keys: HeldKeys = R_KEYS
    reply: bytes = REPLY
    statements: tuple[bytes, ...] = ()
    sender_epoch: int = 0
    sessions: int = 0

    def meet(self, tamper: Tamperer | None = None, **of_s: object) -> Pair:
        self.sessions += 1
        meeting = self.sessions
        of_pair = None if self.offered is None else TicketsOfPair(self.offered, SOURCE, HERE)
        before: list[ReceivingMachine] = []

        def make_r(dial: int) -> ReceivingMachine:
            if before:
                before[-1].handle(
                    ResetReceived(Side.FAR), 1000.0
                )  # of the dial before; nobody looks any more
            label = f"R {meeting} {dial}"
            before.append(
                receiving(
                    label=label,
                    keys=self.r_keys,
                    tickets=of_pair,
                    statements=self.statements,
                    sender_of=lambda identity: KnownSender(identity, self.sender_epoch),
                )
            )
            return before[-1]

        pair = Pair(
            Sender(MAIL_STEPS),
            lambda: Receiver(reply=self.reply),
            make_s=lambda: sending(tickets=self.held, pin=self.pin, **of_s),  # type: ignore[arg-type]
            make_r=make_r,
            tamper=tamper,
        )
        return pair.run()


def forms(pair: Pair) -> list[str]:
    """Of the channels that were made, as R tells it and as S does."""
    return [
        next(word for word in decision.detail.split() if word.startswith("form="))
        for decision in pair.decisions
        if decision.upgraded
    ]


RESUMED, FULL = ["form=resumed"] * 2, ["form=full"] * 2


def delivered_once(pair: Pair) -> bool:
    return pair.delivered == [b"Subject: x\r\n\r\nhello\r\n"] and pair.sender.replies[-1].startswith(b"221")
