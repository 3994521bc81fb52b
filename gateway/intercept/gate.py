"""Held SYNs, dials and their outcomes -> verdicts. Which order: dial first or accept first.

Pure: `now` comes in, commands go out. Must never hold a SYN that nobody will answer, and must never turn
forged SYNs into connections at the server behind us. Counterparts: `roles` says which role a SYN has,
`nfqueue` brings SYNs and takes verdicts, `tproxy` dials; `runtime` carries everything between them and this
file.

Sending (inside to outside): the SYN is held while we dial; its verdict is the dial's outcome, so the
sender sees connected, refused, unreachable or silent exactly as without us.

Receiving (outside to inside): a SYN's source may be forged, and a dial in its name would reach the
server. So where the server has answered lately the SYN is taken at once (the handshake with the client
proves its address) and the dial comes after. Otherwise one SYN probes the server: if it connects, all
SYNs held for that server are taken. If it is refused or unreachable, that answers its own client only
and the next SYN probes: a server may refuse one source (a ban list does), and one banned source must not
be able to have the others refused. A silent probe delays the others by PROBE_SECONDS, no longer.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from gateway.immutable import immutable
from gateway.intercept.admission import Admission, Bounds, IsKnown, Limit
from gateway.intercept.counted import counted_as
from gateway.intercept.held import Held, HeldSyns, Token
from gateway.intercept.marks import Verdict
from gateway.intercept.outcomes import VERDICT_OF, DialOutcome
from gateway.intercept.syn import Flow
from gateway.policy import limits
from gateway.smtp.events import Role


@immutable
class Dial:
    """Connect to the flow's destination from its source; report by `Gate.dial_finished`."""

    flow: Flow


@immutable
class GiveVerdict:
    """Answer one held packet; each token gets exactly one verdict."""

    token: Token
    verdict: Verdict
    limit: Limit | None = None
    """Why it passes although it is ours: this worker has enough of these."""


@immutable
class CloseUnclaimed:
    """The client of this flow never came: forget the flow, and reset its dialled connection if it has one."""

    flow: Flow


GateCommand = Dial | GiveVerdict | CloseUnclaimed


class Claim(enum.Enum):
    """What an accepted connection finds on the other side."""

    DIALLED = "dialled"
    """The dialled connection stands ready."""
    DIAL_NOW = "dial-now"
    """Accepted first: dial now, and report by `Gate.dial_finished`."""
    TOO_MANY = "too-many"
    """Far over the limit of sessions: reset it."""
    STRANGER = "stranger"
    """Not through the gate (a process of this very box called our listener): reset it."""


@immutable
class _LetIn:
    """One whose client has not been accepted yet: since when, and whom it counts for."""

    since: float
    source: str


@dataclass(slots=True)
class _Server:
    """An inside server: when it last answered, who probes it, and who waits for that."""

    answered: float | None = None
    probes: dict[Flow, float] = field(default_factory=dict)  # began when
    waiting: dict[Flow, str] = field(default_factory=dict)  # with its source, in order of arrival


