"""The scripts: what mail servers say to each other, well-behaved and otherwise, and what gateways make of it.

Each dialogue names the decision that the sending and the receiving gateway take; the octets need no
expectation of their own, since both mail servers must see just what they see without gateways. The table
takes for granted that the sending gateway remembers the receiver as a peer (`FIRST_CONTACT` comes first).
Counterpart: `exchange`, which drives them.
"""

from __future__ import annotations

import base64
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import Reason
from tests.lab.exchange import (
    PATIENCE,
    Close,
    End,
    Hear,
    HearEnd,
    HearReset,
    Party,
    Pause,
    Reset,
    Say,
    Step,
    Tls,
)

VECTORS = Path(__file__).parent.parent / "vectors"
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


# --- Words --------------------------------------------------------------------------------------------


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


# --- Well-behaved -------------------------------------------------------------------------------------


def _bdat(content: bytes, *more: bytes) -> bytes:
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


def _well_behaved() -> list[Dialogue]:
    return [
        Dialogue("plain", (*opened(), *mail(), *QUIT)),
        Dialogue("lower case ehlo", (*opened(ehlo=b"ehlo mta-a.a.test\r\n"), *mail(), *QUIT)),
        Dialogue("single-line reply", (*opened(reply=b"250 mta-b.b.test\r\n"), *mail(), *QUIT)),
        Dialogue("address literal", (*opened(ehlo=b"EHLO [10.11.0.10]\r\n"), *mail(), *QUIT)),
        Dialogue(
            "pipelining",
            (
                *opened(),
                c(FLIGHT + b"DATA\r\n"),
                s(FLIGHT_REPLY + b"354 Go\r\n"),
                c(CONTENT + b".\r\nQUIT\r\n"),
                s(DONE + b"221 2.0.0 Bye\r\n"),
                *BOTH_END,
            ),
        ),
        Dialogue(
            "pipelined replies one by one",
            (
                *opened(),
                c(FLIGHT + b"RCPT TO:<carol@b.test>\r\nDATA\r\n"),
                s(b"250 2.1.0 Ok\r\n"),
                s(b"250 2.1.5 Ok\r\n"),
                s(b"550 5.1.1 No such user\r\n"),
                s(b"354 Go\r\n"),
                c(CONTENT + b".\r\n"),
                s(DONE),
                *QUIT,
            ),
        ),
        Dialogue(
            "several transactions",
            (*opened(), *mail(), *mail(b"x\r\n"), *mail(sender=b"<>"), *asked(b"RSET", b"250 Ok"), *QUIT),
        ),
        Dialogue(
            "rset amid",
            (
                *opened(),
                *ENVELOPE,
                *asked(b"RSET", b"250 2.0.0 Ok"),
                *mail(),
                *asked(b"NOOP", b"250 Ok"),
                *QUIT,
            ),
        ),
        Dialogue(
            "several recipients",
            (
                *opened(),
                *asked(b"MAIL FROM:<alice@a.test>", b"250 2.1.0 Ok"),
                *asked(b"RCPT TO:<bob@b.test>", b"250 2.1.5 Ok"),
                *asked(b"RCPT TO:<nobody@b.test>", b"550 5.1.1 No such user"),
                *asked(b"RCPT TO:<slow@b.test>", b"451 4.7.1 Greylisted"),
                *asked(b"RCPT TO:<dan@b.test>", b"250-2.1.5 Ok,\r\n250 2.1.5 in two lines"),
                *asked(b"DATA", b"354 Go"),
                c(CONTENT + b".\r\n"),
                s(DONE),
                *QUIT,
            ),
        ),
        Dialogue(
            "8bitmime",
            (
                *opened(),
                *mail(bytes(range(128, 256)) * 40 + b"\r\n", sender=b"<a@a.test> BODY=8BITMIME"),
                *QUIT,
            ),
        ),
        Dialogue(
            "smtputf8",
            (
                *opened(),
                *mail(
                    "Subject: Grüße\r\n\r\nпочта\r\n".encode(),
                    sender="<älice@ä.test> SMTPUTF8".encode(),
                    recipients=("<боб@почта.test>".encode(),),
                ),
                *QUIT,
            ),
        ),
        Dialogue(
            "size", (*opened(), *asked(b"MAIL FROM:<a@a.test> SIZE=99999999", b"552 5.3.4 Too big"), *QUIT)
        ),
        Dialogue(
            "dsn",
            (
                *opened(),
                *mail(
                    sender=b"<a@a.test> RET=HDRS ENVID=QQ314159",
                    recipients=(b"<bob@b.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;bob@b.test",),
                ),
                *QUIT,
            ),
        ),
        Dialogue(
            "auth plain",
            (*opened(), *asked(b"AUTH PLAIN " + PLAIN, b"235 2.7.0 Welcome"), *mail(), *QUIT),
        ),
        Dialogue(
            "auth login",
            (
                *opened(),
                *asked(b"AUTH LOGIN", b"334 VXNlcm5hbWU6"),
                *asked(base64.b64encode(b"alice"), b"334 UGFzc3dvcmQ6"),
                *asked(base64.b64encode(b"wrong"), b"535 5.7.8 No"),
                *asked(b"AUTH LOGIN", b"334 VXNlcm5hbWU6"),
                *asked(b"*", b"501 5.7.0 As you like"),
                *QUIT,
            ),
        ),
        Dialogue(
            "starttls",
            (
                *opened(),
                *asked(b"STARTTLS", b"220 2.0.0 Ready"),
                Tls(
                    (
                        (SENDER, EHLO),
                        (RECEIVER, REPLY),
                        (SENDER, FLIGHT + b"DATA\r\n"),
                        (RECEIVER, FLIGHT_REPLY + b"354 Go\r\n"),
                        (SENDER, CONTENT * 900 + b".\r\n"),
                        (RECEIVER, DONE),
                    )
                ),
                End(SENDER),
                HearEnd(RECEIVER),
                End(RECEIVER),
                HearEnd(SENDER),
            ),
            repeatable=False,
        ),
        Dialogue("starttls refused", (*opened(), *asked(b"STARTTLS", b"454 4.7.0 Not now"), *mail(), *QUIT)),
        Dialogue(
            "xclient",
            (
                *opened(),
                c(b"XCLIENT NAME=x.test ADDR=192.0.2.1\r\n"),
                s(GREETING),
                c(b"EHLO x.test\r\n"),
                s(REPLY),
                *mail(),
                *QUIT,
            ),
        ),
        Dialogue(
            "second ehlo",
            (*opened(), *asked(EHLO[:-2], REPLY[:-2]), *asked(b"HELO x", b"250 x"), *mail(), *QUIT),
        ),
        Dialogue("nothing but quit", (*opened(), *QUIT)),
        Dialogue("sender leaves without quit", (*opened(), *mail(), *SENDER_LEAVES)),
        Dialogue("sender ends behind quit", (*opened(), c(b"QUIT\r\n"), *SENDER_LEAVES)),
        Dialogue("odd first command", (*opened(), *asked(b"GARBAGE \0\r \n\xff", b"500 5.5.2 What?"), *QUIT)),
        Dialogue(
            "first command in halves",
            (*opened(), c(b"MAIL FR"), c(b"OM:<a@a.test>\r"), c(b"\n"), s(b"250 Ok\r\n"), *QUIT),
        ),
        Dialogue(
            "almost our verb",
            (
                *opened(),
                Say(SENDER, b"XNIGHT", heard=False),
                c(b"MAILS\r\n"),
                s(b"500 5.5.2 What?\r\n"),
                *mail(),
                *QUIT,
            ),
        ),
        Dialogue(
            "first command without an end", (*opened(), Say(SENDER, b"XNIGHT", heard=False), *SENDER_LEAVES)
        ),
    ]


