"""The line grammar holds for any value, and a log that cannot be written stops nothing."""

import contextlib
import os
import re
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import LOG_LEVELS
from gateway.errors import EnvironmentFailureError, Reason
from gateway.observe.log import Entry, Level, Log, LogSink, Value, escaped, line, session_id
from gateway.policy import limits

WORD = r"[a-z0-9][a-z0-9_-]*"
VALUE = r'(?:[^\s"=\\]+|"(?:[^"\\]|\\.)*")'
GRAMMAR = re.compile(
    rf"(?:\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}Z )?(?:debug|info|notice|alarm|error)"
    rf"(?: session={VALUE})? {WORD} {WORD}(?: {WORD}={VALUE})*"
)


def test_a_whole_line() -> None:
    fields: dict[str, Value] = {
        "to": "192.0.2.7:25",
        "protected": True,
        "octets": 12,
        "none": None,
        "seconds": 0.25,
        "said": "a b",
    }
    assert (
        line(
            Level.INFO,
            "session",
            "ended",
            session="0123456789abcdef",
            reason=Reason.CLOSED,
            at=1_800_000_000.5,
            fields=fields,
        )
        == "2027-01-15T08:00:00.500Z info session=0123456789abcdef session ended to=192.0.2.7:25"
        ' protected=yes octets=12 seconds=0.25 said="a b" reason=closed'
    )


def test_no_time_where_the_journal_adds_it() -> None:
    assert line(Level.ALARM, "gate", "gone") == "alarm gate gone"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "no"', '"say \\"no\\""'),
        ("\x1b[31mred", '"\\x1b[31mred"'),
        ("a\r\nalarm fake", '"a\\x0d\\x0aalarm fake"'),
        (b"\xff\x00ok", '"\\xff\\x00ok"'),
        ("b\u00fccher \u2028 \U0001f4a9", '"b\\xfccher \\u2028 \\U0001f4a9"'),
        (False, "no"),
        (Reason.NEVER, "never"),
        (None, "None"),
    ],
)
def test_escaped(value: str | bytes | None, shown: str) -> None:
    assert escaped(value) == shown


@given(st.one_of(st.text(), st.binary(), st.integers(), st.floats()))
def test_any_value_is_one_bounded_token(value: str | bytes | int | float) -> None:
    shown = escaped(value)
    assert re.fullmatch(VALUE, shown)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= limits.ENV_TEXT_OCTETS + 2


@pytest.mark.parametrize("character", ["x", "\0", " ", "\u2028"])
def test_a_long_value_is_cut_and_says_so(character: str) -> None:
    shown = escaped(character * 10_000)
    assert limits.ENV_TEXT_OCTETS - 10 < len(shown) <= limits.ENV_TEXT_OCTETS + 2
    assert shown.endswith('..."')


def test_a_long_line_is_cut_and_keeps_its_reason() -> None:
    fields: dict[str, Value] = {f"key{number}": "x" * limits.ENV_TEXT_OCTETS for number in range(100)}
    shown = line(Level.INFO, "peer", "said", reason=Reason.BAD_OFFER, fields=fields)
    assert limits.LOG_LINE_OCTETS // 2 < len(shown) <= limits.LOG_LINE_OCTETS
    assert shown.endswith(" reason=bad-offer")


@given(st.text(max_size=3000), st.lists(st.text(max_size=3000), max_size=30), st.booleans())
def test_any_line_keeps_the_grammar_and_its_reason(session: str, values: list[str], timed: bool) -> None:
    fields: dict[str, object] = {f"key{number}": value for number, value in enumerate(values)}
    shown = line(
        Level.INFO,
        "peer",
        "said",
        session=session,
        reason=Reason.BAD_OFFER,
        at=0.0 if timed else None,
        fields=fields,  # type: ignore[arg-type]
    )
    assert GRAMMAR.fullmatch(shown)
    assert shown.endswith(" reason=bad-offer")
    assert len(shown) <= limits.LOG_LINE_OCTETS