class Gate:
    """One worker's gate. Every method returns at once; commands are to be carried out in order."""

    def __init__(
        self,
        held_limit: int = limits.HELD_SYNS,
        held_per_source_limit: int = limits.HELD_SYNS_PER_SOURCE,
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
        is_known: IsKnown = lambda flow, role: False,
    ) -> None:
        self._admission = Admission(bounds, is_known)
        self.has_room = True
        """Whether the process has descriptors for one more session. Only whoever has them can tell."""
        self._held = HeldSyns(held_limit, held_per_source_limit)
        self._dialling: dict[Flow, str] = {}  # with whom each counts for
        self._ready: dict[Flow, _LetIn] = {}  # dialled and unclaimed
        self._expected: dict[Flow, _LetIn] = {}  # taken before dialling
        self._live: dict[Flow, str] = {}  # with whom each counts for
        self._servers: dict[tuple[str, int], _Server] = {}

    @property
    def held(self) -> int:
        """SYNs waiting in the kernel for a verdict of ours."""
        return len(self._held)

    @property
    def live(self) -> int:
        """Accepted connections that have not been reported as ended."""
        return len(self._live)

    def asked_to_dial(self, flow: Flow) -> bool:
        """The dial that is out for this flow is one of our commands, whose outcome a held SYN waits for."""
        return flow in self._dialling

    def is_held_since(self, flow: Flow, moment: float) -> bool:
        """A SYN of this flow waits for its verdict, and has come at this moment or later."""
        held = self._held.get(flow)
        return held is not None and held.since >= moment

    def knows(self, flow: Flow) -> bool:
        """A SYN of this flow is held or has been let in, and its connection has not ended yet."""
        places = (self._live, self._held, self._dialling, self._ready, self._expected)
        return any(flow in place for place in places)

    @property
    def awaited(self) -> int:
        """Connections let in that nobody has accepted yet."""
        return len(self._ready) + len(self._expected)

    # --- What happens -------------------------------------------------------------------------------

    def syn_arrived(self, token: Token, flow: Flow, role: Role, now: float) -> list[GateCommand]:
        """A SYN of this flow is held under `token`."""
        commands: list[GateCommand] = []
        before = self._held.release(flow)
        if before is not None:
            commands.append(GiveVerdict(before.token, Verdict.DROP))
        if self._is_awaited(flow):
            return commands + self._hold_if_room(token, flow, role, now, otherwise=Verdict.DROP)
        if flow in self._ready or flow in self._expected or (flow in self._live and before is not None):
            # Ours already: the listener or the accepted socket knows what to do with it.
            return [*commands, GiveVerdict(token, Verdict.TAKE)]
        if flow in self._live:
            # The client uses its port again while the last connection from it is closing: see `ended`.
            # Or it has forgotten that connection (it was rebooted): then the SYN comes again.
            return commands + self._hold_if_room(token, flow, role, now, otherwise=Verdict.TAKE)
        return commands + self._new_syn(token, flow, role, now)

    def dial_finished(self, flow: Flow, outcome: DialOutcome, now: float) -> list[GateCommand]:
        """A dial ended: one that a command asked for, or one after an accept (then only noted)."""
        server = self._servers.get(flow.server)
        source = self._dialling.pop(flow, None)
        if source is not None:
            return self._gate_dial_finished(flow, source, outcome, server, now)
        if server is not None:
            server.answered = now if outcome is DialOutcome.CONNECTED else None
        elif outcome is DialOutcome.CONNECTED and flow in self._live:
            self._servers[flow.server] = _Server(answered=now)
        return []

    def server_answers(self, server: tuple[str, int], now: float) -> None:
        """Another worker has just been connected there: no probe of ours is needed."""
        self._servers.setdefault(server, _Server()).answered = now

    def accepted(self, flow: Flow) -> Claim:
        """The listener accepted this flow; it is live until `ended`."""
        let_in, claim = self._ready.pop(flow, None), Claim.DIALLED
        if let_in is not None:
            self._admission.connects.remove(let_in.source)
        else:
            let_in, claim = self._expected.pop(flow, None), Claim.DIAL_NOW
            if let_in is None:
                return Claim.STRANGER
            if flow not in self._live and self._admission.is_far_over(let_in.source):
                return Claim.TOO_MANY
        if flow not in self._live:
            self._live[flow] = let_in.source
            self._admission.sessions.add(let_in.source)
        return claim

    def ended(self, flow: Flow, *, by_reset: bool = False) -> list[GateCommand]:
        """Both connections of an accepted flow are gone. A SYN that waited for that goes on.

        Not behind a reset: a stateful filter on the way has seen the SYN before the reset, takes the whole
        connection for closed and would drop what follows. It understands the SYN that comes again.
        """
        self._no_longer_live(flow)
        held = self._held.get(flow)
        if held is None or self._is_awaited(flow):
            return []
        self._held.release(flow)
        if by_reset:
            return [GiveVerdict(held.token, Verdict.DROP)]
        return self._new_syn(held.token, flow, held.role, held.since)

    def forget(self, flow: Flow) -> list[GateCommand]:
        """Something of ours has failed for this flow, whatever was to become of it: a SYN of it that is held
        passes as if we were not here."""
        held = self._held.release(flow)
        server = self._servers.get(flow.server)
        if server is not None:
            server.probes.pop(flow, None)
            server.waiting.pop(flow, None)
        self._expected.pop(flow, None)
        source, ready = self._dialling.pop(flow, None), self._ready.pop(flow, None)
        if ready is not None:
            source = ready.source
        if source is not None:
            self._admission.connects.remove(source)
        self._no_longer_live(flow)
        return [] if held is None else [GiveVerdict(held.token, Verdict.PASS)]

    def tick(self, now: float) -> list[GateCommand]:
        """Time passed: unclaimed dials are closed, silent probes get company. Call about once a second."""
        commands: list[GateCommand] = []
        for flow in _older_than(self._ready, now - limits.UNCLAIMED_SECONDS):
            self._admission.connects.remove(self._ready.pop(flow).source)
            commands.append(CloseUnclaimed(flow))
        for flow in _older_than(self._expected, now - limits.UNCLAIMED_SECONDS):
            del self._expected[flow]
            commands.append(CloseUnclaimed(flow))
        commands += self._drop_forgotten(now)
        for address, server in list(self._servers.items()):
            commands += self._probe_further(server, now)
            if not server.probes and not server.waiting and not _answers(server, now):
                del self._servers[address]
        return commands

    def give_up(self) -> list[GateCommand]:
        """This worker judges no more: a held SYN passes as if we were not here, unless we took its place.

        Where a SYN of ours from the same address and port is under way, or a connection of ours stands, the
        client's own would meet it, and a stateful filter on the way would take both for broken. So it is
        dropped, and goes direct when the client sends it again.
        """
        commands: list[GateCommand] = [
            GiveVerdict(
                held.token, Verdict.DROP if flow in self._dialling or flow in self._live else Verdict.PASS
            )
            for flow, held in self._held.items()
        ]
        self._held.clear()
        for server in self._servers.values():
            server.waiting.clear()
        return commands

    # --- Sending and receiving ----------------------------------------------------------------------

    def _new_syn(self, token: Token, flow: Flow, role: Role, now: float) -> list[GateCommand]:
        if not self.has_room:
            return [GiveVerdict(token, Verdict.PASS, Limit.DESCRIPTORS)]
        over = self._admission.refuses(flow, role, len(self._expected))
        if over is not None:
            return [GiveVerdict(token, Verdict.PASS, over)]
        source = counted_as(flow, role)
        if self._held.is_full_for(source):
            return self._take_first(token, flow, source, now)
        if role is Role.RECEIVING:
            return self._receiving_syn(token, flow, source, now)
        self._held.add(flow, Held(token, role, now))
        return [self._dial(flow, source)]

    def _receiving_syn(self, token: Token, flow: Flow, source: str, now: float) -> list[GateCommand]:
        server = self._servers.setdefault(flow.server, _Server())
        if _answers(server, now):
            return self._take_first(token, flow, source, now)
        self._held.add(flow, Held(token, Role.RECEIVING, now))
        server.waiting[flow] = source
        return self._probe_further(server, now)

    def _probe_further(self, server: _Server, now: float) -> list[GateCommand]:
        """Let the next waiting SYN probe, unless a probe is out that has not yet been silent for long.

        Sources without a probe go first: one that the server ignores must not fill the row with its SYNs.
        """
        if not server.waiting or any(now - began < limits.PROBE_SECONDS for began in server.probes.values()):
            return []
        probing = {counted_as(probe, Role.RECEIVING) for probe in server.probes}
        flow = next(
            (each for each, source in server.waiting.items() if source not in probing),
            next(iter(server.waiting)),
        )
        source = server.waiting.pop(flow)
        server.probes[flow] = now
        return [self._dial(flow, source)]

    def _gate_dial_finished(
        self, flow: Flow, source: str, outcome: DialOutcome, server: _Server | None, now: float
    ) -> list[GateCommand]:
        commands: list[GateCommand] = []
        held = self._held.release(flow)
        if outcome is DialOutcome.CONNECTED:
            self._ready[flow] = _LetIn(now, source)
        else:
            self._admission.connects.remove(source)
        if held is not None:
            commands.append(GiveVerdict(held.token, VERDICT_OF[outcome]))
        if server is None or server.probes.pop(flow, None) is None:
            return commands
        if outcome is DialOutcome.CONNECTED:
            server.answered = now
            return commands + self._take_waiting(server, now)
        return commands + self._probe_further(server, now)

    def _drop_forgotten(self, now: float) -> list[GateCommand]:
        """SYNs that waited for an end of their live flow which did not come; nor did they again."""
        bound = now - limits.UNCLAIMED_SECONDS
        old = [
            flow for flow, held in self._held.items() if held.since <= bound and not self._is_awaited(flow)
        ]
        return [GiveVerdict(self._held_token(flow), Verdict.DROP) for flow in old]

    def _held_token(self, flow: Flow) -> Token:
        held = self._held.release(flow)
        assert held is not None
        return held.token

    def _take_waiting(self, server: _Server, now: float) -> list[GateCommand]:
        commands: list[GateCommand] = []
        for flow, source in server.waiting.items():
            held = self._held.release(flow)
            if held is not None:
                commands += self._take_first(held.token, flow, source, now)
        server.waiting.clear()
        return commands

    # --- Keeping books ------------------------------------------------------------------------------

    def _dial(self, flow: Flow, source: str) -> Dial:
        if flow not in self._dialling:
            self._dialling[flow] = source
            self._admission.connects.add(source)
        return Dial(flow)

    def _no_longer_live(self, flow: Flow) -> None:
        source = self._live.pop(flow, None)
        if source is not None:
            self._admission.sessions.remove(source)

    def _take_first(self, token: Token, flow: Flow, source: str, now: float) -> list[GateCommand]:
        self._expected[flow] = _LetIn(now, source)
        return [GiveVerdict(token, Verdict.TAKE)]

    def _is_awaited(self, flow: Flow) -> bool:
        """A dial is out whose outcome answers this flow's SYN, or it is in the row for a probe."""
        server = self._servers.get(flow.server)
        return flow in self._dialling or (server is not None and flow in server.waiting)

    def _hold_if_room(
        self, token: Token, flow: Flow, role: Role, now: float, otherwise: Verdict
    ) -> list[GateCommand]:
        if self._held.is_full_for(counted_as(flow, role)):
            return [GiveVerdict(token, otherwise)]
        self._held.add(flow, Held(token, role, now))
        return []


def _answers(server: _Server, now: float) -> bool:
    return server.answered is not None and now - server.answered < limits.SERVER_ANSWERS_SECONDS


def _older_than(let_in: dict[Flow, _LetIn], bound: float) -> list[Flow]:
    """Entries are in order of time, so the first young one ends the search."""
    old: list[Flow] = []
    for flow, one in let_in.items():
        if one.since > bound:
            break
        old.append(flow)
    return old
