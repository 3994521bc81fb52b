"""All sessions of one worker: makes their machines, counts and logs what they decide, rings.

Counterparts: `intake`, which brings pairs of sockets; `surroundings`, which a session is made of;
`connection`, which runs one session; `learning`, which hears what is to be remembered.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Protocol

from gateway.config import Config, Placement
from gateway.errors import Reason
from gateway.intercept.admission import Limit
from gateway.intercept.counted import counted_as
from gateway.intercept.outcomes import DialOutcome
from gateway.intercept.syn import Flow
from gateway.observe.counters import Counters, Direction, Tally
from gateway.observe.log import Level, Log, session_id
from gateway.peers.pins import Destination, in_words
from gateway.policy import limits
from gateway.policy.budget import Bucket
from gateway.policy.cause import Sighting, likely
from gateway.runtime.bug import Bug
from gateway.runtime.link import Message
from gateway.runtime.loop import Loop
from gateway.runtime.worker.connection import Connection, Machine
from gateway.runtime.worker.learning import Learning
from gateway.runtime.worker.poller import Poller
from gateway.runtime.worker.pressure import Bank
from gateway.runtime.worker.surroundings import Surroundings
from gateway.session.commands import NoteDecision, NoteFact, NoteSource, RememberPeer
from gateway.session.context import ReceivingContext
from gateway.session.receiving import ReceivingSession
from gateway.session.sending import SendingSession
from gateway.smtp.events import Role

_DIRECTION = {Role.SENDING: Direction.OUT, Role.RECEIVING: Direction.IN}
_NOTICES = frozenset({Reason.UPGRADED_OLD_EPOCH, Reason.SOURCE_IN_CLEAR, Reason.SOURCE_RESTS})
_DIAL_REASON = {
    DialOutcome.REFUSED: Reason.DIAL_REFUSED,
    DialOutcome.SILENT: Reason.DIAL_SILENT,
    DialOutcome.SWALLOWED: Reason.DIAL_SILENT,
    DialOutcome.HOST_UNREACHABLE: Reason.DIAL_UNREACHABLE,
    DialOutcome.NET_UNREACHABLE: Reason.DIAL_UNREACHABLE,
    DialOutcome.ADMIN_PROHIBITED: Reason.DIAL_UNREACHABLE,
    DialOutcome.NO_DESCRIPTOR: Reason.OVERLOADED,
    DialOutcome.PORTS_BUSY: Reason.OVERLOADED,
    DialOutcome.LOCAL_TROUBLE: Reason.DIAL_IMPOSSIBLE,
}
"""Of all that are none."""


class Dialler(Protocol):
    """The part of the intake that sessions use."""

    def dial(self, flow: Flow, done: Callable[[Flow, DialOutcome, socket.socket | None], object]) -> None: ...
    def ended(self, flow: Flow, *, by_reset: bool) -> None: ...


class Sessions:
    """Takes pairs of connected sockets; `open` holds the sessions that have not ended."""

    def __init__(
        self,
        loop: Loop,
        poller: Poller,
        config: Config,
        log: Log,
        counters: Counters,
        tell: Callable[[Message], bool],
        surroundings: Surroundings,
        sign: Callable[[bytes, Callable[[bytes | None], object]], object],
        met: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._poller = poller
        self._log = log
        self._counters = counters
        self._tell = tell
        self._surroundings = surroundings
        self._pins = surroundings.pins
        self._sources = surroundings.sources
        self.learning = Learning(surroundings, tell, met, finds_dead_ends=bool(config.dead_end_minutes))
        self._sign = sign
        self._tells_port = config.placement is Placement.HOST
        """From where it was dialled: a port that is not the client's, which the other end's log has."""
        self._roles: dict[Connection, Role] = {}
        self._bank = Bank(config.held_octets, config.held_octets_per_source)
        self._rang_for: dict[str, float] = {}
        self._lines_of_syns = Bucket(limits.LINES_OF_SYNS_PER_SECOND, loop.time())
        self.dialler: Dialler | None = None
        self.on_empty: Callable[[], object] | None = None
        loop.call_later(limits.STALL_LOOK_SECONDS, self._look)

    @property
    def open(self) -> int:
        return len(self._roles)

    def stop(self) -> None:
        """Reset those that have not ended: their senders try again."""
        for connection in list(self._roles):
            connection.stop()

    def _look(self) -> None:
        self._loop.call_later(limits.STALL_LOOK_SECONDS, self._look)
        now = self._loop.time()
        for connection in list(self._roles):
            connection.look(now)
        self._surroundings.forget_old_tickets(now)

    # --- From the intake -------------------------------------------------------------------------------

    def pair_ready(self, flow: Flow, role: Role, accepted: socket.socket, dialled: socket.socket) -> None:
        machine: Machine
        if role is Role.SENDING:
            near, far, machine = accepted, dialled, SendingSession(self._surroundings.sending(flow))
        else:
            near, far, machine = dialled, accepted, ReceivingSession(self._receiving(flow))
        account = self._bank.opened(counted_as(flow, role))
        connection = Connection(
            self._loop, self._poller, self, machine, flow, session_id(os.urandom), near, far, account
        )
        self._roles[connection] = role
        self._counters.add(Tally.SESSIONS_BEGUN)
        try:
            direction, source, to = _DIRECTION[role], _source(flow), _server(flow)
            port = dialled.getsockname()[1] if self._tells_port else None
            self._log.fact(
                "session",
                "begun",
                session=connection.session_id,
                direction=direction,
                source=source,
                to=to,
                dialled_from=port,
            )
            connection.start()
        except Exception as error:
            connection.failed(error)

    def _receiving(self, flow: Flow) -> ReceivingContext:
        context = self._surroundings.receiving(flow, self._loop.time())
        if context.overloaded:
            self._counters.add(Tally.OVER_HANDSHAKES)
            self._tell_over("handshakes", flow.source)
        return context

    def dial_failed(self, flow: Flow, role: Role, outcome: DialOutcome) -> None:
        reason = _DIAL_REASON[outcome]
        if outcome is DialOutcome.SWALLOWED and role is Role.SENDING and self.is_known(flow, role):
            # If it is only us whom the route does not let through, the mail has passed in clear.
            reason = Reason.DIAL_IMPOSSIBLE
            self._ring_for(reason, _server(flow), f"a route swallows it, {_latest(flow)}")
        self._counters.ended(_DIRECTION[role], reason)
        if role is Role.SENDING or self._may_log():
            self._log.fact("gate", "dial-failed", reason=reason, source=_source(flow), to=_server(flow))

    def syn_refused(self, flow: Flow, reason: Reason) -> None:
        self._counters.ended(Direction.IN, reason)
        if self._may_log():
            self._log.fact("gate", "syn-refused", reason=reason, source=_source(flow), to=_server(flow))

    def _may_log(self) -> bool:
        """Of a SYN from outside, which anybody may have forged: the counters have them all."""
        has_room = self._lines_of_syns.has(self._loop.time(), 0.0)
        if has_room:
            self._lines_of_syns.level -= 1
        return has_room

    def is_known(self, flow: Flow, role: Role) -> bool:
        """Whether a channel with the other end is to be expected: it has upgraded before."""
        if role is Role.SENDING:
            return self._pins.pin_of(Destination(flow.destination, flow.destination_port)) is not None
        return self._sources.source_of(flow.source).has_upgraded

    def over_limit(self, flow: Flow, limit: Limit) -> None:
        """This worker has enough of these: the SYN has passed as without us."""
        self._tell_over(limit.value, flow.source)

    def kept_from_dialling(self, flow: Flow, number: int) -> None:
        """The SYN has passed as without us, and its mail may be in clear."""
        name = errno.errorcode.get(number, str(number))
        self._ring_for(Reason.DIAL_IMPOSSIBLE, name, f"{os.strerror(number)}, {_latest(flow)}")

    def held_back(self, connection: Connection) -> None:
        self._counters.add(Tally.OVER_OCTETS)
        self._tell_over("octets", connection.flow.source)

    @property
    def octets_held(self) -> int:
        return self._bank.held

    def _tell_over(self, what: str, source: str) -> None:
        detail = f"the latest from {source}"
        if self._ring_for(Reason.OVERLOADED, what, detail):
            self._log.fact(
                "gate", "over-limit", level=Level.NOTICE, reason=Reason.OVERLOADED, limit=what, detail=detail
            )

    def _ring_for(self, reason: Reason, subject: str, detail: str) -> bool:
        """Of one subject once in a while. Whether this time."""
        now = self._loop.time()
        if now - self._rang_for.get(subject, -limits.OVERLOAD_TOLD_SECONDS) < limits.OVERLOAD_TOLD_SECONDS:
            return False
        self._rang_for[subject] = now
        self._tell({"alarm": {"reason": reason.value, "subject": subject, "detail": detail}})
        return True

    # --- From the connections --------------------------------------------------------------------------

    def redial(self, connection: Connection) -> None:
        self._counters.add(Tally.REDIALS)
        assert self.dialler is not None

        def done(flow: Flow, outcome: DialOutcome, dialled: socket.socket | None) -> None:
            if dialled is not None:
                connection.redialled(dialled)
            else:
                connection.redial_failed()

        self.dialler.dial(connection.flow, done)

    def sign_offer(self, connection: Connection, to_sign: bytes) -> None:
        self._sign(to_sign, connection.offer_signed)

    def remember_peer(self, connection: Connection, note: RememberPeer) -> None:
        self.learning.remember_peer(connection.flow, note)

    def note_source(self, connection: Connection, note: NoteSource) -> None:
        self.learning.note_source(connection.flow, note)

    def note_decision(self, connection: Connection, note: NoteDecision) -> None:
        direction = _DIRECTION[self._roles[connection]]
        self._counters.decided(direction, note.upgraded, note.reason)
        if note.resumed:
            self._counters.add(Tally.RESUMED)
        level = Level.NOTICE if note.alarm or note.reason in _NOTICES else Level.INFO
        cause = note.likely or self._likely(connection, direction, note.seen)
        self._log.fact(
            "session",
            "decided",
            level=level,
            session=connection.session_id,
            reason=note.reason,
            direction=direction,
            protected=note.upgraded,
            detail=note.detail or None,
            likely=cause,
        )
        flow = connection.flow
        self.learning.note_decision(flow, self._roles[connection], note)
        if note.alarm:
            subject = _server(flow) if direction is Direction.OUT else flow.source
            alarm = {"reason": note.reason.value, "subject": subject, "detail": note.detail}
            self._tell({"alarm": {**alarm, **_whereabouts(flow, cause)}})
        elif cause is not None and direction is Direction.OUT:
            self._tell_cause(connection, cause)

    def _likely(self, connection: Connection, direction: Direction, seen: Sighting | None) -> Reason | None:
        """What it likely was; None where nothing went wrong."""
        if seen is None:
            return None
        if direction is Direction.IN:
            return likely(seen, ())
        destination = Destination(connection.flow.destination, connection.flow.destination_port)
        return likely(seen, self._pins.looks_of(destination))

    def _tell_cause(self, connection: Connection, cause: Reason) -> None:
        """To the supervisor, who writes it down, and can ask the kernel where a reset came from."""
        self._tell({"cause": {"session": connection.session_id, **_whereabouts(connection.flow, cause)}})

    def note_fact(self, connection: Connection, note: NoteFact) -> None:
        cause = self._likely(connection, _DIRECTION[self._roles[connection]], note.seen)
        detail = note.detail or None
        self._log.fact(
            "session",
            note.event,
            level=Level.NOTICE,
            session=connection.session_id,
            reason=note.reason,
            detail=detail,
            likely=cause,
        )
        if cause is not None:
            self._tell_cause(connection, cause)

    def session_failed(self, connection: Connection, error: Exception) -> None:
        """By a bug of ours, which has ended it."""
        bug, session = Bug.of(error), connection.session_id
        self._log.fact(
            "session",
            "failed",
            level=Level.ERROR,
            session=session,
            reason=Reason.INTERNAL,
            detail=bug.detail,
        )
        self._tell(bug.alarm())

    def flow_failed(self, flow: Flow, error: Exception) -> None:
        """The same on the way to a session: there is none to name."""
        bug = Bug.of(error)
        where = {"source": _source(flow), "to": _server(flow)}
        self._log.fact(
            "gate", "failed", level=Level.ERROR, reason=Reason.INTERNAL, **where, detail=bug.detail
        )
        self._tell(bug.alarm())

    def connection_over(self, connection: Connection) -> None:
        """Whatever counting and telling make of it, the client's next connection from that port must be able
        to come."""
        role = self._roles.pop(connection)
        try:
            self._note_end(connection, role)
            if role is Role.SENDING:
                self.learning.note_channel_end(connection.flow, connection.channel_broke, self._loop.time())
        finally:
            self._bank.closed(counted_as(connection.flow, role))
            assert self.dialler is not None
            self.dialler.ended(connection.flow, by_reset=connection.was_reset)
            if not self._roles and self.on_empty is not None:
                self.on_empty()

    def _note_end(self, connection: Connection, role: Role) -> None:
        direction, reason = _DIRECTION[role], connection.end_reason(role)
        self._counters.ended(direction, reason)
        protected = connection.decision is not None and connection.decision.upgraded
        octets = connection.near_octets + connection.far_octets
        self._counters.add(Tally.OCTETS_PROTECTED if protected else Tally.OCTETS_CLEAR, octets)
        self._log.fact(
            "session",
            "ended",
            session=connection.session_id,
            reason=reason,
            direction=direction,
            protected=protected,
            seconds=round(self._loop.time() - connection.started, 3),
            near_octets=connection.near_octets,
            far_octets=connection.far_octets,
        )


def _whereabouts(flow: Flow, cause: Reason | None) -> Message:
    if cause is None:
        return {}
    where = {"address": flow.destination, "port": flow.destination_port, "client": flow.source}
    return {"likely": cause.value, **where}


def _source(flow: Flow) -> str:
    return in_words(flow.source, flow.source_port)


def _latest(flow: Flow) -> str:
    return f"the latest from {flow.source} to {_server(flow)}"


def _server(flow: Flow) -> str:
    return in_words(flow.destination, flow.destination_port)
