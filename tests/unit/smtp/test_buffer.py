"""The line buffer: strict about line ends, bounded, linear, and it never loses an octet."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import PeerProtocolError, Reason
from gateway.smtp.buffer import LineBuffer

LIMIT = 40
ODD_PIECES = st.sampled_from([b"\r", b"\n", b"\r\n", b"\0", b"ab", b"250-x", b"", b"yyyyyyyyy"])


def lines_of(chunks: list[bytes], limit: int = LIMIT) -> tuple[list[bytes], bool, bytes]:
    """All lines, whether it refused, and all octets that it still has."""
    buffer, lines = LineBuffer(limit, Reason.ODD_REPLY), []
    for at, chunk in enumerate(chunks):
        buffer.add(chunk)
        try:
            while (line := buffer.next_line()) is not None:
                lines.append(line)
        except PeerProtocolError as error:
            assert error.reason is Reason.ODD_REPLY
            buffer.add(b"".join(chunks[at + 1 :]))
            return lines, True, buffer.octets
    return lines, False, buffer.octets


def octet_by_octet(octets: bytes) -> list[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


@pytest.mark.parametrize(
    ("octets", "lines", "refused"),
    [
        (b"", [], False),
        (b"a\r\n", [b"a\r\n"], False),
        (b"\r\n\r\n", [b"\r\n", b"\r\n"], False),
        (b"a\r\nb", [b"a\r\n"], False),
        (b"a\r\nb\r", [b"a\r\n"], False),
        (b"a\nb\r\n", [], True),
        (b"a\rb\r\n", [], True),
        (b"a\r\r\n", [], True),
        (b"a\0b\r\n", [], True),
        (b"ok\r\nb\n", [b"ok\r\n"], True),
        (b"x" * (LIMIT - 2) + b"\r\n", [b"x" * (LIMIT - 2) + b"\r\n"], False),
        (b"x" * (LIMIT - 1) + b"\r\n", [], True),
    ],
)
def test_whole_and_octet_by_octet_and_with_more_behind(
    octets: bytes, lines: list[bytes], refused: bool
) -> None:
    for chunks in ([octets], octet_by_octet(octets)):
        assert lines_of(chunks) == (lines, refused, octets)
    if not refused and octets.endswith(b"\r\n"):
        buffer = LineBuffer(1000, Reason.ODD_REPLY)
        buffer.add(octets + b"trailing")
        assert [buffer.next_line() for _ in lines] == lines
        assert buffer.has_rest
        assert buffer.take_rest() == b"trailing"
        assert not buffer.has_rest
        assert buffer.next_line() is None


@given(st.lists(ODD_PIECES, max_size=12), st.data())
def test_any_chunking_reads_the_same(pieces: list[bytes], data: st.DataObject) -> None:
    octets = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=6)))
    edges = [0, *cuts, len(octets)]
    chunks = [octets[a:b] for a, b in itertools.pairwise(edges)]
    expected = lines_of([octets])
    assert lines_of(chunks) == expected == lines_of(octet_by_octet(octets))
    assert expected[2] == octets


def test_an_endless_line_is_refused_at_the_limit() -> None:
    buffer = LineBuffer(LIMIT, Reason.ODD_GREETING)
    for _ in range(LIMIT):
        buffer.add(b"x")
        assert buffer.next_line() is None
    buffer.add(b"x")
    with pytest.raises(PeerProtocolError):
        buffer.next_line()
    assert len(buffer) == LIMIT + 1


def test_each_octet_is_searched_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linear also when fed octet by octet: counted, not timed."""
    searched = 0

    class CountingOctets(bytearray):
        def find(self, sub: bytes, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
            nonlocal searched
            stop = len(self) if end is None else end
            found = super().find(sub, start, stop)
            searched += (stop if found < 0 else found) - start
            return found

    size = 5000
    buffer = LineBuffer(size * 2, Reason.ODD_REPLY)
    buffer._octets = CountingOctets()
    for _ in range(size):
        buffer.add(b"x")
        assert buffer.next_line() is None
    assert searched <= 3 * size


def test_head_and_first_line() -> None:
    buffer = LineBuffer(LIMIT, Reason.ODD_REPLY)
    buffer.add(b"25")
    assert buffer.head(4) == b"25"
    assert buffer.at_first_line
    buffer.add(b"0-x\r\n250 y")
    assert buffer.next_line() == b"250-x\r\n"
    assert buffer.head(4) == b"250 "
    assert not buffer.at_first_line
    assert buffer.take_all() == b"250-x\r\n250 y"
    assert len(buffer) == 0
