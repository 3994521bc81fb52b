"""Identity, static key, ephemerals: three keys, three purposes, never crossed.

An identity (Ed25519) signs and nothing else, always behind a `Label`. A static key (X25519, new each day)
exchanges and is signed: per connection by R, once a day by S (`endorse`). Ephemerals serve one handshake.
Must never hand a private key's octets out. Counterparts: `primitives` below, `handshake` above.
"""

from __future__ import annotations

import base64
import enum
import functools
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.crypto.primitives import (
    MLKEM_SEED_OCTETS,
    X25519_OCTETS,
    Ed25519Private,
    MlKemPrivate,
    X25519Private,
    ed25519_check_public,
    ed25519_verify,
    sha512,
)
from gateway.errors import CryptoRefusedError, LocalMisuseError, Reason
from gateway.policy.limits import ENDORSEMENT_DAYS, FINGERPRINTS_KEPT, VERIFIED_ENDORSEMENTS

Entropy = Callable[[int], bytes]
"""So many octets from the system's generator; handed in by `runtime`."""


class Label(enum.Enum):
    """What an identity says with a signature. No label is a prefix of another (the zero octet ends each),
    so no signature can be taken for one of another kind."""

    OFFER = b"nightmail offer\0"
    STATIC = b"nightmail static\0"
    STATEMENT_OLD = b"nightmail statement old\0"
    STATEMENT_NEW = b"nightmail statement new\0"


_FINGERPRINT_LABEL: Final = b"nightmail fingerprint\0"
_FINGERPRINT_OCTETS: Final = 20
_FINGERPRINT_GROUP: Final = 4


@functools.lru_cache(maxsize=FINGERPRINTS_KEPT)
def fingerprint_of(identity: bytes) -> str:
    """Eight groups of four letters or digits: 160 bits of a hash, to be read out on the telephone."""
    digest = sha512(_FINGERPRINT_LABEL + identity)[:_FINGERPRINT_OCTETS]
    text = base64.b32encode(digest).decode().lower()
    step = _FINGERPRINT_GROUP
    return "-".join(text[at : at + step] for at in range(0, len(text), step))


@dataclass(frozen=True, slots=True)
class IdentityPublic:
    """A site's identity as others see it: 32 octets that peers remember. Raises CryptoRefusedError."""

    octets: bytes

    def __post_init__(self) -> None:
        ed25519_check_public(self.octets)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.octets)

    def verify(self, label: Label, body: bytes, signature: bytes) -> None:
        """Return, or raise `CryptoRefusedError`."""
        ed25519_verify(self.octets, label.value + body, signature)

    def __str__(self) -> str:
        return self.fingerprint


class IdentityKey:
    """A site's signing key. One for all gateways of a site; stays until it is rolled over."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519Private) -> None:
        self._key = key
        self.public = IdentityPublic(key.public)

    @classmethod
    def from_seed(cls, seed: bytes) -> IdentityKey:
        return cls(Ed25519Private(seed))

    def sign(self, label: Label, body: bytes) -> bytes:
        return self._key.sign(label.value + body)

    def __repr__(self) -> str:
        return f"<IdentityKey {self.public.fingerprint}: redacted>"


class StaticKey:
    """The day's X25519 key; `epoch` is that day, counted from 1970-01-01 UTC."""

    __slots__ = ("epoch", "private")

    def __init__(self, private: X25519Private, epoch: int) -> None:
        self.private = private
        self.epoch = epoch

    @classmethod
    def draw(cls, entropy: Entropy, today: int) -> StaticKey:
        return cls(X25519Private(_drawn(entropy, X25519_OCTETS)), today)

    @property
    def public(self) -> bytes:
        return self.private.public

    def __repr__(self) -> str:
        return f"<StaticKey of day {self.epoch}: redacted>"


@dataclass(frozen=True, slots=True)
class EndorsedStatic:
    """S's static key with the identity's word for it. Made by `endorse` once a day."""

    identity: IdentityPublic
    static: StaticKey
    not_after: int
    endorsement: bytes


