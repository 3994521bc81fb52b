"""One process on the data path: a queue, two listeners, many sessions. Shares nothing with its like.

Started by `supervisor` with inherited sockets; the first packet on its link is its order. It must never
leave the queue bound when it cannot serve it: when the supervisor is gone it gives the queue back at once,
lets its sessions finish, and ends.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Iterable
from ipaddress import ip_network

from gateway import LIBRARY_TROUBLE
from gateway.config import Config, Network
from gateway.errors import EnvironmentFailureError, Reason
from gateway.intercept.admission import Bounds
from gateway.intercept.icmp_budget import IcmpBudget
from gateway.intercept.marks import MarkBits
from gateway.intercept.placements import InsideNetworks, layout_of
from gateway.intercept.pulse import Pulse
from gateway.intercept.roles import Roles
from gateway.observe import sinks
from gateway.observe.counters import Counters, Tally
from gateway.observe.log import Level
from gateway.peers.sources import SourceSeen
from gateway.policy import limits
from gateway.runtime import hardening, system_calls
from gateway.runtime.bug import Bug
from gateway.runtime.link import Link, Message
from gateway.runtime.order import Order, Presented, heard
from gateway.runtime.worker.intake import Intake
from gateway.runtime.worker.memory import Memory, PinReader, SourceReader
from gateway.runtime.worker.saying import Saying
from gateway.runtime.worker.sessions import Sessions
from gateway.runtime.worker.signing import Signing
from gateway.runtime.worker.surroundings import Surroundings
from gateway.runtime.worker.turns import Turns


class Worker:
    """Lives until it is told to drain and its last session has ended."""

    def __init__(self, loop: Turns, order: Order, link: socket.socket) -> None:
        self._loop = loop
        self._poller = loop.poller
        self._config = order.config
        self._log = sinks.opened(order.config)
        self._counters = Counters()
        self._link = Link(loop, link, self._told, self._supervisor_gone)
        self._saying = Saying(self._link)
        memory = Memory(order.config.pins_file, self._memory_unreadable)
        self._signing = Signing(loop, socket.socket(fileno=order.signing), self._signer_silent)
        self._surroundings = Surroundings(
            order.config, order.presented, PinReader(memory), SourceReader(memory), loop.time()
        )
        self._pulse = Pulse(MarkBits(order.config.marks.mask), order.slot)
        self._sessions = Sessions(
            loop,
            self._poller,
            order.config,
            self._log,
            self._counters,
            self._saying.say,
            self._surroundings,
            self._signing.sign,
            self._pulse.met,
        )
        self._intake = self._opened_intake(order)
        self._sessions.dialler = self._intake
        self._draining = False
        self._draining_from = 0.0
        self._drains_said = self._yielded = self._is_orphan = self._has_been_told = False
        self._retiring_from: float | None = None
        self._finishing_from: float | None = None
        self._counted_at = 0.0
        self._alive_at = loop.time()
        self._bugs_told: dict[str, float] = {}
        loop.on_failure = self._callback_failed
        self._alive()

    def ready(self, layers: list[str]) -> None:
        """It serves from now on; `layers` are those that confine it."""
        self._link.send({"ready": os.getpid(), "layers": layers})
        if LIBRARY_TROUBLE:
            self._ring(Reason.LIBRARY_UNUSABLE, "library", LIBRARY_TROUBLE)

    def drain(self) -> None:
        """Take nothing new; end when the last session has."""
        if self._draining:
            return
        self._draining = True
        self._draining_from = self._loop.time()
        self._say_drains()
        self._intake.stop_taking()
        self._sessions.on_empty = self._end_if_idle
        self._log.fact("worker", "draining", sessions=self._sessions.open)
        self._end_if_idle()

    def _say_drains(self) -> None:
        """Unasked, so that nobody's SYNs come here any more; again where the link was full."""
        self._drains_said = self._link.send({"drains": True})

    def _opened_intake(self, order: Order) -> Intake:
        layout = layout_of(order.config)
        return Intake(
            self._loop,
            self._poller,
            MarkBits(order.config.marks.mask),
            order.slot,
            order.queue,
            [socket.socket(fileno=fd) for fd in order.listeners],
            self._roles(order.config.inside_networks),
            self._sessions,
            self._counters,
            self._saying.say,
            keeps_port=layout.keeps_port,
            bridged=layout.bridged,
            bounds=_bounds(order.config),
            # Elsewhere errors go over lo, which has no limit, or are the network's own.
            icmp=IcmpBudget(
                order.icmp_seconds_apart if layout.routes_for_others else {}, order.config.workers
            ),
        )

    def _alive(self) -> None:
        """The proof that this loop turns, to kernel and supervisor; log and counters go out with it."""
        # Before all else: a bug in what follows must not end the proofs, and with them this worker.
        self._loop.call_later(limits.ALIVE_EVERY_SECONDS, self._alive)
        now = self._loop.time()
        if now - self._alive_at > limits.HUNG_AFTER_SECONDS:
            self._log.fact("worker", "slept", level=Level.NOTICE, seconds=round(now - self._alive_at, 3))
            self._intake.discard_backlog(now - self._alive_at)
        self._alive_at = now
        self._poller.rest_behind(now + limits.READS_BEHIND_ALIVE_SECONDS)
        if not self._draining:  # the slot may be a successor's, who must speak for itself
            self._pulse.beat()
        self._saying.again()
        self._link.send_alive()
        self._surroundings.draw_ahead()
        self._log.flush()
        if self._retiring_from is not None:
            self._retire_if_quiet(now - self._retiring_from)
        if self._finishing_from is not None:
            self._say_finished(now - self._finishing_from)
        if self._draining:
            if not self._drains_said:
                self._say_drains()
            self._yield_if_quiet(now - self._draining_from)
            self._end_if_idle()
        if now - self._counted_at >= limits.COUNTERS_EVERY_SECONDS:
            self._counted_at = now
            self._report()

    def _retire_if_quiet(self, seconds: float) -> None:
        """The gate sends nothing more: what it sent before still gets its session, within reason."""
        if (not self._intake.held and self._intake.is_idle) or seconds > limits.RETIRE_SECONDS:
            self.drain()

    def _say_finished(self, seconds: float) -> None:
        """Asked to: no session is open, and nobody is on the way to one. The gate sends nothing more, but a
        SYN from before may have been unread when we were asked."""
        if seconds < limits.ALIVE_EVERY_SECONDS or self._sessions.open or self._intake.held:
            return
        if self._is_quiet(seconds):
            self._report()
            if self._link.send({"finished": True}):
                self._finishing_from = None

    def _yield_if_quiet(self, seconds: float) -> None:
        """Nobody is on the way to us any more: a successor may have the listeners and the way to the signer,
        for the sessions that are left may last for hours."""
        if self._yielded or seconds < limits.YIELD_SECONDS or not self._is_quiet(seconds):
            return
        # Those that lead now have slots of their own: nobody else would reset who comes late.
        if self._retiring_from is not None:
            return
        if not self._drains_said:  # of one that serves, nobody would hear it
            return
        self._intake.stop_accepting()
        self._signing.close()
        self._yielded = self._link.send({"yields": True})

    def _report(self) -> None:
        self._counters.set(Tally.SESSIONS_OPEN, self._sessions.open)
        self._counters.set(Tally.SYNS_HELD, self._intake.held)
        self._counters.set(Tally.OCTETS_HELD, self._sessions.octets_held)
        self._counters.set(Tally.LOG_LINES_LOST, self._log.lost_lines)
        self._link.send({"counters": self._counters.snapshot()})

    def _told(self, message: Message) -> None:
        if "drain" in message:
            self.drain()
        elif "end" in message:
            self._end_now()
        elif "retire" in message:
            self._retiring_from = self._retiring_from or self._loop.time()
        elif "finish" in message:
            self._finishing_from = self._loop.time()
            self._report()  # what is told of those that do not end is not of a second ago
        elif "site" in message:
            self._surroundings.present(Presented.from_json(message["site"]))
        elif "inside" in message:
            self._intake.roles = self._roles(map(ip_network, message["inside"]))
        elif "answered" in message:
            address, port = message["answered"]
            self._intake.server_answers((address, port))
        elif "dead-end" in message:
            found = message["dead-end"]
            self._sessions.learning.learn_dead_end(found["address"], found["port"])
        elif "source" in message:
            said = message["source"]
            seen, name = SourceSeen(said["seen"]), bytes.fromhex(said.get("name", ""))
            self._sessions.learning.learn_source(said["address"], seen, name)
        elif "asked" in message:
            self._tell_of_ignored(message["asked"])

    def _tell_of_ignored(self, address: str) -> None:
        count, rests = self._surroundings.offers_ignored(address)
        self._link.send({"ignored": {"address": address, "in_a_row": count, "rests": rests}})

    def _callback_failed(self, error: Exception) -> None:
        """A bug of ours outside of any session. Told once in a while: a callback may fail in every turn."""
        self._counters.add(Tally.CALLBACKS_FAILED)
        bug, now = Bug.of(error), self._loop.time()
        if now - self._bugs_told.get(bug.where, -limits.BUG_TOLD_SECONDS) < limits.BUG_TOLD_SECONDS:
            return
        self._bugs_told[bug.where] = now
        traceback.print_exception(error)
        self._log.fact("worker", "failed", level=Level.ERROR, reason=Reason.INTERNAL, detail=bug.detail)
        self._saying.say(bug.alarm())

    def _roles(self, inside_networks: Iterable[Network]) -> Roles:
        layout = layout_of(self._config)
        by_side = layout.inside_networks is InsideNetworks.SIDE
        return Roles(layout.inside, layout.outside, inside_networks, side_tells=by_side)

    def _memory_unreadable(self, detail: str) -> None:
        reason = Reason.PINS_UNREADABLE
        self._log.fact("peers", "unreadable", level=Level.ALARM, reason=reason, detail=detail)
        self._ring(reason, "peers", detail)

    def _signer_silent(self, detail: str) -> None:
        """Offers cannot be signed, so sessions come in clear: the supervisor rings."""
        reason = Reason.SIGNER_SILENT
        self._log.fact("worker", "signer-silent", level=Level.ALARM, reason=reason, detail=detail)
        self._ring(reason, "signer", detail)

    def _ring(self, reason: Reason, subject: str, detail: str) -> None:
        """The supervisor does."""
        self._saying.say({"alarm": {"reason": reason.value, "subject": subject, "detail": detail}})

    def _supervisor_gone(self) -> None:
        self._log.fact("worker", "supervisor-gone", level=Level.ERROR, reason=Reason.STOPPED)
        self._yielded = True  # to whom? The next supervisor's workers have slots of their own.
        self._is_orphan = True
        self.drain()

    def told_to_end(self) -> None:
        """By a signal. One that has no supervisor any more sees to its end itself: its sessions have as long
        as at a stop, and no longer where it is told once more."""
        self.drain()
        if not self._is_orphan:
            return
        if self._has_been_told:
            self._end_now()
        else:
            self._has_been_told = True
            self._loop.call_later(limits.STOP_SECONDS, self._end_now)

    def _end_if_idle(self) -> None:
        if self._sessions.open or not self._is_quiet(self._loop.time() - self._draining_from):
            return
        self._end()

    def _end_now(self) -> None:
        """The daemon stops, and its patience with the sessions that are left is over."""
        self._sessions.on_empty = None
        self._sessions.stop()
        self._end()

    def _end(self) -> None:
        self._saying.again()
        self._report()
        self._log.flush()
        self._loop.stop()

    def _is_quiet(self, seconds: float) -> bool:
        """Whether nobody is on the way to us, having drained for so long; who still may come is not known."""
        waits = seconds < limits.DRAIN_AWAITED_SECONDS and not self._intake.is_idle
        return not waits and not self._intake.dials


