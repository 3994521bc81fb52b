"""A worker's connections to mail servers while they are being made, and how each of them ends.

Carries out what is asked for and judges nothing. Must end each one: connected, failed, silent for too long,
or dropped by whoever asked. Counterparts: `intercept.tproxy`, which makes the sockets; `intake` and
`sessions`, which ask.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import select
import socket
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

from gateway.intercept import tproxy
from gateway.intercept.marks import MarkBits
from gateway.intercept.outcomes import DialOutcome
from gateway.intercept.syn import Flow
from gateway.policy import limits
from gateway.runtime.loop import Cancellable, Loop
from gateway.runtime.worker.poller import Poller

_RESET_ON_CLOSE: Final = b"\x01\x00\x00\x00\x00\x00\x00\x00"
DialDone = Callable[[Flow, DialOutcome, socket.socket | None], object]


class Asker(Protocol):
    """What dials ask of the intake."""

    def is_port_taken(self, flow: Flow) -> bool:
        """Whether a client's connection has just these addresses and ports."""

    def cramped(self) -> bool:
        """No descriptor is left. Whether there are spare ones now."""

    def kept_from_dialling(self, flow: Flow, number: int) -> None:
        """By this machine, which says so with this errno."""

    def failed(self, flow: Flow, error: Exception) -> None:
        """A bug of ours, in whoever was told of an outcome."""


class Dials:
    """One at most for each flow; `done` is told once, later, unless it is dropped."""

    def __init__(
        self, loop: Loop, poller: Poller, marks: MarkBits, asker: Asker, *, keeps_port: bool
    ) -> None:
        self._loop = loop
        self._poller = poller
        self._marks = marks
        self._asker = asker
        self._keeps_port = keeps_port
        self._spare = secrets.randbelow(limits.SPARE_PORTS)
        self._under_way: dict[Flow, tuple[socket.socket, Cancellable]] = {}

    def __len__(self) -> int:
        return len(self._under_way)

    def __contains__(self, flow: Flow) -> bool:
        return flow in self._under_way

    def flows(self) -> list[Flow]:
        return list(self._under_way)

    def dial(self, flow: Flow, done: DialDone) -> None:
        """Connect from the client's address, and from its port where that can be. Never raises."""
        start = self._dial_from_clients_port if self._keeps_port else self._dial_from_any_port
        self._dial(flow, done, start)

    def dial_to_this_machine(self, flow: Flow, done: DialDone) -> None:
        """The same to a mail server that may be on this very machine: where ports are not kept, what we dial
        bears one that is none of the client's. The answers to both would else have the same addresses and
        ports."""
        start = self._dial_from_clients_port if self._keeps_port else self._dial_from_spare_port
        self._dial(flow, done, start)

    def drop(self, flow: Flow) -> None:
        """Reset one, if there is one; nobody is told."""
        if flow in self._under_way:
            reset(self._taken_out(flow))

    def _dial_from_clients_port(self, flow: Flow) -> socket.socket:
        """From another one where a socket of this machine has it: a program that listens there for all
        addresses, or what the kernel still keeps of the last connection. Whatever SYN of this connection came
        again, it would find a server that is silent."""
        try:
            return tproxy.dial(flow, self._marks)
        except OSError as error:
            if not _is_port_taken(error):
                raise
        return self._dial_from_any_port(flow)

    def _dial_from_any_port(self, flow: Flow) -> socket.socket:
        return tproxy.dial(flow, self._marks, from_port=tproxy.ANY_PORT)

    def _dial_from_spare_port(self, flow: Flow) -> socket.socket:
        for _ in range(limits.SPARE_PORT_TRIES):
            self._spare = (self._spare + 1) % limits.SPARE_PORTS
            port = limits.FIRST_SPARE_PORT + self._spare
            if self._asker.is_port_taken(flow._replace(source_port=port)):
                continue
            try:
                return tproxy.dial(flow, self._marks, from_port=port)
            except OSError as error:
                if not _is_port_taken(error):
                    raise
        return self._dial_from_any_port(flow)

    def _dial(self, flow: Flow, done: DialDone, start: Callable[[Flow], socket.socket]) -> None:
        self.drop(flow)
        try:
            dialled = start(flow)
        except OSError as error:
            outcome = tproxy.outcome_of_failed(error)
            if outcome is DialOutcome.NO_DESCRIPTOR and self._asker.cramped():
                self._dial(flow, done, start)
                return
            self._loop.call_soon(self._tell_failure, flow, done, outcome, error.errno or errno.EIO)
            return
        give_up = self._loop.call_later(limits.DIAL_SECONDS, self._silent, flow, done)
        self._under_way[flow] = (dialled, give_up)
        self._poller.watch(dialled.fileno(), select.EPOLLOUT, partial(self._over, flow, done))

    def _over(self, flow: Flow, done: DialDone, events: int) -> None:
        number = tproxy.connect_error(self._under_way[flow][0], events)
        if number is None:
            return
        outcome = tproxy.outcome_of(number)
        dialled = self._taken_out(flow)
        if outcome is DialOutcome.CONNECTED:
            self._tell(flow, done, outcome, dialled)
            return
        dialled.close()
        self._tell_failure(flow, done, outcome, number)

    def _silent(self, flow: Flow, done: DialDone) -> None:
        self._taken_out(flow).close()
        self._tell(flow, done, DialOutcome.SILENT, None)

    def _tell_failure(self, flow: Flow, done: DialDone, outcome: DialOutcome, number: int) -> None:
        if outcome is DialOutcome.LOCAL_TROUBLE:
            self._asker.kept_from_dialling(flow, number)
        self._tell(flow, done, outcome, None)

    def _tell(self, flow: Flow, done: DialDone, outcome: DialOutcome, dialled: socket.socket | None) -> None:
        try:
            done(flow, outcome, dialled)
        except Exception as error:
            if dialled is not None:
                reset(dialled)
            self._asker.failed(flow, error)

    def _taken_out(self, flow: Flow) -> socket.socket:
        dialled, give_up = self._under_way.pop(flow)
        give_up.cancel()
        self._poller.forget_if_watched(dialled.fileno())  # unless the kernel has not let us
        return dialled


def _is_port_taken(error: OSError) -> bool:
    return tproxy.outcome_of_failed(error) is DialOutcome.PORTS_BUSY


def reset(sock: socket.socket) -> None:
    """RST, now. One that is closed already may come, too."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    sock.close()
