"""How supervisor and workers talk: JSON objects over a SOCK_SEQPACKET pair, one message a packet.

Neither side ever waits for the other: a message that does not fit in the socket's buffer is dropped and
`send` says so. The end of the peer's process is seen as the end of the link.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from gateway.peers.pins import Destination
from gateway.policy import limits
from gateway.runtime.loop import Loop

Message = dict[str, Any]


def told_address(told: Any) -> str:
    """An address in a worker's message. Raises ValueError for what is none: nft would read it as commands."""
    if not isinstance(told, str) or "%" in told:  # behind it ip_address takes anything
        raise ValueError("no address")
    return str(ip_address(told))


def told_destination(told: Message) -> Destination:
    """Address and port in a worker's message. Raises ValueError, KeyError."""
    port = told["port"]
    if type(port) is not int or not 0 < port < 1 << 16:
        raise ValueError("no port")
    return Destination(told_address(told["address"]), port)


ALIVE = b"."


class Link:
    """One end of the pair. `on_alive` is told of the peer's heartbeats, `on_message` of everything else."""

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        on_message: Callable[[Message], object],
        on_closed: Callable[[], object],
        on_alive: Callable[[], object] | None = None,
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._on_message = on_message
        self._on_closed = on_closed
        self._on_alive = on_alive
        self._open = True
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    @property
    def is_open(self) -> bool:
        """Neither end has closed it, as far as is known here."""
        return self._open

    def send(self, message: Message) -> bool:
        return self._send(json.dumps(message, separators=(",", ":")).encode())

    def send_alive(self) -> bool:
        return self._send(ALIVE)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def detach(self) -> int:
        """The descriptor, which stays open; this end is heard of no more."""
        self._open = False
        self._loop.remove_reader(self._socket.fileno())
        return self._socket.detach()

    def _send(self, octets: bytes) -> bool:
        if not self._open:
            return False
        try:
            self._socket.send(octets)
        except OSError:
            return False
        return True

    def _heard(self, packet: bytes) -> None:
        """What is no message was not said by a process of ours; it is passed over."""
        try:
            message = json.loads(packet)
        except (ValueError, RecursionError):
            return
        if isinstance(message, dict):
            self._on_message(message)

    def _readable(self) -> None:
        """What each costs, whoever says it chooses: some are written to the disk before the next is read."""
        until = time.monotonic() + limits.LINK_TURN_SECONDS
        for _ in range(limits.LINK_MESSAGES_PER_TURN):
            try:
                packet = self._socket.recv(limits.LINK_MESSAGE_OCTETS)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                packet = b""
            if not packet:
                self.close()
                self._on_closed()
                return
            if packet != ALIVE:
                self._heard(packet)
            elif self._on_alive is not None:
                self._on_alive()
            if not self._open or time.monotonic() > until:
                return