def _chunking() -> list[Dialogue]:
    return [
        Dialogue(
            "bdat",
            (
                *opened(),
                *ENVELOPE,
                c(_bdat(TRICKY)),
                s(DONE),
                *QUIT,
            ),
        ),
        Dialogue(
            "bdat in chunks",
            (
                *opened(),
                *ENVELOPE,
                c(b"BDAT %d\r\n" % len(TRICKY) + TRICKY),
                s(b"250 2.0.0 octets\r\n"),
                c(b"BDAT 3\r\n\r\n."),
                s(b"250 2.0.0 octets\r\n"),
                c(b"bdat 2\r\n\r\n"),
                s(b"250 2.0.0 octets\r\n"),
                c(b"BDAT 0 LAST\r\n"),
                s(DONE),
                *QUIT,
            ),
        ),
        Dialogue(
            "bdat chunks pipelined",
            (
                *opened(),
                *ENVELOPE,
                c(_bdat(TRICKY, b"\r\n.\r", b"\n", b"")),
                s((b"250 Ok\r\n" * 3) + DONE),
                *QUIT,
            ),
        ),
        Dialogue(
            "bdat before the first reply",
            (
                *opened(),
                c(FLIGHT + _bdat(TRICKY, noise(1, 5000), b"")),
                s(FLIGHT_REPLY + b"250 Ok\r\n" * 3),
                *QUIT,
            ),
        ),
        Dialogue(
            "200 kB bdat before the first reply",
            (
                *opened(),
                c(FLIGHT + _bdat(TRICKY, noise(2, 200_000))),
                s(FLIGHT_REPLY + b"250 Ok\r\n" * 2),
                *QUIT,
            ),
        ),
    ]


