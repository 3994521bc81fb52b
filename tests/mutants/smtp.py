"""Checks of what the mail servers say, and of the offer's lines. Counterparts: docs/protocol.md section 3."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Mutant, Room, mutants_of

_capability = Room("gateway/smtp/capability.py")
_capability.lacks(
    "an offer's last line begins before octet 2,000",
    "    return len(reply) + before_last < limits.OFFER_MUST_BEGIN_BEFORE_OCTETS",
    "    return len(reply) + before_last <= limits.OFFER_MUST_BEGIN_BEFORE_OCTETS",
)
_capability.lacks(
    "the full offer goes before the short one",
    "    for size in (OfferSize.FULL, OfferSize.SHORT):",
    "    for size in (OfferSize.SHORT, OfferSize.FULL):",
)
_capability.lacks(
    "an offer is its one layout: contiguous, in order, strict base64url",
    " or _offer_lines(offer) != reply[begin:]:",
    " or False:",
)
_capability.lacks("an offer has the octets of one", " or len(offer) not in _OFFER_OCTETS", "")
_capability.lacks(
    "no keyword is left in the stripped reply",
    "    if stripped is None or carries_keyword(stripped):",
    "    if stripped is None:",
)
_capability.lacks(
    "what is left of a reply is a reply",
    "    if not (reply.endswith(grammar.CRLF) and reply.startswith(_MORE, last)):",
    "    if False:",
)
_capability.lacks("the keyword is known in any case", "re.IGNORECASE | re.MULTILINE)", "re.MULTILINE)")
_capability.lacks(
    "the verb is exact", "    if data.startswith(VERB_LINE):", "    if data.upper().startswith(KEYWORD):"
)
_capability.lacks(
    "what cannot become the verb passes at once",
    "    return None if VERB_LINE.startswith(data) else False",
    "    return None if VERB_LINE.startswith(data[:1]) else False",
)

_scan = Room("gateway/smtp/firstflight.py")
_scan.lacks("BDAT begins content", '[ \\t]*(BDAT|BURL|DATA)"', '[ \\t]*(BURL|DATA)"')
_scan.lacks("BURL stands for content", '[ \\t]*(BDAT|BURL|DATA)"', '[ \\t]*(BDAT|DATA)"')
_scan.lacks("DATA begins content", '[ \\t]*(BDAT|BURL|DATA)"', '[ \\t]*(BDAT|BURL)"')
_scan.lacks(
    "a bare CR or LF begins a line",
    '_CONTENT = re.compile(rb"[\\r\\n][ \\t]*',
    '_CONTENT = re.compile(rb"\\r\\n[ \\t]*',
)
_scan.lacks(
    "a command cut in two is still seen",
    "        if undecided is None:\n            return self._hold_from(octets, len(octets), _Place.IN_LINE)",
    "        if True:\n            return self._hold_from(octets, len(octets), _Place.IN_LINE)",
)

_buffer = Room("gateway/smtp/buffer.py")
_buffer.lacks(
    "a bare LF or NUL is no line end",
    '        if octets.find(b"\\n", begin, end) >= 0 or octets.find(b"\\0", begin, end) >= 0:',
    "        if False:",
)
_buffer.lacks("a bare CR is no line end", "        if octets[end + 1] != _LF:", "        if False:")
_buffer.lacks(
    "what is held has a limit",
    """                if len(octets) > self._limit:
                    raise PeerProtocolError(self._odd, "too long")
""",
    "",
)

_observer = Room("gateway/smtp/observer.py")
_observer.lacks("nothing stands behind the reply", "        if self._reply.has_rest:", "        if False:")
_observer.lacks(
    "no offer to a client that talks behind its EHLO",
    "        if self._stage is not Stage.OPAQUE:\n            self._behind_ehlo += data",
    "        if True:\n            self._behind_ehlo += data",
)
_observer.lacks(
    "the lines of a reply are of one kind",
    '    if not last.startswith(code + b" "):',
    "    if False:",
)
_observer.lacks(
    "the sender is read up to a limit",
    "        return len(self._behind_ehlo) < limits.FIRST_FLIGHT_OCTETS",
    "        return True",
)

_observer.lacks(
    "what begins as a 421 is one, whatever follows",
    "    if lines.octets_begin(_CLOSING):\n        return _read_closing(lines, refused)\n",
    "",
)
_observer.lacks(
    "what is no line of a 421 ends it as well",
    '    except PeerProtocolError:\n        line = b""\n',
    '    except ValueError:\n        line = b""\n',
)
_observer.lacks(
    "what has passed of an opaque session's greeting is not kept",
    "        self._greeting.take_all()\n",
    "",
)
_observer.lacks(
    "what has passed of an opaque session's sender is not kept",
    "        self._ehlo.keep_only(limits.EHLO_LINE_OCTETS)\n",
    "",
)

_grammar = Room("gateway/smtp/grammar.py")
_grammar.lacks(
    "a greeting names ESMTP as a word alone",
    '    return any(word.upper() == b"ESMTP" for word in greeting.split())',
    '    return b"ESMTP" in greeting.upper()',
)
_grammar.lacks(
    "only EHLO asks for an offer",
    "    if upper.startswith(_HELO):\n        raise PeerProtocolError(Reason.HELO)",
    "    if upper.startswith(_HELO):\n        return True",
)
_grammar.lacks(
    "a reply has a blank or a hyphen behind its code",
    '        if mark not in (b" ", b"-"):',
    "        if False:",
)

SMTP: Final[tuple[Mutant, ...]] = mutants_of(_capability, _scan, _buffer, _observer, _grammar)
