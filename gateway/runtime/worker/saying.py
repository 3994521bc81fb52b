"""What a worker says to the supervisor: an alarm, or a peer that is new, waits where there is no room.

The link is full when the supervisor has stood still for a while: a reload, a slow disk, very many clients to
be told of. All else that is lost is said again by a later session; but one in the middle comes once, and who
is remembered without his alarm never rings. What comes again by itself leaves half of the places to alarms
that may come once.
Counterparts: `link`, which never waits; `worker`, whose proofs of life are when it is tried again.
"""

from __future__ import annotations

import json
from collections import deque
from typing import Final

from gateway.observe.counters import OF_CLIENTS
from gateway.policy import limits
from gateway.runtime.link import Link, Message

_TO_BE_HEARD: Final = frozenset({"alarm", "remember"})
_OF_CLIENTS: Final = frozenset(reason.value for reason in OF_CLIENTS)


class Saying:
    """In the order in which it was said, as far as it must be heard."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._unheard: deque[Message] = deque()

    def say(self, message: Message) -> bool:
        """Whether it has left, or will."""
        if not _is_to_be_heard(message):
            return self._link.send(message)
        if not self._unheard and self._link.send(message):
            return True
        # The newest goes: a peer that is remembered stands behind its alarm. And what no link takes, however
        # empty it is, must not stand before all others.
        if len(self._unheard) >= limits.UNHEARD_KEPT or len(json.dumps(message)) > limits.UNHEARD_OCTETS:
            return False
        if self._crowds(message):
            return False
        self._unheard.append(message)
        return True

    def _crowds(self, message: Message) -> bool:
        if not _comes_again(message):
            return False
        return 2 * (sum(map(_comes_again, self._unheard)) + 1) > limits.UNHEARD_KEPT

    def again(self) -> None:
        """What waits, as far as there is room now."""
        while self._unheard and self._link.send(self._unheard[0]):
            self._unheard.popleft()


def _is_to_be_heard(message: Message) -> bool:
    """A first upgrade, too: a minute later clients rest again at the gate, unless the supervisor ends it."""
    return bool(message.keys() & _TO_BE_HEARD) or bool(message.get("source", {}).get("new"))


def _comes_again(message: Message) -> bool:
    """In the next session of the same peer or client. Others can make very many of these."""
    return "alarm" not in message or message["alarm"].get("reason") in _OF_CLIENTS