def _odd_octets() -> list[Dialogue]:
    content = {
        "nul": b"a\0b\r\n\0\r\n",
        "bare cr": b"a\rb\r\r\n.\r.\rc\r\n",
        "bare lf": b"a\nb\n\n.\n.\r\n",
        "8-bit": bytes(range(256)) * 4 + b"\r\n",
        "100,000-octet lines": (b"x" * 100_000 + b"\r\n") * 3 + b"y" * 100_000 + b"\r\n",
        "binary": noise(3, 100_000) + b"\r\n",
        "frames": b"\x81\x00\x10" + noise(4, 16) + b"\x82\xff\xff" + noise(5, 70_000) + b"\r\n",
        "many lines": b"\r\n" * 20_000,
    }
    return [Dialogue(name, (*opened(), *mail(octets), *QUIT)) for name, octets in content.items()]


# --- Not upgraded -------------------------------------------------------------------------------------


def _in_clear() -> list[Dialogue]:
    lost = PINNED_SERVER_WITHOUT_OFFER
    helo = asked(b"HELO mta-a.a.test", b"250 mta-b.b.test")
    return [
        Dialogue("helo only", (s(GREETING), *helo, *mail(), *QUIT), Reason.HELO, Reason.HELO),
        *(
            Dialogue(
                f"ehlo refused {code}",
                (s(GREETING), *asked(EHLO[:-2], b"%d 5.5.1 Never heard of it" % code), *helo, *mail(), *QUIT),
                sending=lost,
                receiving=Reason.EHLO_REFUSED,
                out=Reason.EHLO_REFUSED,
            )
            for code in (500, 502, 550)
        ),
        Dialogue(
            "ehlo refused 421",
            (s(GREETING), *asked(EHLO[:-2], b"421 4.3.2 Come back later"), *BOTH_END),
            Reason.EHLO_REFUSED,
            Reason.EHLO_REFUSED,
        ),
        Dialogue(
            "greeting 554",
            (s(b"554 5.7.1 No service for you\r\n"), *asked(EHLO[:-2], b"503 5.5.1 No"), *QUIT),
            sending=lost,
            receiving=Reason.GREETING_REFUSED,
            out=Reason.GREETING_REFUSED,
        ),
        Dialogue(
            "greeting 421",
            (s(b"421 4.3.2 Busy\r\n"), *BOTH_END),
            Reason.GREETING_REFUSED,
            Reason.GREETING_REFUSED,
        ),
        Dialogue(
            "greeting with a bare lf",
            (*opened(greeting=b"220 mta-b.b.test ready\n"), *mail(), *QUIT),
            sending=lost,
            receiving=Reason.ODD_GREETING,
            out=Reason.ODD_GREETING,
        ),
        Dialogue(
            "reply with a bare lf",
            (*opened(reply=b"250-mta-b.b.test\n250 8BITMIME\r\n"), *mail(), *QUIT),
            sending=lost,
            receiving=Reason.ODD_REPLY,
            out=Reason.ODD_REPLY,
        ),
        Dialogue(
            "ehlo with a bare lf",
            (*opened(ehlo=b"EHLO mta-a.a.test\n"), *mail(), *QUIT),
            Reason.ODD_COMMAND,
            Reason.ODD_COMMAND,
        ),
        Dialogue(
            "ehlo without a name",
            (*opened(ehlo=b"EHLO\r\n"), *mail(), *QUIT),
            Reason.ODD_COMMAND,
            Reason.ODD_COMMAND,
        ),
        Dialogue("no ehlo at all", (s(GREETING), *mail(), *QUIT), Reason.NOT_EHLO, Reason.NOT_EHLO),
        Dialogue(
            "xclient first",
            (
                s(GREETING),
                *asked(b"XCLIENT ADDR=192.0.2.1", b"220 mta-b.b.test"),
                c(EHLO),
                s(REPLY),
                *mail(),
                *QUIT,
            ),
            Reason.NOT_EHLO,
            Reason.NOT_EHLO,
        ),
        Dialogue(
            "proxy first",
            (c(b"PROXY TCP4 192.0.2.1 10.12.0.10 5000 25\r\n"), *opened(), *mail(), *QUIT),
            Reason.EARLY_TALKER,
            Reason.EARLY_TALKER,
        ),
        Dialogue(
            "lhlo",
            (s(GREETING), *asked(b"LHLO x", b"500 5.5.2 What?"), *QUIT),
            Reason.NOT_EHLO,
            Reason.NOT_EHLO,
        ),
        Dialogue(
            "early talker",
            (c(b"GET / HTTP/1.1\r\nHost: mta-b\r\n\r\n"), s(b"554 5.5.1 Error\r\n"), *BOTH_END),
            Reason.EARLY_TALKER,
            Reason.EARLY_TALKER,
        ),
        Dialogue(
            "early helo",
            (c(b"HELO x\r\nMAIL FROM:<a@a.test>\r\n"), s(GREETING), s(b"250 x\r\n"), *QUIT),
            Reason.HELO,
            Reason.HELO,
        ),
        Dialogue(
            "reply that carries our keyword",
            (
                *opened(reply=b"250-mta-b.b.test\r\n250-XNIGHTMAIL 1 1/4 AAAA\r\n250 8BITMIME\r\n"),
                *mail(),
                *QUIT,
            ),
            sending=lost,
            receiving=Reason.OFFER_BY_INNER_GATEWAY,
            out=Reason.NO_OFFER,
        ),
        Dialogue(
            "reply of 2.1 kB",
            (*opened(reply=ehlo_reply(2100)), *mail(), *QUIT),
            sending=lost,
            receiving=Reason.NO_ROOM_FOR_OFFER,
            out=Reason.NO_OFFER,
        ),
        Dialogue(
            "reply of 40 kB",
            (*opened(reply=ehlo_reply(40_000)), *mail(), *QUIT),
            sending=lost,
            receiving=Reason.ODD_REPLY,
            out=Reason.ODD_REPLY,
        ),
        Dialogue(
            "421 while the sender idles",
            (*opened(), s(b"421 4.4.2 Timed out\r\n"), *BOTH_END),
            Reason.NO_VERB,
            Reason.NO_VERB,
            out=Reason.NO_OFFER,
        ),
    ]


