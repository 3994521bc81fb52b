"""What a fault is, and how a file of this folder adds to the faults of its subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from bench.chaos.ground import World
from bench.chaos.service import Service
from gateway.config import Placement

Act = Callable[[World], Iterator[None]]
"""What is done up to its `yield`, and behind it how that is undone."""

EVERYWHERE: Final = frozenset(Placement)

ITS_SESSIONS: Final = "the process that holds the sessions' sockets is gone"


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of the table. `seconds`: how long it lasts before it is undone."""

    name: str
    what: str
    undone: str
    act: Act
    seconds: float = 2.0
    breaks_tcp: str = ""
    """Why it breaks sessions by itself, whatever a gateway does; empty if it does not."""
    quick: bool = False
    """In the short selection."""
    placements: frozenset[Placement] = EVERYWHERE
    """Where it can happen."""
    breaks_on_host: str = ""
    """Why it does where the gateway is on the mail server, and only there."""

    def breaks(self, placement: Placement) -> str:
        return self.breaks_tcp or (self.breaks_on_host if placement is Placement.HOST else "")


class Subject:
    """The faults of one subject, in order."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def fault(
        self,
        name: str,
        what: str,
        undone: str,
        *,
        seconds: float = 2.0,
        breaks_tcp: str = "",
        quick: bool = False,
        placements: frozenset[Placement] = EVERYWHERE,
        breaks_on_host: str = "",
    ) -> Callable[[Act], Act]:
        """Adds what it decorates."""

        def add(act: Act) -> Act:
            one = Fault(name, what, undone, act, seconds, breaks_tcp, quick, placements, breaks_on_host)
            self.faults.append(one)
            return act

        return add


def on_daemon(letter: str) -> Callable[[Callable[[World, Service], Iterator[None]]], Act]:
    """What strikes this gateway's daemon; where there are no gateways, it does nothing."""

    def strikes(act: Callable[[World, Service], Iterator[None]]) -> Act:
        def in_world(world: World) -> Iterator[None]:
            service = world.services.get(letter)
            if service is None:
                yield
            else:
                yield from act(world, service)

        return in_world

    return strikes
