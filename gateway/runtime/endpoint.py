"""One socket of a session: reads while it may, writes what the kernel takes and keeps the rest in order.

Knows nothing of SMTP or channels. A FIN stays a FIN (`end`), a reset a reset (`reset`); what was given to
`write` before `end` or `close` goes out first. Counterpart: `connection`, the owner of two of these.
"""

from __future__ import annotations

import asyncio
import math
import select
import socket
import struct
import time
from collections import deque
from typing import Protocol

from gateway.policy import limits

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
# One buffer for all reads of the process: the loop is single-threaded and every owner takes what it needs
# before it returns.
_read_buffer = bytearray(limits.READ_OCTETS)
_read_view = memoryview(_read_buffer)
_reads_until = math.inf


def read_until(moment: float) -> None:
    """No endpoint of this process reads behind this moment (time.monotonic()), until the next call.

    Called by the worker's heartbeat: within one turn of the loop many peers could else keep it waiting.
    """
    global _reads_until
    _reads_until = moment


class Hold:
    """Why an endpoint is not read at the moment; it is read when no bit is left.

    Plain numbers: an IntFlag makes an object for each `|` and `&`, a dozen times in a session.
    """

    NOTHING = 0
    BY_SESSION = 1
    BY_PRESSURE = 2
    NOT_STARTED = 4
    ENDED = 8


class Owner(Protocol):
    """What an endpoint tells. `octets` is only valid during the call."""

    def octets_received(self, endpoint: Endpoint, octets: memoryview) -> None: ...
    def end_received(self, endpoint: Endpoint) -> None: ...
    def reset_received(self, endpoint: Endpoint) -> None: ...
    def drained(self, endpoint: Endpoint) -> None: ...
    def closed(self, endpoint: Endpoint) -> None: ...