def endorse(identity: IdentityKey, static: StaticKey, today: int) -> EndorsedStatic:
    """Sign the day's key. Only for a key of today or of yesterday (drawn a moment before midnight):
    an old key endorsed anew would live longer than the protocol lets it."""
    if not today - 1 <= static.epoch <= today:
        raise LocalMisuseError(f"a static key of day {static.epoch} cannot be endorsed on day {today}")
    not_after = static.epoch + ENDORSEMENT_DAYS
    body = _endorsed_octets(static.public, static.epoch, not_after)
    return EndorsedStatic(identity.public, static, not_after, identity.sign(Label.STATIC, body))


class EndorsementCache:
    """The last endorsements that verified, so that a busy peer's costs one verification a day.

    Bounded, least recently used first out. Holds public facts only; the dates are checked each time.
    """

    __slots__ = ("_capacity", "_verified")

    def __init__(self, capacity: int = VERIFIED_ENDORSEMENTS) -> None:
        self._capacity = capacity
        self._verified: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._verified)

    def knows(self, endorsement: bytes) -> bool:
        if endorsement not in self._verified:
            return False
        self._verified.move_to_end(endorsement)
        return True

    def remember(self, endorsement: bytes) -> None:
        self._verified[endorsement] = None
        self._verified.move_to_end(endorsement)
        if len(self._verified) > self._capacity:
            self._verified.popitem(last=False)


def check_endorsement(
    identity: IdentityPublic,
    static: bytes,
    dates: tuple[int, int],
    endorsement: bytes,
    today: int,
    cache: EndorsementCache | None = None,
) -> None:
    """Return if `identity` vouches for `static` today; `dates` are epoch and not-after.

    Raises ENDORSEMENT_EXPIRED for the dates (one day of grace for clocks that differ), BAD_SIGNATURE
    for the rest. Nothing enters the cache before it has verified.
    """
    epoch, not_after = dates
    if not_after > epoch + ENDORSEMENT_DAYS or not epoch - 1 <= today <= not_after:
        raise CryptoRefusedError(
            Reason.ENDORSEMENT_EXPIRED, f"endorsed for days {epoch} to {not_after}, today is {today}"
        )
    body = _endorsed_octets(static, epoch, not_after)
    whole = identity.octets + body + endorsement
    if cache is not None and cache.knows(whole):
        return
    identity.verify(Label.STATIC, body, endorsement)
    if cache is not None:
        cache.remember(whole)


class Ephemerals:
    """R's `e` and `e1`, or S's `e`. May be drawn ahead in idle time; serve exactly one handshake."""

    __slots__ = ("_pair",)

    def __init__(self, x25519: X25519Private, mlkem: MlKemPrivate | None = None) -> None:
        self._pair: tuple[X25519Private, MlKemPrivate | None] | None = (x25519, mlkem)

    @classmethod
    def draw(cls, entropy: Entropy) -> Ephemerals:
        """For an offer of either form."""
        x25519 = X25519Private(_drawn(entropy, X25519_OCTETS))
        return cls(x25519, MlKemPrivate(_drawn(entropy, MLKEM_SEED_OCTETS)))

    @classmethod
    def draw_for_answer(cls, entropy: Entropy) -> Ephemerals:
        """For S, which needs no ML-KEM key: a fifth of the cost."""
        return cls(X25519Private(_drawn(entropy, X25519_OCTETS)))

    def take(self) -> tuple[X25519Private, MlKemPrivate | None]:
        """Both keys, once. A second use would make a replayed message 2 acceptable."""
        if self._pair is None:
            raise LocalMisuseError("ephemerals were used before")
        pair, self._pair = self._pair, None
        return pair

    def __repr__(self) -> str:
        return f"<Ephemerals {'used' if self._pair is None else 'unused'}: redacted>"


def _drawn(entropy: Entropy, octets: int) -> bytes:
    drawn = entropy(octets)
    if len(drawn) != octets:
        raise LocalMisuseError("the source of entropy gave too little")
    return drawn


def _endorsed_octets(static: bytes, epoch: int, not_after: int) -> bytes:
    return static + epoch.to_bytes(4, "big") + not_after.to_bytes(4, "big")
