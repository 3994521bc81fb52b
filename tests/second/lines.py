"""What is lines of SMTP: greeting, reply, offer, verb, first flight (docs/protocol.md, 3, 5, 6)."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from enum import Enum, auto

VERB = b"XNIGHTMAIL\r\n"
FULL_OCTETS, SHORT_OCTETS, RESUMED_OCTETS = 1350, 166, 66
LAST_LINE_BEFORE, MORE_LINES = 2000, 1380
LONGEST_REPLY, LONGEST_EHLO = 8192, 512

B64 = rb"[A-Za-z0-9_-]"
FULL_OFFER = re.compile(
    b"".join(rb"250-XNIGHTMAIL 1 %d/4 (%s{437})\r\n" % (k, B64) for k in (1, 2, 3))
    + rb"250 XNIGHTMAIL 1 4/4 (%s{489})\r\n" % B64
)
SHORT_OFFER = re.compile(rb"250 XNIGHTMAIL 1 1/1 (%s{222})\r\n" % B64)
RESUMED_OFFER = re.compile(rb"250 XNIGHTMAIL 1 1/1 (%s{88})\r\n" % B64)


def first_reply(octets: bytes, code: bytes) -> bytes | None:
    """The reply with `code` that the octets begin with; b"" if there is none, None if it is not complete."""
    line = re.compile(code + rb"[- ][^\r\n\0]*\r\n")
    at = 0
    while found := line.match(octets, at):
        at = found.end()
        if octets[found.start() + 3 : found.start() + 4] == b" ":
            return octets[:at]
    rest = octets[at:]
    if len(rest) < 4 and b"\n" not in rest:
        return None
    return None if re.fullmatch(code + rb"[- ][^\r\n\0]*\r?", rest) else b""


def is_ended(reply: bytes) -> bool:
    """Whether its last line is whole, be it well formed or not."""
    return any(line[3:4] != b"-" for line in reply.split(b"\n")[:-1])


def is_ehlo(octets: bytes) -> bool:
    """Whether it is one whole EHLO line and nothing else."""
    found = re.fullmatch(rb"EHLO ([^\r\n\0]*)\r\n", octets, re.IGNORECASE)
    return found is not None and found[1].strip(b" \t\v\f") != b"" and len(octets) <= LONGEST_EHLO


def may_be_ehlo(octets: bytes) -> bool:
    """Whether it is the beginning of one EHLO line, or all of it."""
    if len(octets) < 5:
        return b"EHLO ".startswith(octets.upper())
    begun = re.fullmatch(rb"EHLO [^\r\n\0]*\r?", octets, re.IGNORECASE) and len(octets) < LONGEST_EHLO
    return is_ehlo(octets) or bool(begun)


def may_be_helo(octets: bytes) -> bool:
    """Whether it may still become HELO, and is not yet."""
    return len(octets) < 4 and b"HELO".startswith(octets.upper())


def is_helo(octets: bytes) -> bool:
    return octets[:4].upper() == b"HELO"


def leads_to_helo(greeting: bytes) -> bool:
    """Whether it does not hold the word ESMTP, between blanks and line ends (10.2)."""
    return b"ESMTP" not in re.split(rb"[ \t\v\f\r\n]+", greeting.upper())


def has_our_keyword(reply: bytes) -> bool:
    words = (re.match(rb"[A-Z0-9-]*", line[4:].lstrip(b" \t").upper()) for line in reply.split(b"\r\n"))
    return any(word is not None and word.group() == b"XNIGHTMAIL" for word in words)


def fits(length: int) -> str | None:
    """The form of the offer to a reply of this length: "full", "short" or None (3.3)."""
    if length + MORE_LINES < LAST_LINE_BEFORE:
        return "full"
    return "short" if length < LAST_LINE_BEFORE else None


def add_offer(reply: bytes, message: bytes) -> bytes:
    """The reply with the offer in it. It is well formed and has room."""
    text = base64.urlsafe_b64encode(message).rstrip(b"=")
    last = reply.rindex(b"\r\n", 0, -2) + 2 if reply.count(b"\r\n") > 1 else 0
    begun = reply[:last] + b"250-" + reply[last + 4 :]
    if len(message) in (SHORT_OCTETS, RESUMED_OCTETS):
        return begun + b"250 XNIGHTMAIL 1 1/1 " + text + b"\r\n"
    more = [b"250-XNIGHTMAIL 1 %d/4 %s\r\n" % (k + 1, text[437 * k :][:437]) for k in range(3)]
    return begun + b"".join(more) + b"250 XNIGHTMAIL 1 4/4 " + text[3 * 437 :] + b"\r\n"


def take_offer(reply: bytes) -> tuple[bytes, bytes] | None:
    """(stripped reply, message 1), or None where no offer is (3.4). The reply is well formed."""
    lines = reply.splitlines(keepends=True)
    for form, count in ((FULL_OFFER, 4), (SHORT_OFFER, 1), (RESUMED_OFFER, 1)):
        if len(lines) <= count or not (found := form.fullmatch(b"".join(lines[-count:]))):
            continue
        text = b"".join(found.groups())
        message = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
        if base64.urlsafe_b64encode(message).rstrip(b"=") != text:
            return None  # spare bits
        rest = lines[:-count]
        stripped = b"".join(rest[:-1]) + b"250 " + rest[-1][4:]
        return None if has_our_keyword(stripped) else (stripped, message)
    return None


def greeting_host(greeting: bytes) -> bytes:
    """The first word behind the code of the greeting's first line."""
    return re.split(rb"[ \t\r]", greeting[4:], maxsplit=1)[0]


