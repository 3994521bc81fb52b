"""What sessions teach a worker of peers, clients and dead ends; what is news of it supervisor or kernel hear.

With nothing new, the usual case, it costs no message and nobody a write.
Counterparts: `sessions`, which tells of each connection; `hearing`, which hears the news; `memory`, which
reads what became of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from gateway.crypto.messages import OfferForm
from gateway.errors import Reason
from gateway.intercept.syn import Flow
from gateway.peers.looks import Look, with_look
from gateway.peers.pins import Destination, MetPeer, MetStatement, updated
from gateway.peers.sources import SourceSeen, after_endorsement, after_upgrade
from gateway.policy import limits
from gateway.policy.broken import BrokenRuns
from gateway.policy.dead_end import ClearRuns
from gateway.runtime.link import Message
from gateway.runtime.worker.surroundings import Surroundings
from gateway.session.commands import NoteDecision, NoteSource, RememberPeer
from gateway.smtp.events import Role

_HANDSHAKE_FAILED: Final = frozenset(
    {Reason.HANDSHAKE_FAILED, Reason.OFFER_MISSING, Reason.REDIAL_DIFFERS, Reason.REDIAL_FAILED}
)
"""Sessions of a sending gateway that went on in clear behind a failed handshake, or were put off. Where
nobody is remembered, an offer is missed only by the redial behind one."""


class Learning:
    """Of all sessions of one worker. `met` ends the rest of all clients at the gate, at once.
    `finds_dead_ends`: whether the operator wants them found."""

    def __init__(
        self,
        surroundings: Surroundings,
        tell: Callable[[Message], bool],
        met: Callable[[], object],
        *,
        finds_dead_ends: bool,
    ) -> None:
        self._pins = surroundings.pins
        self._sources = surroundings.sources
        self._ignored = surroundings.ignored
        self._tell = tell
        self._met = met
        self._finds_dead_ends = finds_dead_ends
        self._clear_runs = ClearRuns()
        self._broken_runs = BrokenRuns()

    def remember_peer(self, flow: Flow, note: RememberPeer) -> None:
        """A peer has proven itself at this flow's destination."""
        peer, destination = note.peer, _destination(flow)
        met = MetPeer(peer.identity.octets, peer.epoch, peer.form is OfferForm.FULL)
        pin = self._pins.pin_of(destination)
        # One that the pin has no place for changes nothing, and is news each time: the supervisor may ring.
        is_unknown = pin is None or pin.find(met.identity) is None
        if is_unknown or updated(pin, destination, met, int(time.time()), note.statement) is not pin:
            self._pins.forget_for_a_while(destination)
            where = {"address": destination.address, "port": destination.port, "new": pin is None}
            who = {"identity": met.identity.hex(), "epoch": met.epoch, "full": met.full}
            self._tell({"remember": {**where, **who, "rang": note.rang, **_statement(note.statement)}})
        if note.look is not None:
            self._learn_look(destination, note.look)

    def _learn_look(self, destination: Destination, look: Look) -> None:
        known = self._pins.looks_of(destination)
        after = with_look(known, look, int(time.time()))
        if after is known:
            return
        self._pins.expect_looks(destination, after)
        where = {"address": destination.address, "port": destination.port}
        seen = {"host": look.host.decode("latin-1"), "keywords": b" ".join(look.keywords).decode("latin-1")}
        self._tell({"look": {**where, **seen}})

    def note_source(self, flow: Flow, note: NoteSource) -> None:
        """What a session has seen of its client."""
        address, now = flow.source, int(time.time())
        learnt: Message = {"address": address, "seen": note.seen.value}
        if note.seen is SourceSeen.UPGRADED:
            today = now // limits.DAY_SECONDS
            before = self._sources.source_of(address)
            source = after_upgrade(before, note.name, today)
            sender = after_endorsement(self._sources.sender_of(note.identity), note.epoch, today)
            is_new = not (before.has_upgraded and self._sources.sender_of(note.identity).epoch)
            self._sources.expect(source, sender)
            if is_new:
                # Before our first record, which has the peer remember us: the supervisor would come too late.
                self._met()
                self._ignored.somebody_is_new()
            who = {"name": note.name.hex(), "identity": note.identity.hex(), "epoch": note.epoch}
            self._tell({"source": {**learnt, **who, "new": is_new}})
        else:
            if note.seen is SourceSeen.DROPPED:
                self._ignored.anything_else(address)
            self._sources.learn(address, note.seen)
            self._tell({"source": learnt})

    def note_decision(self, flow: Flow, role: Role, note: NoteDecision) -> None:
        """What was decided of a session says something of its server, or of its client."""
        if role is Role.RECEIVING:
            self._note_taking(flow, note)
            return
        if self._finds_dead_ends:
            self._note_offers(flow, note.reason)
        if note.reason in _HANDSHAKE_FAILED:
            self._note_failure(_destination(flow))

    def note_channel_end(self, flow: Flow, broke: bool | None, now: float) -> None:
        """How a channel to this flow's server has ended; None: not known, or there was none."""
        if broke is None:
            return
        if not broke:
            self._broken_runs.went_well(flow.server)
        elif count := self._broken_runs.broke(flow.server, now):
            alarm = {"reason": Reason.CHANNELS_BREAK.value, "subject": str(_destination(flow))}
            self._tell({"alarm": {**alarm, "detail": f"{count} in a row"}})

    def _note_taking(self, flow: Flow, note: NoteDecision) -> None:
        """Whether the client took our offer, tried to, or ignored it."""
        if note.reason is Reason.NO_VERB:
            self._ignored.ignored(flow.source)
        elif note.reason is Reason.OFFERS_IGNORED:
            where = {"address": flow.destination, "port": flow.destination_port}
            self._tell({"rests": {**where, "client": flow.source}})
        elif note.upgraded or note.reason is Reason.HANDSHAKE_FAILED:
            self._ignored.anything_else(flow.source)
            if not note.upgraded:  # of those the supervisor hears in any case
                self._tell({"wakes": {"client": flow.source}})

    def _note_offers(self, flow: Flow, reason: Reason) -> None:
        server = flow.server
        if reason is not Reason.NO_OFFER:
            self._clear_runs.anything_else(server)
        elif self._clear_runs.offered_nothing(server):
            self._tell({"dead-end": {"address": server[0], "port": server[1]}})

    def _note_failure(self, destination: Destination) -> None:
        """Remembered for a path without a pin only: a pinned one is tried every time."""
        if self._pins.pin_of(destination) is None:
            self._pins.forget_for_a_while(destination)
            self._tell({"failure": {"address": destination.address, "port": destination.port}})

    # --- From other workers ------------------------------------------------------------------------------

    def learn_source(self, address: str, seen: SourceSeen, name: bytes = b"") -> None:
        """What another worker has seen: a client's drops and goings-on, and upgrades that were the first."""
        if seen is SourceSeen.UPGRADED:
            self._sources.expect_upgrade(address, name, int(time.time()) // limits.DAY_SECONDS)
            self._ignored.somebody_is_new()
        else:
            self._sources.learn(address, seen)

    def learn_dead_end(self, address: str, port: int) -> None:
        """Another worker has found one: when the kernel has forgotten it, one session here finds it again."""
        self._clear_runs.was_dead_end((address, port))


def _destination(flow: Flow) -> Destination:
    return Destination(flow.destination, flow.destination_port)


def _statement(statement: MetStatement | None) -> Message:
    if statement is None:
        return {}
    names = {"old": statement.old.hex(), "new": statement.new.hex()}
    return {"statement": {**names, "serial": statement.serial}}
