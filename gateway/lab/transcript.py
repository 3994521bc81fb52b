"""One session's octets, as a reader sees them: lines of SMTP, or "sealed N octets".

Pure. It must show everything that can be read and claim nothing else: octets count as sealed only where
they really are frames (or TLS) behind the word that begins them. Counterpart: `wire`.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Final

from gateway.lab.wire import FRAME_FIRST_OCTET, FRAME_HEADER_OCTETS

VERB: Final = b"XNIGHTMAIL"
CONTENT_LINES_SHOWN: Final = 14
LINE_CHARACTERS: Final = 96


class Mode(enum.Enum):
    """What one direction carries now."""

    LINES = "lines"
    CONTENT = "content"
    CHUNK = "chunk"
    FRAMES = "frames"
    TLS = "tls"


@dataclass(frozen=True, slots=True)
class Line:
    """One line to show. `sealed` counts its octets if they cannot be read, else it is 0."""

    to_server: bool
    text: str
    sealed: int = 0


@dataclass(slots=True)
class _Half:
    mode: Mode = Mode.LINES
    buffer: bytes = b""
    frame_left: int = 0
    chunk_left: int = 0
    sealed: int = 0
    content_lines: int = 0
    content_hidden: int = 0
    wants_tls: bool = False


@dataclass(slots=True)
class Transcript:
    """Feed both directions in the order of the wire; lines come out as soon as they are whole."""

    _halves: dict[bool, _Half] = field(default_factory=lambda: {True: _Half(), False: _Half()})

    def feed(self, to_server: bool, octets: bytes) -> list[Line]:
        """Octets of one direction; also tells what the other direction had sealed until now."""
        lines = self._tell_sealed(not to_server)
        half = self._halves[to_server]
        half.buffer += octets
        while half.buffer and self._step(to_server, half, lines):
            pass
        return lines

    def finish(self) -> list[Line]:
        """What is still untold when the session is over."""
        lines = self._tell_sealed(True) + self._tell_sealed(False)
        for to_server, half in self._halves.items():
            if half.buffer:
                lines.append(Line(to_server, _readable(half.buffer)))
                half.buffer = b""
        return lines

    def _step(self, to_server: bool, half: _Half, lines: list[Line]) -> bool:
        """Take one piece out of the buffer; False if it needs more octets."""
        if half.mode is Mode.TLS:
            half.sealed += len(half.buffer)
            half.buffer = b""
            return True
        if half.mode is Mode.CHUNK:
            return self._take_chunk(to_server, half, lines)
        if half.mode is Mode.FRAMES and (half.frame_left or half.buffer[0] >= FRAME_FIRST_OCTET):
            return self._take_frame(half)
        # A clear octet where a frame would begin is read as what it is.
        text, end, rest = half.buffer.partition(b"\r\n")
        if not end:
            return False
        half.buffer = rest
        lines += self._tell_sealed(to_server)
        if half.mode is Mode.CONTENT:
            self._take_content(to_server, half, text, lines)
        else:
            lines.append(Line(to_server, _readable(text)))
            self._note(to_server, text)
        return True

    def _take_frame(self, half: _Half) -> bool:
        if not half.frame_left:
            if len(half.buffer) < FRAME_HEADER_OCTETS:
                return False
            half.frame_left = FRAME_HEADER_OCTETS + int.from_bytes(half.buffer[1:3], "big")
        taken = min(half.frame_left, len(half.buffer))
        half.frame_left -= taken
        half.sealed += taken
        half.buffer = half.buffer[taken:]
        return True

    def _take_chunk(self, to_server: bool, half: _Half, lines: list[Line]) -> bool:
        taken = min(half.chunk_left, len(half.buffer))
        for text in half.buffer[:taken].split(b"\r\n"):
            self._show_content(to_server, half, text, lines)
        half.buffer = half.buffer[taken:]
        half.chunk_left -= taken
        if not half.chunk_left:
            self._end_content(to_server, half, lines)
        return True

    def _take_content(self, to_server: bool, half: _Half, text: bytes, lines: list[Line]) -> None:
        if text == b".":
            self._end_content(to_server, half, lines)
            lines.append(Line(to_server, "."))
        else:
            self._show_content(to_server, half, text, lines)

    def _show_content(self, to_server: bool, half: _Half, text: bytes, lines: list[Line]) -> None:
        half.content_lines += 1
        if half.content_lines <= CONTENT_LINES_SHOWN:
            lines.append(Line(to_server, _readable(text)))
        else:
            half.content_hidden += len(text) + 2

    def _end_content(self, to_server: bool, half: _Half, lines: list[Line]) -> None:
        if half.content_hidden:
            lines.append(Line(to_server, f"... {half.content_hidden:,} more octets, all readable"))
        half.mode, half.content_lines, half.content_hidden = Mode.LINES, 0, 0

    def _note(self, to_server: bool, text: bytes) -> None:
        """Words that change what the octets behind them are."""
        half, other = self._halves[to_server], self._halves[not to_server]
        word = text.upper()
        if to_server and word == VERB:
            half.mode = other.mode = Mode.FRAMES
        elif to_server and word == b"STARTTLS":
            half.wants_tls = True
        elif to_server and word.startswith(b"BDAT "):
            size = text.split()[1]
            if size.isdigit() and int(size):
                half.mode, half.chunk_left = Mode.CHUNK, int(size)
        elif not to_server and other.wants_tls and len(text) >= 4 and text[3:4] == b" ":
            other.wants_tls = False
            if text.startswith(b"220"):
                half.mode = other.mode = Mode.TLS
        elif not to_server and text.startswith(b"354"):
            other.mode = Mode.CONTENT

    def _tell_sealed(self, to_server: bool) -> list[Line]:
        half = self._halves[to_server]
        if not half.sealed:
            return []
        count, half.sealed = half.sealed, 0
        return [Line(to_server, f"sealed {count:,} octets", sealed=count)]


def _readable(octets: bytes) -> str:
    octets = octets.replace(b"\t", b"    ")
    text = "".join(chr(o) if 0x20 <= o < 0x7F else f"\\x{o:02x}" for o in octets[: LINE_CHARACTERS + 1])
    return text if len(octets) <= LINE_CHARACTERS else f"{text[:LINE_CHARACTERS]}... ({len(octets)} octets)"
