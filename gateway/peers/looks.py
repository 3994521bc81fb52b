"""How a server looked when a session with it went well: its own name, and its EHLO keywords in order. Pure.

Kept with a pin so that later, when something is missing, it can be said what else has changed. No parameters
of keywords, and not the reply's first line: those may name clients. Counterpart: `policy.cause`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from gateway.policy import limits

_CODE_OCTETS = len(b"250-")


@dataclass(frozen=True, slots=True)
class Look:
    """In upper case. The reply's own first line has no keyword."""

    host: bytes
    keywords: tuple[bytes, ...]
    seen: int = field(default=0, compare=False)
    """When it was learnt; 0 for one that is only compared."""


def look_of(host: bytes, reply: bytes) -> Look:
    """Of a well-formed EHLO reply without offer lines. `host` is the greeting's."""
    # The first line echoes the client's name with some servers: without it most replies of a server are one.
    return _look(host, reply.partition(b"\r\n")[2][: limits.LOOK_OCTETS])


@lru_cache(maxsize=limits.LOOKS_CACHED)
def _look(host: bytes, lines: bytes) -> Look:
    keywords = (line[_CODE_OCTETS:].split(None, 1)[:1] for line in lines.split(b"\r\n"))
    return Look(host[: limits.NAME_OCTETS].upper(), tuple(word[0].upper() for word in keywords if word))


def with_look(looks: tuple[Look, ...], look: Look, now: int) -> tuple[Look, ...]:
    """The looks after a good session, newest first. The very same object if nothing needs writing."""
    if look in looks or (looks and 0 <= now - looks[0].seen < limits.LOOK_AGAIN_SECONDS):
        return looks
    return (Look(look.host, look.keywords, now), *looks)[: limits.LOOKS_PER_PIN]
