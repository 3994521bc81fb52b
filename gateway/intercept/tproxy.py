"""Transparent sockets: the listener that takes other people's connections, and the dialled socket that
bears the client's own address and port.

Must never listen on a wildcard address: the listeners are on loopback, so that nobody but this box can
reach them except by the verdict of the gate. Counterparts: `router.nft`, which hands SYNs to the listener,
and `marks`, whose values these sockets carry.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
from typing import Final

from gateway.errors import EnvironmentFailureError
from gateway.intercept.marks import MarkBits
from gateway.intercept.outcomes import DialOutcome
from gateway.intercept.syn import Flow
from gateway.policy import limits

# <linux/in.h>, <linux/in6.h>: Python names the first but not the second.
_IP_TRANSPARENT: Final = 19
_IPV6_TRANSPARENT: Final = 75
_IP_BIND_ADDRESS_NO_PORT: Final = 24
ANY_PORT: Final = 0
"""The kernel chooses, as for every program."""
LOOPBACK: Final = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

# Python passes only signed integers, and a mark may have its highest bit set.
_MARK: Final = struct.Struct("=I")
_CLOSE_IN_ORDER: Final = struct.pack("ii", 0, 0)

NO_DESCRIPTOR: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Or no memory for a socket."""
_SHORT_OF: Final = {
    **dict.fromkeys(NO_DESCRIPTOR, DialOutcome.NO_DESCRIPTOR),
    errno.EADDRINUSE: DialOutcome.PORTS_BUSY,
    errno.EADDRNOTAVAIL: DialOutcome.PORTS_BUSY,
}
_OUTCOMES: Final = {
    **_SHORT_OF,
    0: DialOutcome.CONNECTED,
    errno.ECONNREFUSED: DialOutcome.REFUSED,
    errno.ECONNRESET: DialOutcome.REFUSED,
    errno.EPIPE: DialOutcome.REFUSED,  # the server has ended and reset before we looked
    errno.EHOSTUNREACH: DialOutcome.HOST_UNREACHABLE,
    errno.EHOSTDOWN: DialOutcome.HOST_UNREACHABLE,
    errno.ENOPROTOOPT: DialOutcome.HOST_UNREACHABLE,  # ICMP protocol unreachable
    errno.EPROTO: DialOutcome.HOST_UNREACHABLE,  # ICMP parameter problem, or an error that nobody knows
    errno.EOPNOTSUPP: DialOutcome.HOST_UNREACHABLE,  # ICMP source route failed
    errno.ENONET: DialOutcome.HOST_UNREACHABLE,  # ICMP host isolated
    errno.ENETUNREACH: DialOutcome.NET_UNREACHABLE,
    errno.ENETDOWN: DialOutcome.NET_UNREACHABLE,
    errno.EACCES: DialOutcome.ADMIN_PROHIBITED,  # ICMPv6 administratively prohibited
    errno.ETIMEDOUT: DialOutcome.SILENT,
    errno.EINVAL: DialOutcome.SWALLOWED,  # a blackhole route
}


class NotDialledError(OSError):
    """The socket could not be made, or not bound: its errno says nothing of the server."""


def outcome_of(error_number: int) -> DialOutcome:
    """What a connect's errno (0: none) says; unknown ones are trouble of our own."""
    return _OUTCOMES.get(error_number, DialOutcome.LOCAL_TROUBLE)


def outcome_of_failed(error: OSError) -> DialOutcome:
    """What it says that `dial` raised this."""
    number = error.errno or errno.EIO
    if isinstance(error, NotDialledError):
        return _SHORT_OF.get(number, DialOutcome.LOCAL_TROUBLE)
    return outcome_of(number)


def connect_error(dialled: socket.socket, events: int) -> int | None:
    """The errno of a started connect of which epoll tells these events: for `outcome_of`. Reading clears it.

    None: it is not over. Linux wakes whoever waits for a copy of an ICMP error of IPv4, which nobody has
    asked for (IP_RECVERR), a moment before the socket has the error itself (tcp_v4_err). A socket that is
    neither writable nor in error is not connected: its client would be let in to a server that is not there.
    """
    number = dialled.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return number if number or events & select.EPOLLOUT else None