# --- Unasked, late, long --------------------------------------------------------------------------------


def _timing() -> list[Dialogue]:
    unasked = FLIGHT + b"DATA\r\n"
    banner = b"".join(b"220-line %d of a long banner, with words and words\r\n" % n for n in range(49))
    return [
        Dialogue(
            "multi-line greeting",
            (*opened(greeting=b"220-mta-b.b.test\r\n220-No spam\r\n220 ESMTP\r\n"), *mail(), *QUIT),
        ),
        Dialogue("50-line banner", (*opened(greeting=banner + b"220 mta-b.b.test\r\n"), *mail(), *QUIT)),
        Dialogue(
            "greeting in two parts",
            (
                s(b"220-mta-b.b.test\r\n"),
                Pause(0.5),
                s(b"220 mta"),
                s(b"-b.b.test\r"),
                s(b"\n"),
                *opened()[1:],
                *mail(),
                *QUIT,
            ),
        ),
        Dialogue("greeting after 2 s", (Pause(2.0), *opened(), *mail(), *QUIT)),
        Dialogue("greeting after 30 s", (Pause(30.0), *opened(), *mail(), *QUIT), long=True),
        Dialogue("reply of 1.9 kB", (*opened(reply=ehlo_reply(1900)), *mail(), *QUIT)),
        Dialogue("reply of 600 octets", (*opened(reply=ehlo_reply(600)), *mail(), *QUIT)),
        Dialogue("early ehlo", (c(EHLO), s(GREETING), s(REPLY), *mail(), *QUIT)),
        Dialogue(
            "early ehlo, greeting and reply in one",
            (c(EHLO), Say(RECEIVER, GREETING + REPLY), *mail(), *QUIT),
        ),
        Dialogue(
            "octets behind the ehlo",
            (
                s(GREETING),
                Say(SENDER, EHLO + unasked, heard=False),
                Hear(RECEIVER, len(EHLO)),
                s(REPLY),
                Hear(RECEIVER),
                s(FLIGHT_REPLY + b"354 Go\r\n"),
                c(CONTENT + b".\r\n"),
                s(DONE),
                *QUIT,
            ),
            inward=Reason.PIPELINED_BEHIND_EHLO,
        ),
        Dialogue(
            "octets behind the ehlo, in a write of their own",
            (
                s(GREETING),
                c(EHLO),
                Say(SENDER, unasked, heard=False),
                s(REPLY),
                Hear(RECEIVER),
                s(FLIGHT_REPLY + b"354 Go\r\n"),
                c(CONTENT + b".\r\n"),
                s(DONE),
                *QUIT,
            ),
            inward=Reason.PIPELINED_BEHIND_EHLO,
        ),
        Dialogue(
            "everything before the greeting",
            (
                Say(SENDER, EHLO + unasked, heard=False),
                Hear(RECEIVER, len(EHLO)),
                s(GREETING),
                s(REPLY),
                Hear(RECEIVER),
                s(FLIGHT_REPLY + b"354 Go\r\n"),
                c(CONTENT + b".\r\n"),
                s(DONE),
                *QUIT,
            ),
            inward=Reason.PIPELINED_BEHIND_EHLO,
        ),
        Dialogue(
            "early pipelined bdat",
            (
                s(GREETING),
                Say(SENDER, EHLO + FLIGHT + _bdat(noise(6, 150_000)) + b"QUIT\r\n", heard=False),
                Hear(RECEIVER, len(EHLO)),
                s(REPLY),
                Hear(RECEIVER),
                s(FLIGHT_REPLY + DONE + b"221 Bye\r\n"),
                *BOTH_END,
            ),
            inward=Reason.PIPELINED_BEHIND_EHLO,
        ),
    ]


