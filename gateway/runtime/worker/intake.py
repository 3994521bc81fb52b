"""How connections come to a worker: its queue, its listeners, its dials. Pairs of sockets come out.

Carries what the gate decides between the kernel and the gate, and decides nothing itself.
Counterparts: `intercept.gate` (judges), `dials` (connects), `listeners` (accepts), `sessions` (takes pairs).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from functools import partial
from typing import Protocol

from gateway.errors import Reason
from gateway.intercept.admission import Bounds, Limit
from gateway.intercept.gate import (
    Claim,
    CloseUnclaimed,
    Dial,
    Gate,
    GateCommand,
    GiveVerdict,
)
from gateway.intercept.icmp_budget import IcmpBudget
from gateway.intercept.marks import MarkBits, Verdict
from gateway.intercept.nfqueue import HeldPacket, SynQueue
from gateway.intercept.outcomes import DialOutcome
from gateway.intercept.roles import Refusal, Roles
from gateway.intercept.syn import Flow, parse_syn
from gateway.observe.counters import Counters, Tally
from gateway.policy import limits
from gateway.runtime.link import Message
from gateway.runtime.loop import Loop
from gateway.runtime.worker.dials import DialDone, Dials, reset
from gateway.runtime.worker.listeners import Listeners
from gateway.runtime.worker.poller import Poller
from gateway.runtime.worker.reserve import Reserve
from gateway.smtp.events import Role


class Pairs(Protocol):
    """Who takes what the intake brings."""

    def pair_ready(self, flow: Flow, role: Role, accepted: socket.socket, dialled: socket.socket) -> None: ...
    def dial_failed(self, flow: Flow, role: Role, outcome: DialOutcome) -> None: ...
    def syn_refused(self, flow: Flow, reason: Reason) -> None: ...
    def is_known(self, flow: Flow, role: Role) -> bool: ...
    def over_limit(self, flow: Flow, limit: Limit) -> None: ...
    def kept_from_dialling(self, flow: Flow, number: int) -> None: ...
    def flow_failed(self, flow: Flow, error: Exception) -> None: ...


_OVER = {
    Limit.SESSIONS: Tally.OVER_SESSIONS,
    Limit.CONNECTS: Tally.OVER_CONNECTS,
    Limit.AWAITED: Tally.OVER_AWAITED,
    Limit.DESCRIPTORS: Tally.OVER_DESCRIPTORS,
    Limit.PORTS: Tally.OVER_PORTS,
}
_SHORT_OF = {DialOutcome.NO_DESCRIPTOR: Limit.DESCRIPTORS, DialOutcome.PORTS_BUSY: Limit.PORTS}


class Intake:
    """One worker's way in. `listeners` are inherited sockets that outlive this process."""

    def __init__(
        self,
        loop: Loop,
        poller: Poller,
        marks: MarkBits,
        slot: int,
        queue: int,
        listeners: list[socket.socket],
        roles: Roles,
        pairs: Pairs,
        counters: Counters,
        tell: Callable[[Message], bool],
        *,
        keeps_port: bool = True,
        bridged: bool = False,
        bounds: Bounds = Bounds(),  # noqa: B008 - frozen
        icmp: IcmpBudget | None = None,
    ) -> None:
        self._loop = loop
        self._icmp = icmp if icmp is not None else IcmpBudget({}, 1)
        self._marks = marks
        self._mark_of = {verdict: marks.of_verdict(verdict, slot) for verdict in Verdict}
        self.roles = roles
        self._pairs = pairs
        self._counters = counters
        self._tell = tell
        self._answer_told: dict[tuple[str, int], float] = {}
        self._gate = Gate(bounds=bounds, is_known=pairs.is_known)
        self._reserve = Reserve(listeners[0].fileno())
        self._held: dict[HeldPacket, tuple[int, Flow | None]] = {}
        """With the mark that it came with."""
        self._flow_roles: dict[Flow, Role] = {}
        self._dials = Dials(loop, poller, marks, self, keeps_port=keeps_port)
        self._ready: dict[Flow, socket.socket] = {}
        self._listeners = Listeners(loop, listeners, self)
        self._discarding = False
        self._queue: SynQueue | None = SynQueue(queue, self._packet_arrived, by_port=bridged)
        loop.add_reader(self._queue.fd(), self._queue_readable)
        self._ticker = loop.call_later(limits.GATE_TICK_SECONDS, self._tick)

    @property
    def held(self) -> int:
        return self._gate.held

    def ended(self, flow: Flow, *, by_reset: bool) -> None:
        """Both connections of this flow are gone. A SYN that has waited for that goes on."""
        self._execute(self._gate.ended(flow, by_reset=by_reset))

    def server_answers(self, server: tuple[str, int]) -> None:
        """Another worker was connected there just now."""
        self._gate.server_answers(server, self._loop.time())

    def discard_backlog(self, slept: float) -> None:
        """This process has slept (SIGSTOP, a blocked loop): forget what came too long before it woke.

        Their clients have sent them again, and those went direct, since the supervisor took our queue out of
        the rules. A dial now would meet that connection: same addresses, same ports. Younger ones are judged:
        on a busy machine a worker may go without a processor for a while, and must not cost them a second.
        """
        if self._queue is None:
            return
        long = slept >= limits.SYN_AGAIN_SECONDS
        if long:
            self._discard_queue()
        young = self._loop.time() - limits.SYN_AGAIN_SECONDS
        for flow in self._dials.flows():
            if self._gate.asked_to_dial(flow) and (long or not self._gate.is_held_since(flow, young)):
                self._dials.drop(flow)
                self._gate_dial_done(flow, DialOutcome.SILENT, None)

    def _discard_queue(self) -> None:
        assert self._queue is not None
        self._discarding = True
        held = -1
        while held != self._counters.value(Tally.VERDICTS_GIVEN):
            held = self._counters.value(Tally.VERDICTS_GIVEN)
            self._queue.run()
        self._discarding = False

    @property
    def is_idle(self) -> bool:
        """No client that was let in is still on its way to a session."""
        return not self._dials and not self._gate.awaited

    @property
    def dials(self) -> int:
        """Connections to servers under way. Where nothing is taken any more, their clients are connected."""
        return len(self._dials)

    def stop_taking(self) -> None:
        """Judge no more: what is held passes, the queue goes back, and the kernel bypasses us.

        Clients that were let in already are still accepted: nobody else would close what waits there.
        """
        if self._queue is None:
            return
        # Before its client's own SYN goes out from the same address and port, the dial must be gone without
        # a trace: a socket of ours in FIN_WAIT would take the answers to that SYN.
        for flow in self._dials.flows():
            if self._gate.asked_to_dial(flow):
                self._dials.drop(flow)
        self._execute(self._gate.give_up())
        self._loop.remove_reader(self._queue.fd())
        self._queue.close()
        self._queue = None

    def stop_accepting(self) -> None:
        """After `stop_taking`, once `is_idle`: whoever comes to the listeners now is a successor's client."""
        self._listeners.stop()

    def dial(self, flow: Flow, done: DialDone) -> None:
        """As `Dials.dial`."""
        self._dials.dial(flow, done)

    def _dial_for(self, flow: Flow, role: Role, done: DialDone) -> None:
        """For a client whose SYN we have."""
        if role is Role.SENDING:
            self._dials.dial(flow, done)
        else:
            self._dials.dial_to_this_machine(flow, done)

    # --- What dials and listeners ask ------------------------------------------------------------------

    def is_port_taken(self, flow: Flow) -> bool:
        return self._gate.knows(flow)

    def cramped(self) -> bool:
        """No descriptor is left: nobody new is let in. Whether there are spare ones for those that were."""
        self._gate.has_room = False
        return self._reserve.give()

    def kept_from_dialling(self, flow: Flow, number: int) -> None:
        self._pairs.kept_from_dialling(flow, number)

    def failed(self, flow: Flow, error: Exception) -> None:
        """A bug of ours on the way to a session: nothing of this flow stays, its dial goes before its SYN."""
        self._dials.drop(flow)
        dialled = self._ready.pop(flow, None)
        if dialled is not None:
            reset(dialled)
        self._flow_roles.pop(flow, None)
        try:
            self._execute(self._gate.forget(flow))
        finally:
            for token in [token for token, (_, its) in self._held.items() if its == flow]:
                self._pass(token)
            self._pairs.flow_failed(flow, error)

    # --- The queue -------------------------------------------------------------------------------------

    def _queue_readable(self) -> None:
        if self._queue is not None:
            self._queue.run()

    def _packet_arrived(self, token: HeldPacket, packet: bytes, mark: int, interface: str) -> None:
        """Whatever of ours fails: who sent the SYN must not wait, and the packets behind it neither."""
        flow: Flow | None = None
        try:
            flow = parse_syn(packet)
            self._judge(token, flow, mark, interface)
        except Exception as error:
            self._pass(token)
            if flow is None:
                raise
            self.failed(flow, error)

    def _judge(self, token: HeldPacket, flow: Flow | None, mark: int, interface: str) -> None:
        role = Refusal(Verdict.PASS, Reason.NOT_OURS) if flow is None else self.roles.of(flow, interface)
        self._held[token] = mark, flow
        if self._discarding:
            self._execute([GiveVerdict(token, Verdict.DROP)])
            return
        if flow is None or isinstance(role, Refusal):
            assert isinstance(role, Refusal)
            if flow is not None and role.verdict is Verdict.DROP:
                self._pairs.syn_refused(flow, role.reason)
            elif role.verdict is Verdict.PASS:
                self._counters.add(Tally.NOT_OURS)
            self._execute([GiveVerdict(token, role.verdict)])
            return
        self._flow_roles[flow] = role
        self._gate.has_room = self._gate.has_room or self._reserve.is_whole()
        self._execute(self._gate.syn_arrived(token, flow, role, self._loop.time()))

    def _execute(self, commands: list[GateCommand]) -> None:
        """All of them, also behind one that fails: they are of several flows."""
        for command in commands:
            if isinstance(command, GiveVerdict):
                self._give_verdict(command)
            elif isinstance(command, Dial):
                try:
                    self._dial_for(command.flow, self._flow_roles[command.flow], self._gate_dial_done)
                except Exception as error:
                    self.failed(command.flow, error)
            elif isinstance(command, CloseUnclaimed):
                self._flow_roles.pop(command.flow, None)
                dialled = self._ready.pop(command.flow, None)
                if dialled is not None:
                    reset(dialled)

    def _pass(self, token: HeldPacket) -> None:
        """As if we were not here."""
        self._held.pop(token, None)
        with contextlib.suppress(RuntimeError):  # it had its verdict before
            if self._queue is not None:
                self._queue.verdict(token)

    def _give_verdict(self, command: GiveVerdict) -> None:
        token = command.token
        assert isinstance(token, HeldPacket)
        assert self._queue is not None
        site_mark, flow = self._held.pop(token)
        ours = self._mark_of[command.verdict]
        mark = None if ours is None else self._marks.merged(site_mark, ours)
        self._counters.add(Tally.VERDICTS_GIVEN)
        if command.verdict is Verdict.PASS:
            self._counters.add(Tally.PASSED_UNMARKED)
        self._queue.verdict(token, mark, drop=command.verdict is Verdict.DROP)
        if command.limit is not None:
            assert flow is not None
            del self._flow_roles[flow]
            self._note_over(flow, command.limit)

    def _note_over(self, flow: Flow, limit: Limit) -> None:
        """It has passed, or failed, because there is enough of something."""
        self._counters.add(_OVER[limit])
        self._pairs.over_limit(flow, limit)

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(limits.GATE_TICK_SECONDS, self._tick)
        if self._queue is not None:
            self._queue.forget_names()
        self._execute(self._gate.tick(self._loop.time()))
        # Of SYNs that waited for the end of their flow's last connection, and were dropped behind it.
        for flow in [flow for flow in self._flow_roles if not self._gate.knows(flow)]:
            del self._flow_roles[flow]
        told_since = self._loop.time() - limits.TELL_ANSWER_SECONDS
        for server in [server for server, told in self._answer_told.items() if told < told_since]:
            del self._answer_told[server]

    # --- Dials -----------------------------------------------------------------------------------------

    def _gate_dial_done(self, flow: Flow, outcome: DialOutcome, dialled: socket.socket | None) -> None:
        role = self._flow_roles[flow]
        if dialled is not None:
            self._ready[flow] = dialled
        else:
            del self._flow_roles[flow]
            self._dial_failed(flow, role, outcome)
        if outcome is DialOutcome.CONNECTED and role is Role.RECEIVING:
            self._tell_answer(flow.server)
        if self._queue is not None:
            now = self._loop.time()
            told = self._icmp.tellable(outcome, flow.source, now)
            self._execute(self._gate.dial_finished(flow, told, now))

    def _dial_failed(self, flow: Flow, role: Role, outcome: DialOutcome) -> None:
        self._pairs.dial_failed(flow, role, outcome)
        limit = _SHORT_OF.get(outcome)
        if limit is not None:
            self._note_over(flow, limit)

    def _tell_answer(self, server: tuple[str, int]) -> None:
        """So that the other workers need no probe: theirs might be in the name of a forged source."""
        now = self._loop.time()
        if now - self._answer_told.get(server, -limits.SERVER_ANSWERS_SECONDS) > limits.TELL_ANSWER_SECONDS:
            self._answer_told[server] = now
            self._tell({"answered": server})

    # --- Clients -----------------------------------------------------------------------------------------

    def client_came(self, flow: Flow, accepted: socket.socket) -> None:
        """A listener has accepted the connection of one."""
        try:
            self._claim(flow, accepted)
        except Exception as error:
            reset(accepted)
            self.failed(flow, error)

    def _claim(self, flow: Flow, accepted: socket.socket) -> None:
        claim = self._gate.accepted(flow)
        if claim is Claim.STRANGER:
            reset(accepted)
            return
        role = self._flow_roles.pop(flow)
        if claim is Claim.TOO_MANY:
            self._note_over(flow, Limit.SESSIONS)
            reset(accepted)
            return
        if claim is Claim.DIALLED:
            self._pairs.pair_ready(flow, role, accepted, self._ready[flow])
            del self._ready[flow]  # only now: who fails finds it here, to reset it
            return
        self._counters.add(Tally.ACCEPTED_FIRST)
        self._dial_for(flow, role, partial(self._dialled_after, role, accepted))

    def _dialled_after(
        self,
        role: Role,
        accepted: socket.socket,
        flow: Flow,
        outcome: DialOutcome,
        dialled: socket.socket | None,
    ) -> None:
        try:
            self._execute(self._gate.dial_finished(flow, outcome, self._loop.time()))
            if dialled is not None:
                if role is Role.RECEIVING:
                    self._tell_answer(flow.server)
                self._pairs.pair_ready(flow, role, accepted, dialled)
                return
            self._dial_failed(flow, role, outcome)
        except Exception:
            reset(accepted)
            raise
        reset(accepted)
        self.ended(flow, by_reset=True)
