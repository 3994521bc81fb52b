"""All sessions of one worker: makes their machines, counts and logs what they decide, forwards facts.

The only place where a session meets clock, randomness, memory of peers and log. Counterparts: `intake`,
which brings pairs of sockets; `connection`, which runs one session; `hearing`, which gets the facts.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import Protocol

from gateway.config import Config, Network
from gateway.crypto.keys import EndorsementCache, Ephemerals
from gateway.crypto.messages import DialledAddress, OfferForm
from gateway.errors import Reason
from gateway.intercept.admission import Limit
from gateway.intercept.gate import DialOutcome
from gateway.intercept.syn import Flow
from gateway.observe.counters import Counters, Direction, Tally
from gateway.observe.log import Level, Log, session_id
from gateway.peers.looks import Look, with_look
from gateway.peers.pins import Destination, MetPeer, MetStatement, Pin, updated
from gateway.peers.sources import Sender, Source, SourceSeen, after_endorsement, after_upgrade
from gateway.policy import limits
from gateway.policy.budget import HandshakeBudget
from gateway.policy.cause import Sighting, likely
from gateway.policy.dead_end import ClearRuns
from gateway.policy.ignored_offers import IgnoredOffers, Neighbourhood
from gateway.runtime.connection import Connection, Machine
from gateway.runtime.link import Message
from gateway.runtime.order import Presented
from gateway.runtime.poller import Poller
from gateway.runtime.pressure import Bank
from gateway.session.commands import NoteDecision, NoteFact, NoteSource, RememberPeer
from gateway.session.context import ReceivingContext, SendingContext
from gateway.session.receiving import ReceivingSession
from gateway.session.sending import SendingSession
from gateway.smtp.events import Role

_DIRECTION = {Role.SENDING: Direction.OUT, Role.RECEIVING: Direction.IN}
_NOTICES = frozenset({Reason.UPGRADED_OLD_EPOCH, Reason.SOURCE_IN_CLEAR, Reason.SOURCE_RESTS})
_DIAL_REASON = {
    DialOutcome.REFUSED: Reason.DIAL_REFUSED,
    DialOutcome.SILENT: Reason.DIAL_SILENT,
    DialOutcome.HOST_UNREACHABLE: Reason.DIAL_UNREACHABLE,
    DialOutcome.NET_UNREACHABLE: Reason.DIAL_UNREACHABLE,
    DialOutcome.ADMIN_PROHIBITED: Reason.DIAL_UNREACHABLE,
}


class Dialler(Protocol):
    """The part of the intake that sessions use."""

    def dial(
        self,
        flow: Flow,
        done: Callable[[Flow, DialOutcome, socket.socket | None], None],
        *,
        any_port: bool = False,
    ) -> None: ...
    def ended(self, flow: Flow, *, by_reset: bool) -> None: ...


class Pins(Protocol):
    """The memory of peers, as sessions see it."""

    def pin_of(self, destination: Destination) -> Pin | None: ...
    def is_resting(self, destination: Destination) -> bool: ...
    def looks_of(self, destination: Destination) -> tuple[Look, ...]: ...
    def expect_looks(self, destination: Destination, looks: tuple[Look, ...]) -> None: ...
    def forget_for_a_while(self, destination: Destination) -> None: ...


class Sources(Protocol):
    """The memory of clients, as sessions see it."""

    def source_of(self, address: str) -> Source: ...
    def sender_of(self, identity: bytes) -> Sender: ...
    def neighbourhood_of(self, address: str) -> Neighbourhood: ...
    def expect(self, source: Source, sender: Sender) -> None: ...
    def forget_for_a_while(self, address: str) -> None: ...
    def learn(self, address: str, seen: SourceSeen) -> None: ...


class Sessions:
    """Takes pairs of connected sockets; `open` holds the sessions that have not ended."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        poller: Poller,
        config: Config,
        presented: Presented,
        log: Log,
        counters: Counters,
        tell: Callable[[Message], bool],
        pins: Pins,
        sources: Sources,
        sign: Callable[[bytes, Callable[[bytes | None], None]], None],
    ) -> None:
        self._loop = loop
        self._poller = poller
        self._config = config
        self._log = log
        self._counters = counters
        self._tell = tell
        self._pins = pins
        self._sources = sources
        self._sign = sign
        self._endorsements = EndorsementCache()
        self.present(presented)
        self._ahead: deque[Ephemerals] = deque()
        self._roles: dict[Connection, Role] = {}
        self._clear_runs = ClearRuns()
        self._ignored = IgnoredOffers()
        self._bank = Bank(config.held_octets, config.held_octets_per_source)
        self._handshakes = HandshakeBudget(
            config.handshakes_per_second, config.handshakes_per_source, loop.time()
        )
        self._told_over: dict[str, float] = {}
        self.dialler: Dialler | None = None
        self.on_empty: Callable[[], None] | None = None

    @property
    def open(self) -> int:
        return len(self._roles)

    def present(self, presented: Presented) -> None:
        """Who the site is, for sessions that begin from now on."""
        self._keys = presented.keys
        self._statements = presented.statements

    def abort_all(self) -> None:
        for connection in list(self._roles):
            connection.abort()

    def draw_ahead(self) -> None:
        """In idle time: offers then cost no key generation while a client waits."""
        if len(self._ahead) < limits.EPHEMERALS_AHEAD:
            self._ahead.append(Ephemerals.draw(os.urandom))

    # --- From the intake -------------------------------------------------------------------------------

    def pair_ready(self, flow: Flow, role: Role, accepted: socket.socket, dialled: socket.socket) -> None:
        machine: Machine
        if role is Role.SENDING:
            near, far, machine = accepted, dialled, SendingSession(self._sending_context(flow))
        else:
            near, far, machine = dialled, accepted, ReceivingSession(self._receiving_context(flow))
        account = self._bank.opened(flow.source)
        connection = Connection(
            self._loop, self._poller, self, machine, flow, session_id(os.urandom), near, far, account
        )
        self._roles[connection] = role
        self._counters.add(Tally.SESSIONS_BEGUN)
        self._counters.set(Tally.SESSIONS_OPEN, len(self._roles))
        self._fact(connection, "begun", direction=_DIRECTION[role], source=_source(flow), to=_server(flow))
        connection.start()

    def dial_failed(self, flow: Flow, role: Role, outcome: DialOutcome) -> None:
        reason = _DIAL_REASON.get(outcome, Reason.INTERNAL)
        self._counters.ended(_DIRECTION[role], reason)
        self._log.fact("gate", "dial-failed", reason=reason, source=_source(flow), to=_server(flow))

    def syn_refused(self, flow: Flow, reason: Reason) -> None:
        self._counters.ended(Direction.IN, reason)
        self._log.fact("gate", "syn-refused", reason=reason, source=_source(flow), to=_server(flow))

    def is_known(self, flow: Flow, role: Role) -> bool:
        """Whether a channel with the other end is to be expected: it has upgraded before."""
        if role is Role.SENDING:
            return self._pins.pin_of(Destination(flow.destination, flow.destination_port)) is not None
        return self._sources.source_of(flow.source).has_upgraded

    def over_limit(self, flow: Flow, limit: Limit) -> None:
        """This worker has enough of these: the SYN has passed as without us."""
        self._tell_over(limit.value, flow.source)

    def held_back(self, connection: Connection) -> None:
        assert isinstance(connection.flow, Flow)
        self._counters.add(Tally.OVER_OCTETS)
        self._tell_over("octets", connection.flow.source)

    @property
    def octets_held(self) -> int:
        return self._bank.held

    def _tell_over(self, what: str, source: str) -> None:
        now = self._loop.time()
        if now - self._told_over.get(what, -limits.OVERLOAD_TOLD_SECONDS) < limits.OVERLOAD_TOLD_SECONDS:
            return
        self._told_over[what] = now
        detail = f"the latest from {source}"
        self._log.fact(
            "gate", "over-limit", level=Level.NOTICE, reason=Reason.OVERLOADED, limit=what, detail=detail
        )
        self._tell({"alarm": {"reason": Reason.OVERLOADED.value, "subject": what, "detail": detail}})

    # --- From the connections --------------------------------------------------------------------------

    def redial(self, connection: Connection) -> None:
        self._counters.add(Tally.REDIALS)
        assert self.dialler is not None
        assert isinstance(connection.flow, Flow)

        def done(flow: Flow, outcome: DialOutcome, dialled: socket.socket | None) -> None:
            if dialled is not None:
                connection.redialled(dialled)
            elif outcome is DialOutcome.PORTS_BUSY and self.dialler is not None:
                # The old connection still stands somewhere between: the same address, another port.
                self.dialler.dial(flow, last, any_port=True)
            else:
                connection.redial_failed()

        def last(flow: Flow, outcome: DialOutcome, dialled: socket.socket | None) -> None:
            if dialled is not None:
                connection.redialled(dialled)
            else:
                connection.redial_failed()

        self.dialler.dial(connection.flow, done)

    def sign_offer(self, connection: Connection, to_sign: bytes) -> None:
        self._sign(to_sign, connection.offer_signed)

    def remember_peer(self, connection: Connection, note: RememberPeer) -> None:
        assert isinstance(connection.flow, Flow)
        peer = note.peer
        destination = Destination(connection.flow.destination, connection.flow.destination_port)
        met = MetPeer(peer.identity.octets, peer.epoch, peer.form is OfferForm.FULL)
        pin = self._pins.pin_of(destination)
        # With nothing new, the usual case, it costs no message and no transaction.
        if pin is None or updated(pin, destination, met, int(time.time()), note.statement) is not pin:
            self._pins.forget_for_a_while(destination)
            where = {"address": destination.address, "port": destination.port, "new": pin is None}
            who = {"identity": met.identity.hex(), "epoch": met.epoch, "full": met.full}
            self._tell({"remember": {**where, **who, **_statement(note.statement)}})
        if note.look is not None:
            self._learn_look(destination, note.look)

    def _learn_look(self, destination: Destination, look: Look) -> None:
        known = self._pins.looks_of(destination)
        after = with_look(known, look, int(time.time()))
        if after is known:
            return  # the usual case
        self._pins.expect_looks(destination, after)
        where = {"address": destination.address, "port": destination.port}
        seen = {"host": look.host.decode("latin-1"), "keywords": b" ".join(look.keywords).decode("latin-1")}
        self._tell({"look": {**where, **seen}})

    def note_source(self, connection: Connection, note: NoteSource) -> None:
        assert isinstance(connection.flow, Flow)
        address, now = connection.flow.source, int(time.time())
        learnt: Message = {"address": address, "seen": note.seen.value}
        if note.seen is SourceSeen.UPGRADED:
            today = now // limits.DAY_SECONDS
            before = self._sources.source_of(address)
            source = after_upgrade(before, note.name, today)
            sender = after_endorsement(self._sources.sender_of(note.identity), note.epoch, today)
            is_new = not (before.has_upgraded and self._sources.sender_of(note.identity).epoch)
            self._sources.expect(source, sender)
            if is_new:
                self._ignored.somebody_is_new()
            who = {"name": note.name.hex(), "identity": note.identity.hex(), "epoch": note.epoch}
            self._tell({"source": {**learnt, **who, "new": is_new}})
        else:
            if note.seen is SourceSeen.DROPPED:
                self._ignored.anything_else(address)
            self._sources.learn(address, note.seen)
            self._tell({"source": learnt})

    def learn_source(self, address: str, seen: SourceSeen) -> None:
        """What another worker has seen: a client's drops and goings-on, and upgrades that were the first."""
        if seen is SourceSeen.UPGRADED:
            self._sources.forget_for_a_while(address)
            self._ignored.somebody_is_new()
        else:
            self._sources.learn(address, seen)

    def note_decision(self, connection: Connection, note: NoteDecision) -> None:
        direction = _DIRECTION[self._roles[connection]]
        self._counters.decided(direction, note.upgraded, note.reason)
        level = Level.NOTICE if note.alarm or note.reason in _NOTICES else Level.INFO
        cause = self._likely(connection, direction, note.seen)
        self._fact(
            connection,
            "decided",
            level=level,
            reason=note.reason,
            direction=direction,
            protected=note.upgraded,
            detail=note.detail or None,
            likely=cause,
        )
        if self._config.dead_end_minutes and direction is Direction.OUT:
            self._note_offers(connection, note.reason)
        if direction is Direction.IN:
            self._note_taking(connection, note)
        if note.reason is Reason.HANDSHAKE_FAILED and direction is Direction.OUT:
            self._note_failure(connection)
        if note.alarm:
            assert isinstance(connection.flow, Flow)
            flow = connection.flow
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
        assert isinstance(connection.flow, Flow)
        destination = Destination(connection.flow.destination, connection.flow.destination_port)
        return likely(seen, self._pins.looks_of(destination))

    def _tell_cause(self, connection: Connection, cause: Reason) -> None:
        """To the supervisor, who writes it down, and can ask the kernel where a reset came from."""
        assert isinstance(connection.flow, Flow)
        self._tell({"cause": {"session": connection.session_id, **_whereabouts(connection.flow, cause)}})

    def _note_failure(self, connection: Connection) -> None:
        """Remembered for a path without a pin only: a pinned one is tried every time."""
        assert isinstance(connection.flow, Flow)
        destination = Destination(connection.flow.destination, connection.flow.destination_port)
        if self._pins.pin_of(destination) is None:
            self._pins.forget_for_a_while(destination)
            self._tell({"failure": {"address": destination.address, "port": destination.port}})

    def _note_offers(self, connection: Connection, reason: Reason) -> None:
        assert isinstance(connection.flow, Flow)
        server = connection.flow.server
        if reason is not Reason.NO_OFFER:
            self._clear_runs.anything_else(server)
        elif self._clear_runs.offered_nothing(server):
            self._tell({"dead-end": {"address": server[0], "port": server[1]}})

    def _note_taking(self, connection: Connection, note: NoteDecision) -> None:
        """Whether the client took our offer, tried to, or ignored it."""
        assert isinstance(connection.flow, Flow)
        if note.reason is Reason.NO_VERB:
            self._ignored.ignored(connection.flow.source)
        elif note.upgraded or note.reason is Reason.HANDSHAKE_FAILED:
            self._ignored.anything_else(connection.flow.source)

    def note_fact(self, connection: Connection, note: NoteFact) -> None:
        cause = self._likely(connection, _DIRECTION[self._roles[connection]], note.seen)
        detail = note.detail or None
        self._fact(
            connection, note.event, level=Level.NOTICE, reason=note.reason, detail=detail, likely=cause
        )
        if cause is not None:
            self._tell_cause(connection, cause)

    def machine_failed(self, connection: Connection, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__} in {where.name}: {error}"
        self._fact(connection, "failed", level=Level.ERROR, reason=Reason.INTERNAL, detail=told)
        self._tell({"alarm": {"reason": Reason.INTERNAL.value, "subject": where.name, "detail": told}})

    def connection_over(self, connection: Connection) -> None:
        role = self._roles.pop(connection)
        direction = _DIRECTION[role]
        self._counters.ended(direction, connection.end_reason(role))
        self._counters.set(Tally.SESSIONS_OPEN, len(self._roles))
        protected = connection.decision is not None and connection.decision.upgraded
        octets = connection.near_octets + connection.far_octets
        self._counters.add(Tally.OCTETS_PROTECTED if protected else Tally.OCTETS_CLEAR, octets)
        self._fact(
            connection,
            "ended",
            reason=connection.end_reason(role),
            direction=direction,
            protected=protected,
            seconds=round(self._loop.time() - connection.started, 3),
            near_octets=connection.near_octets,
            far_octets=connection.far_octets,
        )
        assert isinstance(connection.flow, Flow)
        self._bank.closed(connection.flow.source)
        assert self.dialler is not None
        self.dialler.ended(connection.flow, by_reset=connection.reset_by is not None)
        if not self._roles and self.on_empty is not None:
            self.on_empty()

    # --- Surroundings of one session -------------------------------------------------------------------

    def _sending_context(self, flow: Flow) -> SendingContext:
        today = _today()
        destination = Destination(flow.destination, flow.destination_port)
        refusal = None
        if _listed(self._config.never, flow.source) or _listed(self._config.never, flow.destination):
            refusal = Reason.NEVER
        elif self._pins.is_resting(destination):
            refusal = Reason.RECENTLY_FAILED
        return SendingContext(
            keys=self._keys,
            dialled=_dialled(flow.destination, flow.destination_port),
            pin=self._pins.pin_of(destination),
            today=today,
            entropy=os.urandom,
            refusal=refusal,
        )

    def _receiving_context(self, flow: Flow) -> ReceivingContext:
        today = _today()
        unwanted = self._config.never + self._config.never_offer
        source = self._sources.source_of(flow.source)
        return ReceivingContext(
            keys=self._keys,
            dialled=_dialled(flow.destination, flow.destination_port),
            own_addresses=self._is_own_address,
            today=today,
            entropy=os.urandom,
            draw_ephemerals=self._draw_ephemerals,
            endorsements=self._endorsements,
            statements=self._statements,
            may_offer=not (_listed(unwanted, flow.source) or _listed(unwanted, flow.destination)),
            overloaded=not self._may_handshake(flow, source),
            source=source,
            source_rests=source.rest_until > 0 and source.rests(int(time.time())),
            offers_ignored=partial(self._rests, flow.source),
            sender_of=self._sources.sender_of,
        )

    def _rests(self, source: str) -> bool:
        return self._config.offers_rest and self._ignored.rests(source, self._sources.neighbourhood_of)

    def _may_handshake(self, flow: Flow, source: Source) -> bool:
        granted = self._handshakes.grants(flow.source, is_known=source.has_upgraded, now=self._loop.time())
        if not granted:
            self._counters.add(Tally.OVER_HANDSHAKES)
            self._tell_over("handshakes", flow.source)
        return granted

    def _draw_ephemerals(self) -> Ephemerals:
        return self._ahead.popleft() if self._ahead else Ephemerals.draw(os.urandom)

    def _is_own_address(self, dialled: DialledAddress) -> bool:
        return _listed(self._config.nat_addresses, dialled.address)

    def _fact(self, connection: Connection, event: str, **fields: object) -> None:
        self._log.fact("session", event, session=connection.session_id, **fields)  # type: ignore[arg-type]


@lru_cache(maxsize=limits.ADDRESSES_CACHED)
def _dialled(address: str, port: int) -> DialledAddress:
    return DialledAddress.from_text(address, port)


def _today() -> int:
    return int(time.time()) // limits.DAY_SECONDS


@lru_cache(maxsize=limits.ADDRESSES_CACHED)
def _listed(networks: tuple[Network, ...], address: str) -> bool:
    if not networks:
        return False
    parsed = ip_address(address)
    return any(parsed in network for network in networks if network.version == parsed.version)


def _statement(statement: MetStatement | None) -> Message:
    if statement is None:
        return {}
    names = {"old": statement.old.hex(), "new": statement.new.hex()}
    return {"statement": {**names, "serial": statement.serial}}


def _whereabouts(flow: Flow, cause: Reason | None) -> Message:
    if cause is None:
        return {}
    where = {"address": flow.destination, "port": flow.destination_port, "client": flow.source}
    return {"likely": cause.value, **where}


def _source(flow: Flow) -> str:
    return str(Destination(flow.source, flow.source_port))


def _server(flow: Flow) -> str:
    return str(Destination(flow.destination, flow.destination_port))
