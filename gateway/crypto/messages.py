"""Every message as one table of fields: what is on the wire stands here and nowhere else.

Encodes and decodes; judges nothing but lengths. Field widths are written here, beside their layout, as
docs/protocol.md prints them. Counterparts: `handshake` (who fills and checks them), `records` (content).
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gateway.crypto.primitives import (
    AEAD_TAG_OCTETS,
    ED25519_PUBLIC_OCTETS,
    ED25519_SIGNATURE_OCTETS,
    HASH_OCTETS,
    MLKEM_CIPHERTEXT_OCTETS,
    MLKEM_PUBLIC_OCTETS,
    X25519_OCTETS,
)
from gateway.errors import IdentityHashed, LocalMisuseError, PeerProtocolError, Reason

_U16: Final = 2
_U32: Final = 4


@dataclass(frozen=True, slots=True)
class Field:
    """One field: octets as they are, or an unsigned integer, most significant octet first."""

    name: str
    octets: int
    kind: Literal["octets", "number"] = "octets"


@dataclass(frozen=True, slots=True)
class Layout:
    """A message of fixed length as its fields in order."""

    name: str
    fields: tuple[Field, ...]
    refusal: Reason
    octets: int = field(init=False)
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "octets", sum(one.octets for one in self.fields))
        object.__setattr__(self, "names", frozenset(one.name for one in self.fields))

    def octets_before(self, name: str) -> int:
        """Where a field begins; what is signed usually ends there."""
        names = [one.name for one in self.fields]
        return sum(one.octets for one in self.fields[: names.index(name)])

    def encode(self, values: Mapping[str, bytes | int]) -> bytes:
        """All fields, in order. A value that does not fit its field is our own mistake."""
        if values.keys() != self.names:
            raise LocalMisuseError(f"{self.name}: fields are {', '.join(values)}")
        parts = []
        for one in self.fields:
            value = values[one.name]
            if isinstance(value, int):
                if one.kind != "number" or not 0 <= value < 1 << 8 * one.octets:
                    raise LocalMisuseError(f"{self.name}: {one.name} does not hold {value}")
                value = value.to_bytes(one.octets, "big")
            elif one.kind != "octets" or len(value) != one.octets:
                raise LocalMisuseError(f"{self.name}: {one.name} does not hold {len(value)} octets")
            parts.append(value)
        return b"".join(parts)

    def decode(self, message: bytes) -> dict[str, Any]:
        """All fields by name, octets or a number as the table says; raises `PeerProtocolError` if the length
        is another."""
        if len(message) != self.octets:
            raise PeerProtocolError(self.refusal, f"{self.name} of {len(message)} octets")
        values: dict[str, bytes | int] = {}
        at = 0
        for one in self.fields:
            raw = message[at : at + one.octets]
            values[one.name] = raw if one.kind == "octets" else int.from_bytes(raw, "big")
            at += one.octets
        return values


# --- Message 1, the offer: R to S, in the EHLO reply, unencrypted --------------------------------------

OFFER_PAYLOAD: Final = Layout(
    "offer payload",
    (
        Field("identity", ED25519_PUBLIC_OCTETS),
        Field("epoch", _U32, "number"),
        Field("flags", _U16, "number"),
        Field("signature", ED25519_SIGNATURE_OCTETS),
    ),
    Reason.BAD_OFFER,
)
"""The signature covers its label, the transcript hash behind `s`, and the fields before it."""

OFFER_SIGNED: Final = Layout(
    "what is signed of an offer",
    (Field("hash", HASH_OCTETS), *OFFER_PAYLOAD.fields[:-1]),
    Reason.BAD_OFFER,
)

# --- Message 2, the answer: S to R, in a frame behind the verb; the payload is encrypted ---------------

ANSWER_PAYLOAD: Final = Layout(
    "answer payload",
    (
        Field("identity", ED25519_PUBLIC_OCTETS),
        Field("epoch", _U32, "number"),
        Field("not_after", _U32, "number"),
        Field("flags", _U16, "number"),
        Field("endorsement", ED25519_SIGNATURE_OCTETS),
        Field("address", 16),
        Field("port", _U16, "number"),
    ),
    Reason.BAD_FRAME,
)

# --- The resumed form: both messages have one payload each, both encrypted ------------------------------

TICKET_NAME_OCTETS: Final = 16
TICKET_SECRET_OCTETS: Final = 32

RESUMED_OFFER_PAYLOAD: Final = Layout(
    "resumed offer payload", (Field("flags", _U16, "number"),), Reason.BAD_OFFER
)
RESUMED_ANSWER_PAYLOAD: Final = Layout(
    "resumed answer payload",
    (Field("flags", _U16, "number"), Field("address", 16), Field("port", _U16, "number")),
    Reason.BAD_FRAME,
)
RESUMED_OFFER_OCTETS: Final = (
    TICKET_NAME_OCTETS + X25519_OCTETS + RESUMED_OFFER_PAYLOAD.octets + AEAD_TAG_OCTETS
)
RESUMED_ANSWER_OCTETS: Final = X25519_OCTETS + RESUMED_ANSWER_PAYLOAD.octets + AEAD_TAG_OCTETS

# --- STATEMENT record: the old identity leads to the new one -------------------------------------------

STATEMENT: Final = Layout(
    "statement",
    (
        Field("old", ED25519_PUBLIC_OCTETS),
        Field("new", ED25519_PUBLIC_OCTETS),
        Field("serial", _U32, "number"),
        Field("by_old", ED25519_SIGNATURE_OCTETS),
        Field("by_new", ED25519_SIGNATURE_OCTETS),
    ),
    Reason.BAD_RECORD,
)


class OfferForm(IdentityHashed):
    """Which signed offer: with the ML-KEM key or without. It follows from the length, nothing else says it.

    A resumed handshake is of the form of the one that it goes back to.
    """

    FULL = "full"
    SHORT = "short"

    @property
    def octets(self) -> int:
        """Length of message 1: 1,350 or 166."""
        return self._kem(MLKEM_PUBLIC_OCTETS) + 2 * X25519_OCTETS + OFFER_PAYLOAD.octets

    @property
    def answer_octets(self) -> int:
        """Length of the message 2 that answers it: 1,324 or 220."""
        kem = self._kem(MLKEM_CIPHERTEXT_OCTETS + AEAD_TAG_OCTETS)
        return kem + 2 * X25519_OCTETS + AEAD_TAG_OCTETS + ANSWER_PAYLOAD.octets + AEAD_TAG_OCTETS

    def _kem(self, octets: int) -> int:
        return octets if self is OfferForm.FULL else 0

    @classmethod
    def of_offer(cls, offer: bytes) -> OfferForm:
        for form in cls:
            if len(offer) == form.octets:
                return form
        raise PeerProtocolError(Reason.BAD_OFFER, f"offer of {len(offer)} octets")


class OfferFlags(enum.IntEnum):
    """Flags of R. Several of them are a plain number, in which unknown bits are kept and mean nothing."""

    NONE = 0
    STATEMENT_FOLLOWS = 0x0001
    """R will send a STATEMENT: its identity has been rolled over."""
    KEEPS_TICKET = 0x0002
    """R keeps a ticket of this handshake, if S does."""
    UNUSED = 0x8000
    """Means nothing, for ever; set now and then so that ignoring unknown flags stays tested."""


class AnswerFlags(enum.IntEnum):
    """Flags of S, likewise."""

    NONE = 0
    KEEPS_TICKET = 0x0002
    """S keeps a ticket of this handshake, if R does."""
    UNUSED = 0x8000
    """Means nothing, for ever."""


@dataclass(frozen=True, slots=True)
class DialledAddress:
    """Where S believes it dialled: 16 octets (IPv4 as ::ffff:a.b.c.d) and a port."""

    address16: bytes
    port: int

    def __post_init__(self) -> None:
        if len(self.address16) != 16 or not 0 <= self.port < 1 << 16:
            raise LocalMisuseError("an address has 16 octets and a port of 16 bits")

    @classmethod
    def from_text(cls, address: str, port: int) -> DialledAddress:
        parsed = ipaddress.ip_address(address)
        if isinstance(parsed, ipaddress.IPv4Address):
            return cls(b"\0" * 10 + b"\xff\xff" + parsed.packed, port)
        return cls(parsed.packed, port)

    @property
    def address(self) -> str:
        """As text, an IPv4 address as such."""
        parsed = ipaddress.IPv6Address(self.address16)
        return str(parsed.ipv4_mapped or parsed)

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}"


_PROLOGUE_LABEL: Final = b"Nightmail 1\0"


def prologue(from_receiver: bytes, from_sender: bytes) -> bytes:
    """What the two mail servers said, as the handshake binds it.

    `from_receiver`: greeting and EHLO reply as the sender's mail server sees them (without offer lines).
    `from_sender`: everything up to the verb.
    """
    parts = [_PROLOGUE_LABEL]
    for octets in (from_receiver, from_sender):
        parts += (len(octets).to_bytes(_U32, "big"), octets)
    return b"".join(parts)
