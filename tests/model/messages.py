"""The messages of the handshake as symbols: fields, tokens and labels in the order of the wire.

`tests/unit/test_model.py` compares each table with the code's messages: a field that moves on one side alone
fails there. Everything that the gateways of the model say is built from these tables.
Counterparts: `gateway.crypto.messages`, `gateway.crypto.noise` (what really goes out), `gateways` (who says
it).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tests.model.world import Check, World

PROLOGUE: Final = ("from_receiver", "from_sender")
MESSAGE_1: Final = ("e", "e1", "s")
OFFER: Final = ("identity", "epoch", "flags", "signature")
OFFER_SIGNED: Final = ("h", "identity", "epoch", "flags")
MESSAGE_2: Final = ("e", "ee", "ekem1", "se", "s", "es")
ANSWER: Final = ("identity", "epoch", "not_after", "flags", "endorsement", "address", "port")
ENDORSED: Final = ("s", "epoch", "not_after")
STATEMENT: Final = ("old", "new", "serial", "by_old", "by_new")
STATEMENT_SIGNED: Final = ("old", "new", "serial")
RESUMED_1: Final = ("psk", "e")
RESUMED_2: Final = ("e", "ee")
RESUMED_OFFER: Final = ("flags",)
RESUMED_ANSWER: Final = ("flags", "address", "port")
SPLIT: Final = ("toS", "toR")
"""Which keys Split gives, in order: the first is R's to S."""

LABELS: Final = {
    "offer": b"nightmail offer\0",
    "static": b"nightmail static\0",
    "statement_old": b"nightmail statement old\0",
    "statement_new": b"nightmail statement new\0",
}
"""Each is a function symbol of its own here, so a signature of one kind is none of another."""

NOTHING: Final = "zero"
"""Stands where a check is missing and a field is therefore not bound."""

UNKEYED: Final = "none"
"""A chain that begins with no secret: everybody knows it."""

Terms = Mapping[str, str]


def message(symbol: str, fields: tuple[str, ...], terms: Terms, unbound: frozenset[str] = frozenset()) -> str:
    """`symbol(field, field, ...)` in the order of the table."""
    return f"{symbol}({','.join(NOTHING if field in unbound else terms[field] for field in fields)})"


def prologue(from_receiver: str, from_sender: str) -> str:
    return message("pro", PROLOGUE, {"from_receiver": from_receiver, "from_sender": from_sender})


def hashed(world: World, said: str, tokens: Terms, unbound: frozenset[str] = frozenset()) -> str:
    """The transcript hash behind message 1's tokens."""
    terms = {"prologue": said, **tokens}
    missing = unbound if world.has(Check.PROLOGUE) else unbound | {"prologue"}
    return message("h", ("prologue", *MESSAGE_1), terms, missing)


def offer_signed(world: World, said: str, tokens: Terms, payload: Terms) -> str:
    """What R's identity signs in an offer."""
    unbound = set() if world.has(Check.E1_SIGNED) else {"e1"}
    if not world.has(Check.CONNECTION_SIGNED):
        unbound |= {"prologue", "e", "e1"}
    left_out = {"epoch": Check.EPOCH_SIGNED, "flags": Check.FLAGS_SIGNED}
    unsigned = {field for field, check in left_out.items() if not world.has(check)}
    terms = {"h": hashed(world, said, tokens, frozenset(unbound)), **payload}
    return message("offer", OFFER_SIGNED, terms, frozenset(unsigned))


def endorsed(world: World, terms: Terms) -> str:
    """What S's identity signs once for each static key."""
    dates = frozenset() if world.has(Check.DATES_SIGNED) else frozenset({"epoch", "not_after"})
    return message("static", ENDORSED, terms, dates)


@dataclass(frozen=True, slots=True)
class Keys:
    """The secrets and public values that meet in one handshake, as terms.

    `x`, `u`: R's ephemeral and static secret; `y`, `z`: S's. `kem`, `ciphertext`: what the ML-KEM key gives,
    None where the offer is short.
    """

    x: str
    u: str
    y: str
    z: str
    kem: str | None
    ciphertext: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Message 2 as it is on the wire, and the chaining key behind its last token."""

    parts: tuple[str, ...]
    chain: str


def answer(world: World, keys: Keys, message_1: str, payload: str) -> Answer:
    """Walks message 2's tokens as Noise does: each exchange enters the chain, each field is sealed under it.

    The transcript enters as associated data only. It names the ciphertext for every field behind `e`.
    """
    exchanges = {
        "ee": f"dh({keys.x},{keys.y})",
        "ekem1": keys.kem,
        "se": f"dh({keys.u},{keys.y})",
        "es": f"dh({keys.x},{keys.z})",
    }
    transcript = f"tr({message_1},pub({keys.y}),{keys.ciphertext or 'none'})"
    parts, chain = [], ""
    for token in MESSAGE_2:
        if token == "e":
            parts.append(f"pub({keys.y})")
        elif token == "s":
            parts.append(f"aead({chain},{transcript},pub({keys.z}))")
        elif token == "ekem1" and keys.ciphertext:
            parts.append(keys.ciphertext)
        if token in exchanges and (secret := exchanges[token]) and world.has_token(token):
            chain = f"mix({chain},{secret})" if chain else secret
    parts.append(f"aead({chain},{transcript},{payload})")
    return Answer(tuple(parts), chain)


def ticket(chain: str) -> str:
    """The secret of the ticket that a handshake leaves. The real one depends on its transcript, too."""
    return f"ticket({chain})"


def resumed(world: World, secret: str, x: str, y: str) -> tuple[str, str]:
    """The chains behind messages 1 and 2 of the handshake with a ticket; `x`, `y` are its ephemerals.

    With a pre-shared key each `e` enters the chain as well.
    """
    mixed = {"psk": secret, "ee": f"dh({x},{y})"}
    chains, chain = [], UNKEYED
    for e, tokens in ((x, RESUMED_1), (y, RESUMED_2)):
        for token in tokens:
            if token == "e":
                chain = f"mix({chain},pub({e}))"
            elif world.has_token(token):
                chain = mixed[token] if chain == UNKEYED else f"mix({chain},{mixed[token]})"
        chains.append(chain)
    return chains[0], chains[1]


def resumed_offer(world: World, key: str, said: str, e: str, flags: str) -> str:
    """Its sealed payload. That is public, and so stands with what the tag covers."""
    payload = message("again", RESUMED_OFFER, {"flags": flags})
    covered = f"h_again({said if world.has(Check.PROLOGUE) else NOTHING},{e},{payload})"
    return f"aead({key},{covered},none)"


def resumed_answer(world: World, key: str, said: str, es: tuple[str, str], payload: Terms) -> str:
    """The same of message 2; `es` are the two ephemeral keys."""
    sealed = message("answered", RESUMED_ANSWER, payload)
    covered = f"tr_again({said if world.has(Check.PROLOGUE) else NOTHING},{','.join(es)},{sealed})"
    return f"aead({key},{covered},none)"


def to_s(world: World, chain: str) -> str:
    """The key of R's records."""
    return f"{SPLIT[0]}({chain})"


def to_r(world: World, chain: str) -> str:
    """The key of S's records."""
    return f"{SPLIT[1 if world.has(Check.TWO_KEYS) else 0]}({chain})"
