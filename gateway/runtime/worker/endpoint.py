"""One socket of a session: reads while it may, writes what the kernel takes and keeps the rest in order.

Knows nothing of SMTP or channels. A FIN stays a FIN (`end`), a reset a reset (`reset`); what was given to
`write` before `end` or `close` goes out first. Counterpart: `connection`, the owner of two of these.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from gateway.policy import limits
from gateway.runtime.loop import Cancellable, Loop
from gateway.runtime.worker.poller import Poller
from gateway.runtime.worker.pressure import Account, Bank

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_READ: Final = select.EPOLLIN
_WRITE: Final = select.EPOLLOUT
_BROKEN: Final = select.EPOLLERR | select.EPOLLHUP
_READ_OR_BROKEN: Final = _READ | _BROKEN
_WRITE_OR_BROKEN: Final = _WRITE | _BROKEN
_NOT_AT_ALL: Final = -1
# One buffer for all reads of the process: the loop is single-threaded and every owner takes what it needs
# before it returns.
_read_buffer = bytearray(limits.READ_OCTETS)
_read_view = memoryview(_read_buffer)
_small_view = _read_view[: limits.READ_WHEN_OVER_OCTETS]


class Hold:
    """Why an endpoint is not read at the moment; it is read when no bit is left.

    Plain numbers: an IntFlag makes an object for each `|` and `&`, a dozen times in a session.
    """

    NOTHING: Final = 0
    BY_SESSION: Final = 1
    BY_PRESSURE: Final = 2
    NOT_STARTED: Final = 4
    ENDED: Final = 8
    RESET: Final = 16
    """Behind the end: nothing more is to be watched for."""


class Owner(Protocol):
    """What an endpoint tells. `octets` is only valid during the call."""

    def octets_received(self, endpoint: Endpoint, octets: memoryview) -> None: ...
    def end_received(self, endpoint: Endpoint) -> None: ...
    def reset_received(self, endpoint: Endpoint) -> None: ...
    def drained(self, endpoint: Endpoint) -> None: ...
    def closed(self, endpoint: Endpoint) -> None: ...
    def failed(self, error: Exception) -> None: ...


class Endpoint:
    """Owns a connected, non-blocking socket until `closed` has been told."""

    __slots__ = (
        "_account",
        "_buffer",
        "_closing",
        "_ending",
        "_fd",
        "_hold",
        "_kept",
        "_linger",
        "_loop",
        "_mark",
        "_owner",
        "_poller",
        "_socket",
        "_watched",
        "is_closed",
        "pending",
        "write_broken",
    )

    def __init__(
        self,
        loop: Loop,
        poller: Poller,
        sock: socket.socket,
        owner: Owner,
        account: Account | None = None,
    ) -> None:
        """`account`: whose octets wait here; without one nobody's."""
        self._loop = loop
        self._poller = poller
        self._account = account if account is not None else Account(Bank())
        self._socket = sock
        self._fd = sock.fileno()
        self._owner = owner
        self._hold = Hold.NOT_STARTED
        self._watched = _NOT_AT_ALL
        """What the poller looks for; 0: errors alone."""
        self._buffer: deque[memoryview] = deque()
        self.pending = 0
        """Octets given to `write` that the kernel has not taken yet."""
        self._kept: bytes | bytearray = b""
        """Of this turn of the poller, for its end; never there together with a buffer."""
        self._ending = False
        self._closing = False
        self._linger: Cancellable | None = None
        self._mark = (0, 0, 0.0)
        self.write_broken = False
        self.is_closed = False

    def hold(self, why: int) -> None:
        self._hold |= why
        self._watch()

    def unhold(self, why: int) -> None:
        self._hold &= ~why
        self._watch()

    def _watch(self) -> None:
        """Bring what is watched in line with what is wanted."""
        if self.is_closed:
            wanted = _NOT_AT_ALL
        else:
            wanted = (0 if self._hold else _READ) | (_WRITE if self._buffer else 0)
            if not wanted and not self._may_be_reset_behind_end:
                wanted = _NOT_AT_ALL
        watched = self._watched
        if wanted == watched:
            return
        self._watched = wanted
        if watched == _NOT_AT_ALL:
            self._poller.watch(self._fd, wanted, self._ready)
        elif wanted == _NOT_AT_ALL:
            self._poller.forget(self._fd, closing=self.is_closed)
        else:
            self._poller.change(self._fd, wanted)

    @property
    def _may_be_reset_behind_end(self) -> bool:
        """A peer that has ended may still reset us, and a socket at its end can only be asked for errors.

        Without this a sender in mid-mail, whose receiver has closed, would learn of it with the write after
        next, or never.
        """
        ours_is_open = not (self._ending or self._closing or self.write_broken)
        return self._hold & (Hold.ENDED | Hold.RESET) == Hold.ENDED and ours_is_open

    def _ready(self, events: int) -> None:
        try:
            if self._buffer and events & _WRITE_OR_BROKEN:
                self._flush()
            if self._watched == _NOT_AT_ALL:
                return
            if self._watched & _READ:
                if events & _READ_OR_BROKEN:
                    self._readable()
            elif not self._watched and events & _BROKEN:
                self._hold |= Hold.RESET
                self._watch()
                self._owner.reset_received(self)
        except Exception as error:
            self._owner.failed(error)

    def _guarded(self, callback: Callable[..., object], *args: object) -> None:
        """What the loop calls later: a bug in it is this session's, too."""
        try:
            callback(*args)
        except Exception as error:
            self._owner.failed(error)

    def is_stuck(self, fed: int, now: float) -> bool:
        """Whether octets wait, and nothing has moved for `limits.STALLED_SECONDS`; asked once in a while.

        `fed`: octets that have come so far for this socket. `now`: seconds of the loop's clock.
        """
        pending, before, since = self._mark
        if not self.pending or (self.pending, fed) != (pending, before):
            self._mark = self.pending, fed, now
            return False
        return now - since >= limits.STALLED_SECONDS

    @property
    def has_ended(self) -> bool:
        return bool(self._hold & Hold.ENDED)

    def write(self, octets: bytes | bytearray | memoryview, *, last: bool = False) -> None:
        """Send now what the kernel takes, keep the rest. After a broken write octets go nowhere.

        `last`: the caller's next word is `end` or `close`, and the kernel may keep the octets for its FIN.
        """
        if self.write_broken or self.is_closed or self._ending:
            return
        if self._kept:
            octets, self._kept = self._kept + octets, b""
        sent = 0
        if not self._buffer:
            try:
                sent = self._socket.send(octets, socket.MSG_MORE if last else 0)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError:
                self._break_write()
                return
            if sent == len(octets):
                return
        rest = bytes(memoryview(octets)[sent:])
        self._wait_for(len(rest))
        if self._buffer and len(self._buffer[-1]) + len(rest) <= limits.PIECE_OCTETS:
            rest = bytes(self._buffer.pop()) + rest
        self._buffer.append(memoryview(rest))
        self._watch()

    def write_in_turn(self, octets: bytes | bytearray, *, last: bool = False) -> None:
        """`write`; where the poller has others to tell in this turn, and these octets are few, at its end.

        A send() wakes who waits for it, and that process takes our processor and its caches. So first comes
        all that is to be computed in a turn, then all that is to be sent. Nobody may change `octets` then.
        """
        if not self._poller.is_crowded or last or self._buffer:
            self.write(octets, last=last)
        elif len(self._kept) + len(octets) > limits.KEPT_IN_TURN_OCTETS:
            self.write(octets)
        elif self._kept:
            self._kept += octets
        else:
            self._kept = octets
            self._poller.at_end.append(self._write_kept)

    def _write_kept(self) -> None:
        if not self._kept:
            return
        try:
            self.write(b"")
        except Exception as error:
            self._owner.failed(error)

    def end(self) -> None:
        """FIN, behind everything written so far."""
        if self._kept:
            self._write_kept()
        if self._ending or self.is_closed:
            return
        self._ending = True
        self._watch()
        if not self._buffer:
            self._shut()

    def close(self) -> None:
        """Close in order once everything written is out (or the peer is gone)."""
        if self._kept:
            self._write_kept()
        if self.is_closed or self._closing:
            return
        self._closing = True
        self._watch()
        if self._buffer:
            self._linger = self._loop.call_later(limits.LINGER_SECONDS, self._guarded, self.reset)
        else:
            self._drain_then_close()

    def reset(self) -> None:
        """RST, now; what was not sent is lost, as it is in TCP."""
        if self._kept:
            self._write_kept()
        if self.is_closed:
            return
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._close_now()

    def abandon(self) -> None:
        """RST, after a bug of ours: whatever state this is in, the descriptor goes, and nobody is told."""
        if self.is_closed:
            return
        if self._kept:
            with contextlib.suppress(Exception):
                self._socket.send(self._kept)
        self.is_closed = True
        with contextlib.suppress(OSError):
            self._poller.forget_if_watched(self._fd)
        self._watched = _NOT_AT_ALL
        if self._linger is not None:
            self._linger.cancel()
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._socket.close()
        self._forget_waiting()

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
        self._linger = self._loop.call_later(limits.DRAIN_SECONDS, self._guarded, self._close_now)
        self._hold = Hold.NOTHING
        self.unhold(Hold.NOTHING)

    def _readable(self) -> None:
        try:
            is_over = self._account.is_over or self._account.bank.is_over
            count = self._socket.recv_into(_small_view if is_over else _read_buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._hold |= Hold.ENDED | Hold.RESET
            if self._closing:
                self._close_now()
            else:
                self._owner.reset_received(self)
            self._watch()
            return
        if self._closing:
            if not count:
                self._ended_while_closing()
        elif count:
            self._owner.octets_received(self, _read_view[:count])
        else:
            self._hold |= Hold.ENDED
            # A failed send has taken the error off the socket: the reset then reads as an end.
            if self.write_broken:
                self._owner.reset_received(self)
            else:
                self._owner.end_received(self)
            self._watch()

    def _ended_while_closing(self) -> None:
        """It has said all, and may still read: our last words go out first, then `_flush` closes."""
        self._hold |= Hold.ENDED
        if self._buffer:
            self._watch()
        else:
            self._close_now()

    def _flush(self) -> None:
        try:
            while self._buffer:
                sent = self._socket.send(self._buffer[0])
                self._wait_for(-sent)
                if sent < len(self._buffer[0]):
                    self._buffer[0] = self._buffer[0][sent:]
                    return
                self._buffer.popleft()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._break_write()
            return
        self._watch()
        if self._closing:
            self._drain_then_close()
            return
        if self._ending:
            self._shut()
        self._owner.drained(self)

    def _wait_for(self, octets: int) -> None:
        self.pending += octets
        self._account.add(octets)

    def _forget_waiting(self) -> None:
        if self._buffer:
            self._buffer.clear()
            self._wait_for(-self.pending)

    def _break_write(self) -> None:
        """The peer is gone. What it said before is read first; then the reader finds the reset."""
        self._forget_waiting()
        self.write_broken = True
        self._watch()
        if self._closing:
            self._close_now()
        elif self._hold & Hold.ENDED:
            self._loop.call_soon(self._guarded, self._owner.reset_received, self)
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
        self._hold |= Hold.ENDED
        self._forget_waiting()
        if self._linger is not None:
            self._linger.cancel()
        self.is_closed = True
        self._watch()
        self._socket.close()
        self._owner.closed(self)
