"""What we remember of one destination, and how what we now see compares with it. Pure.

A pin is made when a peer's first record has verified, never earlier: `updated` takes a `MetPeer`.
`compare` answers in one word and decides nothing; what follows from the word is `policy.decision`'s.
Times are whole seconds since 1970-01-01 UTC.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

from gateway.errors import IdentityHashed
from gateway.policy import limits


class Comparison(IdentityHashed):
    """What is seen now against what is remembered (docs/protocol.md, "Memory")."""

    SAME = "same"
    NEW = "new"
    """Never met, and there is an offer."""
    CHANGED = "changed"
    """Pinned, and this identity has never been seen here."""
    CHANGED_AGAIN = "changed-again"
    """Pinned, and this identity was seen here before, but nobody has accepted it: the bell rang then."""
    MISSING = "missing"
    """Pinned, and no longer offering."""
    WEAKER = "weaker"
    """A short offer where the size rule allowed a full one."""
    OLD = "old"
    """The epoch of this identity went back: a restored backup, a wrong clock."""
    FAILED = "failed"
    """The handshake failed, the second one as well."""
    UNKNOWN = "unknown"
    """Never met, and offers nothing: nearly all of the world."""


class Acceptance(enum.Enum):
    """How an identity came to be accepted, or that it is not."""

    FIRST_USE = "first-use"
    TIME = "time"
    OPERATOR = "operator"
    NOT_YET = "not-yet"


@dataclass(frozen=True, slots=True, order=True)
class Destination:
    """What a sender dialled; the key of a pin. `address` in the one form of `ipaddress`, lower case."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class _Seen(enum.Enum):
    OFFER = "offer"
    NOTHING = "nothing"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Observed:
    """What a session has seen of its far side. Made by `offered`, `missing` and `failed`."""

    seen: _Seen
    identity: bytes = b""
    epoch: int = 0
    full: bool = False
    full_fits: bool = False
    """The size rule allows a full offer in this reply."""

    @classmethod
    def offered(cls, identity: bytes, epoch: int, *, full: bool, full_fits: bool = True) -> Observed:
        return cls(_Seen.OFFER, bytes(identity), epoch, full, full_fits)

    @classmethod
    def missing(cls) -> Observed:
        return cls(_Seen.NOTHING)

    @classmethod
    def failed(cls) -> Observed:
        return cls(_Seen.FAILURE)


@dataclass(frozen=True, slots=True)
class MetPeer:
    """A peer whose first record has verified: what a `VerifiedPeer` says, fit to go to another process.

    Made from one of those and from nothing else; what was merely offered is `Observed`.
    """

    identity: bytes
    epoch: int
    full: bool


@dataclass(frozen=True, slots=True)
class PinnedIdentity:
    """One identity seen at a destination, with a channel that verified."""

    identity: bytes
    epoch: int
    """The highest one seen: day number of its static key."""
    first_seen: int
    last_seen: int
    """Right to the hour: see `updated`."""
    days_seen: int
    acceptance: Acceptance
    had_full_offer: bool
    run_since: int = 0
    """Not accepted: since when it has come with no accepted one in between. 0: no such run."""
    run_days: int = 0

    @property
    def accepted(self) -> bool:
        return self.acceptance is not Acceptance.NOT_YET


@dataclass(frozen=True, slots=True)
class Pin:
    """All that is remembered of a destination; at least one identity, at most IDENTITIES_PER_PIN."""

    destination: Destination
    identities: tuple[PinnedIdentity, ...]

    @property
    def epoch(self) -> int:
        """The highest one of an accepted identity."""
        return max((known.epoch for known in self.identities if known.accepted), default=0)

    @property
    def had_full_offer(self) -> bool:
        return any(known.had_full_offer for known in self.identities if known.accepted)

    @property
    def first_seen(self) -> int:
        return min(known.first_seen for known in self.identities)

    @property
    def last_seen(self) -> int:
        return max(known.last_seen for known in self.identities)

    def find(self, identity: bytes) -> PinnedIdentity | None:
        return next((known for known in self.identities if known.identity == identity), None)


def compare(pin: Pin | None, observed: Observed) -> Comparison:
    """One word; where several hold, the one that needs the operator most.

    CHANGED_AGAIN comes last of the bad ones, because it rings no bell: an unaccepted identity must not
    silence what an accepted one would have rung for.
    """
    if observed.seen is _Seen.FAILURE:
        return Comparison.FAILED
    if observed.seen is _Seen.NOTHING:
        return Comparison.UNKNOWN if pin is None else Comparison.MISSING
    if pin is None:
        return Comparison.NEW
    known = pin.find(observed.identity)
    if known is None:
        return Comparison.CHANGED
    if observed.full_fits and not observed.full:
        return Comparison.WEAKER
    if not known.accepted:
        return Comparison.CHANGED_AGAIN
    return Comparison.OLD if observed.epoch < known.epoch else Comparison.SAME


