"""The line grammar, one line per fact, and the buffered writer behind it.

    [time] level [session=ID] subsystem event key=value ... [reason=...]

Level, subsystem, event, keys and reasons are words of ours; every value is escaped and bounded, so that
nothing a peer or a kernel says can break a line, colour a terminal or forge a fact. Never raises towards
the mail path: a log that cannot be written loses lines and counts them. Writes no secret: key types
redact themselves, and no line carries a mail address.
Lines are kept until `flush`, which every process of the runtime calls some times a second.
"""

from __future__ import annotations

import enum
import errno
import os
import re
import select
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from gateway.errors import EnvironmentFailureError, IdentityHashed, Reason
from gateway.policy import limits

Value = str | bytes | int | float | bool | enum.Enum | None


class Level(IdentityHashed):
    """In rising order. ALARM: somebody should look, today."""

    DEBUG = "debug"
    INFO = "info"
    NOTICE = "notice"
    ALARM = "alarm"
    ERROR = "error"

    @property
    def weight(self) -> int:
        return _WEIGHTS[self]


_WEIGHTS: Final = {level: weight for weight, level in enumerate(Level)}
_PLAIN: Final = re.compile(r"[A-Za-z0-9_.,:;/@%+*~!?()\[\]<>{}|&$#^-]+")
_UNESCAPED: Final = re.compile(r"[ !#-\[\]-~]*")
"""Printable ASCII but quotation mark and backslash: nearly every text that is quoted."""
_WORD: Final = re.compile(r"[a-z0-9][a-z0-9_-]*")
_CUT: Final = "..."
_CUT_FIELD: Final = " cut=yes"


def session_id(entropy: Callable[[int], bytes]) -> str:
    """16 hex digits; says nothing about the session."""
    return entropy(8).hex()


def escaped(value: Value, most: int = limits.ENV_TEXT_OCTETS) -> str:
    """One token: printable ASCII, no blank outside quotes, at most `most` octets and the quotes."""
    text = value if type(value) is str else _text(value)
    if len(text) <= most and _PLAIN.fullmatch(text):
        return text
    return f'"{printable(text, most)}"'


def printable(text: str, most: int = limits.ENV_TEXT_OCTETS) -> str:
    """What is between those quotes: at most `most` printable octets of ASCII."""
    room = most - len(_CUT)
    if len(text) <= room and _UNESCAPED.fullmatch(text):
        return text
    pieces: list[str] = []
    for character in text[: most + 1]:
        piece = _escape(character)
        if len(piece) > room:
            pieces.append(_CUT)
            break
        pieces.append(piece)
        room -= len(piece)
    return "".join(pieces)


def line(
    level: Level,
    subsystem: str,
    event: str,
    *,
    session: str = "",
    reason: Reason | None = None,
    at: float | None = None,
    fields: dict[str, Value] | None = None,
) -> str:
    """The whole line without its end. A field that is None is left out; what does not fit is cut."""
    head = "" if at is None else f"{_second(int(at))}.{int(at % 1 * 1000):03}Z "
    head += f"{_choice(level)} "
    if session:
        head += f"session={_word(session)} "
    head += f"{_word(subsystem)} {_word(event)}"
    tail = "" if reason is None else f" reason={_choice(reason)}"
    room = limits.LOG_LINE_OCTETS - len(head) - len(tail) - len(_CUT_FIELD)
    middle = ""
    for key, value in fields.items() if fields else ():
        if value is None:
            continue
        if type(value) is int:  # the most common ones, and nothing in them needs escaping
            token = str(value)
        else:
            token = _choice(value) if isinstance(value, (enum.Enum, bool)) else escaped(value)
        part = f" {_word(key)}={token}"
        if len(middle) + len(part) > room:
            middle += _CUT_FIELD
            break
        middle += part
    return head + middle + tail


