"""The productions of RFC 5321 that decide whether a session can be upgraded, and nothing more.

Every judge here answers a value, None ("need more"), or raises `PeerProtocolError` with the reason for which
the session stays in clear. Never repairs: what is refused here passes to the other mail server as it came.
Counterpart: `buffer`, which has already made sure that a line ends in CRLF and holds no other CR, LF or NUL.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.errors import PeerProtocolError, Reason

CRLF: Final = b"\r\n"

# RFC 5321 4.2:  Reply-code = %x32-35 %x30-35 %x30-39
#                Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
# The SP before an empty text is not optional here: `250` CRLF is read differently by different senders.
REPLY_HEAD_OCTETS: Final = 4
CLOSING: Final = 421
"""RFC 5321 3.8: whenever a server says this, the session is over."""
_REPLY_CODE = re.compile(rb"[2-5][0-5][0-9]")

# RFC 5321 4.1.1.1:  ehlo = "EHLO" SP ( Domain / address-literal ) CRLF
#                    helo = "HELO" SP Domain CRLF
# Verbs in any case (2.4). The argument is not read: names with underscores, missing brackets and further
# words are common, and only the receiver's opinion of them counts.
_EHLO: Final = b"EHLO "
_HELO: Final = b"HELO"

# RFC 5321 4.1.1.1:  ehlo-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
KEYWORD_END: Final = rb"(?![A-Za-z0-9-])"

_AFTER_HOST_NAME = re.compile(rb"[ \t\r\n]")


def check_reply_head(head: bytes, code: bytes, refused: Reason, odd: Reason) -> None:
    """Judge the first octets of a reply line by its expected code; fewer than `REPLY_HEAD_OCTETS` may come.

    Raises `PeerProtocolError`: `refused` for another code, `odd` for what is no reply at all.
    """
    if len(head) < REPLY_HEAD_OCTETS:
        return
    found, mark = head[:3], head[3:4]
    if found == code:
        if mark not in (b" ", b"-"):
            raise PeerProtocolError(odd, "neither blank nor hyphen behind the code")
    elif _REPLY_CODE.fullmatch(found) and mark in (b" ", b"-", b"\r"):
        raise PeerProtocolError(refused, found.decode("ascii"))
    else:
        raise PeerProtocolError(odd, "no reply code")


def check_ehlo_head(head: bytes) -> bool | None:
    """Judge the first octets of the sender: True for `EHLO `, None while they still could become it.

    Raises `PeerProtocolError` HELO, NOT_EHLO or ODD_COMMAND at the first octet that rules it out, so that
    nothing of a sender that speaks another way ever waits.
    """
    upper = head[: len(_EHLO)].upper()
    if upper == _EHLO:
        return True
    if upper.startswith(_HELO):
        raise PeerProtocolError(Reason.HELO)
    if _EHLO.startswith(upper) or _HELO.startswith(upper):
        return None
    if upper.startswith(_EHLO[:4]):
        raise PeerProtocolError(Reason.ODD_COMMAND, "no blank behind EHLO")
    raise PeerProtocolError(Reason.NOT_EHLO)


def check_ehlo_line(line: bytes) -> None:
    """Judge a whole EHLO line. Raises `PeerProtocolError` ODD_COMMAND where nothing is named."""
    if not line[len(_EHLO) :].strip():
        raise PeerProtocolError(Reason.ODD_COMMAND, "EHLO without a name")


def names_esmtp(greeting: bytes) -> bool:
    """Whether a greeting holds that word alone. Some senders say EHLO only then (RFC 1869 left it open), and
    Postfix says HELO where a greeting is overwritten with asterisks."""
    return any(word.upper() == b"ESMTP" for word in greeting.split())


def first_word(octets: bytes) -> bytes:
    """The first word behind the code of a reply: the host name, in a greeting or an EHLO reply."""
    return _AFTER_HOST_NAME.split(octets[REPLY_HEAD_OCTETS:], 1)[0]
