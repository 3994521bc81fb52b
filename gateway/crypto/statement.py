"""STATEMENT: the old identity names the new one, and the new one agrees. Both signatures, or nothing.

The old key's alone would let its holder claim somebody else's key, the new key's alone would let anybody
take over. Serials and what a statement leads to are the memory's to judge. Counterpart: `keys`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.crypto.keys import IdentityKey, IdentityPublic, Label
from gateway.crypto.messages import STATEMENT
from gateway.crypto.primitives import ED25519_SIGNATURE_OCTETS
from gateway.errors import LocalMisuseError, PeerProtocolError, Reason

_SIGNED_OCTETS: Final = STATEMENT.octets_before("by_old")


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement whose two signatures have verified."""

    old: IdentityPublic
    new: IdentityPublic
    serial: int


def make_statement(old: IdentityKey, new: IdentityKey, serial: int) -> bytes:
    """The content of a STATEMENT record."""
    if old.public == new.public:
        raise LocalMisuseError("a statement leads to another identity")
    blank = bytes(ED25519_SIGNATURE_OCTETS)
    values: dict[str, bytes | int] = {
        "old": old.public.octets,
        "new": new.public.octets,
        "serial": serial,
        "by_old": blank,
        "by_new": blank,
    }
    signed = STATEMENT.encode(values)[:_SIGNED_OCTETS]
    values["by_old"] = old.sign(Label.STATEMENT_OLD, signed)
    values["by_new"] = new.sign(Label.STATEMENT_NEW, signed)
    return STATEMENT.encode(values)


def claims(content: bytes) -> tuple[bytes, bytes, int] | None:
    """Old identity, new identity, serial as they stand there, unverified; None if the length is another."""
    try:
        values = STATEMENT.decode(content)
    except PeerProtocolError:
        return None
    return values["old"], values["new"], values["serial"]


def read_statement(content: bytes) -> Statement:
    """Verify one. Raises PeerProtocolError (form) or CryptoRefusedError (keys, signatures)."""
    values = STATEMENT.decode(content)
    old = IdentityPublic(values["old"])
    new = IdentityPublic(values["new"])
    if old == new:
        raise PeerProtocolError(Reason.BAD_RECORD, "statement leads nowhere")
    signed = content[:_SIGNED_OCTETS]
    old.verify(Label.STATEMENT_OLD, signed, values["by_old"])
    new.verify(Label.STATEMENT_NEW, signed, values["by_new"])
    return Statement(old, new, values["serial"])
