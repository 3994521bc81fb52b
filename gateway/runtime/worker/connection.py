"""Two endpoints and one session machine: events in, commands out, then a plain relay where it is in clear.

Holds no protocol knowledge. Counterpart: `session.events` and `session.commands`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Protocol

from gateway.errors import Reason
from gateway.intercept.syn import Flow
from gateway.policy import limits
from gateway.runtime.loop import Cancellable, Loop
from gateway.runtime.worker.endpoint import Endpoint, Hold
from gateway.runtime.worker.poller import Poller
from gateway.runtime.worker.pressure import Account, Bank
from gateway.session import commands as c
from gateway.session.events import (
    DeadlineReached,
    EndReceived,
    Event,
    OctetsReceived,
    OfferSigned,
    RedialFailed,
    Redialled,
    ResetReceived,
    Side,
)
from gateway.smtp.events import Role


class Machine(Protocol):
    """`session.sending.SendingSession` and `session.receiving.ReceivingSession`."""

    deadline: float | None

    @property
    def waits_for_silence(self) -> bool: ...

    @property
    def octets_kept(self) -> int: ...

    @property
    def channel_broke(self) -> bool | None: ...

    def handle(self, event: Event, now: float) -> list[c.Command]: ...


class Surroundings(Protocol):
    """What a connection asks of its worker."""

    def redial(self, connection: Connection) -> None: ...
    def sign_offer(self, connection: Connection, to_sign: bytes) -> None: ...
    def remember_peer(self, connection: Connection, note: c.RememberPeer) -> None: ...
    def note_source(self, connection: Connection, note: c.NoteSource) -> None: ...
    def note_decision(self, connection: Connection, note: c.NoteDecision) -> None: ...
    def note_fact(self, connection: Connection, note: c.NoteFact) -> None: ...
    def session_failed(self, connection: Connection, error: Exception) -> None: ...
    def connection_over(self, connection: Connection) -> None: ...
    def held_back(self, connection: Connection) -> None: ...


class Connection:
    """One session from the moment both sockets are connected until both are closed."""

    __deletable__ = ("_near", "_far")
    """What `_let_go` deletes: the compiler asks to be told."""
    __slots__ = (
        "_account",
        "_far",
        "_kept",
        "_loop",
        "_machine",
        "_near",
        "_over",
        "_poller",
        "_redialling",
        "_relayed",
        "_surroundings",
        "_timer",
        "_timer_at",
        "decision",
        "far_octets",
        "flow",
        "has_failed",
        "has_stopped",
        "near_octets",
        "reset_by",
        "session_id",
        "started",
    )

    def __init__(
        self,
        loop: Loop,
        poller: Poller,
        surroundings: Surroundings,
        machine: Machine,
        flow: Flow,
        session_id: str,
        near: socket.socket,
        far: socket.socket,
        account: Account | None = None,
    ) -> None:
        self._loop = loop
        self._poller = poller
        self._account = account if account is not None else Account(Bank())
        self._surroundings = surroundings
        self._machine = machine
        self.flow = flow
        self.session_id = session_id
        self._near = Endpoint(loop, poller, near, self, self._account)
        self._far = Endpoint(loop, poller, far, self, self._account)
        self._kept = 0
        """Octets of the near side that the machine keeps, as the account knows."""
        self._relayed = False
        self._redialling = False
        self._over = False
        self._timer: Cancellable | None = None
        self._timer_at: float | None = None
        self.decision: c.NoteDecision | None = None
        self.near_octets = 0
        """Read from the near side."""
        self.far_octets = 0
        """Read from the far side."""
        self.reset_by: Side | None = None
        self.has_failed = False
        """By a bug of ours."""
        self.has_stopped = False
        """With the gateway, which waits for it no longer."""
        self.started = loop.time()

    def start(self) -> None:
        self._near.unhold(Hold.NOT_STARTED)
        self._far.unhold(Hold.NOT_STARTED)

    def stop(self) -> None:
        """Reset both sides: the gateway stops. A process that just ends would close them, which is a FIN, and
        says to a mail server that all is in order."""
        self.has_stopped = True
        self._near.reset()
        self._far.reset()

    def look(self, now: float) -> None:
        """A peer that is alive and takes nothing any more is as good as gone; its kernel never says so."""
        for endpoint, fed in ((self._near, self.far_octets), (self._far, self.near_octets)):
            if endpoint.is_stuck(fed, now):
                self.reset_received(endpoint)

    def failed(self, error: Exception) -> None:
        """A bug of ours, wherever: this session ends, with resets that make the sender try again, and that is
        told. No other one is touched."""
        self.has_failed = True
        try:
            self._near.abandon()
            self._far.abandon()
            self._set_timer(None)
        finally:
            try:
                self._surroundings.session_failed(self, error)
            finally:
                self._end()

    @property
    def was_reset(self) -> bool:
        """Whether it ended with resets, whoever wanted them."""
        return self.reset_by is not None or self.has_failed or self.has_stopped

    @property
    def channel_broke(self) -> bool | None:
        """As `Machine.channel_broke`; what ends with us says nothing of the line."""
        return None if self.has_failed or self.has_stopped else self._machine.channel_broke

    def end_reason(self, role: Role) -> Reason:
        """How it ended, in the mail servers' terms: near is the sender where we are the sending gateway."""
        if self.has_failed:
            return Reason.INTERNAL
        if self.has_stopped:
            return Reason.STOPPED
        if self.reset_by is None:
            return Reason.CLOSED
        by_sender = (self.reset_by is Side.NEAR) == (role is Role.SENDING)
        return Reason.RESET_BY_SENDER if by_sender else Reason.RESET_BY_RECEIVER

    # --- What the endpoints tell ----------------------------------------------------------------------

    def octets_received(self, endpoint: Endpoint, octets: memoryview) -> None:
        if endpoint is self._near:
            side, other = Side.NEAR, self._far
            self.near_octets += len(octets)
        else:
            side, other = Side.FAR, self._near
            self.far_octets += len(octets)
        if self._relayed:
            other.write(octets)
        else:
            self._handle(OctetsReceived(side, bytes(octets)))
        if other.pending and other.pending > self._account.allowance:
            endpoint.hold(Hold.BY_PRESSURE)
            if other.pending <= limits.WRITE_BUFFER_OCTETS:
                self._surroundings.held_back(self)

    def end_received(self, endpoint: Endpoint) -> None:
        if not self._relayed:
            self._handle(EndReceived(Side.NEAR if endpoint is self._near else Side.FAR))
            return
        other = self._other(endpoint)
        other.end()
        if other.has_ended:
            self._close_both()

    def reset_received(self, endpoint: Endpoint) -> None:
        if endpoint.is_closed:
            return
        side = Side.NEAR if endpoint is self._near else Side.FAR
        self.reset_by = self.reset_by or side
        if not self._relayed:
            # Before the socket is closed: the last one's end is the session's, and nothing is told behind it.
            self._handle(ResetReceived(side))
        else:
            self._other(endpoint).reset()
        endpoint.reset()

    def drained(self, endpoint: Endpoint) -> None:
        if endpoint is self._near:
            self._far.unhold(Hold.BY_PRESSURE)
        else:
            self._read_near_again()
        if endpoint is self._far and self._timer is None and self._timer_at is not None:
            self._timer = self._loop.call_later(limits.FLIGHT_SILENCE_SECONDS, self._deadline_reached)

    def closed(self, endpoint: Endpoint) -> None:
        if self._near.is_closed and self._far.is_closed:
            self._end()

    def _end(self) -> None:
        """Both sockets are closed."""
        if self._over:
            return
        self._over = True
        self._redialling = False  # a redial that is still under way finds nobody
        if self._timer_at is not None:
            self._set_timer(None)
        self._account.add(-self._kept)
        self._surroundings.connection_over(self)
        self._loop.call_soon(self._let_go)

    def _let_go(self) -> None:
        """Endpoints and owner hold each other. Now all memory of this session is free, still warm, for the
        next one, and the collector finds nothing to do."""
        del self._near, self._far

    # --- What the redial tells -------------------------------------------------------------------------

    def redialled(self, far: socket.socket) -> None:
        if not self._redialling:  # the machine gave up waiting, or the near side went away
            far.close()
            return
        self._redialling = False
        self._far = Endpoint(self._loop, self._poller, far, self, self._account)
        self._handle(Redialled())
        try:
            self._far.unhold(Hold.NOT_STARTED)
        except Exception as error:
            self.failed(error)

    def redial_failed(self) -> None:
        if self._redialling:
            self._redialling = False
            self._handle(RedialFailed())

    # --- What the signer tells -------------------------------------------------------------------------

    def offer_signed(self, signature: bytes | None) -> None:
        """Later than the machine asked, never while it does; it may have given up waiting."""
        if not self._over and not self._relayed:
            self._handle(OfferSigned(signature))

    # --- The machine ------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        try:
            for command in self._machine.handle(event, self._loop.time()):
                if type(command) is c.SendOctets:  # nearly every one
                    endpoint = self._near if command.side is Side.NEAR else self._far
                    endpoint.write_in_turn(command.octets, last=command.last)
                else:
                    _EXECUTE[type(command)](self, command)
            kept = self._machine.octets_kept
        except Exception as error:
            self.failed(error)
            return
        if self._over:
            return
        if self._machine.deadline != self._timer_at:
            self._set_timer(self._machine.deadline)
        if kept != self._kept:
            self._keep(kept)

    def _keep(self, octets: int) -> None:
        """Like what waits in an endpoint; the near side is read again when the machine keeps nothing more."""
        self._account.add(octets - self._kept)
        self._kept = octets
        if octets > self._account.allowance:
            self._near.hold(Hold.BY_PRESSURE)
            self._surroundings.held_back(self)
        elif self._far.pending <= self._account.allowance:
            self._near.unhold(Hold.BY_PRESSURE)

    def _read_near_again(self) -> None:
        """Nothing of it waits for the far side any more."""
        if self._kept <= self._account.allowance:
            self._near.unhold(Hold.BY_PRESSURE)

    def _set_timer(self, deadline: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._deadline_reached)

    def _deadline_reached(self) -> None:
        try:
            waits = self._far.pending and self._machine.waits_for_silence
        except Exception as error:
            self.failed(error)
            return
        if waits:
            # The line is behind: the silence may be ours, and what is held could not leave: see `drained`.
            self._timer = None
            return
        self._timer = self._timer_at = None
        self._handle(DeadlineReached())

    def _other(self, endpoint: Endpoint) -> Endpoint:
        return self._far if endpoint is self._near else self._near

    def _endpoint(self, side: Side) -> Endpoint:
        return self._near if side is Side.NEAR else self._far

    # --- Commands ---------------------------------------------------------------------------------------

    def _send_end(self, command: c.SendEnd) -> None:
        self._endpoint(command.side).end()

    def _send_reset(self, command: c.SendReset) -> None:
        self._endpoint(command.side).reset()

    def _pause(self, command: c.PauseReading) -> None:
        self._endpoint(command.side).hold(Hold.BY_SESSION)

    def _resume(self, command: c.ResumeReading) -> None:
        self._endpoint(command.side).unhold(Hold.BY_SESSION)

    def _relay_in_clear(self, command: c.RelayInClear) -> None:
        self._relayed = True
        if self._near.has_ended and self._far.has_ended:
            self._close_both()

    def _close_both(self, command: c.CloseBoth | None = None) -> None:
        self._redialling = False
        self._near.close()
        self._far.close()

    def _redial(self, command: c.Redial) -> None:
        self._redialling = True
        self.reset_by = None  # the session goes on: how it ends is not known yet
        self._far.reset()
        self._read_near_again()  # what waited for the old connection will never drain
        if self._redialling:
            self._surroundings.redial(self)

    def _sign_offer(self, command: c.SignOffer) -> None:
        self._surroundings.sign_offer(self, command.to_sign)

    def _remember(self, command: c.RememberPeer) -> None:
        self._surroundings.remember_peer(self, command)

    def _note_source(self, command: c.NoteSource) -> None:
        self._surroundings.note_source(self, command)

    def _note_decision(self, command: c.NoteDecision) -> None:
        self.decision = command
        self._surroundings.note_decision(self, command)

    def _note_fact(self, command: c.NoteFact) -> None:
        self._surroundings.note_fact(self, command)


_EXECUTE: dict[type, Callable[..., object]] = {
    c.SendEnd: Connection._send_end,
    c.SendReset: Connection._send_reset,
    c.PauseReading: Connection._pause,
    c.ResumeReading: Connection._resume,
    c.RelayInClear: Connection._relay_in_clear,
    c.CloseBoth: Connection._close_both,
    c.Redial: Connection._redial,
    c.SignOffer: Connection._sign_offer,
    c.RememberPeer: Connection._remember,
    c.NoteSource: Connection._note_source,
    c.NoteDecision: Connection._note_decision,
    c.NoteFact: Connection._note_fact,
}