def listener(family: socket.AddressFamily, port: int, marks: MarkBits) -> socket.socket:
    """A nonblocking transparent listener. Raises EnvironmentFailureError in one clear line."""
    try:
        made = _transparent(family, marks.accepted)
    except OSError as error:
        raise EnvironmentFailureError(f"no transparent socket: {_why(error)}") from error
    try:
        # What it accepts inherits this, as it does the options below.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.bind((LOOPBACK[family], port))
        made.listen(limits.LISTEN_BACKLOG)
    except OSError as error:
        made.close()
        where = f"{LOOPBACK[family]} port {port}"
        raise EnvironmentFailureError(f"cannot listen on {where}: {_why(error)}") from error
    return made


def as_made(used: socket.socket, marks: MarkBits) -> socket.socket:
    """A listener as it was when it was made, whatever a worker in other hands has made of it; another one in
    its place where it listens no more. Raises OSError, EnvironmentFailureError."""
    _set_up(used, marks.accepted)
    used.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    used.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _CLOSE_IN_ORDER)
    if used.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return used
    made = listener(used.family, used.getsockname()[1], marks)
    used.close()
    return made


def is_in_use(port: int) -> bool:
    """Whether somebody listens where one of our two listeners would stand."""
    return any(_is_taken(family, address, port) for family, address in LOOPBACK.items())


def _is_taken(family: socket.AddressFamily, address: str, port: int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def dial(flow: Flow, marks: MarkBits, *, from_port: int | None = None) -> socket.socket:
    """A nonblocking socket whose connect, from the client's own address and port, has been started.

    `from_port` is another port than the client's, or ANY_PORT: where another socket owns the client's own.
    Raises OSError where that fails at once: `outcome_of_failed` says what to make of it.
    """
    try:
        made = _bound(flow, marks, flow.source_port if from_port is None else from_port)
    except OSError as error:
        raise NotDialledError(error.errno, error.strerror) from error
    try:
        failed = made.connect_ex((flow.destination, flow.destination_port))
        if failed not in (0, errno.EINPROGRESS):
            raise OSError(failed, "connect")
    except BaseException:
        made.close()
        raise
    return made


def _bound(flow: Flow, marks: MarkBits, port: int) -> socket.socket:
    made = _transparent(flow.family, marks.dialled)
    try:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if port == ANY_PORT:
            # Chosen at connect, when the destination is known: one port serves many destinations.
            made.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        made.bind((flow.source, port))
    except BaseException:
        made.close()
        raise
    return made


def accept(listener: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
    """A nonblocking one, and its client's address and port. As `listener.accept()`, which looks for the names
    of family and kind each time, and of IPv6 says two numbers more. Raises OSError.
    """
    descriptor, source = listener._accept()  # type: ignore[attr-defined]
    family = socket.AF_INET if len(source) == 2 else socket.AF_INET6
    accepted = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, descriptor)
    accepted.setblocking(False)
    return accepted, (source[0], source[1])


def flow_of_accepted(accepted: socket.socket, source: tuple[str, int]) -> Flow:
    """Whose connection this is, to where. `source` is what accept() said: the client may have reset since,
    and then getpeername() does not know it any more, while what we dialled for it still waits to be closed.

    The kernel gives a transparent connection the destination that its client named as local address.
    """
    destination = accepted.getsockname()
    return Flow(source[0], source[1], destination[0], destination[1])


def _transparent(family: socket.AddressFamily, mark: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _set_up(made, mark)
    except BaseException:
        made.close()
        raise
    return made


def _set_up(made: socket.socket, mark: int) -> None:
    if made.family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _MARK.pack(mark))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, limits.KEEPALIVE_IDLE_SECONDS)
    # The port may still be in TIME_WAIT on another connection of ours.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _why(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return "needs CAP_NET_ADMIN (run as root, or give the service that capability)"
    return error.strerror or str(error)
