"""What errnos mean for the client; the sockets themselves are tested against a kernel in tests/lab."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.intercept import tproxy
from gateway.intercept.marks import MarkBits
from gateway.intercept.outcomes import DialOutcome
from gateway.intercept.syn import Flow

NOBODY = 65534
TRIES = 5
"""A port that was drawn may be another process's in the other family, or as soon as it is free."""


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (0, DialOutcome.CONNECTED),
        (errno.ECONNREFUSED, DialOutcome.REFUSED),
        (errno.EHOSTUNREACH, DialOutcome.HOST_UNREACHABLE),
        (errno.EPROTO, DialOutcome.HOST_UNREACHABLE),
        (errno.ENETUNREACH, DialOutcome.NET_UNREACHABLE),
        (errno.EACCES, DialOutcome.ADMIN_PROHIBITED),
        (errno.ETIMEDOUT, DialOutcome.SILENT),
        (errno.EINVAL, DialOutcome.SWALLOWED),
        (errno.EADDRNOTAVAIL, DialOutcome.PORTS_BUSY),
        (errno.EMFILE, DialOutcome.NO_DESCRIPTOR),
        (errno.ENOMEM, DialOutcome.NO_DESCRIPTOR),
        (errno.EPERM, DialOutcome.LOCAL_TROUBLE),
        (9999, DialOutcome.LOCAL_TROUBLE),
    ],
)
def test_outcomes(number: int, outcome: DialOutcome) -> None:
    assert tproxy.outcome_of(number) is outcome
    assert tproxy.outcome_of_failed(OSError(number or errno.EIO, "")) is (
        outcome if number else DialOutcome.LOCAL_TROUBLE
    )


@pytest.mark.parametrize(
    ("number", "outcome"),
    [
        (errno.EADDRINUSE, DialOutcome.PORTS_BUSY),
        (errno.ENFILE, DialOutcome.NO_DESCRIPTOR),
        (errno.EACCES, DialOutcome.LOCAL_TROUBLE),
        (errno.EINVAL, DialOutcome.LOCAL_TROUBLE),
        (errno.ENETDOWN, DialOutcome.LOCAL_TROUBLE),
    ],
)
def test_what_came_before_the_connect_says_nothing_of_the_server(number: int, outcome: DialOutcome) -> None:
    """A client must not hear that a server is prohibited because this machine refuses a socket."""
    assert tproxy.outcome_of_failed(tproxy.NotDialledError(number, "")) is outcome


@pytest.mark.usefixtures("as_nobody")
def test_a_socket_that_may_not_be_made_is_no_answer_of_a_server() -> None:
    with pytest.raises(tproxy.NotDialledError) as refused:
        tproxy.dial(Flow("127.0.0.1", 40025, "127.0.0.1", 25), MarkBits(0xFF000000))
    assert refused.value.errno == errno.EPERM


def test_the_outcome_of_a_started_connect() -> None:
    with socket.socket() as nobody, socket.socket() as dialled:
        nobody.bind(("127.0.0.1", 0))
        dialled.setblocking(False)
        dialled.connect_ex(nobody.getsockname())
        number = tproxy.connect_error(dialled, select.EPOLLERR | select.EPOLLHUP | select.EPOLLOUT)
        assert number is not None
        assert tproxy.outcome_of(number) is DialOutcome.REFUSED


