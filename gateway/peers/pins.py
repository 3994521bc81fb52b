"""What we remember of one destination. Pure.

A pin is made when a peer's first record has verified, never earlier: `updated` takes a `MetPeer`.
Times are whole seconds since 1970-01-01 UTC. Counterparts: `comparison`, which holds what is seen against a
pin; `history`, which tells what became of one.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import NamedTuple

from gateway.policy import limits


class Acceptance(enum.Enum):
    """How an identity came to be accepted, or that it is not."""

    FIRST_USE = "first-use"
    TIME = "time"
    OPERATOR = "operator"
    STATEMENT = "statement"
    """An accepted identity has led here (docs/protocol.md, "Rollover")."""
    NOT_YET = "not-yet"


def in_words(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Destination(NamedTuple):
    """What a sender dialled; the key of a pin. `address` in the one form of `ipaddress`, lower case.

    A tuple, because tuples compare and hash in C.
    """

    address: str
    port: int

    def __str__(self) -> str:
        return in_words(self.address, self.port)


@dataclass(frozen=True, slots=True)
class MetPeer:
    """A peer whose first record has verified: what a `VerifiedPeer` says, fit to go to another process.

    Made from one of those and from nothing else; what was merely offered is `Observed`.
    """

    identity: bytes
    epoch: int
    full: bool


@dataclass(frozen=True, slots=True)
class MetStatement:
    """A statement whose two signatures have verified, shown in a channel that has. Made of a
    `crypto.statement.Statement` and of nothing else."""

    old: bytes
    new: bytes
    serial: int


@dataclass(frozen=True, slots=True)
class PinnedIdentity:
    """One identity seen at a destination with a channel that verified, or announced in such a one."""

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
    serial: int = 0
    """The highest of a statement by this identity that has counted here."""
    stated_by: bytes = b""
    """The identity whose statement led here; empty: none did."""

    @property
    def announced(self) -> bool:
        """Accepted ahead, and not seen in a channel yet."""
        return not self.days_seen

    @property
    def accepted(self) -> bool:
        return self.acceptance is not Acceptance.NOT_YET


@dataclass(frozen=True, slots=True)
class Pin:
    """All that is remembered of a destination; at least one identity, at most IDENTITIES_PER_PIN."""

    destination: Destination
    identities: tuple[PinnedIdentity, ...]
    in_trouble: bool = False
    """The last thing that its history tells is a missing offer or a failure: good news is to be written."""

    @property
    def epoch(self) -> int:
        """The highest one of an accepted identity."""
        return max((known.epoch for known in self.identities if known.accepted), default=0)

    @property
    def site(self) -> bytes:
        """The accepted identity seen last: addresses of one site have it in common."""
        return max((known for known in self.identities if known.accepted), key=lambda o: o.last_seen).identity

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
        for known in self.identities:
            if known.identity == identity:
                return known
        return None


def is_accepted(pin: Pin | None, identity: bytes) -> bool:
    """Whether nothing stands against `identity` here: it is accepted, or there is no pin at all."""
    known = pin.find(identity) if pin is not None else None
    return pin is None or (known is not None and known.accepted)


def leads_on(pin: Pin, statement: MetStatement) -> bool:
    """Whether it leads on from an accepted identity of this pin, with a higher serial than all before."""
    old = pin.find(statement.old)
    return old is not None and old.accepted and statement.serial > old.serial


def updated(
    pin: Pin | None,
    destination: Destination,
    peer: MetPeer,
    now: int,
    statement: MetStatement | None = None,
) -> Pin:
    """The pin after a verified channel with `peer`, who showed `statement`. The very same object if nothing
    needs writing.

    Seeing a known peer again is written once an hour, so that a session costs no disk write.
    """
    if statement is not None and pin is not None and statement.new == peer.identity:
        pin = stated(pin, statement, now)
    pin = _seen(pin, destination, peer, now)
    if statement is not None and statement.old == peer.identity:
        pin = stated(pin, statement, now)
    return pin


def _seen(pin: Pin | None, destination: Destination, peer: MetPeer, now: int) -> Pin:
    if pin is None:
        return Pin(destination, (_first_sight(peer, now, Acceptance.FIRST_USE),))
    known = pin.find(peer.identity)
    after = _with_newcomer(pin, peer, now) if known is None else _with_seen_again(pin, known, peer, now)
    return replace(after, in_trouble=False) if after.in_trouble else after


def _with_seen_again(pin: Pin, known: PinnedIdentity, peer: MetPeer, now: int) -> Pin:
    after = _seen_again(known, peer, now)
    if after is known and len(pin.identities) == 1:
        return pin
    others = tuple(_run_broken(o) if after.accepted and not o.accepted else o for o in pin.identities)
    old = after.stated_by if now - after.first_seen >= limits.OLD_IDENTITY_DAYS * limits.DAY_SECONDS else b""
    identities = tuple(
        after if o.identity == known.identity else o for o in others if not old or o.identity != old
    )
    return pin if identities == pin.identities else replace(pin, identities=identities)


def stated(pin: Pin, statement: MetStatement, now: int) -> Pin:
    """The pin after a verified statement: its new identity accepted. The very same object if it leads nowhere
    from here, or there is no room.

    What an earlier statement of the same identity announced, and nobody has seen, is forgotten: it was taken
    back.
    """
    known = pin.find(statement.new)
    if not leads_on(pin, statement):
        return pin
    left = [
        replace(o, serial=statement.serial) if o.identity == statement.old else o
        for o in pin.identities
        if o.identity != statement.new and not (o.announced and o.stated_by == statement.old)
    ]
    if known is None:
        successor = PinnedIdentity(
            statement.new, 0, now, now, 0, Acceptance.STATEMENT, False, stated_by=statement.old
        )
    elif known.accepted:
        successor = known
    else:
        successor = replace(
            known, acceptance=Acceptance.STATEMENT, run_since=0, run_days=0, stated_by=statement.old
        )
    if len(left) >= limits.IDENTITIES_PER_PIN:
        dispensable = _dispensable(left, statement.old)
        if dispensable is None:
            return pin
        left.remove(dispensable)
    return replace(pin, identities=(*left, successor))


def _dispensable(identities: list[PinnedIdentity], old: bytes) -> PinnedIdentity | None:
    """Who makes room for an accepted successor: one not accepted, else one whose own successor has come."""
    unaccepted = [known for known in identities if not known.accepted]
    came = {known.stated_by for known in identities if not known.announced} - {old}
    replaced = [known for known in identities if known.identity in came]
    return min(unaccepted or replaced, key=lambda known: known.last_seen, default=None)


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
    another_day = known.announced or now // limits.DAY_SECONDS > known.last_seen // limits.DAY_SECONDS
    another_hour = now - known.last_seen >= limits.PIN_LAST_SEEN_SECONDS
    epoch, had_full = max(known.epoch, peer.epoch), known.had_full_offer or peer.full
    is_more = epoch != known.epoch or had_full != known.had_full_offer
    if known.accepted and not (another_day or another_hour or is_more):
        return known
    after = replace(
        known,
        epoch=epoch,
        first_seen=now if known.announced else known.first_seen,
        last_seen=now if another_day or another_hour else known.last_seen,
        days_seen=known.days_seen + another_day,
        had_full_offer=had_full,
    )
    return after if after.accepted else _run_goes_on(after, another_day, now)


def _run_goes_on(known: PinnedIdentity, another_day: bool, now: int) -> PinnedIdentity:
    """Three days over at least seven with no accepted identity in between: the peer was reinstalled."""
    if not known.run_days:
        return replace(known, run_since=now, run_days=1)
    days = known.run_days + another_day
    days_since = now // limits.DAY_SECONDS - known.run_since // limits.DAY_SECONDS
    long_enough = days_since >= limits.ACCEPT_AFTER_DAYS
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
