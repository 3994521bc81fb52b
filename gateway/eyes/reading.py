"""One session's octets -> what of them can be read, and how much is sealed.

Pure. It must call nothing sealed that can be read: octets count as sealed only where they really are frames
(or TLS) behind the word that begins them. A capture is a stranger's: whatever it holds, there is an answer.
Counterparts: `wire`, which puts the octets in order; `transcript` and `learnt`, which make something of them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

FRAME_FIRST_OCTET: Final = 0x80
FRAME_HEADER_OCTETS: Final = 3
"""docs/protocol.md: type u8 of at least 0x80, length u16, body."""
TLS_HANDSHAKE: Final = 22
TLS_TYPES: Final = frozenset(range(20, 25))
TLS_HEADER_OCTETS: Final = 5
"""RFC 8446 5.1: type u8, version u16, length u16, body."""
VERB: Final = b"XNIGHTMAIL"
LINE_OCTETS: Final = 64 * 1024
"""A line that is longer is read in pieces of this size, so that no capture makes us hold it all."""
CHUNK_DIGITS: Final = 18
"""Of a BDAT; a larger number is no size of anything."""


class Kind(enum.Enum):
    """What a piece is. A line of `CONTENT` is one of the mail itself; `CONTENT_END` is behind its last."""

    LINE = "line"
    CONTENT = "content"
    CONTENT_END = "content-end"
    FRAMES = "frames"
    TLS = "tls"


SEALED: Final = frozenset({Kind.FRAMES, Kind.TLS})


@dataclass(frozen=True, slots=True)
class Piece:
    """`octets`: the line without its end; empty for sealed ones, of which `sealed` says how many."""

    to_server: bool
    kind: Kind
    octets: bytes = b""
    sealed: int = 0


class _Mode(enum.Enum):
    """What one direction carries now."""

    LINES = "lines"
    CONTENT = "content"
    CHUNK = "chunk"
    FRAMES = "frames"
    TLS = "tls"


@dataclass(slots=True)
class _Half:
    mode: _Mode = _Mode.LINES
    buffer: bytes = b""
    frame_left: int = 0
    chunk_left: int = 0
    wants_tls: bool = False
    has_spoken: bool = False


class Reader:
    """Feed both directions in the order of the wire; pieces come out as soon as they are whole."""

    def __init__(self) -> None:
        self._halves = {True: _Half(), False: _Half()}

    def feed(self, to_server: bool, octets: bytes) -> list[Piece]:
        """Octets of one direction, in order."""
        half = self._halves[to_server]
        if octets and not half.has_spoken:
            half.has_spoken = True
            self._begin(octets[0], to_server)
        pieces: list[Piece] = []
        # What has waited behind a lost packet is megabytes, and each line copies what is left of the buffer.
        for start in range(0, len(octets), LINE_OCTETS):
            half.buffer += octets[start : start + LINE_OCTETS]
            while half.buffer and self._step(to_server, half, pieces):
                pass
        return pieces

    def finish(self) -> list[Piece]:
        """What is left without an end when the session is over."""
        pieces = []
        for to_server, half in self._halves.items():
            if half.buffer:
                kind = Kind.CONTENT if half.mode in (_Mode.CONTENT, _Mode.CHUNK) else Kind.LINE
                pieces.append(Piece(to_server, kind, half.buffer))
                half.buffer = b""
        return pieces

    def _begin(self, first: int, to_server: bool) -> None:
        """TLS from the first octet on, which is the client's: a port that mail is submitted on."""
        half, other = self._halves[to_server], self._halves[not to_server]
        if to_server and not other.has_spoken and first == TLS_HANDSHAKE:
            half.mode = other.mode = _Mode.TLS

    def _step(self, to_server: bool, half: _Half, pieces: list[Piece]) -> bool:
        """Take one piece out of the buffer; False if it needs more octets."""
        if half.mode is _Mode.CHUNK:
            return self._take_chunk(to_server, half, pieces)
        if half.mode is _Mode.FRAMES and (half.frame_left or half.buffer[0] >= FRAME_FIRST_OCTET):
            return self._take_frame(to_server, half, pieces)
        if half.mode is _Mode.TLS and (half.frame_left or half.buffer[0] in TLS_TYPES):
            return self._take_frame(to_server, half, pieces)
        # A clear octet where a frame or record would begin is read as what it is.
        text = self._take_line(half, len(half.buffer))
        if text is None:
            return False
        if half.mode is not _Mode.CONTENT:
            pieces.append(Piece(to_server, Kind.LINE, text))
            self._note(to_server, text)
        elif text == b".":
            half.mode = _Mode.LINES
            pieces.append(Piece(to_server, Kind.CONTENT_END, text))
        else:
            pieces.append(Piece(to_server, Kind.CONTENT, text))
        return True

    def _take_line(self, half: _Half, most: int) -> bytes | None:
        end = half.buffer.find(b"\r\n", 0, most)
        if end >= 0:
            text, half.buffer = half.buffer[:end], half.buffer[end + 2 :]
            return text
        if most < LINE_OCTETS:
            return None
        text, half.buffer = half.buffer[:LINE_OCTETS], half.buffer[LINE_OCTETS:]
        return text

    def _take_frame(self, to_server: bool, half: _Half, pieces: list[Piece]) -> bool:
        is_tls = half.mode is _Mode.TLS
        if not half.frame_left:
            # Of both the length is what the header ends with.
            header = TLS_HEADER_OCTETS if is_tls else FRAME_HEADER_OCTETS
            if len(half.buffer) < header:
                return False
            half.frame_left = header + int.from_bytes(half.buffer[header - 2 : header], "big")
        taken = min(half.frame_left, len(half.buffer))
        half.frame_left -= taken
        half.buffer = half.buffer[taken:]
        pieces.append(Piece(to_server, Kind.TLS if is_tls else Kind.FRAMES, sealed=taken))
        return True

    def _take_chunk(self, to_server: bool, half: _Half, pieces: list[Piece]) -> bool:
        before = len(half.buffer)
        text = self._take_line(half, min(half.chunk_left, before))
        if text is None and before < half.chunk_left:
            return False
        if text is None:
            text, half.buffer = half.buffer[: half.chunk_left], half.buffer[half.chunk_left :]
            half.chunk_left = 0
        else:
            half.chunk_left -= before - len(half.buffer)
        pieces.append(Piece(to_server, Kind.CONTENT, text))
        if not half.chunk_left:
            half.mode = _Mode.LINES
            pieces.append(Piece(to_server, Kind.CONTENT_END))
        return True

    def _note(self, to_server: bool, text: bytes) -> None:
        """Words that change what the octets behind them are."""
        half, other = self._halves[to_server], self._halves[not to_server]
        word = text.upper()
        if to_server and word == VERB:
            half.mode = other.mode = _Mode.FRAMES
        elif to_server and word == b"STARTTLS":
            half.wants_tls = True
        elif to_server and word.startswith(b"BDAT "):
            size = ([*word.split(), b""])[1]
            if size.isdigit() and len(size) <= CHUNK_DIGITS and int(size):
                half.mode, half.chunk_left = _Mode.CHUNK, int(size)
        elif not to_server and other.wants_tls and len(text) >= 4 and text[3:4] == b" ":
            other.wants_tls = False
            if text.startswith(b"220"):
                half.mode = other.mode = _Mode.TLS
        elif not to_server and text.startswith(b"354"):
            other.mode = _Mode.CONTENT
