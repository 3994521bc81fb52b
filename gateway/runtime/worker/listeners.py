"""Where a worker's clients come in: accepts, some at a turn of the loop, and says whose connection each is.

The sockets are inherited and outlive this process. Counterpart: `intake`, which takes what comes.
"""

from __future__ import annotations

import socket
from typing import Protocol

from gateway.intercept import tproxy
from gateway.intercept.syn import Flow
from gateway.policy import limits
from gateway.runtime.loop import Loop


class Taker(Protocol):
    """Who takes what comes."""

    def client_came(self, flow: Flow, accepted: socket.socket) -> None:
        """The socket is the taker's from here on, whatever fails."""

    def cramped(self) -> bool:
        """No descriptor is left: whether there are spare ones for clients that were let in."""


class Listeners:
    def __init__(self, loop: Loop, sockets: list[socket.socket], taker: Taker) -> None:
        self._loop = loop
        self._sockets = sockets
        self._taker = taker
        self._accepts = True
        for listener in sockets:
            listener.setblocking(False)
            self._listen(listener)

    def stop(self) -> None:
        self._accepts = False
        for listener in self._sockets:
            self._loop.remove_reader(listener.fileno())

    def _listen(self, listener: socket.socket) -> None:
        if self._accepts:
            self._loop.add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(limits.ACCEPTS_PER_TURN):
            try:
                accepted, source = tproxy.accept(listener)
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in tproxy.NO_DESCRIPTOR:
                    return
                if not self._taker.cramped():
                    self._rest(listener)
                    return
                continue
            self._accepted(accepted, source)

    def _rest(self, listener: socket.socket) -> None:
        """Out of descriptors: the listener stays readable, and a loop that only spins serves nobody."""
        self._loop.remove_reader(listener.fileno())
        self._loop.call_later(limits.ACCEPT_REST_SECONDS, self._listen, listener)

    def _accepted(self, accepted: socket.socket, source: tuple[str, int]) -> None:
        try:
            flow = tproxy.flow_of_accepted(accepted, source)
        except OSError:
            accepted.close()
            return
        self._taker.client_came(flow, accepted)
