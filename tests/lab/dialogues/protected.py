"""Dialogues that are upgraded: well-behaved, in any pieces, with odd octets, large."""

from __future__ import annotations

import base64
import random

from tests.lab.dialogues.words import (
    BOTH_END,
    CONTENT,
    DONE,
    EHLO,
    ENVELOPE,
    FLIGHT,
    FLIGHT_REPLY,
    GREETING,
    PLAIN,
    QUIT,
    RECEIVER,
    REPLY,
    SENDER,
    SENDER_LEAVES,
    TRICKY,
    Dialogue,
    Steps,
    asked,
    bdat,
    c,
    mail,
    noise,
    opened,
    s,
)
from tests.lab.steps import End, HearEnd, Say, Tls

# --- Well-behaved -------------------------------------------------------------------------------------


def well_behaved() -> list[Dialogue]:
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


def chunking() -> list[Dialogue]:
    return [
        Dialogue(
            "bdat",
            (
                *opened(),
                *ENVELOPE,
                c(bdat(TRICKY)),
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
                c(bdat(TRICKY, b"\r\n.\r", b"\n", b"")),
                s((b"250 Ok\r\n" * 3) + DONE),
                *QUIT,
            ),
        ),
        Dialogue(
            "bdat before the first reply",
            (
                *opened(),
                c(FLIGHT + bdat(TRICKY, noise(1, 5000), b"")),
                s(FLIGHT_REPLY + b"250 Ok\r\n" * 3),
                *QUIT,
            ),
        ),
        Dialogue(
            "200 kB bdat before the first reply",
            (
                *opened(),
                c(FLIGHT + bdat(TRICKY, noise(2, 200_000))),
                s(FLIGHT_REPLY + b"250 Ok\r\n" * 2),
                *QUIT,
            ),
        ),
    ]


def odd_octets() -> list[Dialogue]:
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
        (SENDER, bdat(TRICKY, b"")),
        (RECEIVER, b"250 Ok\r\n" + DONE),
        (SENDER, FLIGHT + b"DATA\r\n"),
        (RECEIVER, FLIGHT_REPLY + b"354 Go\r\n"),
        (SENDER, EVERYTHING + b".\r\n"),
        (RECEIVER, DONE),
    )
    return (*(Say(party, octets, pieces) for party, octets in flights), *QUIT)


def chunkings() -> list[Dialogue]:
    sizes: dict[str, tuple[int, ...]] = {str(size): (size,) for size in (1, 2, 3, 5, 64, 1000)}
    for seed in range(4):
        sizes[f"seed {seed}"] = tuple(random.Random(seed).choices([1, 2, 3, 7, 40, 300], k=97))
    pipelined = FLIGHT + bdat(TRICKY, noise(8, 700))
    single = (*opened(), c(pipelined, 1), s(FLIGHT_REPLY + b"250 Ok\r\n" * 2, 1), *QUIT)
    return [
        *(Dialogue(f"in pieces of {name}", cut(pieces)) for name, pieces in sizes.items()),
        Dialogue("bdat before the first reply, in single octets", single),
    ]


# --- Large ----------------------------------------------------------------------------------------------


def large() -> list[Dialogue]:
    body = noise(9, 25_000_000)
    return [
        Dialogue("25 MB by data", (*opened(), *mail(body + b"\r\n"), *QUIT), patience=60.0),
        Dialogue(
            "25 MB by bdat",
            (*opened(), c(FLIGHT + bdat(body)), s(FLIGHT_REPLY + DONE), *QUIT),
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
