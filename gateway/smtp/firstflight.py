"""Finds where content of a mail could begin in what the sender says, before the peer has proven itself.

Before the receiving gateway's first record has verified, no content leaves: then it never went to an
impostor, and a redial cannot deliver twice. Content follows a BDAT line (RFC 3030) and a DATA line (RFC 5321
4.1.1.4), and a BURL line (RFC 4468) stands for it; this scan knows line starts and nothing else. It errs on
the side of holding: any CR or LF starts a line, blanks before a command are skipped, and whatever begins with
DATA counts, because some receivers read it so, and holding too much costs a moment, too little a mail.
Counterpart: `session.first_flight`, which drops the scan as soon as the first record has verified.
"""

from __future__ import annotations

import enum
import re
from typing import Final

_CONTENT = re.compile(rb"[\r\n][ \t]*(BDAT|BURL|DATA)", re.IGNORECASE)
# A line start at the end of the octets so far that could still become one of them.
_UNDECIDED = re.compile(rb"[\r\n][ \t]*((?:B(?:DA?|UR?)?|D(?:AT?)?)?)\Z", re.IGNORECASE)
# The end of a DATA line. A CR as the last octet decides nothing: its LF may be on the way.
_DATA_END = re.compile(rb"\r\n|\n|\r(?=[^\n])")
_LINE_END: Final = b"\n"


class _Place(enum.Enum):
    LINE_START = "line-start"
    IN_LINE = "in-line"
    IN_DATA_LINE = "in-data-line"
    CONTENT = "content"


class ContentScan:
    """`feed` octets of the sender; linear in their number, however they come in."""

    __slots__ = ("_held", "_place")

    def __init__(self) -> None:
        self._place = _Place.LINE_START
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Answers what may be sent now, and everything that is held now (from this feed and earlier ones)."""
        if self._place is _Place.CONTENT:
            self._held += data
            return b"", self._held
        octets = self._held + data  # held so far: at most three letters, or one CR
        if self._place is _Place.IN_DATA_LINE:
            return self._in_data_line(octets, 0)
        return self._in_commands(octets)

    def _in_commands(self, octets: bytes) -> tuple[bytes, bytes]:
        at_start = self._place is _Place.LINE_START
        # The line end before the octets, if there was one, so that there is one way to see a line start.
        text = _LINE_END + octets if at_start else octets
        offset = 1 if at_start else 0
        found = _CONTENT.search(text)
        if found is None:
            return self._no_content(octets, text, offset)
        if found.group(1).upper() == b"DATA":
            return self._in_data_line(octets, found.end(1) - offset)
        return self._hold_from(octets, found.start(1) - offset, _Place.CONTENT)

    def _no_content(self, octets: bytes, text: bytes, offset: int) -> tuple[bytes, bytes]:
        undecided = _UNDECIDED.search(text)
        if undecided is None:
            return self._hold_from(octets, len(octets), _Place.IN_LINE)
        return self._hold_from(octets, undecided.start(1) - offset, _Place.LINE_START)

    def _in_data_line(self, octets: bytes, begin: int) -> tuple[bytes, bytes]:
        end = _DATA_END.search(octets, begin)
        if end is not None:
            return self._hold_from(octets, end.end(), _Place.CONTENT)
        undecided = len(octets) - 1 if octets.endswith(b"\r") else len(octets)
        return self._hold_from(octets, max(undecided, begin), _Place.IN_DATA_LINE)

    def _hold_from(self, octets: bytes, begin: int, place: _Place) -> tuple[bytes, bytes]:
        self._place = place
        self._held = octets[begin:]
        return octets[:begin], self._held
