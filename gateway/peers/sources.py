"""What a receiving gateway remembers of its clients, and of the identities of sending gateways. Pure.

Two things by address: whether it has upgraded, so that its coming in clear is noticed, and whether it drops
its connection right behind our offer, so that a mailer that cannot read one gets its mail through. By
identity: the highest epoch. None of it decides whether mail passes. Days are UTC days since 1970-01-01.
Every `after_` function answers the very same object if nothing needs writing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from gateway.errors import IdentityHashed, Reason
from gateway.policy import limits

CAME_IN_CLEAR: Final = frozenset(
    {
        Reason.NO_VERB,
        Reason.HELO,
        Reason.NOT_EHLO,
        Reason.EARLY_TALKER,
        Reason.PIPELINED_BEHIND_EHLO,
        Reason.ODD_COMMAND,
    }
)
"""What a sending gateway would not have let happen; all else is our own server's doing, or our operator's."""


Beginnings = tuple[str, ...]
"""A network, by how the texts of its addresses begin."""
_TRANSLATED: Final = "64:ff9b:"
"""RFC 6052, RFC 8215."""


class SourceSeen(IdentityHashed):
    """What a session tells of its client, where that is news."""

    UPGRADED = "upgraded"
    DROPPED = "dropped"
    """It never upgraded, and its connection ended right behind our offer."""
    WENT_ON = "went-on"
    """It did so once before, and now spoke on behind the offer."""


@dataclass(frozen=True, slots=True)
class Source:
    """One client's address."""

    address: str
    upgraded_day: int = 0
    """The last one; 0: never."""
    name: bytes = b""
    """How it greeted then: of one address there may be several mailers, and only one behind a gateway."""
    drops: int = 0
    """In a row, right behind an offer."""
    rest_until: int = 0
    """Seconds since 1970-01-01."""
    seen_day: int = 0

    @property
    def has_upgraded(self) -> bool:
        return self.upgraded_day > 0

    def rests(self, now: int) -> bool:
        """Whether it gets no offer now. A clock set back ends the rest instead of prolonging it."""
        return now < self.rest_until <= now + limits.SOURCE_REST_SECONDS


NOBODY: Final = Source("")
"""A client of whom nothing is remembered, and whose address does not matter."""


@dataclass(frozen=True, slots=True)
class Sender:
    """One identity of a sending gateway."""

    identity: bytes
    epoch: int = 0
    """The highest one seen; 0: never seen."""
    seen_day: int = 0


def after_upgrade(source: Source, name: bytes, today: int) -> Source:
    """It has a gateway. Written once a day, and whenever it greets as somebody else."""
    if source.upgraded_day == today and source.name == name and not source.drops:
        return source
    return Source(source.address, today, name, 0, 0, today)


def after_drop(source: Source, now: int) -> Source:
    """One that has upgraded can read offers: whatever ends its connections, it is not their length."""
    if source.has_upgraded:
        return source
    drops = source.drops + 1
    rests = drops >= limits.SOURCE_DROPS_IN_A_ROW
    return replace(
        source,
        # After the rest one more drop is enough: it has shown twice that it cannot read us.
        drops=min(drops, limits.SOURCE_DROPS_IN_A_ROW),
        rest_until=now + limits.SOURCE_REST_SECONDS if rests else 0,
        seen_day=now // limits.DAY_SECONDS,
    )


def after_going_on(source: Source, now: int) -> Source:
    """It has read our offer, and stayed."""
    if not source.drops:
        return source
    return replace(source, drops=0, rest_until=0, seen_day=now // limits.DAY_SECONDS)


def after_endorsement(sender: Sender, epoch: int, today: int) -> Sender:
    """Its handshake was accepted. Written once a day."""
    if sender.seen_day == today and epoch <= sender.epoch:
        return sender
    return Sender(sender.identity, max(epoch, sender.epoch), today)


def is_another(source: Source, name: bytes) -> bool:
    """Whether who greets so is another mailer behind the address than the one that upgraded."""
    return bool(source.name) and bool(name) and source.name != name


def is_translated(address: str) -> bool:
    """Whether it is an IPv4 address that a translator shows as IPv6: its prefix is all of IPv4, and nobody's
    network."""
    return address.startswith(_TRANSLATED)


def beginnings(address: str) -> Beginnings:
    """How the texts of all addresses of its network begin (/24, or /48 with IPv6), and those of no other one.

    Several, since a text may leave out a run of zeros (RFC 5952). Of an IPv4 address behind a translator it
    is the /16, where a part of the text ends. Empty for what is no site's address: it has no neighbours.
    Raises ValueError.
    """
    parsed = ip_address(address)
    if parsed.version == 4:
        return (address[: address.rindex(".") + 1],)
    if is_translated(address):
        at_the_end = int(parsed) >> 16 & 0xFFFF
        return (address[: address.rindex(":") + 1],) if at_the_end else ()
    first, second, third = (int(part, 16) for part in parsed.exploded.split(":")[:3])
    if not first:
        return ()
    found = [f"{first:x}:{second:x}:{third:x}:"]
    if not third:
        found.append(f"{first:x}:{second:x}::" if second else f"{first:x}::")
    return tuple(found)


@lru_cache(maxsize=limits.LOOKS_CACHED)
def greeting_name(line: bytes) -> bytes:
    """The name in an `EHLO` or `HELO` line, lower case; empty where there is none."""
    words = line.split(None, 2)
    return words[1][: limits.NAME_OCTETS].lower() if len(words) > 1 else b""
