"""What a ping has seen, for a person and as JSON. All that the other end says is escaped and bounded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from gateway.crypto.messages import OfferFlags, OfferForm
from gateway.errors import Reason
from gateway.observe.log import printable
from gateway.operator.ping import Ping
from gateway.peers.comparison import Standing
from gateway.policy import limits
from gateway.smtp.capability import OfferSize

_STEPS: Final = {
    "connected": "connected",
    "greeting": "greeting",
    "reply": "reply to EHLO",
    "channel": "channel",
    "quit": "answer to QUIT",
}
_STANDINGS: Final = {
    Standing.UNPINNED: "nobody is remembered there: it would be met as at first sight",
    Standing.STRANGER: "NOT THE REMEMBERED ONE: ask the other site (`nightmail peers show`)",
    Standing.SEEN: "seen there before, NOT ACCEPTED: ask the other site (`nightmail peers show`)",
    Standing.ACCEPTED: "the remembered one",
}


def told(found: Ping) -> Iterator[str]:
    """The first line is the answer."""
    yield f"{found.destination}: {_answer(found)}"
    if found.seconds:
        steps = [f"{_STEPS[name]} {1000 * seconds:.1f} ms" for name, seconds in found.seconds.items()]
        yield f"  times: {', '.join(steps)}; {1000 * sum(found.seconds.values()):.1f} ms in all"
    if found.look is not None:
        yield f"  server: {_text(found.look.host.lower())}; announces: {_keywords(found) or 'nothing'}"
    yield from (f"  {line}" for line in _offer(found))
    yield from (f"  {line}" for line in _peer(found))
    if found.peer is not None:
        yield (
            f"  padding: from the verb on {found.sent} octets went out, of which QUIT is 6;"
            f" {found.received} came back"
        )
    for failure in found.failures:
        if failure.reason is not None:
            yield f"  failed: {failure.reason.value} {printable(failure.detail)}".rstrip()


def _answer(found: Ping) -> str:
    if found.protected:
        return "YES, a session is protected"
    reason = found.decision.reason if found.decision is not None else None
    if found.trouble and (found.decision is None or found.decision.upgraded):
        return f"NO, no session: {found.trouble}"
    if reason in (Reason.NO_OFFER, None):
        return "NO, a session is in clear: nobody there offers encryption"
    return f"NO, a session is in clear: {reason.value} (docs/messages.md)"


def _offer(found: Ping) -> Iterator[str]:
    if found.offer is None:
        if found.fits is not None:
            yield "offer: none; one in four sessions has one where this address has ignored many: ask again"
        return
    if found.offer is OfferSize.FULL:
        yield "offer: hybrid, X25519 and ML-KEM-768"
    elif found.fits is OfferSize.FULL:
        yield "offer: WEAKER, X25519 alone, although there was room for the hybrid one"
    else:
        yield "offer: X25519 alone; behind so long a reply there is no room for the hybrid one"


def _peer(found: Ping) -> Iterator[str]:
    if found.peer is not None:
        yield f"peer: {found.peer.identity.fingerprint}"
        yield f"      {_standing(found)}"
        age = int(time.time()) // limits.DAY_SECONDS - found.peer.epoch
        day = {0: "of today", 1: "of yesterday"}.get(age, f"{age} days old")
        rolls = "; shows the identity before or after it" if _statement_follows(found) else ""
        yield f"      its key is {day} (good for {limits.ENDORSEMENT_DAYS} days){rolls}"
    elif found.pin is not None:
        yield "peer: one is remembered there, and has not been met (`nightmail peers show`)"
    elif found.memory_trouble:
        yield f"peer: whether one is remembered there cannot be read: {printable(found.memory_trouble)}"


def _standing(found: Ping) -> str:
    if found.memory_trouble:
        return f"whether it is the remembered one cannot be read: {printable(found.memory_trouble)}"
    return _STANDINGS[standing(found)]


def standing(found: Ping) -> Standing:
    """Of the peer that was met, against what is remembered."""
    assert found.peer is not None
    if found.pin is None:
        return Standing.UNPINNED
    known = found.pin.find(found.peer.identity.octets)
    if known is None:
        return Standing.STRANGER
    return Standing.ACCEPTED if known.accepted else Standing.SEEN


def _statement_follows(found: Ping) -> bool:
    assert found.peer is not None
    return bool(found.peer.flags & OfferFlags.STATEMENT_FOLLOWS)


def as_json(found: Ping) -> dict[str, Any]:
    peer = found.peer
    return {
        "address": found.destination.address,
        "port": found.destination.port,
        "protected": found.protected,
        "reason": found.decision.reason.value if found.decision is not None else None,
        "trouble": printable(found.trouble) or None,
        "seconds": {name: round(seconds, 6) for name, seconds in found.seconds.items()},
        "server": _text(found.look.host.lower()) if found.look is not None else None,
        "announces": _keywords(found).split() if found.look is not None else [],
        "offer": found.offer.name.lower() if found.offer is not None else None,
        "room_for": found.fits.name.lower() if found.fits is not None else None,
        "failures": [one.reason.value for one in found.failures if one.reason is not None],
        "memory": printable(found.memory_trouble) or "read",
        "remembered": None if found.memory_trouble else found.pin is not None,
        "peer": None
        if peer is None
        else {
            "fingerprint": peer.identity.fingerprint,
            "standing": None if found.memory_trouble else standing(found).value,
            "hybrid": peer.form is OfferForm.FULL,
            "epoch": peer.epoch,
            "statement_follows": _statement_follows(found),
        },
        "octets": {"sent": found.sent, "received": found.received} if peer is not None else None,
    }


def _keywords(found: Ping) -> str:
    assert found.look is not None
    return " ".join(_text(keyword) for keyword in found.look.keywords[: limits.PING_KEYWORDS])


def _text(octets: bytes) -> str:
    return printable(octets.decode("latin-1"), limits.PING_TEXT_OCTETS)
