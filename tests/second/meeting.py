"""S and R of either kind that meet again and again, and what each keeps between. For tests only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from gateway.crypto.tickets import HeldTickets, OfferedTickets, TicketsOfPair
from gateway.peers.pins import MetPeer, updated
from tests.playbook import DIALLED, REPLY, receiving, sending
from tests.second import lines
from tests.second.crafted import AT, NOW
from tests.second.dressed import Alone, Machine, second_r, second_s
from tests.second.line import Line
from tests.second.memory import Pin as SecondPin
from tests.second.resuming import is_protected
from tests.second.tickets import TicketsOfR, TicketsOfS

SOURCE = "203.0.113.1"
FULL, SHORT, RESUMED = lines.FULL_OCTETS, lines.SHORT_OCTETS, lines.RESUMED_OCTETS
FEW = settings(deadline=None, max_examples=10, suppress_health_check=list(HealthCheck))


@dataclass
class Site:
    """One of either kind, S or R, and what it keeps from session to session."""

    who: str
    tickets: Any = None
    pin: Any = None
    sessions: int = 0

    def s(self, **more: Any) -> Machine:
        if self.who == "second":
            return second_s(tickets=self.tickets, pin=self.pin, **more)
        return sending(tickets=self.tickets, pin=self.pin, **more)

    def r(self, source: str = SOURCE, **more: Any) -> Machine:
        self.sessions += 1
        label = f"resumed interop {self.sessions}"
        if self.who == "second":
            return second_r(label, tickets=self.tickets, source=source.encode(), **more)
        at_pair = TicketsOfPair(self.tickets, source, DIALLED.address)
        return receiving(tickets=at_pair, label=label, **more)

    def remembers(self, s: Alone) -> None:
        """The product's supervisor does that."""
        for one in s.remembered:
            peer = MetPeer(one.peer.identity.octets, one.peer.epoch, one.peer.form is not None)
            self.pin = updated(self.pin, AT, peer, NOW)


def an_s(who: str) -> Site:
    return Site(who, TicketsOfS(), SecondPin()) if who == "second" else Site(who, HeldTickets())


def an_r(who: str) -> Site:
    return Site(who, TicketsOfR() if who == "second" else OfferedTickets())


@dataclass
class Meeting:
    """An S and an R that meet again and again."""

    s: Site
    r: Site
    now: float = 1000.0

    def line(self, reply: bytes = REPLY, changed: Callable[[bytes], bytes] = bytes, **of_r: Any) -> Line:
        """Up to the stripped reply."""
        return Line(self.s.s(), self.r.r(**of_r), reply, now=self.now, changed=changed)

    def met(self, **of_r: Any) -> Line:
        """A whole session, which is protected."""
        line = self.line(**of_r).opened()
        assert is_protected(line)
        line.closed()
        self.s.remembers(line.s)
        assert (line.s.dials, line.s.rings) == (1, False)
        return line

    def count(self) -> tuple[int, int]:
        return len(self.s.tickets), len(self.r.tickets)


WAYS = [("second", "product"), ("product", "second"), ("product", "product"), ("second", "second")]
ALL = pytest.mark.parametrize("way", WAYS, ids=" to ".join)


def meeting(way: tuple[str, str]) -> Meeting:
    return Meeting(an_s(way[0]), an_r(way[1]))
