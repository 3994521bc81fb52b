"""What a query assumes: who is active, what is remembered, what leaks, and which check is missing."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Check(enum.Enum):
    """What a gateway does that could be left out. Each has a query in which the prover finds the attack."""

    SIGNATURE = "the offer's signature is verified"
    CONNECTION_SIGNED = "the offer's signature covers this connection's prologue and ephemerals"
    E1_SIGNED = "the offer's signature covers e1"
    EPOCH_SIGNED = "the offer's signature covers the epoch"
    FLAGS_SIGNED = "the offer's signature covers the flags"
    PROLOGUE = "the prologue is in the transcript"
    PAYLOAD_HASHED = "the offer's payload is in the transcript of message 2"
    EE = "ee is in the chain"
    EKEM1 = "ekem1 is in the chain"
    SE = "se is in the chain"
    ES = "es is in the chain"
    ENDORSEMENT = "the endorsement is verified"
    DATES_SIGNED = "the endorsement covers its dates"
    DATES_CHECKED = "the endorsement's dates are checked"
    ADDRESS = "R compares the dialled address"
    OWN_IDENTITY = "S refuses its own identity"
    FRESH_E = "e and e1 serve one connection"
    TWO_KEYS = "each direction has its own key"
    FULL_OFFER = "S refuses a short offer where a full one fits"
    CONFIRMED_FIRST = "nothing is remembered before R's first record"
    OLD_SIGNS = "a statement is signed by the old identity"
    NEW_SIGNS = "a statement is signed by the new identity"
    PSK = "the ticket is in the chain of a resumed handshake"
    TICKET_TAG = "S verifies the tag of a resumed offer"
    TICKET_PEER = "a ticket serves for the identity that it was made with"
    TICKET_OF_FULL = "a ticket is made in handshakes of the full form alone"
    TICKET_ROLE = "a ticket serves in the role that it was made in"
    TICKET_ONCE = "a ticket serves once"


_TOKENS = {"ee": Check.EE, "ekem1": Check.EKEM1, "se": Check.SE, "es": Check.ES, "psk": Check.PSK}


@dataclass(frozen=True, slots=True)
class World:
    """The whole protocol against an active attacker at a pinned peer, unless it is said otherwise."""

    active: bool = True
    """False: gateways take offers and answers of honest gateways only."""
    pinned: bool = True
    """S has r1's identity pinned at a1; else it takes any identity there."""
    without: frozenset[Check] = frozenset()
    stolen: tuple[str, ...] = ()
    """Secrets that the attacker has from the start."""
    stolen_later: tuple[str, ...] = ()
    """Secrets that it gets when all sessions have ended."""
    quantum_later: bool = False
    """When all sessions have ended, discrete logarithms cost nothing; ML-KEM holds."""
    short_sent: bool = False
    """R makes short offers as well."""
    s_only: str = ""
    """Honest S starts only where this holds of V, X, A: peer, R's ephemeral, dialled address."""
    r_only: str = ""
    """Honest R accepts only where this holds of C, the connection."""
    r_meets: str = "J"
    """Whose identity key honest R accepts: anybody's, or one named here."""
    tickets: bool = False
    """Both keep tickets, and R makes resumed offers as well."""
    kept_only: str = ""
    """A ticket is kept only where this holds of X, R's ephemeral in the handshake that made it."""
    never_again: frozenset[str] = frozenset()
    """Who has no resumed handshake: s1 does not start one, r1 and r2 accept none."""
    rules: tuple[str, ...] = ()
    """Further rules."""

    def has(self, check: Check) -> bool:
        return check not in self.without

    def has_token(self, token: str) -> bool:
        return token not in _TOKENS or self.has(_TOKENS[token])
