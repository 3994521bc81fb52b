"""One mail at a time, with a clock: from connect() to the answer to the final dot.

The sender here behaves as Postfix does: EHLO, then MAIL, RCPT and DATA in one go. The long line is the lab's
delay line in the wire's namespace; what it can carry at all is measured beside, by plain TCP on another port.
Counterparts: `planes` (where), `gateway.lab.wan` (the line).
"""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from typing import Final

from bench.planes import Plane
from gateway.lab import network, wan

MAIL_SECONDS: Final = 60.0
LINE_OCTETS: Final = 76
PLAIN_PORT: Final = 2525
PLAIN_OCTETS: Final = 40 * 1024 * 1024
PLAIN_COLD_OCTETS: Final = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Delivery:
    """One mail."""

    variant: str
    rtt_ms: int
    octets: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What plain TCP gets over the same line, without any mail."""

    rtt_ms: int
    cold_seconds: float
    """A new connection's first 10 MB."""
    megabytes_per_second: float
    """After them."""


def set_rtt(plane: Plane, milliseconds: int) -> None:
    wan.set_to(plane.line, wan.Wan(rtt_seconds=milliseconds / 1000))


def body_of(octets: int) -> bytes:
    """A message of about so many octets, in lines as mails have them; its final dot included."""
    line = b"x" * LINE_OCTETS + b"\r\n"
    lines = max(1, octets // len(line))
    return b"Subject: bench\r\n\r\n" + line * lines + b".\r\n"


def deliver(plane: Plane, body: bytes, rtt_ms: int, octets: int, pair: int) -> Delivery:
    """Raises SystemExit when the mail was refused or the time is over."""
    destination = plane.destinations[pair % len(plane.destinations)]
    with network.socket_in(plane.namespace("mta-a"), socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(MAIL_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            began = time.monotonic()
            sock.connect((destination, 25))
            talk = Talk(sock)
            talk.expect(b"220")
            talk.say(b"EHLO mta-a.a.test\r\n", b"250")
            talk.say(b"MAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n", b"250", b"250", b"354")
            talk.say(body, b"250")
            seconds = time.monotonic() - began
            talk.say(b"QUIT\r\n", b"221")
        except (OSError, ValueError) as error:
            raise SystemExit(
                f"bench: {plane.variant.value}, {octets} octets at {rtt_ms} ms: no delivery: {error}"
            ) from None
    return Delivery(plane.variant.value, rtt_ms, octets, seconds)


class Talk:
    """A sender's half of an SMTP dialogue over a blocking socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""

    def say(self, octets: bytes, *codes: bytes) -> None:
        self._sock.sendall(octets)
        for code in codes:
            self.expect(code)

    def expect(self, code: bytes) -> None:
        """Raises ValueError for any other code."""
        while True:
            line, found, rest = self._buffer.partition(b"\r\n")
            if not found:
                piece = self._sock.recv(65536)
                if not piece:
                    raise ValueError(f"closed instead of {code.decode()}")
                self._buffer += piece
                continue
            self._buffer = rest
            if not line.startswith(code):
                raise ValueError(f"{line.decode(errors='replace')} instead of {code.decode()}")
            if line[3:4] != b"-":
                return


def ceiling(plane: Plane, rtt_ms: int) -> Ceiling:
    """Plain TCP from one mail server to the other, through the same routers and the same line."""
    listener = network.socket_in(plane.namespace("mta-b"), socket.AF_INET, socket.SOCK_STREAM)
    marks: list[float] = []
    with listener:
        listener.settimeout(MAIL_SECONDS)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((plane.destinations[0], PLAIN_PORT))
        listener.listen()
        thread = threading.Thread(target=_swallow, args=(listener, marks))
        thread.start()
        with network.socket_in(plane.namespace("mta-a"), socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(MAIL_SECONDS)
            began = time.monotonic()
            sock.connect((plane.destinations[0], PLAIN_PORT))
            sock.sendall(bytes(PLAIN_OCTETS))
        thread.join()
    if len(marks) != 2:
        raise SystemExit(f"bench: plain TCP at {rtt_ms} ms did not come to its end")
    cold, end = marks
    rate = (PLAIN_OCTETS - PLAIN_COLD_OCTETS) / max(end - cold, 1e-9) / 1e6
    return Ceiling(rtt_ms, cold - began, rate)


def _swallow(listener: socket.socket, marks: list[float]) -> None:
    """When the first 10 MB were there, and when all was."""
    connection, _ = listener.accept()
    buffer = bytearray(1 << 18)
    got = 0
    with connection:
        connection.settimeout(MAIL_SECONDS)
        while got < PLAIN_OCTETS:
            more = connection.recv_into(buffer)
            if not more:
                return
            got += more
            if not marks and got >= PLAIN_COLD_OCTETS:
                marks.append(time.monotonic())
    marks.append(time.monotonic())
