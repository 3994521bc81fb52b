"""What both sides' machines have in common: the walk through the table, the pause, the state CHANNEL.

What a machine does from its handshake's end on is the same whoever sends. Counterparts: `session.sending` and
`session.receiving`, which are machines; `session.channel`, which knows what the octets mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from gateway.errors import IdentityHashed, LocalMisuseError
from gateway.session.channel import Channel
from gateway.session.commands import Command, PauseReading, ResumeReading
from gateway.session.events import DeadlineReached, EndReceived, Event, OctetsReceived, ResetReceived, Side

Handler = Callable[..., list[Command]]
Table = Mapping[tuple[IdentityHashed, type[Event], Side | None], Handler]


class Machine(ABC):
    """`handle(event, now)` answers commands; `deadline` is when it wants `DeadlineReached`, or None."""

    _TABLE: ClassVar[Table]
    _DONE: ClassVar[frozenset[IdentityHashed]]
    """States in which nothing that happens means anything any more."""

    state: IdentityHashed

    def __init__(self) -> None:
        self._channel: Channel | None = None
        self._paused = False
        """Whether the near side is not read."""
        self.deadline: float | None = None

    def handle(self, event: Event, now: float) -> list[Command]:
        side = getattr(event, "side", None)
        handler = self._TABLE.get((self.state, type(event), side))
        if handler is None:
            if self.state in self._DONE:
                return []
            raise LocalMisuseError(f"{type(event).__name__} {side} in state {self.state.value}")
        return handler(self, event, now)

    # --- The near side's pause -----------------------------------------------------------------------

    def _pause_near(self) -> list[Command]:
        if self._paused:
            return []
        self._paused = True
        return [PauseReading(Side.NEAR)]

    def _resume_near(self) -> list[Command]:
        if not self._paused:
            return []
        self._paused = False
        return [ResumeReading(Side.NEAR)]

    # --- In the channel ------------------------------------------------------------------------------

    @abstractmethod
    def _channel_over(self) -> None:
        """Both directions have ended, or the channel has failed."""

    def _channel_near_octets(self, event: OctetsReceived, now: float) -> list[Command]:
        assert self._channel is not None
        commands = self._channel.near_octets(event.octets, now)
        self.deadline = self._channel.deadline
        return commands

    def _channel_silent(self, event: DeadlineReached, now: float) -> list[Command]:
        assert self._channel is not None
        return self._channelled(self._channel.silence(now))

    def _channel_far_octets(self, event: OctetsReceived, now: float) -> list[Command]:
        assert self._channel is not None
        return self._channelled(self._channel.far_octets(event.octets))

    def _channel_ended(self, event: EndReceived, now: float) -> list[Command]:
        assert self._channel is not None
        near = event.side is Side.NEAR
        return self._channelled(self._channel.near_end() if near else self._channel.far_end())

    def _channel_reset(self, event: ResetReceived, now: float) -> list[Command]:
        assert self._channel is not None
        near = event.side is Side.NEAR
        return self._channelled(self._channel.near_reset() if near else self._channel.far_reset())

    def _channelled(self, commands: list[Command]) -> list[Command]:
        if self._channel is not None:
            self.deadline = self._channel.deadline
            if self._channel.finished:
                self._channel_over()
        return commands