# --- Ends and resets ------------------------------------------------------------------------------------

IN_DATA: Steps = (
    *opened(),
    c(FLIGHT + b"DATA\r\n"),
    s(FLIGHT_REPLY + b"354 Go\r\n"),
    c(b"Subject: half a mail\r\n\r\nand no"),
)
NEVER_DECIDED = Reason.ENDED_BEFORE_DECISION


def _states() -> list[tuple[str, Steps, dict[str, Reason], dict[str, Reason]]]:
    """Each with the decisions that follow where one party ends, and where one resets."""
    never = {"sending": NEVER_DECIDED, "receiving": NEVER_DECIDED}
    answered = {"sending": NEVER_DECIDED, "out": Reason.NO_OFFER}
    return [
        ("before the greeting", (), never, never),
        ("in the greeting", (s(b"220-mta-b.b.test\r\n220-"),), never, never),
        ("after the greeting", (s(GREETING),), never, never),
        ("in the ehlo", (s(GREETING), c(b"EHLO mta")), never, never),
        ("after the ehlo", (s(GREETING), c(EHLO)), never, never),
        (
            "after the reply",
            opened(),
            {**answered, "receiving": Reason.NO_VERB},
            {**answered, "receiving": NEVER_DECIDED, "inward": NEVER_DECIDED},
        ),
        ("in the envelope", (*opened(), *ENVELOPE), {}, {"inward": Reason.NO_VERB}),
        ("in the data", IN_DATA, {}, {}),
        ("after a mail", (*opened(), *mail()), {}, {}),
        ("after the quit", (*opened(), *mail(), c(b"QUIT\r\n")), {}, {}),
    ]


