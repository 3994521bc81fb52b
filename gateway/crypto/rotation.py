"""A site's own identity over its life: announced, used, shown to those who knew the one before. Pure.

    used --announced--> used, with a next one --switched, when its time has come--> used
                             '--withdrawn--> used

The key of an identity that is not used any more is given up at the switch: nobody can steal what is not
there. The form on disk is here too, because an export holds the same lines. Counterparts: `statement` (what
is shown), `runtime.identity_file` (where it is kept), docs/protocol.md, "Rollover".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from gateway.crypto.keys import Entropy, IdentityKey
from gateway.crypto.messages import STATEMENT
from gateway.crypto.primitives import ED25519_SEED_OCTETS
from gateway.crypto.statement import make_statement
from gateway.errors import LocalMisuseError
from gateway.policy import limits

_LAST_SERIAL: Final = (1 << 32) - 1
_SEED: Final = f"[0-9a-f]{{{2 * ED25519_SEED_OCTETS}}}"
_STATEMENT: Final = f"[0-9a-f]{{{2 * STATEMENT.octets}}}"
_WHEN: Final = "[0-9]{1,18}"
_FORM: Final = re.compile(
    rf"seed (?P<seed>{_SEED})\nsince (?P<since>{_WHEN})\nserial (?P<serial>{_WHEN})"
    rf"(\nshown (?P<until>{_WHEN}) (?P<shown>{_STATEMENT}))?"
    rf"(\nnext (?P<use_at>{_WHEN}) (?P<next>{_SEED}) (?P<statement>{_STATEMENT}))?"
)


@dataclass(frozen=True, slots=True)
class Shown:
    """The statement that led to the identity in use, and until when (seconds since 1970) it is shown."""

    statement: bytes
    until: int


@dataclass(frozen=True, slots=True, eq=False)
class Next:
    """The identity to come, and from when on it is used."""

    seed: bytes
    use_at: int
    statement: bytes

    def __repr__(self) -> str:
        return f"<Next from {self.use_at}: redacted>"


@dataclass(frozen=True, slots=True, eq=False)
class SiteIdentity:
    """What a site keeps of its own identity."""

    seed: bytes
    since: int = 0
    """When it came into use; 0: before this was written down."""
    serial: int = 0
    """Of the last statement that it made, also of one taken back."""
    shown: Shown | None = None
    next: Next | None = None

    @property
    def key(self) -> IdentityKey:
        return IdentityKey.from_seed(self.seed)

    @property
    def next_key(self) -> IdentityKey | None:
        return IdentityKey.from_seed(self.next.seed) if self.next is not None else None

    def statements(self, now: int) -> tuple[bytes, ...]:
        """What to show now, in order: how this identity came, then what will come."""
        led_here = (self.shown.statement,) if self.shown is not None and now < self.shown.until else ()
        announced = (self.next.statement,) if self.next is not None else ()
        return led_here + announced

    def __repr__(self) -> str:
        return f"<SiteIdentity {self.key.public.fingerprint}: redacted>"


def announced(site: SiteIdentity, entropy: Entropy, now: int, days: int) -> SiteIdentity:
    """With a next identity, to be used in `days`."""
    if site.next is not None:
        raise LocalMisuseError("a next identity is announced already")
    seed = entropy(ED25519_SEED_OCTETS)
    # The time as the serial: it rises even if this file is lost and comes back older.
    serial = max(site.serial + 1, now)
    statement = make_statement(site.key, IdentityKey.from_seed(seed), serial)
    return replace(site, serial=serial, next=Next(seed, now + days * limits.DAY_SECONDS, statement))


def withdrawn(site: SiteIdentity) -> SiteIdentity:
    """Without the next one, whose key is gone. Peers that know of it forget it at the next announcement."""
    return replace(site, next=None)


def hastened(site: SiteIdentity, now: int) -> SiteIdentity:
    """With the next one due now."""
    return replace(site, next=replace(site.next, use_at=now)) if site.next is not None else site


def switched(site: SiteIdentity, now: int) -> SiteIdentity:
    """After the switch, if it is due; else the very same object."""
    if site.next is None or now < site.next.use_at:
        return site
    shown = Shown(site.next.statement, now + limits.STATEMENT_SHOWN_DAYS * limits.DAY_SECONDS)
    return SiteIdentity(site.next.seed, since=now, shown=shown)


def as_lines(site: SiteIdentity) -> list[str]:
    """One fact a line, in the order that `from_lines` reads. Holds the private keys."""
    lines = [f"seed {site.seed.hex()}", f"since {site.since}", f"serial {site.serial}"]
    if site.shown is not None:
        lines.append(f"shown {site.shown.until} {site.shown.statement.hex()}")
    if site.next is not None:
        lines.append(f"next {site.next.use_at} {site.next.seed.hex()} {site.next.statement.hex()}")
    return lines


def from_lines(lines: list[str]) -> SiteIdentity | None:
    """None if they are not what `as_lines` writes."""
    found = _FORM.fullmatch("\n".join(lines))
    if found is None or int(found["serial"]) > _LAST_SERIAL:
        return None
    shown = upcoming = None
    if found["until"]:
        shown = Shown(bytes.fromhex(found["shown"]), int(found["until"]))
    if found["use_at"]:
        upcoming = Next(bytes.fromhex(found["next"]), int(found["use_at"]), bytes.fromhex(found["statement"]))
    return SiteIdentity(
        bytes.fromhex(found["seed"]), int(found["since"]), int(found["serial"]), shown, upcoming
    )