@pytest.mark.parametrize("word", ["two words", "up\ncase", "", "a=b", "UPPER"])
def test_words_that_are_none_break_no_line(word: str) -> None:
    shown = line(Level.INFO, word, word, fields={word: 1})
    assert "\n" not in shown
    assert len(shown.split(" ")) >= 3


def test_levels_are_those_of_the_configuration() -> None:
    assert tuple(level.value for level in Level) == LOG_LEVELS


def test_session_id_is_sixteen_hex_digits() -> None:
    assert session_id(lambda count: bytes(range(count))) == "0001020304050607"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log"


def test_lines_wait_for_the_flush_and_levels_below_are_dropped(path: Path) -> None:
    log = Log(LogSink.to_file(path), least=Level.NOTICE, clock=lambda: 0.0)
    log.fact("a", "b", level=Level.INFO)
    log.fact("a", "c", level=Level.NOTICE, session="00", reason=Reason.NEVER, key="v")
    assert path.read_text() == ""
    log.flush()
    assert path.read_text() == "1970-01-01T00:00:00.000Z notice session=00 a c key=v reason=never\n"
    log.close()


def test_a_full_buffer_is_written_not_grown(path: Path) -> None:
    log = Log(LogSink.to_file(path))
    for _ in range(limits.LOG_BUFFER_LINES + 1):
        log.fact("a", "b")
    assert path.read_text().count("\n") == limits.LOG_BUFFER_LINES
    log.close()
    assert path.read_text().count("\n") == limits.LOG_BUFFER_LINES + 1


def test_appends(path: Path) -> None:
    for _ in range(2):
        log = Log(LogSink.to_file(path))
        log.fact("a", "b")
        log.close()
    assert path.read_text() == "info a b\n" * 2


class FailingSink:
    def __init__(self) -> None:
        self.failing = True
        self.written = b""

    def write_entries(self, entries: Sequence[Entry]) -> None:
        if self.failing:
            raise OSError(28, "No space left on device")
        self.written += b"".join(entry.text.encode() + b"\n" for entry in entries)

    def close(self) -> None: ...


def test_lost_lines_are_counted_and_told_by_the_next_flush() -> None:
    sink = FailingSink()
    log = Log(sink)
    for _ in range(3):
        log.fact("a", "b")
    log.flush()
    log.fact("a", "b")
    log.flush()
    assert log.lost_lines == 4
    sink.failing = False
    log.fact("a", "c")
    log.flush()
    assert sink.written == b"notice log lines-lost lines=4\ninfo a c\n"
    log.fact("a", "d")
    log.flush()
    assert sink.written.count(b"lines-lost") == 1


@pytest.mark.parametrize("kind", ["pipe", "stream"])
def test_who_takes_nothing_holds_nobody_up(kind: str) -> None:
    """A journal that hangs, or whoever reads our standard error: all mail would hang with it."""
    reader, writer = os.pipe() if kind == "pipe" else (one.detach() for one in socket.socketpair())
    log = Log(LogSink(writer, owned=True))
    told = 0

    def more() -> None:
        nonlocal told
        for _ in range(limits.LOG_BUFFER_LINES):
            log.fact("a", "b", number=told)
            told += 1
        log.flush()

    began = time.monotonic()
    while not log.lost_lines:
        more()
    for _ in range(50):
        more()
    assert time.monotonic() - began < 20, "no wait for each of them"
    os.set_blocking(reader, False)
    octets = b""
    with contextlib.suppress(BlockingIOError):
        while True:
            octets += os.read(reader, 1 << 20)
    *whole, rest = octets.decode().split("\n")
    assert (whole, rest) == ([f"info a b number={number}" for number in range(len(whole))], "")
    assert 0 < len(whole) < told
    more()
    assert os.read(reader, 60).startswith(b"notice log lines-lost lines="), "it takes them again"
    os.close(reader)
    log.close()


def test_a_pipe_without_a_reader_stops_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = Log(LogSink(writer, owned=True))
    log.fact("a", "b")
    log.close()
    assert log.lost_lines == 1


def test_a_file_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailureError, match="log cannot be opened"):
        LogSink.to_file(tmp_path / "no" / "log")
