"""What both sides' machines have in common: the walk through the table, the pause, CHANNEL, the ways out.

What a machine does from its handshake's end on is the same whoever sends, and so is how it passes what it
only observes. Counterparts: `session.sending` and `session.receiving`, which are machines; `session.channel`,
which knows what the octets mean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from gateway.errors import IdentityHashed, LocalMisuseError, Reason
from gateway.session.channel import Channel
from gateway.session.commands import (
    Command,
    NoteDecision,
    PauseReading,
    RelayInClear,
    ResumeReading,
    SendOctets,
    SendReset,
)
from gateway.session.events import DeadlineReached, EndReceived, Event, OctetsReceived, ResetReceived, Side
from gateway.smtp.events import Observation, Passed, Unparsed
from gateway.smtp.observer import Observer

Handler = Callable[..., list[Command]]
Table = Mapping[tuple[IdentityHashed, type[Event], Side | None], Handler]


class Machine(ABC):
    """`handle(event, now)` answers commands; `deadline` is when it wants `DeadlineReached`, or None."""

    _TABLE: ClassVar[Table]
    _RECEIVER: ClassVar[Side]
    """Where the mail server stands that is sent to; the sender is on the other side."""
    _CHANNEL: ClassVar[IdentityHashed]
    _RELAYED: ClassVar[IdentityHashed]
    _OVER: ClassVar[IdentityHashed]
    """Its own states of these names; in the last two nothing that happens means anything any more."""

    state: IdentityHashed

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._channel: Channel | None = None
        self._paused = False
        """Whether the near side is not read."""
        self.deadline: float | None = None

    @property
    def waits_for_silence(self) -> bool:
        """Whether `deadline` is that of a large flight's end: it only counts while the near side is read."""
        return self.state is self._CHANNEL

    @property
    def octets_kept(self) -> int:
        """Of the near side, until there is a decision. That comes whether or not more of them do."""
        return 0

    @property
    def channel_broke(self) -> bool | None:
        """As `Channel.broke`; None where there was no channel."""
        return None if self._channel is None else self._channel.broke

    def handle(self, event: Event, now: float) -> list[Command]:
        side = getattr(event, "side", None)
        handler = self._TABLE.get((self.state, type(event), side))
        if handler is None:
            if self.state in (self._RELAYED, self._OVER):
                return []
            raise LocalMisuseError(f"{type(event).__name__} {side} in state {self.state.value}")
        return handler(self, event, now)

    # --- Observing -----------------------------------------------------------------------------------

    def _observed(self, observations: list[Observation], now: float) -> list[Command]:
        commands: list[Command] = []
        for observation in observations:
            if isinstance(observation, Passed):
                commands.append(self._pass_on(observation))
            elif isinstance(observation, Unparsed):
                commands = self._no_reply(observation, commands)
            else:
                commands += self._reply_complete(observation.octets, now)
        return commands

    @abstractmethod
    def _no_reply(self, unparsed: Unparsed, passed: list[Command]) -> list[Command]:
        """There is no EHLO reply to judge, nor will be. `passed`: all that was held, on its way."""

    @abstractmethod
    def _reply_complete(self, reply: bytes, now: float) -> list[Command]:
        """The EHLO reply, which is held until this says where it goes."""

    def _pass_on(self, passed: Passed) -> Command:
        return SendOctets(self._RECEIVER if passed.to_receiver else self._RECEIVER.other, passed.octets)

    def _release_observed(self) -> list[Command]:
        return [self._pass_on(passed) for passed in self._observer.give_up()]

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

    def _channel_near_octets(self, event: OctetsReceived, now: float) -> list[Command]:
        assert self._channel is not None
        commands = self._channel.near_octets(event.octets, now)
        self.deadline = self._channel.flights.deadline
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
        channel = self._channel
        assert channel is not None
        if channel.far_closed or channel.statements:
            commands = self._heard(channel, commands)
        if channel.finished:
            self._end()
        else:
            self.deadline = channel.flights.deadline
        return commands

    @abstractmethod
    def _heard(self, channel: Channel, commands: list[Command]) -> list[Command]:
        """The peer has told something about itself, or has ended its direction. May be said again each time
        that something happens; answers what is to be done in all, `commands` among it."""

    # --- The ways out of the machine -----------------------------------------------------------------

    def _end(self) -> None:
        self.state = self._OVER
        self.deadline = None

    def _in_clear(self, decision: NoteDecision) -> list[Command]:
        self.state = self._RELAYED
        self.deadline = None
        return [decision, RelayInClear()]

    def _pass_reset(self, event: ResetReceived) -> list[Command]:
        """Before any decision: nobody upgrades this; the other side is reset as well."""
        by = Reason.RESET_BY_RECEIVER if event.side is self._RECEIVER else Reason.RESET_BY_SENDER
        self._end()
        told = NoteDecision(False, Reason.ENDED_BEFORE_DECISION, detail=f"cause={by.value}")
        return [told, SendReset(event.side.other)]


def in_channel(state: IdentityHashed) -> Table:
    """The rows of a machine's table for its state CHANNEL."""
    return {
        (state, OctetsReceived, Side.NEAR): Machine._channel_near_octets,
        (state, OctetsReceived, Side.FAR): Machine._channel_far_octets,
        (state, DeadlineReached, None): Machine._channel_silent,
        (state, EndReceived, Side.NEAR): Machine._channel_ended,
        (state, EndReceived, Side.FAR): Machine._channel_ended,
        (state, ResetReceived, Side.NEAR): Machine._channel_reset,
        (state, ResetReceived, Side.FAR): Machine._channel_reset,
    }