def _ends() -> list[Dialogue]:
    dialogues = []
    for where, steps, if_ended, if_reset in _states():
        last_words = b"451 4.3.0 last words\r\n"
        dialogues += [
            Dialogue(
                f"sender half-closes {where}",
                (*steps, End(SENDER), HearEnd(RECEIVER), s(last_words), End(RECEIVER), HearEnd(SENDER)),
                **if_ended,
            ),
            Dialogue(
                f"receiver half-closes {where}",
                (*steps, End(RECEIVER), HearEnd(SENDER), c(b"NOOP\r\n"), End(SENDER), HearEnd(RECEIVER)),
                **if_ended,
            ),
            Dialogue(
                f"sender resets {where}",
                (*steps, Reset(SENDER), HearReset(RECEIVER)),
                may_end_unbegun=not steps,
                **if_reset,
            ),
            Dialogue(
                f"receiver resets {where}",
                (*steps, Reset(RECEIVER), HearReset(SENDER)),
                may_end_unbegun=not steps,
                **if_reset,
            ),
        ]
    return [*dialogues, *_other_ends()]


def _other_ends() -> list[Dialogue]:
    return [
        Dialogue(
            "receiver half-closes in the reply",
            (
                s(GREETING),
                c(EHLO),
                Say(RECEIVER, REPLY[:40], heard=False),
                End(RECEIVER),
                HearEnd(SENDER),
                *SENDER_LEAVES[:2],
            ),
            NEVER_DECIDED,
            NEVER_DECIDED,
        ),
        Dialogue(
            "sender half-closes behind its first flight",
            (
                *opened(),
                Say(SENDER, FLIGHT + _bdat(noise(7, 30_000)) + b"QUIT\r\n", heard=False),
                End(SENDER),
                HearEnd(RECEIVER),
                s(FLIGHT_REPLY + DONE + b"221 Bye\r\n"),
                End(RECEIVER),
                HearEnd(SENDER),
            ),
        ),
        Dialogue("421 in the data", (*IN_DATA, s(b"421 4.3.0 Going down\r\n"), *BOTH_END)),
        Dialogue(
            "421 in the data, and closed",
            (
                *IN_DATA,
                s(b"421 4.3.0 Going down\r\n"),
                Close(RECEIVER),
                HearEnd(SENDER),
                Say(SENDER, b"more of the mail\r\n", heard=False),
                HearReset(SENDER),
            ),
        ),
        Dialogue(
            "receiver closes after its reply to mail",
            (*opened(), *ENVELOPE, Close(RECEIVER), HearEnd(SENDER), End(SENDER)),
        ),
        Dialogue(
            "sender closes after its quit",
            (*opened(), *mail(), Say(SENDER, b"QUIT\r\n"), Close(SENDER), HearEnd(RECEIVER), End(RECEIVER)),
        ),
    ]


# --- Any chunking ---------------------------------------------------------------------------------------

EVERYTHING = b"".join([CONTENT, bytes(range(256)), b"\r\n.", b"\r\nXNIGHTMAIL\r\n", b"x" * 700, b"\r\n"])


