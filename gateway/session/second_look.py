"""A redial's greeting and EHLO reply, compared with what the sender has seen of the first dial.

Says the sender's EHLO again once the greeting is complete, never before it. Only where greeting code, host
name and EHLO reply (less the offer) are equal octet for octet may the session go on over the new connection;
where the sender has seen no reply yet, that of any server will do.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.immutable import immutable
from gateway.smtp.capability import host_name, split_offer
from gateway.smtp.dialogue import Stage
from gateway.smtp.events import EhloReply, Passed, Role, Unparsed
from gateway.smtp.observer import Observer


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What the first dial has shown: the sender knows it, and every other dial must show the same.

    A plain dataclass, for it is compared: mypyc takes a class with a decorator that it does not know for one
    without `__eq__`, and two of it for equal only where they are one object.
    """

    ehlo: bytes
    """All that the sender said up to and with its EHLO line."""
    host: bytes
    """The host name in the greeting."""
    reply: bytes
    """The EHLO reply without its offer."""


@immutable
class Same:
    """The same server said the same; `offer` is the fresh offer, None where there is none.

    `look`: what it has shown; the one that it was held against, unless the sender has seen none.
    """

    greeting: bytes
    offer: bytes | None
    look: FirstLook


@immutable
class Differs:
    """Another greeting code, host name or reply, or something that is no reply to an EHLO at all."""


@immutable
class Continue:
    """Not complete yet; `say` goes to the far side (the EHLO, once)."""

    say: bytes = b""


class SecondLook:
    """Feed it what the far side says. `unshown`: the sender has seen no reply; then nothing is compared."""

    def __init__(self, seen: FirstLook, *, unshown: bool = False) -> None:
        self._observer = Observer(Role.SENDING)
        self._seen = seen
        self._unshown = unshown
        self._said = False

    def receiver_octets(self, octets: bytes) -> Same | Differs | Continue:
        for observation in self._observer.receiver_octets(octets):
            if isinstance(observation, Unparsed):
                return Differs()
            if isinstance(observation, EhloReply):
                return self._compare(observation.octets)
        if self._said or self._observer.stage is not Stage.EHLO:
            return Continue()
        self._said = True
        said = self._observer.sender_octets(self._seen.ehlo)
        if any(isinstance(one, Unparsed) for one in said):
            return Differs()
        return Continue(b"".join(one.octets for one in said if isinstance(one, Passed)))

    def _compare(self, reply: bytes) -> Same | Differs:
        greeting = self._observer.greeting
        split = split_offer(reply)
        look = FirstLook(self._seen.ehlo, host_name(greeting), split.stripped)
        return Same(greeting, split.offer, look) if self._unshown or look == self._seen else Differs()
