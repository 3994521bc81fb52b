"""Dialogues that are not upgraded, and why."""

from __future__ import annotations

from gateway.errors import Reason
from tests.lab.dialogues.words import (
    BOTH_END,
    EHLO,
    GREETING,
    PINNED_SERVER_WITHOUT_OFFER,
    QUIT,
    REPLY,
    Dialogue,
    asked,
    c,
    ehlo_reply,
    mail,
    opened,
    s,
)


def in_clear() -> list[Dialogue]:
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
            "421 before the ehlo",
            (s(GREETING), s(b"421 4.4.2 Timed out\r\n"), *BOTH_END),
            Reason.ODD_GREETING,
            Reason.ODD_GREETING,
        ),
        Dialogue(
            "421 while the sender idles",
            (*opened(), s(b"421 4.4.2 Timed out\r\n"), *BOTH_END),
            Reason.NO_VERB,
            Reason.NO_VERB,
            out=Reason.NO_OFFER,
        ),
    ]
