"""A gateway of the second implementation in the product's clothes, and what drives either kind alone.

Product events go in, product commands come out, so that `tests.pair` takes it for one of the product's
sessions. There is no logic of the protocol here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.errors import Reason
from gateway.session import commands as c
from gateway.session.events import (
    DeadlineReached,
    EndReceived,
    Event,
    OctetsReceived,
    RedialFailed,
    Redialled,
    ResetReceived,
    Side,
)
from gateway.session.sending import SendingSession
from tests.holding import ReceivingMachine
from tests.playbook import DIALLED, TODAY, entropy_for_testing_only, octets
from tests.second.curve25519 import ed25519_public
from tests.second.gateway import Do
from tests.second.receiving import Receiving
from tests.second.sending import Sending

HERE = (DIALLED.address16, DIALLED.port)
SEED_S, SEED_R, SEED_NEW = (octets(f"second seed {label}", 32) for label in ("S", "R", "new R"))
STATIC_S, STATIC_R = (octets(f"second static {label}", 32) for label in ("S", "R"))
R_IDENTITY, NEW_IDENTITY = ed25519_public(SEED_R), ed25519_public(SEED_NEW)

SIDES = {"near": Side.NEAR, "far": Side.FAR}
COMMANDS: dict[str, Callable[[Side], c.Command]] = {
    "end": c.SendEnd,
    "reset": c.SendReset,
    "stop reading": c.PauseReading,
    "read": c.ResumeReading,
}


class Dressed:
    """`handle` and `deadline`, as of a session."""

    def __init__(self, gateway: Sending | Receiving) -> None:
        self.gateway = gateway
        self.told: list[tuple[str, str]] = []
        """Alarms and notices."""

    @property
    def deadline(self) -> float | None:
        return self.gateway.deadline

    def handle(self, event: Event, now: float) -> list[c.Command]:
        gateway = self.gateway
        gateway.now = now
        if isinstance(event, DeadlineReached):
            gateway.clock(now)
        elif isinstance(event, RedialFailed):
            assert isinstance(gateway, Sending)
            gateway.dial_failed()
        elif isinstance(event, OctetsReceived):
            near = event.side is Side.NEAR
            (gateway.from_near if near else gateway.from_far)(event.octets)
        elif isinstance(event, EndReceived):
            (gateway.near_ended if event.side is Side.NEAR else gateway.far_ended)()
        elif isinstance(event, ResetReceived):
            (gateway.near_was_reset if event.side is Side.NEAR else gateway.far_was_reset)()
        done, gateway.out = gateway.out, []
        return [command for do in done if (command := self._command(do)) is not None]

    def _command(self, do: Do) -> c.Command | None:
        what, argument = do[0], do[-1]
        if isinstance(argument, bytes):
            return c.SendOctets(SIDES[what], argument)
        if what in ("alarm", "notice"):
            self.told.append((what, argument))
            return None
        if what == "dial":
            return c.Redial()
        verb, _, side = what.rpartition(" ")
        return COMMANDS[verb](SIDES[side])


def second_s(seed: bytes = SEED_S, dialled: tuple[bytes, int] = HERE, **more: Any) -> Dressed:
    drawn = entropy_for_testing_only("second S")
    return Dressed(Sending(drawn, seed, STATIC_S, TODAY, dialled, **more))


def second_r(
    label: str = "", seed: bytes = SEED_R, reached_as: tuple[bytes, int] = HERE, **more: Any
) -> Dressed:
    drawn = entropy_for_testing_only(f"second R {label}")
    return Dressed(Receiving(drawn, seed, STATIC_R, TODAY, reached_as, **more))


Machine = SendingSession | ReceivingMachine | Dressed


class Alone:
    """One gateway of either kind, and what came of it."""

    def __init__(self, machine: Machine) -> None:
        self.relays = False
        self.machine = machine
        self.now = 1000.0
        self.near = self.far = b""
        self.was_reset: set[Side] = set()
        self.ended: set[Side] = set()
        self.dials = 1
        self.remembered: list[c.RememberPeer] = []
        self.facts: list[c.NoteFact] = []
        self._decisions: list[c.NoteDecision] = []

    def happens(self, event: Event) -> Alone:
        if self.relays and isinstance(event, OctetsReceived):
            self._done(c.SendOctets(event.side.other, event.octets))
            return self
        for command in self.machine.handle(event, self.now):
            self._done(command)
        return self

    def _done(self, command: c.Command) -> None:
        if isinstance(command, c.SendOctets):
            if command.side is Side.NEAR:
                self.near += command.octets
            else:
                self.far += command.octets
        elif isinstance(command, c.SendReset):
            self.was_reset.add(command.side)
        elif isinstance(command, c.SendEnd):
            self.ended.add(command.side)
        elif isinstance(command, c.CloseBoth):
            self.ended |= set(Side)
        elif isinstance(command, c.Redial):
            self.dials += 1
        elif isinstance(command, c.RelayInClear):
            self.relays = True
        elif isinstance(command, c.RememberPeer):
            self.remembered.append(command)
        elif isinstance(command, c.NoteFact):
            self.facts.append(command)
        elif isinstance(command, c.NoteDecision):
            self._decisions.append(command)

    def from_near(self, said: bytes) -> Alone:
        return self.happens(OctetsReceived(Side.NEAR, said))

    def from_far(self, said: bytes) -> Alone:
        return self.happens(OctetsReceived(Side.FAR, said))

    def near_ends(self) -> Alone:
        return self.happens(EndReceived(Side.NEAR))

    def far_ends(self) -> Alone:
        return self.happens(EndReceived(Side.FAR))

    def time_passes(self) -> Alone:
        assert self.machine.deadline is not None
        self.now = self.machine.deadline
        return self.happens(DeadlineReached())

    def redialled(self) -> Alone:
        return self.happens(Redialled())

    @property
    def rings(self) -> bool:
        if isinstance(self.machine, Dressed):
            return any(what == "alarm" for what, _ in self.machine.told)
        return any(decision.alarm for decision in self._decisions)

    @property
    def reason(self) -> Reason | None:
        """The product's word for what it has decided."""
        return self._decisions[-1].reason if self._decisions else None

    @property
    def refused(self) -> str | None:
        """The check that failed, in the second implementation's words."""
        return self.machine.gateway.refused if isinstance(self.machine, Dressed) else None