def updated(pin: Pin | None, destination: Destination, peer: MetPeer, now: int) -> Pin:
    """The pin after a verified channel with `peer`. The very same object if nothing needs writing.

    Seeing a known peer again is written once an hour, so that a session costs no disk write.
    """
    if pin is None:
        return Pin(destination, (_first_sight(peer, now, Acceptance.FIRST_USE),))
    known = pin.find(peer.identity)
    if known is None:
        return _with_newcomer(pin, peer, now)
    after = _seen_again(known, peer, now)
    others = tuple(_run_broken(o) if after.accepted and not o.accepted else o for o in pin.identities)
    identities = tuple(after if o.identity == known.identity else o for o in others)
    return pin if identities == pin.identities else replace(pin, identities=identities)


def accepted(pin: Pin, identity: bytes) -> Pin:
    """The pin after the operator has accepted `identity`, which must be one of it."""
    return replace(
        pin,
        identities=tuple(
            replace(known, acceptance=Acceptance.OPERATOR, run_since=0, run_days=0)
            if known.identity == identity and not known.accepted
            else known
            for known in pin.identities
        ),
    )


def without(pin: Pin, identity: bytes) -> Pin | None:
    """The pin after the operator has forgotten `identity`; None if no accepted one would be left.

    A pin of unaccepted identities alone would never say SAME again, and never NEW.
    """
    left = tuple(known for known in pin.identities if known.identity != identity)
    return replace(pin, identities=left) if any(known.accepted for known in left) else None


def _day(now: int) -> int:
    return now // limits.DAY_SECONDS


def _first_sight(peer: MetPeer, now: int, acceptance: Acceptance) -> PinnedIdentity:
    runs = acceptance is Acceptance.NOT_YET
    return PinnedIdentity(
        identity=peer.identity,
        epoch=peer.epoch,
        first_seen=now,
        last_seen=now,
        days_seen=1,
        acceptance=acceptance,
        had_full_offer=peer.full,
        run_since=now if runs else 0,
        run_days=1 if runs else 0,
    )


def _with_newcomer(pin: Pin, peer: MetPeer, now: int) -> Pin:
    """Seen, not accepted. It takes a free place or an unaccepted one's, never an accepted one's.

    With all places taken by accepted identities it is not kept, and rings each time: the operator
    has to forget one.
    """
    identities = list(pin.identities)
    if len(identities) >= limits.IDENTITIES_PER_PIN:
        unaccepted = [known for known in identities if not known.accepted]
        if not unaccepted:
            return pin
        identities.remove(min(unaccepted, key=lambda known: known.last_seen))
    return replace(pin, identities=(*identities, _first_sight(peer, now, Acceptance.NOT_YET)))


def _seen_again(known: PinnedIdentity, peer: MetPeer, now: int) -> PinnedIdentity:
    another_day = _day(now) > _day(known.last_seen)
    another_hour = now - known.last_seen >= limits.PIN_LAST_SEEN_SECONDS
    after = replace(
        known,
        epoch=max(known.epoch, peer.epoch),
        last_seen=now if another_day or another_hour else known.last_seen,
        days_seen=known.days_seen + another_day,
        had_full_offer=known.had_full_offer or peer.full,
    )
    return after if after.accepted else _run_goes_on(after, another_day, now)


def _run_goes_on(known: PinnedIdentity, another_day: bool, now: int) -> PinnedIdentity:
    """Three days over at least seven with no accepted identity in between: the peer was reinstalled."""
    if not known.run_days:
        return replace(known, run_since=now, run_days=1)
    days = known.run_days + another_day
    long_enough = _day(now) - _day(known.run_since) >= limits.ACCEPT_AFTER_DAYS
    if days >= limits.ACCEPT_AFTER_DAYS_SEEN and long_enough:
        return replace(known, acceptance=Acceptance.TIME, run_since=0, run_days=0)
    return replace(known, run_days=days)


def _run_broken(known: PinnedIdentity) -> PinnedIdentity:
    return replace(known, run_since=0, run_days=0) if known.run_days else known


@dataclass(frozen=True, slots=True)
class PathFailures:
    """Failed handshakes in a row towards a destination that has never upgraded.

    One with a pin has none of these: it is tried every time, else one tampered octet would buy an
    hour of clear text.
    """

    in_a_row: int = 0
    rest_until: int = 0

    def resting(self, now: int) -> bool:
        """Whether no upgrade is tried now. A clock set back ends the rest instead of prolonging it."""
        return now < self.rest_until <= now + limits.FAILURE_REST_MOST_SECONDS

    def one_more(self, now: int) -> PathFailures:
        in_a_row = self.in_a_row + 1
        over = in_a_row - limits.FAILURES_IN_A_ROW
        if over < 0:
            return PathFailures(in_a_row, 0)
        # The shift is bounded before it is made: a counter in a file may hold anything.
        rest = min(limits.FAILURE_REST_SECONDS << min(over, 16), limits.FAILURE_REST_MOST_SECONDS)
        return PathFailures(in_a_row, now + rest)
