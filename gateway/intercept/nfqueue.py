"""One netfilter queue: SYNs come in, verdicts go out, now or later. The only user of netfilterqueue.

Must never let its descriptor into a child: the kernel keeps the queue bound while any copy is open, and a
queue that is bound and read by nobody stops mail instead of letting it pass. Counterparts: `gate`
judges what comes from here, `marks` says which mark a verdict has.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from netfilterqueue import COPY_PACKET, NetfilterQueue, Packet

from gateway.errors import EnvironmentFailureError
from gateway.policy import limits

OnPacket = Callable[["HeldPacket", bytes, int, str], object]
"""Called with token, packet from its IP header on, mark, and the interface or port it came in by."""

# <linux/netlink.h>, <linux/netfilter/nfnetlink_queue.h>
_NLMSG_ERROR: Final = 2
_NLM_F_REQUEST_ACK: Final = 0x1 | 0x4
_NFQNL_MSG_CONFIG: Final = 3 << 8 | 2  # subsystem NFNL_SUBSYS_QUEUE, message 2
_NFQA_CFG_MASK, _NFQA_CFG_FLAGS = 4, 5
FAIL_OPEN: Final = 1
"""NFQA_CFG_F_FAIL_OPEN: where the queue or its socket is full, packets pass instead of being lost."""
WHOLE_SEGMENTS: Final = 4
"""NFQA_CFG_F_GSO: what the kernel carries as one packet, up to 64 KB, comes as one, and is not cut before."""
_SOL_NETLINK, _NETLINK_NO_ENOBUFS = 270, 5
_OUR_SEQUENCE: Final = 0x4E49474D
_NLMSG_HEADER: Final = struct.Struct("=IHHII")
_NLMSG_ERROR_CODE: Final = struct.Struct("=i")
# <linux/sockios.h>, netdevice(7)
_SIOCGIFNAME: Final = 0x8910
_IFREQ: Final = struct.Struct("16si20x")


class HeldPacket:
    """A packet that the kernel holds until its verdict. Opaque to everybody but this file."""

    __slots__ = ("_packet",)

    def __init__(self, packet: Packet) -> None:
        self._packet = packet


class SynQueue:
    """One queue by its number. Raises EnvironmentFailureError if the kernel does not give it.

    `by_port`: of a packet that is a frame on a bridge, the port is told instead of the bridge.
    """

    __deletable__ = ("_queue",)
    """By `close`: the compiler asks to be told."""

    def __init__(self, number: int, on_packet: OnPacket, *, by_port: bool = False) -> None:
        self._number = number
        self._on_packet = on_packet
        self._by_port = by_port
        self._interfaces: dict[int, str] = {}
        self._flag_answer: int | None = None
        try:
            self._queue = NetfilterQueue()
        except OSError as error:
            raise EnvironmentFailureError(f"no netfilter queue: {_why(error)}") from error
        self._fd = self._queue.get_fd()
        # First of all: the library opens it without close-on-exec.
        os.set_inheritable(self._fd, False)
        self._bind()
        # A second descriptor for the same socket, only because Python can read messages from nothing else.
        self._socket = socket.socket(fileno=os.dup(self._fd))
        self._socket.setblocking(False)
        self._set_up_socket()

    @property
    def number(self) -> int:
        return self._number

    def fd(self) -> int:
        """For the event loop to watch for reading."""
        return self._socket.fileno()

    def run(self) -> None:
        """Read what is there, at most PACKETS_PER_RUN packets, and call `on_packet` for each."""
        self._left = limits.PACKETS_PER_RUN
        self._queue.run_socket(self)

    def verdict(self, token: HeldPacket, mark: int | None = None, drop: bool = False) -> None:
        """Let the packet go on, with this mark if one is given (the whole mark), or end it here.

        A token serves once; a second verdict for it raises RuntimeError.
        """
        packet = token._packet
        if drop:
            packet.drop()
            return
        if mark is not None:
            packet.set_mark(mark)
        packet.accept()

    def forget_names(self) -> None:
        """Of interfaces, which may have others since: to be called once in a while."""
        self._interfaces.clear()

    def close(self) -> None:
        """Give the queue back. The kernel drops what it still holds: give verdicts first."""
        self._queue.unbind()
        self._socket.close()
        # The library closes its own descriptor when it is collected; do not wait for that.
        del self._queue

    # --- Reading: NetfilterQueue.run_socket calls recv() of whatever it is given --------------------

    def recv(self, size: int) -> bytes:
        """One netlink message for the library; raises BlockingIOError when there is none."""
        if self._left <= 0:
            # Leave the rest for the next turn of the event loop; the descriptor stays readable.
            raise BlockingIOError(errno.EAGAIN, "enough for now")
        self._left -= 1
        message = self._socket.recv(size)
        if self._flag_answer is None:
            self._note_answer(message)
        return message

    def _note_answer(self, message: bytes) -> None:
        if len(message) < _NLMSG_HEADER.size + _NLMSG_ERROR_CODE.size:
            return
        _, kind, _, sequence, _ = _NLMSG_HEADER.unpack_from(message)
        if kind == _NLMSG_ERROR and sequence == _OUR_SEQUENCE:
            (code,) = _NLMSG_ERROR_CODE.unpack_from(message, _NLMSG_HEADER.size)
            self._flag_answer = -code

    # --- Setting up -----------------------------------------------------------------------------------

    def _bind(self) -> None:
        try:
            self._queue.bind(
                self._number,
                self._packet_arrived,
                max_len=limits.QUEUE_LENGTH,
                mode=COPY_PACKET,
                range=limits.QUEUE_COPY_OCTETS,
                sock_len=limits.QUEUE_SOCKET_OCTETS,
            )
        except (OSError, RuntimeWarning) as error:
            raise EnvironmentFailureError(
                f"cannot bind netfilter queue {self._number}: another process has it, "
                f"or nfnetlink_queue is missing ({error})"
            ) from error

    def _set_up_socket(self) -> None:
        # Without this, an overrun of the socket's buffer is reported as an error to the reader as well.
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
        self._socket.send(flag_message(self._number, FAIL_OPEN))
        # The kernel answers a request before send() returns; packets may stand before the answer.
        while self._answered() is None:
            try:
                self.run()
            except OSError as error:
                self.close()
                raise EnvironmentFailureError(f"netfilter queue {self._number}: {_why(error)}") from error
            if self._answered() is None and self._left > 0:
                break
        if self._answered() != 0:
            self.close()
            raise EnvironmentFailureError(
                f"the kernel does not take the fail-open flag for queue {self._number}: "
                "a full queue would stop mail"
            )

    def _answered(self) -> int | None:
        """What the kernel has said to the flag: a call of `run` may have changed it."""
        return self._flag_answer

    def _packet_arrived(self, packet: Packet) -> None:
        if packet.physindev and not self._by_port:
            # br_netfilter shows it while it is a frame, and spares it our rules once it is none: it cannot be
            # delivered to a listener. So it passes, and is counted as what no worker has taken.
            packet.accept()
            return
        payload = packet.get_payload()
        index = packet.physindev or packet.indev
        interface = self._interfaces.get(index) or self._look_up_interface(index)
        self._on_packet(HeldPacket(packet), payload, packet.mark, interface)

    def _look_up_interface(self, index: int) -> str:
        """Not by if_indextoname(3): that takes a socket of a kind that a confined worker may not have."""
        try:
            answer = fcntl.ioctl(self._socket, _SIOCGIFNAME, _IFREQ.pack(b"", index))
        except OSError:
            return ""
        name: str = _IFREQ.unpack(answer)[0].partition(b"\0")[0].decode("ascii", "replace")
        self._interfaces[index] = name
        return name


def flag_message(queue: int, flag: int) -> bytes:
    """What asks the kernel for this flag of a queue; it answers with an acknowledgement or an error."""
    attributes = b"".join(
        struct.pack("=HH", 8, kind) + struct.pack("!I", flag) for kind in (_NFQA_CFG_MASK, _NFQA_CFG_FLAGS)
    )
    body = struct.pack("!BBH", socket.AF_UNSPEC, 0, queue) + attributes
    length = _NLMSG_HEADER.size + len(body)
    return _NLMSG_HEADER.pack(length, _NFQNL_MSG_CONFIG, _NLM_F_REQUEST_ACK, _OUR_SEQUENCE, 0) + body


def _why(error: OSError) -> str:
    # The library passes no errno on; it asks "Are you root?" whatever the kernel said.
    if error.errno in (errno.EPERM, errno.EACCES, None):
        return "needs CAP_NET_ADMIN (run as root, or give the service that capability)"
    return error.strerror or str(error)
