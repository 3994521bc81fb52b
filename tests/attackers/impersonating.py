"""The one in the middle with keys of his own: towards S he is a receiving gateway, towards R a plain sender.

He speaks the protocol with the gateway's own session machine; what S sends him he reads, keeps and passes on.
"""

from __future__ import annotations

import os
import time

from gateway.session import commands as c
from gateway.session.events import EndReceived, Event, OctetsReceived, ResetReceived, Side
from tests.attackers.attack import Act, Always, End, Fin, Kind, Piece, Rst, Say, without_offer
from tests.playbook import gateway_keys, receiving

DAY_SECONDS = 24 * 3600
_END = {Side.FAR: End.S, Side.NEAR: End.R}
_SIDE = {end: side for side, end in _END.items()}


class OwnKeys(Always):
    """`name` makes his identity: the same name, the same one."""

    def __init__(self, name: str) -> None:
        super().__init__()
        today = int(time.time()) // DAY_SECONDS
        self._keys = gateway_keys(f"impostor {name}", today)
        self._today = today
        self.read = b""
        """All that he has had in clear of S."""

    def begin(self) -> list[Act]:
        self._machine = receiving(keys=self._keys, today=self._today, entropy=os.urandom)
        self._relays = self._paused = False
        self._waiting: list[Event] = []
        return []

    def piece(self, piece: Piece) -> list[Act]:
        octets = without_offer(piece.octets) if piece.kind is Kind.REPLY else piece.octets
        return self._happens(OctetsReceived(_SIDE[piece.origin], octets))

    def end(self, origin: End) -> list[Act]:
        return self._happens(EndReceived(_SIDE[origin]))

    def reset(self, origin: End) -> list[Act]:
        return self._happens(ResetReceived(_SIDE[origin]))

    def _happens(self, event: Event) -> list[Act]:
        side = getattr(event, "side", None)
        if self._relays:
            assert side is not None
            return [_passed(event, _END[side].other)]
        if self._paused and side is Side.NEAR:
            self._waiting.append(event)
            return []
        acts: list[Act] = []
        for command in self._machine.handle(event, time.monotonic()):
            acts += self._act(command)
        while self._waiting and not self._paused:
            acts += self._happens(self._waiting.pop(0))
        return acts

    def _act(self, command: c.Command) -> list[Act]:
        if isinstance(command, c.SendOctets):
            if command.side is Side.NEAR:
                self.read += command.octets
            return [Say(_END[command.side], bytes(command.octets))]
        if isinstance(command, c.SendEnd):
            return [Fin(_END[command.side])]
        if isinstance(command, c.SendReset):
            return [Rst(_END[command.side])]
        if isinstance(command, c.CloseBoth):
            return [Fin(End.S), Fin(End.R)]
        if isinstance(command, c.PauseReading):
            self._paused = True
        elif isinstance(command, c.ResumeReading):
            self._paused = False
        elif isinstance(command, c.RelayInClear):
            self._relays = True
        return []


def _passed(event: Event, to: End) -> Act:
    if isinstance(event, OctetsReceived):
        return Say(to, event.octets)
    return Fin(to) if isinstance(event, EndReceived) else Rst(to)
