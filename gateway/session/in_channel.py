"""The state CHANNEL of both sides' machines: events of either side -> the channel, and when that is over.

What a machine does from its handshake's end on is the same whoever sends. Counterparts: `session.sending` and
`session.receiving`, which are machines; `session.channel`, which knows what the octets mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from gateway.session.channel import Channel
from gateway.session.commands import Command
from gateway.session.events import DeadlineReached, EndReceived, OctetsReceived, ResetReceived, Side


class InChannel(ABC):
    """Handlers of the state CHANNEL, for the tables of the machines."""

    _channel: Channel | None
    deadline: float | None

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
