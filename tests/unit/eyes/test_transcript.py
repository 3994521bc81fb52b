"""What a reader of the wire is shown."""

from __future__ import annotations

import pytest

from gateway.eyes.transcript import CONTENT_LINES_SHOWN, Line, Transcript


def frame(octets: int, kind: int = 0x82) -> bytes:
    return bytes([kind]) + octets.to_bytes(2, "big") + bytes(octets)


def read(pieces: list[tuple[bool, bytes]], step: int | None = None) -> list[Line]:
    reader = Transcript()
    lines = []
    for to_server, octets in pieces:
        size = step or len(octets)
        for start in range(0, len(octets), size):
            lines += reader.feed(to_server, octets[start : start + size])
    return lines + reader.finish()


CLEAR = [
    (False, b"220 b\r\n"),
    (True, b"EHLO a\r\n"),
    (False, b"250-b\r\n250 SIZE\r\n"),
    (True, b"MAIL FROM:<x@a.test>\r\nDATA\r\n"),
    (False, b"250 ok\r\n354 go\r\n"),
    (True, b"Subject: z\r\n\r\n\xc3\xa4\r\n.\r\nQUIT\r\n"),
    (False, b"250 ok\r\n"),
]
SEALED = [
    (False, b"220 b\r\n"),
    (True, b"EHLO a\r\n"),
    (False, b"250 XNIGHTMAIL 1 1/1 abc\r\n"),
    (True, b"XNIGHTMAIL\r\n" + frame(900, 0x81) + frame(50)),
    (False, frame(90)),
    (True, frame(70_000 % 65_536)),
]


@pytest.mark.parametrize("step", [None, 1, 7])
def test_clear_lines_are_shown(step: int | None) -> None:
    texts = [line.text for line in read(CLEAR, step)]
    assert texts == [
        "220 b",
        "EHLO a",
        "250-b",
        "250 SIZE",
        "MAIL FROM:<x@a.test>",
        "DATA",
        "250 ok",
        "354 go",
        "Subject: z",
        "",
        r"\xc3\xa4",
        ".",
        "QUIT",
        "250 ok",
    ]
    assert not any(line.sealed for line in read(CLEAR, step))


@pytest.mark.parametrize("step", [None, 1, 7])
def test_sealed_octets_are_counted_by_flight(step: int | None) -> None:
    lines = read(SEALED, step)
    assert [(line.to_server, line.sealed) for line in lines if line.sealed] == [
        (True, 903 + 53),
        (False, 93),
        (True, 3 + 70_000 % 65_536),
    ]
    assert [line.text for line in lines if not line.sealed][-1] == "XNIGHTMAIL"


def test_a_clear_line_among_frames_is_shown_as_what_it_is() -> None:
    lines = read([*SEALED, (False, b"454 4.7.0 no\r\n")])
    assert lines[-1] == Line(False, "454 4.7.0 no")


def test_octets_like_frames_without_the_verb_do_not_count_as_sealed() -> None:
    assert not any(line.sealed for line in read([(True, frame(3) + b"\r\n")]))


def test_starttls_seals_only_if_granted() -> None:
    assert (
        read([(True, b"STARTTLS\r\n"), (False, b"220 go\r\n"), (True, b"\x16\x03\x01\x00\x05hello")])[
            -1
        ].sealed
        == 10
    )
    refused = read([(True, b"STARTTLS\r\n"), (False, b"454 no\r\n"), (True, b"MAIL\r\n")])
    assert [line.text for line in refused] == ["STARTTLS", "454 no", "MAIL"]


def test_long_content_is_cut_and_counted() -> None:
    text = b"".join(b"line %d\r\n" % n for n in range(CONTENT_LINES_SHOWN + 10))
    lines = read([(True, b"DATA\r\n"), (False, b"354 go\r\n"), (True, text + b".\r\n")])
    assert lines[-2].text == "... 90 more octets, all readable"
    assert lines[-1].text == "."
    assert len(lines) == 2 + CONTENT_LINES_SHOWN + 2


def test_chunks_are_content_too() -> None:
    lines = read([(True, b"BDAT 10 LAST\r\nab\r\nQUIT\r\nQUIT\r\n")])
    assert [line.text for line in lines] == ["BDAT 10 LAST", "ab", "QUIT", "QUIT"]


def test_long_lines_and_control_characters() -> None:
    (line,) = read([(False, b"250 " + b"x" * 500 + b"\r\n")])
    assert line.text.endswith("... (504 octets)")
    (line,) = read([(False, b"220 \x1b[31m\r\n")])
    assert line.text == r"220 \x1b[31m"
