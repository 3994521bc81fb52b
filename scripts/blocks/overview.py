"""The pictures of docs/what-it-is.md: what a listener reads, and how far the encryption reaches."""

from __future__ import annotations

import itertools

from scripts.blocks.pictures import DARK, INK, SOFT, Drawing

_CLEAR = (
    "EHLO mail.a.example",
    "MAIL FROM:<alice@a.example>",
    "RCPT TO:<bob@b.example>",
    "Subject: the offer of Tuesday",
    "Dear Bob, ...",
)
_SEALED = (
    "EHLO mail.a.example",
    "250-mx.b.example  250 XNIGHTMAIL 1 ...",
    "XNIGHTMAIL",
    "4e 17 c0 5b 2f 91 0a d3 7e 66 b8 ...",
    "e1 08 5c f4 93 2d 7a 40 bb 19 c6 ...",
)


def listener() -> str:
    """The same mail twice, as it passes by somebody who reads the line."""
    drawing = Drawing(1000, 420, "What a listener on the line reads, without gateways and with them")
    for top, head, words, sealed in (
        (30, "without", _CLEAR, False),
        (240, "with a gateway at each end", _SEALED, True),
    ):
        line = top + 37
        drawing.text(20, top - 8, head, anchor="start", ink=SOFT)
        drawing.box((20, top + 12, 120, 50), ["mail server", "of a"])
        drawing.box((860, top + 12, 120, 50), ["mail server", "of b"])
        if sealed:
            drawing.box((190, top + 12, 100, 50), ["gateway"], ours=True)
            drawing.box((710, top + 12, 100, 50), ["gateway"], ours=True)
            drawing.arrow((140, line, 188, line))
            drawing.arrow((290, line, 708, line), dark=True)
            drawing.arrow((810, line, 858, line))
        else:
            drawing.arrow((140, line, 858, line))
        drawing.text(340, top + 72, "the listener reads", anchor="start", ink=SOFT, size=12)
        drawing.line((340, top + 80, 660, top + 80))
        for number, said in enumerate(words):
            hidden = sealed and number > 2
            drawing.text(
                340, top + 98 + 16 * number, said, anchor="start", ink=DARK if hidden else INK, size=12
            )
    return drawing.svg()


def reach() -> str:
    """From one user to another: who can read on which part of the way."""
    drawing = Drawing(1000, 230, "How far the encryption reaches: from gateway to gateway")
    stations = (
        (20, "Alice"),
        (170, "mail server"),
        (330, "gateway"),
        (600, "gateway"),
        (740, "mail server"),
        (900, "Bob"),
    )
    width = {"Alice": 80, "Bob": 80, "gateway": 90, "mail server": 110}
    ends = []
    for x, words in stations:
        drawing.box((x, 70, width[words], 46), [words], ours=words == "gateway")
        ends.append((x, x + width[words]))
    for number, ((_, begin), (end, _)) in enumerate(itertools.pairwise(ends)):
        drawing.arrow((begin, 93, end - 2, 93), dark=number == 2)
    drawing.text(510, 60, "the Internet", ink=SOFT)
    drawing.text(510, 140, "encrypted: envelope, headers, text", ink=DARK, size=12)
    for left, right, lines in (
        (20, 420, ("site a: as before; users' own TLS,", "the mail server reads its mail")),
        (600, 980, ("site b: as before; the mail server", "reads its mail, and stores it")),
    ):
        drawing.line((left, 160, right, 160))
        for number, line in enumerate(lines):
            drawing.text((left + right) // 2, 180 + 17 * number, line, ink=SOFT, size=12)
    return drawing.svg()
