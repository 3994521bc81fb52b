"""What a lost offer or a failed handshake likely was: what was seen now against what is remembered. Pure.

    likely(observation, looks) -> Reason

A guess for people, in one word; nothing is decided by it, and an active attacker can choose what it says.
Where a reset came from cannot be seen in a session: `with_reset` says it, once somebody has asked the kernel.
Counterparts: `peers.looks` (what is remembered), docs/messages.md (what each word means to a person).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gateway.errors import Reason
from gateway.peers.looks import Look

_MASKED: Final = re.compile(rb"X{4,}[A-Z]?")
"""Cisco's ASA overwrites a keyword that it does not know with X's (at times but for the last letter)."""
_REFUSED: Final = b"5"
_CANNOT_GO_ON: Final = b"454"

_BY_FAILURE: Final[dict[Reason, Reason]] = {
    Reason.BAD_TAG: Reason.FRAMES_DAMAGED,
    Reason.BAD_FRAME: Reason.FRAMES_DAMAGED,
    Reason.BAD_RECORD: Reason.FRAMES_DAMAGED,
    Reason.BAD_PARAMS: Reason.FRAMES_DAMAGED,
    Reason.HANDSHAKE_TIMEOUT: Reason.VERB_UNANSWERED,
    Reason.EHLO_REFUSED: Reason.EHLO_BLOCKED,
    Reason.ODD_REPLY: Reason.REPLY_CHANGED,
    Reason.ODD_GREETING: Reason.REPLY_CHANGED,
}
"""Failures that name their cause alone, unless the machine is another one."""
_OF_OFFERS: Final = frozenset({Reason.BAD_OFFER, Reason.BAD_SIGNATURE, Reason.BAD_KEY})
"""An offer was there and does not verify: it, or what was said before it, is not what the peer said."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a sending gateway saw when it went wrong."""

    failure: Reason
    """OFFER_MISSING, UPGRADED_CHANGED_PEER, why there is no reply to look at, or why the handshake failed."""
    look: Look | None = None
    """As the server looks now; None where there was no whole reply."""
    said: bytes = b""
    """The first octets that came in place of a frame."""
    was_reset: bool = False
    """The far connection ended with a reset, not with a FIN."""


def likely(seen: Sighting, looks: tuple[Look, ...]) -> Reason:
    """`looks`: of the same destination when all was well; empty where nothing is remembered."""
    if seen.failure is Reason.CLEAR_OCTETS_IN_CHANNEL:
        return _by_words(seen.said)
    if seen.failure is Reason.FAR_CLOSED_DURING_HANDSHAKE:
        return Reason.RESET_UNCLEAR if seen.was_reset else Reason.CAUSE_UNKNOWN
    if seen.failure is Reason.UPGRADED_CHANGED_PEER:
        return Reason.OTHER_MACHINE if _is_other_host(seen.look, looks) else Reason.OTHER_KEY
    if seen.failure is Reason.OFFER_MISSING:
        return _by_reply(seen.look, looks)
    if seen.failure in _OF_OFFERS:
        changed = _by_reply(seen.look, looks)
        unchanged = changed in (Reason.PEER_SWITCHED_OFF, Reason.CAUSE_UNKNOWN)
        return Reason.OFFER_DAMAGED if unchanged else changed
    return _BY_FAILURE.get(seen.failure, Reason.CAUSE_UNKNOWN)


def with_reset(word: Reason, was_odd: bool | None) -> Reason:
    """A cause, once the kernel has told whether the reset had another TTL than the far end; None: not known.

    A reset with another TTL was made by something nearer or farther than the far end.
    """
    if word is not Reason.RESET_UNCLEAR or was_odd is None:
        return word
    return Reason.RESET_IN_BETWEEN if was_odd else Reason.RESET_BY_FAR_END


def likely_of_source(failure: Reason, *, other_name: bool) -> Reason:
    """The receiving side: why a client that used to upgrade did not. `other_name`: than it had then."""
    if failure is Reason.HELO:
        return Reason.EHLO_TURNED_INTO_HELO
    if other_name:
        return Reason.OTHER_MACHINE
    # Its gateway is off, or does not get to see our offer: from here both look alike.
    return Reason.OFFER_UNANSWERED if failure is Reason.NO_VERB else Reason.CAUSE_UNKNOWN


def _by_words(said: bytes) -> Reason:
    if said.startswith(_REFUSED):
        return Reason.VERB_REFUSED
    # A receiving gateway's own words when it could not read our answer.
    return Reason.FRAMES_DAMAGED if said.startswith(_CANNOT_GO_ON) else Reason.CAUSE_UNKNOWN


def _by_reply(now: Look | None, looks: tuple[Look, ...]) -> Reason:
    """By a whole reply, whose offer is gone or spoilt. What is sure without any memory comes first."""
    if now is None:
        return Reason.CAUSE_UNKNOWN
    known = {keyword for look in looks for keyword in look.keywords}
    if any(_MASKED.fullmatch(keyword) and keyword not in known for keyword in now.keywords):
        return Reason.KEYWORD_MASKED
    if not looks:
        return Reason.CAUSE_UNKNOWN
    if _is_other_host(now, looks):
        return Reason.OTHER_MACHINE
    if any(now.keywords == look.keywords for look in looks):
        return Reason.PEER_SWITCHED_OFF
    return Reason.REPLY_CHANGED if now.keywords else Reason.EHLO_TURNED_INTO_HELO


def _is_other_host(now: Look | None, looks: tuple[Look, ...]) -> bool:
    return now is not None and bool(looks) and all(now.host != look.host for look in looks)