def test_a_server_that_takes_ends_and_resets_before_we_look_has_refused() -> None:
    """The kernel calls it EPIPE. As trouble of our own it would let the client pass by us, in clear."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as dialled:
        dialled.setblocking(False)
        dialled.connect_ex(listener.getsockname())
        accepted, _ = listener.accept()
        accepted.shutdown(socket.SHUT_WR)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        accepted.close()
        waiting = select.poll()
        waiting.register(dialled, 0)  # for its end alone
        [(_, events)] = waiting.poll()
        number = tproxy.connect_error(dialled, events | select.EPOLLOUT)
        assert number == errno.EPIPE
        assert tproxy.outcome_of(number) is DialOutcome.REFUSED


def test_who_is_woken_for_an_icmp_errors_copy_is_not_yet_connected() -> None:
    """The error itself comes a moment later."""
    with socket.socket() as dialled:
        assert tproxy.connect_error(dialled, select.EPOLLERR) is None
        assert tproxy.connect_error(dialled, select.EPOLLOUT) == 0


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Without a capability, whoever runs this."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(NOBODY)
    yield
    os.seteuid(was)


@pytest.mark.usefixtures("as_nobody")
def test_without_the_capability_it_is_one_clear_line() -> None:
    with pytest.raises(EnvironmentFailureError, match="CAP_NET_ADMIN"):
        tproxy.listener(socket.AF_INET, 0, MarkBits(0xFF000000))


@pytest.mark.parametrize(("family", "local"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_port_is_in_use_while_somebody_listens_there(family: socket.AddressFamily, local: str) -> None:
    for _ in range(TRIES):
        with socket.create_server((local, 0), family=family) as listener:
            port = listener.getsockname()[1]
            assert tproxy.is_in_use(port)
        if not tproxy.is_in_use(port):
            return
    raise AssertionError(f"{port} is in use, though nobody listens there")


@pytest.mark.root
def test_what_is_accepted_sends_small_writes_at_once_and_blocks_nobody() -> None:
    with tproxy.listener(socket.AF_INET, 0, MarkBits(0xFF000000)) as listener:
        listener.setblocking(True)
        with socket.create_connection(listener.getsockname()):
            accepted, _ = tproxy.accept(listener)
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert not os.get_blocking(accepted.fileno())


@pytest.mark.parametrize(("family", "local"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_client_is_an_address_and_a_port(family: socket.AddressFamily, local: str) -> None:
    """No more than that, in either family: compiled code refuses what is longer than it says."""
    with (
        socket.create_server((local, 0), family=family) as listener,
        socket.create_connection(listener.getsockname()[:2]) as client,
    ):
        accepted, source = tproxy.accept(listener)
        with accepted:
            assert source == client.getsockname()[:2]
            assert accepted.family == family


@pytest.mark.root
def test_a_listener_blocks_nobody() -> None:
    with tproxy.listener(socket.AF_INET, 0, MarkBits(0xFF000000)) as listener:
        assert not os.get_blocking(listener.fileno())
        with pytest.raises(BlockingIOError):
            listener.accept()


def inherited(one: socket.socket) -> list[bytes]:
    options = (
        (socket.SO_LINGER, 8),
        (socket.SO_KEEPALIVE, 4),
        (socket.SO_MARK, 4),
        (socket.SO_ACCEPTCONN, 4),
    )
    found = [one.getsockopt(socket.SOL_SOCKET, option, size) for option, size in options]
    transparent = (
        (socket.IPPROTO_IPV6, tproxy._IPV6_TRANSPARENT)
        if one.family == socket.AF_INET6
        else (socket.IPPROTO_IP, tproxy._IP_TRANSPARENT)
    )
    rest = ((socket.IPPROTO_TCP, socket.TCP_NODELAY), (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), transparent)
    return [*found, *(one.getsockopt(level, option, 4) for level, option in rest)]


@pytest.mark.root
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("is_shut", [False, True])
def test_a_listener_that_others_have_had_is_as_it_was_made(
    family: socket.AddressFamily, is_shut: bool
) -> None:
    """What it accepted would else be reset at its end, and never be ours; or it would accept nothing."""
    marks = MarkBits(0xFF000000)
    with tproxy.listener(family, 0, marks) as listener:
        before, name = inherited(listener), listener.getsockname()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for option in (socket.SO_MARK, socket.SO_KEEPALIVE, socket.SO_REUSEADDR):
            listener.setsockopt(socket.SOL_SOCKET, option, 0)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 9)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, tproxy._IPV6_TRANSPARENT, 0)
        else:
            listener.setsockopt(socket.IPPROTO_IP, tproxy._IP_TRANSPARENT, 0)
        if is_shut:
            copy = listener.dup()
            listener.shutdown(socket.SHUT_RDWR)
            with pytest.raises(OSError):
                copy.shutdown(socket.SHUT_RDWR)
            copy.close()
        with tproxy.as_made(listener, marks) as mended:
            assert (mended is listener) is not is_shut
            assert (inherited(mended), mended.getsockname()) == (before, name)
            with socket.create_connection(name[:2]) as client:
                client.sendall(b"EHLO")
                mended.setblocking(True)
                accepted, _ = tproxy.accept(mended)
                with accepted:
                    accepted.setblocking(True)
                    assert accepted.recv(4) == b"EHLO"