@lru_cache(maxsize=4)
def _second(at: int) -> str:
    """Many lines share a second, and the calendar costs more than the rest of a line."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _text(value: Value) -> str:
    if type(value) is str:
        return value
    if isinstance(value, bytes):
        return value[: limits.ENV_TEXT_OCTETS + 1].decode("latin-1")
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _escape(character: str) -> str:
    code = ord(character)
    if character in '"\\':
        return "\\" + character
    if 0x20 <= code <= 0x7E:
        return character
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


@lru_cache(maxsize=256)
def _word(word: str) -> str:
    """Words are ours, so this is a net: one that is none is shown escaped, and breaks no line."""
    return word if _WORD.fullmatch(word) else escaped(word)


@lru_cache(maxsize=256, typed=True)
def _choice(value: enum.Enum | bool) -> str:
    """One of a few that there are: its token is made once."""
    return escaped(value)


class Entry(NamedTuple):
    """One line on its way, and what of it a journal keeps by name."""

    level: Level
    text: str
    subsystem: str
    event: str
    session: str = ""
    reason: Reason | None = None


class Sink(Protocol):
    """Where lines go. `write_entries` takes all of them, or raises OSError."""

    def write_entries(self, entries: Sequence[Entry]) -> None: ...
    def close(self) -> None: ...


class LogSink:
    """A file descriptor that takes whole lines, or none of them.

    Never waits for long: a journal that hangs takes nothing, and mail must not hang with it.
    """

    def __init__(self, descriptor: int, *, owned: bool = False) -> None:
        self.descriptor = descriptor
        self._owned = owned
        self._takes = True

    @classmethod
    def to_file(cls, path: Path) -> LogSink:
        """Appends; made 0640 if it is not there. Raises EnvironmentFailureError."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return cls(os.open(path, flags, 0o640), owned=True)
        except OSError as error:
            raise EnvironmentFailureError(f"{path}: log cannot be opened: {error.strerror}") from None

    def write_entries(self, entries: Sequence[Entry]) -> None:
        """So many lines at a time as are taken at once by what takes any. Raises OSError, also in between."""
        until = time.monotonic() + limits.LOG_SEND_SECONDS
        lines = b""
        for entry in entries:
            octets = entry.text.encode("ascii") + b"\n"
            if len(lines) + len(octets) > select.PIPE_BUF:
                self.write(lines, until)
                lines = b""
            lines += octets
        self.write(lines, until)

    def write(self, octets: bytes, until: float) -> None:
        """Waits until this moment at most, and not again before something was taken."""
        ready = select.poll()
        ready.register(self.descriptor, select.POLLOUT)
        patience = max(until - time.monotonic(), 0) if self._takes else 0
        self._takes = bool(ready.poll(patience * 1000))
        if not self._takes:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        view = memoryview(octets)
        while view:
            # In two statements: mypyc works out the bounds of a slice twice where it does not know of what.
            taken = os.write(self.descriptor, view)
            view = view[taken:]

    def close(self) -> None:
        if self._owned:
            os.close(self.descriptor)
            self._owned = False


class Log:
    """Facts in, lines out. `clock` is the wall clock, or None where the journal adds the time."""

    def __init__(
        self, sink: Sink, *, least: Level = Level.INFO, clock: Callable[[], float] | None = None
    ) -> None:
        self._sink = sink
        self._least = least.weight
        self._clock = clock
        self._entries: list[Entry] = []
        self.lost_lines = 0
        """At most so many were not written since the start: the buffer was full, or the write failed."""
        self._lost_untold = 0

    def fact(
        self,
        subsystem: str,
        event: str,
        *,
        level: Level = Level.INFO,
        session: str = "",
        reason: Reason | None = None,
        **fields: Value,
    ) -> None:
        """Keep one line for the next `flush`. A field that is None is left out."""
        if _WEIGHTS[level] < self._least:
            return
        if len(self._entries) >= limits.LOG_BUFFER_LINES:
            self.flush()
        at = self._clock() if self._clock is not None else None
        text = line(level, subsystem, event, session=session, reason=reason, at=at, fields=fields)
        self._entries.append(Entry(level, text, subsystem, event, session, reason))

    def flush(self) -> None:
        """Write what is kept. A failure costs these lines or the last of them; the next one tells it."""
        if not self._entries:
            return
        entries, self._entries = self._entries, []
        told = [self._lost_line()] if self._lost_untold else []
        try:
            self._sink.write_entries(told + entries)
        except OSError:
            # Full disk, closed pipe: mail goes on, the log does not.
            self.lost_lines += len(entries)
            self._lost_untold += len(entries)
        else:
            self._lost_untold = 0

    def _lost_line(self) -> Entry:
        at = self._clock() if self._clock is not None else None
        text = line(Level.NOTICE, "log", "lines-lost", at=at, fields={"lines": self._lost_untold})
        return Entry(Level.NOTICE, text, "log", "lines-lost")

    def close(self) -> None:
        self.flush()
        self._sink.close()


def to_stderr() -> LogSink:
    return LogSink(2)
