"""Where content could begin: found with any chunking, never sent too early, never lost."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.smtp.firstflight import ContentScan

VECTORS = Path(__file__).parents[2] / "vectors"
PIECES = st.sampled_from(b"\r,\n,\r\n, ,\t,B,bD,bU,BDAT 3,BURL x,DATA,dat,rl,a,x,MAIL FROM:<>".split(b","))


def scanned(chunks: list[bytes]) -> tuple[bytes, bytes]:
    scan, sent, held = ContentScan(), b"", b""
    for chunk in chunks:
        may_send, held = scan.feed(chunk)
        sent += may_send
    return sent, held


def octet_by_octet(octets: bytes) -> list[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


def slow_split(octets: bytes) -> int:
    """The same rule, word by word: where content could begin (or an undecided line start)."""
    at = 0
    while True:
        while octets[at : at + 1] in (b" ", b"\t", b"\r", b"\n"):
            at += 1
        word = octets[at : at + 4].upper()
        if word in (b"BDAT", b"BURL"):
            return at
        end = re.search(rb"[\r\n]", octets[at:])
        if word == b"DATA":
            if end is None:
                return len(octets)
            behind = at + end.start()
            if octets[behind:] == b"\r":
                return behind
            return behind + (2 if octets[behind : behind + 2] == b"\r\n" else 1)
        if end is None:
            undecided = any(one.startswith(word) for one in (b"BDAT", b"BURL", b"DATA"))
            return at if undecided else len(octets)
        at += end.start()


@pytest.mark.parametrize(
    ("sent", "held"),
    [
        (b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", b""),
        (b"MAIL FROM:<a@b>\r\n", b"BDAT 5 LAST\r\nhello"),
        (b"MAIL FROM:<a@b>\r\n", b"bdAT 5\r\nhello"),
        (b"", b"BDAT 1\r\nx"),
        (b"MAIL FROM:<a@b>\r\n", b"BURL imap://x/1 LAST\r\nQUIT\r\n"),
        (b"MAIL FROM:<a@b>\r\n", b"burL imap://x/1\r\n"),
        (b"NOOP\r\n", b"BuR"),
        (b"BURST\r\n", b""),
        (b"MAIL FROM:<BDAT@b>\r\n", b""),
        (b"RCPT TO:<a@b> BDAT\r\nDATA\r\n", b"From: me\r\n\r\nhello\r\n.\r\n"),
        (b"data\r\n", b"hello"),
        (b"DATA\n", b"hello"),
        (b"DATA\r", b"hello"),
        (b"DATA  \r\n", b"\r\n"),
        (b"DATA x", b""),
        (b"DATA", b"\r"),
        (b" \t", b"BDAT 1\r\n"),
        (b"NOOP\n", b"BDAT 1\r\n"),
        (b"NOOP\r", b"BDAT 1\r\n"),
        (b"NOOP\r\n", b"BD"),
        (b"NOOP\r\n", b"D"),
        (b"NOOP\r\nQ", b""),
        (b"DATUM\r\nBDAX\r\n", b""),
        (b"QUIT\r\n", b""),
    ],
)
def test_whole_and_octet_by_octet(sent: bytes, held: bytes) -> None:
    assert scanned([sent + held]) == (sent, held)
    assert scanned(octet_by_octet(sent + held)) == (sent, held)


@pytest.mark.parametrize("start", [b"BDAT 4 LAST\r\n", b"DATA\r\n"])
def test_once_content_is_held_nothing_goes_out_again(start: bytes) -> None:
    scan = ContentScan()
    scan.feed(start)
    for _ in range(3):
        sent, held = scan.feed(b"\r\nMAIL FROM:<>\r\n")
        assert sent == b""
    assert held.endswith(b"\r\nMAIL FROM:<>\r\n" * 3)


def test_an_undecided_line_start_goes_out_once_it_is_decided() -> None:
    scan = ContentScan()
    assert scan.feed(b"B") == (b"", b"B")
    assert scan.feed(b"D") == (b"", b"BD")
    assert scan.feed(b"X\r\n") == (b"BDX\r\n", b"")
    assert scan.feed(b"bdat 1\r\n") == (b"", b"bdat 1\r\n")


@given(st.lists(PIECES, max_size=14), st.data())
def test_any_chunking_holds_the_same_and_loses_nothing(pieces: list[bytes], data: st.DataObject) -> None:
    octets = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=6)))
    edges = [0, *cuts, len(octets)]
    expected = slow_split(octets)
    for chunks in (
        [octets],
        octet_by_octet(octets),
        [octets[a:b] for a, b in itertools.pairwise(edges)],
    ):
        assert scanned(chunks) == (octets[:expected], octets[expected:])


def test_no_fake_end_of_data_gets_content_out() -> None:
    """Whatever ends the data for some receiver: behind DATA everything waits, smuggled or not."""
    vectors = json.loads((VECTORS / "smtp_fake_eod.json").read_text())
    for sequence in vectors["sequences"]:
        content = b"Subject: x\r\n\r\nhello" + bytes.fromhex(sequence["hex"]) + b"MAIL FROM:<a@b>\r\nDATA\r\n"
        for chunks in ([b"DATA\r\n" + content], [b"DATA\r\n", *octet_by_octet(content)]):
            assert scanned(chunks) == (b"DATA\r\n", content), sequence["name"]