class Endpoint:
    """Owns a connected, non-blocking socket until `closed` has been told."""

    __slots__ = (
        "_buffer",
        "_closing",
        "_ending",
        "_errors",
        "_fd",
        "_hold",
        "_linger",
        "_loop",
        "_owner",
        "_reading",
        "_reset_watch",
        "_socket",
        "is_closed",
        "pending",
        "write_broken",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, owner: Owner) -> None:
        self._loop = loop
        self._socket = sock
        self._fd = sock.fileno()
        self._errors = select.poll()
        self._errors.register(self._fd, 0)
        self._owner = owner
        self._hold = Hold.NOT_STARTED
        self._reading = False
        self._buffer: deque[memoryview] = deque()
        self.pending = 0
        """Octets given to `write` that the kernel has not taken yet."""
        self._ending = False
        self._closing = False
        self._linger: asyncio.TimerHandle | None = None
        self._reset_watch: select.epoll | None = None
        self.write_broken = False
        self.is_closed = False

    def hold(self, why: int) -> None:
        self._hold |= why
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def unhold(self, why: int) -> None:
        self._hold &= ~why
        if not self._hold and not self._reading and not self.is_closed:
            self._reading = True
            self._loop.add_reader(self._fd, self._readable)

    @property
    def has_ended(self) -> bool:
        return bool(self._hold & Hold.ENDED)

    def write(self, octets: bytes | memoryview) -> None:
        """Send now what the kernel takes, keep the rest. After a broken write octets go nowhere."""
        if self.write_broken or self.is_closed or self._ending:
            return
        sent = 0
        if not self._buffer:
            try:
                sent = self._socket.send(octets)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self._break_write()
                return
            if sent == len(octets):
                return
            self._loop.add_writer(self._fd, self._flush)
        rest = memoryview(bytes(memoryview(octets)[sent:]))
        self._buffer.append(rest)
        self.pending += len(rest)

    def end(self) -> None:
        """FIN, behind everything written so far."""
        if self._ending or self.is_closed:
            return
        self._ending = True
        self._stop_watch_for_reset()
        if not self._buffer:
            self._shut()

    def close(self) -> None:
        """Close in order once everything written is out (or the peer is gone)."""
        if self.is_closed or self._closing:
            return
        self._closing = True
        self._stop_watch_for_reset()
        if self._buffer:
            self._linger = self._loop.call_later(limits.LINGER_SECONDS, self.reset)
        else:
            self._drain_then_close()

    def reset(self) -> None:
        """RST, now; what was not sent is lost, as it is in TCP."""
        if self.is_closed:
            return
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._close_now()

    def _drain_then_close(self) -> None:
        """A close with octets unread would be a reset, which can overtake our last words at the peer."""
        if self.has_ended or self.write_broken:
            self._close_now()
            return
        self._shut()
        if self.is_closed:
            return
        if self._linger is not None:
            self._linger.cancel()
        self._linger = self._loop.call_later(limits.DRAIN_SECONDS, self._close_now)
        self._hold = Hold.NOTHING
        self.unhold(Hold.NOTHING)

    def _readable(self) -> None:
        if time.monotonic() > _reads_until:
            self._watch_again()
            return
        try:
            count = self._socket.recv_into(_read_buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.hold(Hold.ENDED)
            if self._closing:
                self._close_now()
            else:
                self._owner.reset_received(self)
            return
        if self._closing:
            if not count:
                self._close_now()
        elif count:
            self._owner.octets_received(self, _read_view[:count])
            if self._reading and self._errors.poll(0):
                # uvloop watches a descriptor no longer once it has told of an error on it. Told together with
                # octets, the error is still to be read.
                self._watch_again()
        else:
            self.hold(Hold.ENDED)
            # A failed send has taken the error off the socket: the reset then reads as an end.
            if self.write_broken:
                self._owner.reset_received(self)
                return
            self._owner.end_received(self)
            if not (self._ending or self._closing or self.is_closed or self.write_broken):
                self._watch_for_reset()

    def _watch_again(self) -> None:
        self._loop.remove_reader(self._fd)
        self._loop.add_reader(self._fd, self._readable)

    def _watch_for_reset(self) -> None:
        """A peer that has ended may still reset us, and a socket at its end can only be asked for errors.

        The loop cannot: a reader or a writer would spin. Without this a sender in mid-mail, whose receiver
        has closed, would learn of it with the write after next, or never.
        """
        self._reset_watch = select.epoll()
        self._reset_watch.register(self._fd, 0)
        self._loop.add_reader(self._reset_watch.fileno(), self._reset_behind_end)

    def _reset_behind_end(self) -> None:
        self._stop_watch_for_reset()
        self._owner.reset_received(self)

    def _stop_watch_for_reset(self) -> None:
        if self._reset_watch is not None:
            self._loop.remove_reader(self._reset_watch.fileno())
            self._reset_watch.close()
            self._reset_watch = None

    def _flush(self) -> None:
        try:
            while self._buffer:
                sent = self._socket.send(self._buffer[0])
                self.pending -= sent
                if sent < len(self._buffer[0]):
                    self._buffer[0] = self._buffer[0][sent:]
                    return
                self._buffer.popleft()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._break_write()
            return
        self._loop.remove_writer(self._fd)
        if self._closing:
            self._drain_then_close()
            return
        if self._ending:
            self._shut()
        self._owner.drained(self)

    def _break_write(self) -> None:
        """The peer is gone. What it said before is read first; then the reader finds the reset."""
        self._stop_watch_for_reset()
        if self._buffer:
            self._loop.remove_writer(self._fd)
        self._buffer.clear()
        self.pending = 0
        self.write_broken = True
        if self._closing:
            self._close_now()
        elif self._hold & Hold.ENDED:
            self._loop.call_soon(self._owner.reset_received, self)
        else:
            self._hold = Hold.NOTHING
            self.unhold(Hold.NOTHING)

    def _shut(self) -> None:
        self._ending = True
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._break_write()

    def _close_now(self) -> None:
        if self.is_closed:
            return
        self.hold(Hold.ENDED)
        self._stop_watch_for_reset()
        if self._buffer:
            self._loop.remove_writer(self._fd)
            self._buffer.clear()
            self.pending = 0
        if self._linger is not None:
            self._linger.cancel()
        self.is_closed = True
        self._socket.close()
        self._owner.closed(self)
