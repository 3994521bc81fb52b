"""One process on the data path: a queue, two listeners, many sessions. Shares nothing with its like.

Started by `supervisor` with inherited sockets; the first packet on its link is its order. It must never
leave the queue bound when it cannot serve it: when the supervisor is gone it gives the queue back at once,
lets its sessions finish, and ends.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import socket
import sys
import time
from collections import OrderedDict

import uvloop

from gateway.config import Config
from gateway.crypto.keys import IdentityKey
from gateway.errors import EnvironmentFailureError, Reason
from gateway.intercept.gate import Roles
from gateway.intercept.marks import MarkBits
from gateway.observe.counters import Counters, Tally
from gateway.observe.log import Level, Log, to_stderr
from gateway.peers.pins import Destination, Pin
from gateway.peers.store import PinStore
from gateway.policy import limits
from gateway.runtime.intake import Intake
from gateway.runtime.link import Link, Message
from gateway.runtime.order import Order
from gateway.runtime.sessions import Sessions


class Worker:
    """Lives until it is told to drain and its last session has ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop, order: Order, link: socket.socket) -> None:
        self._loop = loop
        self._config = order.config
        self._log = Log(to_stderr(), least=Level(order.config.log_level), clock=time.time)
        self._counters = Counters()
        self._link = Link(loop, link, self._told, self._supervisor_gone)
        self._pins = PinReader(order.config, self._log, self._link)
        self._sessions = Sessions(
            loop,
            order.config,
            IdentityKey.from_seed(order.seed),
            self._log,
            self._counters,
            self._link.send,
            self._pins,
        )
        self._intake = Intake(
            loop,
            MarkBits(order.config.marks.mask),
            order.slot,
            order.queue,
            [socket.socket(fileno=fd) for fd in order.listeners],
            Roles(order.config.inside, order.config.outside, order.config.inside_networks),
            self._sessions,
            self._counters,
            self._link.send,
        )
        self._sessions.dialler = self._intake
        self._draining = False
        self._counted_at = 0.0
        self._alive_at = time.monotonic()
        self._alive()
        self._link.send({"ready": os.getpid()})

    def drain(self) -> None:
        """Take nothing new; end when the last session has."""
        if self._draining:
            return
        self._draining = True
        self._intake.stop_taking()
        self._sessions.on_empty = self._end_if_idle
        self._log.fact("worker", "draining", sessions=self._sessions.open)
        self._end_if_idle()

    def _alive(self) -> None:
        """The proof that this loop turns; log and counters go out with it."""
        now = time.monotonic()  # the loop's own clock stands still within a turn
        if now - self._alive_at > limits.HUNG_AFTER_SECONDS:
            self._log.fact("worker", "slept", level=Level.NOTICE, seconds=round(now - self._alive_at, 3))
            self._intake.discard_backlog()
        self._alive_at = now
        self._loop.call_later(limits.ALIVE_EVERY_SECONDS, self._alive)
        self._link.send_alive()
        self._sessions.draw_ahead()
        self._log.flush()
        if self._draining:
            self._end_if_idle()
        if now - self._counted_at >= limits.COUNTERS_EVERY_SECONDS:
            self._counted_at = now
            self._report()

    def _report(self) -> None:
        self._counters.set(Tally.SYNS_HELD, self._intake.held)
        self._counters.set(Tally.LOG_LINES_LOST, self._log.lost_lines)
        self._link.send({"counters": self._counters.snapshot()})

    def _told(self, message: Message) -> None:
        if "drain" in message:
            self.drain()
        elif "answered" in message:
            address, port = message["answered"]
            self._intake.server_answers((address, port))

    def _supervisor_gone(self) -> None:
        self._log.fact("worker", "supervisor-gone", level=Level.ERROR, reason=Reason.STOPPED)
        self.drain()

    def _end_if_idle(self) -> None:
        if self._sessions.open or not self._intake.is_idle:
            return
        self._report()
        self._log.flush()
        self._loop.stop()


class PinReader:
    """The worker's look into the memory of peers. Unreadable memory is an alarm, never a stop."""

    def __init__(self, config: Config, log: Log, link: Link) -> None:
        self._path = config.state_dir / "peers.db"
        self._log = log
        self._link = link
        self._store: PinStore | None = None
        self._told = False
        self._known: OrderedDict[Destination, tuple[float, Pin | None, bool]] = OrderedDict()

    def pin_of(self, destination: Destination) -> Pin | None:
        """What is remembered, at most `PIN_CACHE_SECONDS` old; None also where it cannot be read."""
        return self._recent(destination)[1]

    def is_resting(self, destination: Destination) -> bool:
        """Whether this path, which never upgraded, has failed so often that it is left in peace now."""
        return self._recent(destination)[2]

    def _recent(self, destination: Destination) -> tuple[float, Pin | None, bool]:
        now = time.monotonic()
        known = self._known.get(destination)
        if known is not None and now - known[0] < limits.PIN_CACHE_SECONDS:
            return known
        pin, resting = self._look_up(destination)
        known = self._known[destination] = (now, pin, resting)
        self._known.move_to_end(destination)
        if len(self._known) > limits.PIN_CACHE_DESTINATIONS:
            self._known.popitem(last=False)
        return known

    def forget_for_a_while(self, destination: Destination) -> None:
        """The supervisor is about to write this pin: look again the next time."""
        self._known.pop(destination, None)

    def _look_up(self, destination: Destination) -> tuple[Pin | None, bool]:
        try:
            if self._store is None:
                self._store = PinStore.read_only(self._path)
            pin = self._store.lookup(destination)
            return pin, pin is None and self._store.resting(destination, int(time.time()))
        except EnvironmentFailureError as error:
            self._store = None
            if not self._told:
                self._told = True
                self._log.fact(
                    "peers", "unreadable", level=Level.ALARM, reason=Reason.PINS_UNREADABLE, detail=str(error)
                )
                alarm = {"reason": Reason.PINS_UNREADABLE.value, "subject": "peers", "detail": str(error)}
                self._link.send({"alarm": alarm})
            return None, False


def main() -> int:
    """`python -m gateway.runtime.worker LINK_FD`, as the supervisor calls it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    link = socket.socket(fileno=int(sys.argv[1]))
    order = pickle.loads(link.recv(limits.LINK_MESSAGE_OCTETS))  # noqa: S301 - our own parent wrote it
    assert isinstance(order, Order)
    loop = uvloop.new_event_loop()
    try:
        worker = Worker(loop, order, link)
    except EnvironmentFailureError as error:
        print(f"nightmail: worker {order.slot}: {error}", file=sys.stderr)
        return 1
    loop.add_signal_handler(signal.SIGTERM, worker.drain)
    # What is there now stays for the life of the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # Sessions leave few cycles behind; looking for them seven hundred objects on costs a tenth of the time.
    gc.set_threshold(limits.GC_OBJECTS)
    loop.run_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