def _bounds(config: Config) -> Bounds:
    """As configured, and no more sessions than there are descriptors for."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    sessions = max(1, min(config.sessions, (most - limits.DESCRIPTORS_KEPT) // 2))
    return Bounds(sessions, config.sessions_per_source)


def main() -> int:
    """`python -m gateway.runtime.worker LINK_FD`, as the supervisor calls it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hardening.forbid_dumps()  # before the order brings the first secret
    link = socket.socket(fileno=int(sys.argv[1]))
    order = heard(link.recv(limits.LINK_MESSAGE_OCTETS))
    layers = hardening.confine(order.confinement)
    hardening.refuse_rings()
    loop = Turns()
    try:
        worker = Worker(loop, order, link)
    except EnvironmentFailureError as error:
        print(f"nightmail: worker {order.slot}: {error}", file=sys.stderr)
        return 1
    loop.add_signal_handler(signal.SIGTERM, worker.told_to_end)
    # The loop's own first calls are behind it then, and no packet has been looked at yet.
    loop.call_soon(lambda: worker.ready(layers + hardening.filter_calls(system_calls.WORKER_CALLS)))
    # What is there now stays for the life of the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # Sessions leave few cycles behind; looking for them seven hundred objects on costs a tenth of the time.
    gc.set_threshold(limits.GC_OBJECTS)
    loop.run_forever()
    return 0
