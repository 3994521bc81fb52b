"""What a STATEMENT record means to the sending gateway: whether it verifies, and whether it is worth asking.

A statement that does not count is none: nothing that stands in one is ever an error (docs/protocol.md,
"Rollover"). Counterparts: `crypto.statement`, which verifies; `peers.pins`, which judges what it leads to.
"""

from __future__ import annotations

from typing import Final

from gateway.crypto.records import RecordType
from gateway.crypto.statement import claims, read_statement
from gateway.errors import PeerProtocolError
from gateway.peers.pins import MetStatement, Pin, leads_on

ENDS_WAIT: Final = frozenset({RecordType.STATEMENT, RecordType.DATA, RecordType.CLOSE, RecordType.RESET})
"""Records that end the wait for a statement: the first one, or something that R sends behind all of them."""


def verified(kind: RecordType, content: bytes) -> MetStatement | None:
    """The statement in a record whose two signatures verify; None for every other record."""
    if kind is not RecordType.STATEMENT:
        return None
    try:
        found = read_statement(content)
    except PeerProtocolError:
        return None
    return MetStatement(found.old.octets, found.new.octets, found.serial)


def announcement(pin: Pin | None, proven: bytes, content: bytes) -> MetStatement | None:
    """What the peer `proven` says it will be called later, if that is news here.

    Signatures cost, and a statement comes with every session for a year: what is known is not verified.
    """
    claim = claims(content)
    if claim is None:
        return None
    old, new, serial = claim
    if old != proven or (pin is not None and not leads_on(pin, MetStatement(old, new, serial))):
        return None
    return verified(RecordType.STATEMENT, content)
