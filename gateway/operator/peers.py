"""What the memory of peers holds, for a person and as JSON; and how a person names a peer in it.

Works on the file directly, so it needs no running daemon. Counterpart: `peers.store`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, Final

from gateway.crypto.keys import IdentityPublic
from gateway.errors import PeerProtocolError
from gateway.operator.status import when
from gateway.peers.history import Happening, PeerEvent
from gateway.peers.look_store import Trouble
from gateway.peers.pins import Destination, Pin, PinnedIdentity

SMTP_PORT: Final = 25
_SHORTEST_NAME: Final = 4
_PORT_DIGITS: Final = 5


def destination(text: str) -> Destination | None:
    """`192.0.2.7`, `192.0.2.7:25`, `2001:db8::7` or `[2001:db8::7]:25`; None for anything else."""
    found = place(text)
    try:
        address = ip_address(found[0]) if found is not None else None
    except ValueError:
        return None
    if found is None or address is None:
        return None
    # A log may have `::ffff:192.0.2.7`, which is IPv4 on the line.
    return Destination(str(getattr(address, "ipv4_mapped", None) or address), found[1])


def place(text: str) -> tuple[str, int] | None:
    """An address or a name, and a port; None where that cannot be one, or nothing is said."""
    match = re.fullmatch(r"\[([^\]]+)\](?::([0-9]+))?|([^:]+):([0-9]+)|(.+)", text, re.DOTALL)
    if match is None:
        return None
    digits = match[2] or match[4] or str(SMTP_PORT)
    if len(digits) > _PORT_DIGITS or not 1 <= int(digits) <= 65535:
        return None
    return match[1] or match[3] or match[5], int(digits)


def fingerprint(identity: bytes) -> str:
    """As `nightmail identity show` prints it over there."""
    try:
        return IdentityPublic(identity).fingerprint
    except PeerProtocolError:
        # Only a damaged file holds one that our own handshake would have refused.
        return "(no valid identity)"


def chosen(pin: Pin, name: str) -> list[PinnedIdentity]:
    """The identities whose fingerprint begins with `name`, which has at least four letters."""
    wanted = _letters(name)
    if len(wanted) < _SHORTEST_NAME:
        return []
    return [
        known for known in pin.identities if fingerprint(known.identity).replace("-", "").startswith(wanted)
    ]


def _letters(name: str) -> str:
    return name.lower().replace("-", "").replace(" ", "")


def nobody(where: Destination) -> str:
    """What there is to say of a place that is not remembered."""
    return f"no peer is remembered at {where}: `nightmail peers list` has all"


def not_one(where: Destination, name: str, found: int) -> str:
    """Why `name` chooses no single one of the identities there."""
    if len(_letters(name)) < _SHORTEST_NAME:
        return f"{name}: a fingerprint, or {_SHORTEST_NAME} letters of its beginning and more, is needed"
    which = f"{found} identities at {where} begin" if found else f"no identity at {where} begins"
    return f"{which} with {name}: `nightmail peers show {where}` lists what is there"


def as_json(pin: Pin) -> dict[str, Any]:
    return {
        "address": pin.destination.address,
        "port": pin.destination.port,
        "first_seen": pin.first_seen,
        "last_seen": pin.last_seen,
        "had_full_offer": pin.had_full_offer,
        "identities": [
            {
                "fingerprint": fingerprint(known.identity),
                "accepted": known.accepted,
                "acceptance": known.acceptance.value,
                "epoch": known.epoch,
                "first_seen": known.first_seen,
                "last_seen": known.last_seen,
                "days_seen": known.days_seen,
                "had_full_offer": known.had_full_offer,
            }
            for known in pin.identities
        ],
    }


def in_one_line(pin: Pin) -> str:
    accepted = sum(known.accepted for known in pin.identities)
    waiting = len(pin.identities) - accepted
    more = f", {waiting} SEEN BUT NOT ACCEPTED" if waiting else ""
    identities = "1 identity" if accepted == 1 else f"{accepted} identities"
    return f"{pin.destination}  {identities}{more}, last seen {when(pin.last_seen)}"


def in_full(pin: Pin) -> Iterator[str]:
    yield str(pin.destination)
    for known in pin.identities:
        yield f"  {fingerprint(known.identity)}"
        yield f"    {_acceptance(known)}"
        first, last = when(known.first_seen), when(known.last_seen)
        if known.announced:  # of its offers nothing is known yet
            yield f"    announced {first}"
            continue
        yield f"    first seen {first}, last {last}; days seen: {known.days_seen}"
        offer = (
            "with the post-quantum key"
            if known.had_full_offer
            else "only short ones, without post-quantum key"
        )
        yield f"    key of day {known.epoch}; offers: {offer}"


def trouble_in_words(trouble: Trouble | None) -> Iterator[str]:
    if trouble is not None:
        yield f"  last trouble {when(trouble.at)}, likely: {trouble.likely.value} (see docs/messages.md)"


def trouble_as_json(trouble: Trouble | None) -> dict[str, Any] | None:
    return None if trouble is None else {"likely": trouble.likely.value, "at": trouble.at}


def _acceptance(known: PinnedIdentity) -> str:
    return {
        "first-use": "accepted: the first one ever seen here",
        "time": "accepted: came alone for a week and more",
        "operator": "accepted by the operator",
        "statement": "accepted: an accepted identity has led here"
        + (", announced and not seen yet" if known.announced else ""),
        "not-yet": "SEEN, NOT ACCEPTED: ask the other site for its own, then `nightmail peers accept`",
    }[known.acceptance.value]


_IN_WORDS: Final = {
    Happening.FIRST_SEEN: "first seen",
    Happening.CHANGED: "ANOTHER IDENTITY, not accepted",
    Happening.ANNOUNCED: "its next identity announced",
    Happening.ROLLED_OVER: "rolled over to another identity, by a statement of the one before",
    Happening.ACCEPTED: "identity accepted",
    Happening.FORGOTTEN: "identity forgotten",
    Happening.MISSING: "OFFER MISSING",
    Happening.FAILED: "HANDSHAKES FAILED",
    Happening.BACK: "encrypted again",
}


def event_in_words(event: PeerEvent) -> str:
    until = f" to {when(event.until)}, {event.times} times at least" if event.times > 1 else ""
    who = f": {fingerprint(event.identity)}" if event.identity else ""
    return f"{when(event.at)}{until}  {_IN_WORDS[event.happening]}{who}"


def event_as_json(event: PeerEvent) -> dict[str, Any]:
    return {
        "event": event.happening.value,
        "at": event.at,
        "until": event.until,
        "times": event.times,
        "identity": fingerprint(event.identity) if event.identity else None,
    }