def cut(pieces: tuple[int, ...]) -> Steps:
    """One dialogue with something of everything, both parties' octets cut into these pieces."""
    flights = (
        (RECEIVER, b"220-mta-b.b.test\r\n220 ESMTP\r\n"),
        (SENDER, EHLO),
        (RECEIVER, REPLY),
        (SENDER, FLIGHT),
        (RECEIVER, FLIGHT_REPLY),
        (SENDER, _bdat(TRICKY, b"")),
        (RECEIVER, b"250 Ok\r\n" + DONE),
        (SENDER, FLIGHT + b"DATA\r\n"),
        (RECEIVER, FLIGHT_REPLY + b"354 Go\r\n"),
        (SENDER, EVERYTHING + b".\r\n"),
        (RECEIVER, DONE),
    )
    return (*(Say(party, octets, pieces) for party, octets in flights), *QUIT)


def _chunkings() -> list[Dialogue]:
    sizes: dict[str, tuple[int, ...]] = {str(size): (size,) for size in (1, 2, 3, 5, 64, 1000)}
    for seed in range(4):
        sizes[f"seed {seed}"] = tuple(random.Random(seed).choices([1, 2, 3, 7, 40, 300], k=97))
    pipelined = FLIGHT + _bdat(TRICKY, noise(8, 700))
    single = (*opened(), c(pipelined, 1), s(FLIGHT_REPLY + b"250 Ok\r\n" * 2, 1), *QUIT)
    return [
        *(Dialogue(f"in pieces of {name}", cut(pieces)) for name, pieces in sizes.items()),
        Dialogue("bdat before the first reply, in single octets", single),
    ]


# --- Large ----------------------------------------------------------------------------------------------


def _large() -> list[Dialogue]:
    body = noise(9, 25_000_000)
    return [
        Dialogue("25 MB by data", (*opened(), *mail(body + b"\r\n"), *QUIT), patience=60.0),
        Dialogue(
            "25 MB by bdat",
            (*opened(), c(FLIGHT + _bdat(body)), s(FLIGHT_REPLY + DONE), *QUIT),
            patience=60.0,
        ),
        Dialogue(
            "3 MB in odd pieces",
            (*opened(), *mail(body[:3_000_000], 1, 1460, 17, 9001, 65_537), *QUIT),
            patience=60.0,
        ),
        Dialogue(
            "25 MB from the receiver",
            (*opened(), *ENVELOPE, Say(RECEIVER, b"250-" + body + b"\r\n"), *SENDER_LEAVES),
            patience=60.0,
            long=True,
        ),
    ]


# --- False ends of data -----------------------------------------------------------------------------------


def _smuggling() -> list[Dialogue]:
    vectors = json.loads((VECTORS / "smtp_fake_eod.json").read_text())["sequences"]
    inner = b"MAIL FROM:<forged@a.test>\r\nRCPT TO:<bob@b.test>\r\nDATA\r\nSubject: inner\r\n\r\nx\r\n"
    return [
        Dialogue(
            f"false end {vector['name']}",
            (*opened(), *mail(CONTENT + bytes.fromhex(vector["hex"]) + inner), *QUIT),
        )
        for vector in vectors
    ]


DIALOGUES: list[Dialogue] = [
    *_well_behaved(),
    *_chunking(),
    *_odd_octets(),
    *_in_clear(),
    *_timing(),
    *_ends(),
    *_chunkings(),
    *_large(),
]
SMUGGLING: list[Dialogue] = _smuggling()


def real_openings() -> list[Dialogue]:
    """Greetings and EHLO replies of mail servers in the wild; their decisions: see the observer's tests."""
    entries = json.loads((VECTORS / "ehlo_replies.json").read_text())["entries"]
    dialogues = []
    for entry in entries:
        greeting = bytes.fromhex(entry["greeting_hex"] or "") or GREETING
        reply = bytes.fromhex(entry["ehlo_hex"] or "") or REPLY
        complete = re.search(rb"(?m)^\d{3}(?: [^\n]*)?\r?\n\Z", reply) is not None
        steps = (s(greeting), c(EHLO), Say(RECEIVER, reply, heard=complete))
        ending = (*asked(b"NOOP", b"250 Ok"), *QUIT) if complete else BOTH_END
        dialogues.append(Dialogue(f"{entry['id']} {entry['mta']}", (*steps, *ending)))
    return dialogues
