"""One session's octets, as a reader sees them: lines of SMTP, or "sealed N octets".

Pure. Shows everything that can be read, but for the middle of long content. Counterpart: `reading`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from gateway.eyes.reading import SEALED, Kind, Piece, Reader

CONTENT_LINES_SHOWN: Final = 14
LINE_CHARACTERS: Final = 96


@dataclass(frozen=True, slots=True)
class Line:
    """One line to show. `sealed` counts its octets if they cannot be read, else it is 0."""

    to_server: bool
    text: str
    sealed: int = 0


@dataclass(slots=True)
class _Half:
    sealed: int = 0
    content_lines: int = 0
    content_hidden: int = 0


@dataclass(slots=True)
class Transcript:
    """Feed both directions in the order of the wire; lines come out as soon as they are whole."""

    _reader: Reader = field(default_factory=Reader)
    _halves: dict[bool, _Half] = field(default_factory=lambda: {True: _Half(), False: _Half()})

    def feed(self, to_server: bool, octets: bytes) -> list[Line]:
        """Octets of one direction; also tells what the other direction had sealed until now."""
        lines = self._tell_sealed(not to_server)
        for piece in self._reader.feed(to_server, octets):
            self._show(piece, lines)
        return lines

    def finish(self) -> list[Line]:
        """What is still untold when the session is over."""
        lines = self._tell_sealed(True) + self._tell_sealed(False)
        return lines + [Line(piece.to_server, readable(piece.octets)) for piece in self._reader.finish()]

    def _show(self, piece: Piece, lines: list[Line]) -> None:
        half = self._halves[piece.to_server]
        if piece.kind in SEALED:
            half.sealed += piece.sealed
            return
        lines += self._tell_sealed(piece.to_server)
        if piece.kind is Kind.CONTENT:
            half.content_lines += 1
            if half.content_lines > CONTENT_LINES_SHOWN:
                half.content_hidden += len(piece.octets) + 2
                return
        elif piece.kind is Kind.CONTENT_END:
            if half.content_hidden:
                lines.append(Line(piece.to_server, f"... {half.content_hidden:,} more octets, all readable"))
            half.content_lines = half.content_hidden = 0
            if not piece.octets:
                return
        lines.append(Line(piece.to_server, readable(piece.octets)))

    def _tell_sealed(self, to_server: bool) -> list[Line]:
        half = self._halves[to_server]
        if not half.sealed:
            return []
        count, half.sealed = half.sealed, 0
        return [Line(to_server, f"sealed {count:,} octets", sealed=count)]


def readable(octets: bytes) -> str:
    """Nothing in it reaches a terminal as a command, and it is not too long for a line."""
    octets = octets.replace(b"\t", b"    ")
    text = "".join(chr(o) if 0x20 <= o < 0x7F else f"\\x{o:02x}" for o in octets[: LINE_CHARACTERS + 1])
    return text if len(octets) <= LINE_CHARACTERS else f"{text[:LINE_CHARACTERS]}... ({len(octets)} octets)"
