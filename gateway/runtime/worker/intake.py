"""How connections come to a worker: its queue, its listeners, its dials. Pairs of sockets come out.

Carries what the gate decides between the kernel and the gate, and decides nothing itself.
Counterparts: `intercept.gate` (judges), `sessions` (takes the pairs).
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import select
import socket
from collections.abc import Callable
from typing import Protocol

from gateway.errors import Reason
from gateway.intercept import tproxy
from gateway.intercept.admission import Bounds, Limit
from gateway.intercept.gate import (
    Claim,
    CloseUnclaimed,
    Dial,
    DialOutcome,
    Gate,
    GateCommand,
    GiveVerdict,
    Verdict,
)
from gateway.intercept.marks import MarkBits
from gateway.intercept.nfqueue import HeldPacket, SynQueue
from gateway.intercept.roles import Refusal, Roles
from gateway.intercept.syn import Flow, parse_syn
from gateway.observe.counters import Counters, Tally
from gateway.policy import limits
from gateway.runtime.link import Message
from gateway.runtime.loop import Cancellable, Loop
from gateway.runtime.worker.poller import Poller
from gateway.runtime.worker.reserve import Reserve
from gateway.smtp.events import Role

_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_RESET_ON_CLOSE = b"\x01\x00\x00\x00\x00\x00\x00\x00"
DialDone = Callable[[Flow, DialOutcome, socket.socket | None], None]


class Pairs(Protocol):
    """Who takes what the intake brings."""

    def pair_ready(self, flow: Flow, role: Role, accepted: socket.socket, dialled: socket.socket) -> None: ...
    def dial_failed(self, flow: Flow, role: Role, outcome: DialOutcome) -> None: ...
    def syn_refused(self, flow: Flow, reason: Reason) -> None: ...
    def is_known(self, flow: Flow, role: Role) -> bool: ...
    def over_limit(self, flow: Flow, limit: Limit) -> None: ...
    def flow_failed(self, flow: Flow, error: Exception) -> None: ...


_OVER = {
    Limit.SESSIONS: Tally.OVER_SESSIONS,
    Limit.CONNECTS: Tally.OVER_CONNECTS,
    Limit.AWAITED: Tally.OVER_AWAITED,
    Limit.DESCRIPTORS: Tally.OVER_DESCRIPTORS,
}


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
    ) -> None:
        self._loop = loop
        self._poller = poller
        self._marks = marks
        self._slot = slot
        self.roles = roles
        self._pairs = pairs
        self._counters = counters
        self._tell = tell
        self._keeps_port = keeps_port
        self._spare = secrets.randbelow(limits.SPARE_PORTS)
        self._answer_told: dict[tuple[str, int], float] = {}
        self._gate = Gate(bounds=bounds, is_known=pairs.is_known)
        self._reserve = Reserve(listeners[0].fileno())
        self._held: dict[HeldPacket, tuple[int, Flow | None]] = {}
        """With the mark that it came with."""
        self._flow_roles: dict[Flow, Role] = {}
        self._dials: dict[Flow, tuple[socket.socket, Cancellable]] = {}
        self._ready: dict[Flow, socket.socket] = {}
        self._listeners = listeners
        self._accepts = True
        for listener in listeners:
            listener.setblocking(False)
            self._listen(listener)
        self._discarding = False
        self._queue: SynQueue | None = SynQueue(queue, self._packet_arrived, by_port=bridged)
        loop.add_reader(self._queue.fd(), self._queue_readable)
        self._ticker = loop.call_later(limits.GATE_TICK_SECONDS, self._tick)

    @property
    def held(self) -> int:
        return self._gate.held

    def ended(self, flow: Flow, *, by_reset: bool) -> None:
        """Both connections of this flow are gone. A SYN that has waited for that goes on."""
        self._execute_for(flow, self._gate.ended(flow, by_reset=by_reset))

    def server_answers(self, server: tuple[str, int]) -> None:
        """Another worker was connected there just now."""
        self._gate.server_answers(server, self._loop.time())

    def discard_backlog(self) -> None:
        """This process has slept (SIGSTOP, a blocked loop): forget all SYNs that came before it woke.

        Their clients have long sent them again, and those went direct, since the supervisor took our queue
        out of the rules. A dial now would meet that connection: same addresses, same ports.
        """
        if self._queue is None:
            return
        self._discarding = True
        held = -1
        while held != self._counters.value(Tally.VERDICTS_GIVEN):
            held = self._counters.value(Tally.VERDICTS_GIVEN)
            self._queue.run()
        self._discarding = False
        for flow in list(self._dials):
            if self._gate.asked_to_dial(flow):
                _reset(self._drop_dial(flow))
                self._gate_dial_done(flow, DialOutcome.SILENT, None)

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
        for flow in list(self._dials):
            if self._gate.asked_to_dial(flow):
                _reset(self._drop_dial(flow))
        self._execute(self._gate.give_up())
        self._loop.remove_reader(self._queue.fd())
        self._queue.close()
        self._queue = None

    def stop_accepting(self) -> None:
        """After `stop_taking`, once `is_idle`: whoever comes to the listeners now is a successor's client."""
        self._accepts = False
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())

    def dial(self, flow: Flow, done: DialDone, *, any_port: bool = False) -> None:
        """Connect from the client's address, and from its port where the placement allows that and `any_port`
        does not say otherwise; `done` is told once. Never raises."""
        from_port = None if self._keeps_port and not any_port else tproxy.ANY_PORT
        self._dial(flow, done, lambda: tproxy.dial(flow, self._marks, from_port=from_port))

    def _dial_for(self, flow: Flow, role: Role, done: DialDone) -> None:
        """For a client whose SYN we have. What we dial to a mail server on this very machine bears a port
        that is none of the client's: else the answers to both would have the same addresses and ports."""
        if self._keeps_port or role is Role.SENDING:
            self.dial(flow, done)
        else:
            self._dial(flow, done, lambda: self._dial_from_spare_port(flow))

    def _dial_from_spare_port(self, flow: Flow) -> socket.socket:
        for _ in range(limits.SPARE_PORT_TRIES):
            self._spare = (self._spare + 1) % limits.SPARE_PORTS
            port = limits.FIRST_SPARE_PORT + self._spare
            if self._gate.knows(flow._replace(source_port=port)):
                continue
            try:
                return tproxy.dial(flow, self._marks, from_port=port)
            except OSError as error:
                if error.errno not in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                    raise
        return tproxy.dial(flow, self._marks, from_port=tproxy.ANY_PORT)

    def _dial(self, flow: Flow, done: DialDone, start: Callable[[], socket.socket]) -> None:
        if flow in self._dials:
            _reset(self._drop_dial(flow))
        try:
            dialled = start()
        except OSError as error:
            if error.errno in _NO_DESCRIPTOR and self._cramped():
                self._dial(flow, done, start)
                return
            outcome = tproxy.outcome_of(error.errno or errno.EIO)
            self._loop.call_soon(self._tell_outcome, flow, done, outcome, None)
            return
        give_up = self._loop.call_later(limits.DIAL_SECONDS, self._dial_silent, flow, done)
        self._dials[flow] = (dialled, give_up)
        self._poller.watch(dialled.fileno(), select.EPOLLOUT, lambda _: self._dial_over(flow, done))

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
            self._failed(flow, error)

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
        self._execute_for(flow, self._gate.syn_arrived(token, flow, role, self._loop.time()))

    def _execute_for(self, flow: Flow, commands: list[GateCommand]) -> None:
        """What became of one flow's SYN, which may have passed because there is enough of something."""
        for command in commands:
            if isinstance(command, GiveVerdict) and command.limit is not None:
                del self._flow_roles[flow]
                self._counters.add(_OVER[command.limit])
                self._pairs.over_limit(flow, command.limit)
        self._execute(commands)

    def _execute(self, commands: list[GateCommand]) -> None:
        """All of them, also behind one that fails: they are of several flows."""
        for command in commands:
            if isinstance(command, GiveVerdict):
                self._give_verdict(command)
            elif isinstance(command, Dial):
                try:
                    self._dial_for(command.flow, self._flow_roles[command.flow], self._gate_dial_done)
                except Exception as error:
                    self._failed(command.flow, error)
            elif isinstance(command, CloseUnclaimed):
                self._flow_roles.pop(command.flow, None)
                dialled = self._ready.pop(command.flow, None)
                if dialled is not None:
                    _reset(dialled)

    def _failed(self, flow: Flow, error: Exception) -> None:
        """A bug of ours on the way to a session: nothing of this flow stays, its dial goes before its SYN."""
        if flow in self._dials:
            _reset(self._drop_dial(flow))
        dialled = self._ready.pop(flow, None)
        if dialled is not None:
            _reset(dialled)
        self._flow_roles.pop(flow, None)
        try:
            self._execute(self._gate.forget(flow))
        finally:
            for token in [token for token, (_, its) in self._held.items() if its == flow]:
                self._pass(token)
            self._pairs.flow_failed(flow, error)

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
        site_mark, _ = self._held.pop(token)
        ours = self._marks.of_verdict(command.verdict, self._slot)
        mark = None if ours is None else self._marks.merged(site_mark, ours)
        self._counters.add(Tally.VERDICTS_GIVEN)
        if command.verdict is Verdict.PASS:
            self._counters.add(Tally.PASSED_UNMARKED)
        self._queue.verdict(token, mark, drop=command.verdict is Verdict.DROP)

    def _tick(self) -> None:
        self._ticker = self._loop.call_later(limits.GATE_TICK_SECONDS, self._tick)
        self._execute(self._gate.tick(self._loop.time()))
        # Of SYNs that waited for the end of their flow's last connection, and were dropped behind it.
        for flow in [flow for flow in self._flow_roles if not self._gate.knows(flow)]:
            del self._flow_roles[flow]

    # --- Dials -----------------------------------------------------------------------------------------

    def _dial_over(self, flow: Flow, done: DialDone) -> None:
        outcome = tproxy.connect_outcome(self._dials[flow][0])
        dialled = self._drop_dial(flow)
        if outcome is not DialOutcome.CONNECTED:
            dialled.close()
        self._tell_outcome(flow, done, outcome, dialled if outcome is DialOutcome.CONNECTED else None)

    def _dial_silent(self, flow: Flow, done: DialDone) -> None:
        self._drop_dial(flow).close()
        self._tell_outcome(flow, done, DialOutcome.SILENT, None)

    def _tell_outcome(
        self, flow: Flow, done: DialDone, outcome: DialOutcome, dialled: socket.socket | None
    ) -> None:
        try:
            done(flow, outcome, dialled)
        except Exception as error:
            if dialled is not None:
                _reset(dialled)
            self._failed(flow, error)

    def _drop_dial(self, flow: Flow) -> socket.socket:
        dialled, give_up = self._dials.pop(flow)
        give_up.cancel()
        self._poller.forget(dialled.fileno())
        return dialled

    def _gate_dial_done(self, flow: Flow, outcome: DialOutcome, dialled: socket.socket | None) -> None:
        role = self._flow_roles[flow]
        if dialled is not None:
            self._ready[flow] = dialled
        else:
            del self._flow_roles[flow]
            self._pairs.dial_failed(flow, role, outcome)
            if outcome is DialOutcome.LOCAL_TROUBLE:
                self._counters.add(Tally.OVER_DESCRIPTORS)
                self._pairs.over_limit(flow, Limit.DESCRIPTORS)
        if outcome is DialOutcome.CONNECTED and role is Role.RECEIVING:
            self._tell_answer(flow.server)
        if self._queue is not None:
            self._execute(self._gate.dial_finished(flow, outcome, self._loop.time()))

    def _tell_answer(self, server: tuple[str, int]) -> None:
        """So that the other workers need no probe: theirs might be in the name of a forged source."""
        now = self._loop.time()
        if now - self._answer_told.get(server, -limits.SERVER_ANSWERS_SECONDS) > limits.TELL_ANSWER_SECONDS:
            self._answer_told[server] = now
            self._tell({"answered": server})

    # --- The listeners ---------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(limits.ACCEPTS_PER_TURN):
            try:
                accepted, source = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_DESCRIPTOR:
                    return
                if not self._cramped():
                    self._listener_rests(listener)
                    return
                continue
            self._accepted(accepted, source)

    def _cramped(self) -> bool:
        """No descriptor is left: nobody new is let in. Whether there are spare ones for those that were."""
        self._gate.has_room = False
        return self._reserve.give()

    def _listener_rests(self, listener: socket.socket) -> None:
        """Out of descriptors: the listener stays readable, and a loop that only spins serves nobody."""
        self._loop.remove_reader(listener.fileno())
        self._loop.call_later(limits.ACCEPT_REST_SECONDS, self._listen, listener)

    def _listen(self, listener: socket.socket) -> None:
        if self._accepts:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _accepted(self, accepted: socket.socket, source: tuple[str, int]) -> None:
        try:
            flow = tproxy.flow_of_accepted(accepted, source)
            tproxy.prepare_accepted(accepted)
        except OSError:
            accepted.close()
            return
        try:
            self._claim(flow, accepted)
        except Exception as error:
            _reset(accepted)
            self._failed(flow, error)

    def _claim(self, flow: Flow, accepted: socket.socket) -> None:
        claim = self._gate.accepted(flow)
        if claim is Claim.STRANGER:
            _reset(accepted)
            return
        role = self._flow_roles.pop(flow)
        if claim is Claim.TOO_MANY:
            self._counters.add(Tally.OVER_SESSIONS)
            self._pairs.over_limit(flow, Limit.SESSIONS)
            _reset(accepted)
            return
        if claim is Claim.DIALLED:
            self._pairs.pair_ready(flow, role, accepted, self._ready[flow])
            del self._ready[flow]  # only now: who fails finds it here, to reset it
            return
        self._counters.add(Tally.ACCEPTED_FIRST)
        self._dial_for(
            flow,
            role,
            lambda flow, outcome, dialled: self._dialled_after(flow, role, accepted, outcome, dialled),
        )

    def _dialled_after(
        self,
        flow: Flow,
        role: Role,
        accepted: socket.socket,
        outcome: DialOutcome,
        dialled: socket.socket | None,
    ) -> None:
        try:
            self._pair(flow, role, accepted, outcome, dialled)
        except Exception:
            _reset(accepted)
            raise

    def _pair(
        self,
        flow: Flow,
        role: Role,
        accepted: socket.socket,
        outcome: DialOutcome,
        dialled: socket.socket | None,
    ) -> None:
        self._execute(self._gate.dial_finished(flow, outcome, self._loop.time()))
        if dialled is not None and role is Role.RECEIVING:
            self._tell_answer(flow.server)
        if dialled is not None:
            self._pairs.pair_ready(flow, role, accepted, dialled)
            return
        self._pairs.dial_failed(flow, role, outcome)
        _reset(accepted)
        self.ended(flow, by_reset=True)


def _reset(sock: socket.socket) -> None:
    """Also one that is closed already."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()