def prologue(from_receiver: bytes, from_sender: bytes) -> bytes:
    parts = (len(part).to_bytes(4, "big") + part for part in (from_receiver, from_sender))
    return b"Nightmail 1\0" + b"".join(parts)


class Scan(Enum):
    LINE_START = auto()
    """At the beginning of a line, or behind blanks there."""
    IN_WORD = auto()
    """Its first word may still become BDAT, BURL or DATA."""
    IN_LINE = auto()
    IN_DATA_LINE = auto()
    BEHIND_CR = auto()
    """Of a DATA line."""
    CONTENT = auto()


@dataclass
class FirstFlight:
    """Which of the sender's octets go out before R is confirmed (6)."""

    _at: Scan = Scan.LINE_START
    _word: bytes = b""
    """The octets of a word that may still become BDAT, BURL or DATA. They wait."""
    _content: bytes = b""

    def passes(self, octets: bytes) -> bytes:
        """What goes out now."""
        return b"".join(self._octet(octets[at : at + 1]) for at in range(len(octets)))

    def rest(self) -> bytes:
        """All that waits, when R is confirmed."""
        return (b"\r" if self._at is Scan.BEHIND_CR else b"") + self._word + self._content

    def _octet(self, octet: bytes) -> bytes:
        if self._at is Scan.BEHIND_CR:
            self._at = Scan.CONTENT
            if octet == b"\n":
                return b"\r\n"
            self._content = octet
            return b"\r"
        if self._at is Scan.CONTENT:
            self._content += octet
            return b""
        if octet == b"\r" and self._at is Scan.IN_DATA_LINE:
            self._at = Scan.BEHIND_CR
            return b""
        if octet in b"\r\n":
            self._at = Scan.CONTENT if self._at is Scan.IN_DATA_LINE else Scan.LINE_START
            word, self._word = self._word, b""
            return word + octet
        return self._letter(octet)

    def _letter(self, octet: bytes) -> bytes:
        if self._at in (Scan.IN_LINE, Scan.IN_DATA_LINE):
            return octet
        if self._at is Scan.LINE_START and octet in b" \t":
            return octet
        self._at, self._word = Scan.IN_WORD, self._word + octet
        word = self._word.upper()
        if word in (b"BDAT", b"BURL"):
            self._at = Scan.CONTENT
            return b""
        if any(one.startswith(word) and one != word for one in (b"BDAT", b"BURL", b"DATA")):
            return b""
        self._at = Scan.IN_DATA_LINE if word == b"DATA" else Scan.IN_LINE
        out, self._word = self._word, b""
        return out
