"""The offer lines at the end of an EHLO reply: make, recognise and strip them, touching no other octet.

    250-XNIGHTMAIL 1 k/n CHUNK      one line of an offer (the last one of a reply: `250 XNIGHTMAIL ...`)

The offer's octets, as base64url without padding characters, are cut into n lines: the last is filled to a
reply line's 512 octets, the others share the rest evenly. Only that one layout is an offer; anything else,
however close, is a stranger's line and passes untouched. `split_offer` is the exact inverse of
`append_offer`, so the sender gets the receiver's own octets.
Takes replies that `observer` found well-formed. Knows nothing of what an offer holds: see `crypto.messages`.
"""

from __future__ import annotations

import binascii
import enum
import functools
import re
from typing import Final

from gateway.errors import LocalMisuseError
from gateway.immutable import immutable
from gateway.policy import limits
from gateway.smtp import grammar

KEYWORD: Final = b"XNIGHTMAIL"
VERB_LINE: Final = KEYWORD + grammar.CRLF
"""The sending gateway's command. Bare, because middleboxes cut long command lines."""

_VERSION: Final = b"1"
_MORE: Final = b"250-"
_LAST: Final = b"250 "
_NUMBER_AT: Final = len(b"250-" + KEYWORD + b" " + _VERSION + b" ")
_CHUNK_AT: Final = _NUMBER_AT + len(b"k/n ")
_CHUNK_MAX: Final = limits.OFFER_LINE_OCTETS - _CHUNK_AT - len(grammar.CRLF)
_LINES_MAX: Final = 9
"""k and n are one digit each, so that every line has the same width of head."""

_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")
"""RFC 4648 section 5: base64url has two other characters than base64."""

_KEYWORD_LINE = re.compile(rb"^250[- ][ \t]*" + KEYWORD + grammar.KEYWORD_END, re.IGNORECASE | re.MULTILINE)
_LAST_OFFER_LINE = re.compile(rb"250 " + KEYWORD + rb" " + _VERSION + rb" ([1-9])/\1 ")


class OfferSize(enum.Enum):
    """The forms of an offer, by their octets."""

    FULL = 1350
    SHORT = 166
    RESUMED = 66
    """Where a full one has room, and both sides have a ticket."""

    @property
    def octets(self) -> int:
        return self.value


_OFFER_OCTETS: Final = frozenset(size.octets for size in OfferSize)


@immutable
class SplitReply:
    """An EHLO reply without its offer lines, and the offer; untouched where there is none."""

    stripped: bytes
    offer: bytes | None


def room_for(reply: bytes, offer_octets: int) -> bool:
    """Whether an offer of that size may follow this reply: its last line begins early enough."""
    widths = _chunk_widths(offer_octets)
    lines_before_last = len(widths) - 1
    if lines_before_last >= _LINES_MAX:
        return False
    before_last = lines_before_last * (_CHUNK_AT + len(grammar.CRLF)) + sum(widths[:-1])
    return len(reply) + before_last < limits.OFFER_MUST_BEGIN_BEFORE_OCTETS


def offer_fits(reply: bytes) -> OfferSize | None:
    """The size rule: the largest signed offer that has room behind the receiver's own reply, or None.

    Both sides ask it. The sending gateway passes the stripped reply, and so knows whether a short offer was
    short by the rule or was made short on the way.
    """
    for size in (OfferSize.FULL, OfferSize.SHORT):
        if room_for(reply, size.octets):
            return size
    return None


def append_offer(reply: bytes, offer: bytes) -> bytes:
    """The receiver's reply with the offer as its last lines. Raises `LocalMisuseError` if it does not fit."""
    if not offer or not room_for(reply, len(offer)):
        raise LocalMisuseError(f"no room for {len(offer)} octets behind a reply of {len(reply)}")
    last = _last_line_at(reply)
    if not reply.endswith(grammar.CRLF) or not reply.startswith(_LAST, last):
        raise LocalMisuseError("an offer can only follow a complete 250 reply")
    return reply[:last] + _MORE + reply[last + len(_LAST) :] + _offer_lines(offer)


def split_offer(reply: bytes) -> SplitReply:
    """Separate the receiver's own reply from an offer at its end."""
    untouched = SplitReply(reply, None)
    last = _last_line_at(reply)
    head = _LAST_OFFER_LINE.match(reply, last)
    if head is None:
        return untouched
    begin = last
    for _ in range(int(head.group(1)) - 1):
        begin = _last_line_at(reply[:begin]) if begin else 0
    offer = _read_chunks(reply[begin:])
    if offer is None or len(offer) not in _OFFER_OCTETS or _offer_lines(offer) != reply[begin:]:
        return untouched  # length, order, gaps, version, layout, padding characters, spare bits: all of it
    stripped = _with_last_line(reply[:begin])
    if stripped is None or carries_keyword(stripped):
        return untouched
    return SplitReply(stripped, offer)


def carries_keyword(reply: bytes) -> bool:
    """Whether any line of a reply has our keyword, in any case: a gateway further in has been here."""
    return _KEYWORD_LINE.search(reply) is not None


def host_name(greeting_or_reply: bytes) -> bytes:
    """The first word behind the code: the receiver's name for itself, as it wrote it; may be empty."""
    return grammar.first_word(greeting_or_reply)


def match_verb(data: bytes) -> bool | None:
    """Whether a sending gateway speaks: True, False, or None while the octets could still become the verb."""
    if data.startswith(VERB_LINE):
        return True
    return None if VERB_LINE.startswith(data) else False


@functools.lru_cache(maxsize=len(OfferSize))
def _chunk_widths(offer_octets: int) -> tuple[int, ...]:
    """Characters of each line: the last as wide as a line may be, the others even, wider ones first."""
    characters = (offer_octets * 4 + 2) // 3
    if characters <= _CHUNK_MAX:
        return (characters,)
    rest = characters - _CHUNK_MAX
    count = -(-rest // _CHUNK_MAX)
    width, wider = divmod(rest, count)
    return (width + 1,) * wider + (width,) * (count - wider) + (_CHUNK_MAX,)


def _offer_lines(offer: bytes) -> bytes:
    text = binascii.b2a_base64(offer, newline=False).rstrip(b"=").translate(_TO_URL)
    widths = _chunk_widths(len(offer))
    count, at, lines = len(widths), 0, []
    for number, width in enumerate(widths, 1):
        mark = _LAST if number == count else _MORE
        lines.append(
            b"%b%b %b %d/%d %b\r\n" % (mark, KEYWORD, _VERSION, number, count, text[at : at + width])
        )
        at += width
    return b"".join(lines)


def _read_chunks(lines: bytes) -> bytes | None:
    """Decode what stands where chunks would stand. The caller compares with what a true offer looks like."""
    text = b"".join([line[_CHUNK_AT:] for line in lines.split(grammar.CRLF)])
    try:
        return binascii.a2b_base64(text.translate(_FROM_URL) + b"=" * (-len(text) % 4)) or None
    except binascii.Error:
        return None


def _with_last_line(reply: bytes) -> bytes | None:
    """Make the last `250-` line the last line again; None where there is none."""
    last = _last_line_at(reply)
    if not (reply.endswith(grammar.CRLF) and reply.startswith(_MORE, last)):
        return None
    return reply[:last] + _LAST + reply[last + len(_MORE) :]


def _last_line_at(reply: bytes) -> int:
    """Where the last line begins (0 in a reply of one line, or of none)."""
    return reply.rfind(b"\n", 0, max(len(reply) - 1, 0)) + 1
