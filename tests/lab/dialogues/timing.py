"""Dialogues in which somebody speaks unasked, late, or for long."""

from __future__ import annotations

from gateway.errors import Reason
from tests.lab.dialogues.words import (
    BOTH_END,
    CONTENT,
    DONE,
    EHLO,
    FLIGHT,
    FLIGHT_REPLY,
    GREETING,
    QUIT,
    RECEIVER,
    REPLY,
    SENDER,
    Dialogue,
    asked,
    bdat,
    c,
    ehlo_reply,
    mail,
    noise,
    opened,
    s,
)
from tests.lab.steps import End, Hear, HearEnd, Pause, Say


def timing() -> list[Dialogue]:
    return [*_slow_or_long(), *_early()]


def _slow_or_long() -> list[Dialogue]:
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
        Dialogue(
            "a client hello of post-quantum size, in halves",
            (
                *opened(),
                *asked(b"STARTTLS", b"220 2.0.0 Ready"),
                c(b"\x16\x03\x01\x07\x08" + noise(25, 895)),
                Pause(2.0),
                c(noise(26, 900)),
                s(b"\x16\x03\x03\x0b\xb8" + noise(27, 3000)),
                *BOTH_END,
            ),
        ),
        Dialogue("greeting after 30 s", (Pause(30.0), *opened(), *mail(), *QUIT), long=True),
        Dialogue("reply of 1.9 kB", (*opened(reply=ehlo_reply(1900)), *mail(), *QUIT)),
        Dialogue("reply of 600 octets", (*opened(reply=ehlo_reply(600)), *mail(), *QUIT)),
    ]


def _early() -> list[Dialogue]:
    """The sender does not wait for the greeting, or for the reply to its EHLO."""
    unasked = FLIGHT + b"DATA\r\n"
    answered = (
        s(REPLY),
        Hear(RECEIVER),
        s(FLIGHT_REPLY + b"354 Go\r\n"),
        c(CONTENT + b".\r\n"),
        s(DONE),
        *QUIT,
    )
    return [
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
                *answered,
            ),
            inward=Reason.PIPELINED_BEHIND_EHLO,
        ),
        Dialogue(
            "octets behind the ehlo, in a write of their own",
            (
                s(GREETING),
                c(EHLO),
                Say(SENDER, unasked, heard=False),
                *answered,
            ),
            inward=Reason.PIPELINED_BEHIND_EHLO,
        ),
        Dialogue(
            "everything before the greeting",
            (
                Say(SENDER, EHLO + unasked, heard=False),
                Hear(RECEIVER, len(EHLO)),
                s(GREETING),
                *answered,
            ),
            inward=Reason.PIPELINED_BEHIND_EHLO,
        ),
        Dialogue(
            "early pipelined bdat",
            (
                s(GREETING),
                Say(SENDER, EHLO + FLIGHT + bdat(noise(6, 150_000)) + b"QUIT\r\n", heard=False),
                Hear(RECEIVER, len(EHLO)),
                s(REPLY),
                Hear(RECEIVER),
                s(FLIGHT_REPLY + DONE + b"221 Bye\r\n"),
                *BOTH_END,
            ),
            inward=Reason.PIPELINED_BEHIND_EHLO,
        ),
        Dialogue(
            "a whole session and its end before the greeting",
            # As Exim does to a server that it knows (PIPECONNECT).
            (
                Say(SENDER, EHLO + FLIGHT + bdat(noise(28, 9_000)) + b"QUIT\r\n", heard=False),
                End(SENDER),
                Hear(RECEIVER, len(EHLO)),
                s(GREETING),
                s(REPLY),
                Hear(RECEIVER),
                HearEnd(RECEIVER),
                s(FLIGHT_REPLY + DONE + b"221 Bye\r\n"),
                End(RECEIVER),
                HearEnd(SENDER),
            ),
            inward=Reason.PIPELINED_BEHIND_EHLO,
        ),
    ]
