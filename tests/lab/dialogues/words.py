"""What dialogues are written in: steps with short names, and the parts that many of them share."""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass

from gateway.errors import Reason
from tests.lab.exchange import PATIENCE
from tests.lab.steps import End, HearEnd, Party, Pause, Say, Step

SENDER, RECEIVER = Party.SENDER, Party.RECEIVER
Steps = tuple[Step, ...]

GREETING = b"220 mta-b.b.test ESMTP at your service\r\n"
EHLO = b"EHLO mta-a.a.test\r\n"
REPLY = (
    b"250-mta-b.b.test\r\n250-PIPELINING\r\n250-SIZE 33554432\r\n250-STARTTLS\r\n250-AUTH PLAIN LOGIN\r\n"
    b"250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n250 CHUNKING\r\n"
)
CONTENT = b"Subject: a word\r\nTo: <bob@b.test>\r\n\r\nOne line.\r\n..Two dots.\r\n"
PINNED_SERVER_WITHOUT_OFFER = Reason.OFFER_MISSING


@dataclass(frozen=True)
class Dialogue:
    """One script. `out`: the sending gateway's decision where the receiver has no gateway, and `inward` the
    receiving gateway's where the sender has none; by default what follows from the other two."""

    name: str
    steps: Steps
    sending: Reason = Reason.UPGRADED
    receiving: Reason = Reason.UPGRADED
    out: Reason | None = None
    inward: Reason | None = None
    patience: float = PATIENCE
    repeatable: bool = True
    """False: its octets are others each time (TLS), so two runs are not compared by them."""
    long: bool = False
    may_end_unbegun: bool = False
    """A reset so early that a gateway may not have both connections yet: then it logs no session."""

    @property
    def takes_its_time(self) -> bool:
        return any(isinstance(step, Pause) for step in self.steps)

    @property
    def sending_alone(self) -> Reason:
        if self.out is not None:
            return self.out
        return Reason.NO_OFFER if self.sending is Reason.UPGRADED else self.sending

    @property
    def receiving_alone(self) -> Reason:
        if self.inward is not None:
            return self.inward
        return Reason.NO_VERB if self.receiving is Reason.UPGRADED else self.receiving


def c(octets: bytes, *pieces: int) -> Say:
    """The sender says this, and the receiver hears it."""
    return Say(SENDER, octets, pieces)


def s(octets: bytes, *pieces: int) -> Say:
    """The receiver says this, and the sender hears it."""
    return Say(RECEIVER, octets, pieces)


def asked(line: bytes, answer: bytes) -> Steps:
    """One command and its reply."""
    return c(line + b"\r\n"), s(answer + b"\r\n")


def opened(greeting: bytes = GREETING, ehlo: bytes = EHLO, reply: bytes = REPLY) -> Steps:
    return s(greeting), c(ehlo), s(reply)


def mail(
    content: bytes = CONTENT,
    *pieces: int,
    sender: bytes = b"<alice@a.test>",
    recipients: tuple[bytes, ...] = (b"<bob@b.test>",),
    ending: bytes = b".\r\n",
) -> Steps:
    """One transaction by DATA."""
    steps = asked(b"MAIL FROM:" + sender, b"250 2.1.0 Ok")
    for recipient in recipients:
        steps += asked(b"RCPT TO:" + recipient, b"250 2.1.5 Ok")
    steps += asked(b"DATA", b"354 End data with <CR><LF>.<CR><LF>")
    return (*steps, c(content + ending, *pieces), s(b"250 2.0.0 Ok: queued as 4dW1Xy2kZzz\r\n"))


QUIT: Steps = (
    *asked(b"QUIT", b"221 2.0.0 Bye"),
    End(RECEIVER),
    HearEnd(SENDER),
    End(SENDER),
    HearEnd(RECEIVER),
)
BOTH_END: Steps = (End(RECEIVER), HearEnd(SENDER), End(SENDER), HearEnd(RECEIVER))
SENDER_LEAVES: Steps = (End(SENDER), HearEnd(RECEIVER), End(RECEIVER), HearEnd(SENDER))


def ehlo_reply(octets: int) -> bytes:
    """A reply of this size, in lines that name things nobody knows."""
    head, last = b"250-mta-b.b.test\r\n250-PIPELINING\r\n", b"250 8BITMIME\r\n"
    lines = []
    room = octets - len(head) - len(last)
    while room:
        size = room if room < 128 else 64
        lines.append(b"250-X" + b"A" * (size - 7) + b"\r\n")
        room -= size
    return head + b"".join(lines) + last


def noise(seed: int, octets: int) -> bytes:
    return random.Random(seed).randbytes(octets)


FIRST_CONTACT = Dialogue("first contact", (*opened(), *mail(), *QUIT), sending=Reason.UPGRADED_NEW_PEER)


def bdat(content: bytes, *more: bytes) -> bytes:
    """BDAT commands for these chunks; the last is LAST."""
    chunks = (content, *more)
    return b"".join(
        b"BDAT %d%s\r\n" % (len(chunk), b" LAST" if number == len(chunks) - 1 else b"") + chunk
        for number, chunk in enumerate(chunks)
    )


TRICKY = (
    b"Subject: x\r\n\r\n\r\n.\r\nXNIGHTMAIL\r\nx\x81\x00\x05abcde\r\nSTARTTLS\r\nEHLO x\r\n"
    b".\r\nBDAT 5\r\n\0\xff\r"
)
ENVELOPE: Steps = (
    *asked(b"MAIL FROM:<alice@a.test> BODY=BINARYMIME", b"250 2.1.0 Ok"),
    *asked(b"RCPT TO:<bob@b.test>", b"250 2.1.5 Ok"),
)
FLIGHT = b"MAIL FROM:<alice@a.test>\r\nRCPT TO:<bob@b.test>\r\n"
FLIGHT_REPLY = b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"
DONE = b"250 2.0.0 Ok: queued\r\n"
PLAIN = base64.b64encode(b"\0alice\0open sesame")


IN_DATA: Steps = (
    *opened(),
    c(FLIGHT + b"DATA\r\n"),
    s(FLIGHT_REPLY + b"354 Go\r\n"),
    c(b"Subject: half a mail\r\n\r\nand no"),
)
