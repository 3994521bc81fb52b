"""The listener's ear: every mail packet that comes in to a namespace, into a capture file.

A process of its own: `python -m gateway.eyes.capture FILE [INTERFACE [PORT...]]` (`-` is standard output).
With an interface it hears what comes in and what goes out there, and nothing else. It takes each packet
once, as it arrives and before any rule or queue has it, whole as the kernel carries it (segments joined up to
64 KiB). It must not miss any: packets wait in a large socket buffer that counts what they really take, where
the usual capture ring gives each one a slot of the largest size and overflows within one mail. What was
missed nevertheless is told on standard error. Counterparts: `lab.listener` and `operator.audit`, which start
it; `wire`, which reads.
"""

from __future__ import annotations

import contextlib
import errno
import select
import signal
import socket
import struct
import sys
from pathlib import Path
from types import FrameType
from typing import BinaryIO, Final

SMTP_PORT: Final = 25
TOKEN_PORT: Final = 9
"""The discard port: the listener's own tokens."""

BUFFER_OCTETS: Final = 256 * 1024 * 1024
LARGEST_PACKET_OCTETS: Final = 256 * 1024
FILE_BUFFER_OCTETS: Final = 1024 * 1024

# <linux/if_packet.h>, <linux/if_ether.h>, <asm-generic/socket.h>: no names in the standard library.
ETH_P_ALL: Final = 3
SOL_PACKET: Final = 263
PACKET_STATISTICS: Final = 6
PACKET_IGNORE_OUTGOING: Final = 23
SO_RCVBUFFORCE: Final = 33
SO_TIMESTAMPNS: Final = 35

PCAP_NANOSECONDS: Final = 0xA1B23C4D
LINK_LINUX_COOKED: Final = 113
FILE_HEADER: Final = struct.pack(
    "<IHHiIII", PCAP_NANOSECONDS, 2, 4, 0, 0, LARGEST_PACKET_OCTETS, LINK_LINUX_COOKED
)
RECORD_HEADER: Final = struct.Struct("<IIII")
COOKED_HEADER: Final = struct.Struct("!HHH8sH")
TIMESPEC: Final = struct.Struct("@ll")
STATISTICS: Final = struct.Struct("@II")

ETHERTYPE_IPV4: Final = 0x0800
ETHERTYPE_IPV6: Final = 0x86DD
IPV6_HEADER_OCTETS: Final = 40
TOO_SLOW: Final = "packets missed, the listener was too slow"
"""Behind their number since the beginning."""
TCP: Final = 6
UDP: Final = 17


def is_wanted(
    ethertype: int, packet: memoryview, mail_ports: frozenset[int] = frozenset({SMTP_PORT})
) -> bool:
    """Whether this is a segment of a mail session, or one of the listener's own tokens."""
    if ethertype == ETHERTYPE_IPV4 and len(packet) > 20:
        protocol, start = packet[9], (packet[0] & 0x0F) * 4
    elif ethertype == ETHERTYPE_IPV6 and len(packet) > IPV6_HEADER_OCTETS:
        protocol, start = packet[6], IPV6_HEADER_OCTETS
    else:
        return False
    ports = packet[start : start + 4]
    if len(ports) < 4:
        return False
    source, destination = int.from_bytes(ports[:2], "big"), int.from_bytes(ports[2:], "big")
    if protocol == TCP:
        return source in mail_ports or destination in mail_ports
    return protocol == UDP and destination == TOKEN_PORT


def record(ethertype: int, kind: int, when: tuple[int, int], packet: memoryview) -> bytes:
    """One packet as the file has it: times, lengths, "cooked" link header, octets."""
    cooked = COOKED_HEADER.pack(kind, 1, 0, bytes(8), ethertype)
    size = len(cooked) + len(packet)
    return RECORD_HEADER.pack(*when, size, size) + cooked + packet


def open_ear(interface: str | None = None) -> socket.socket:
    """A socket that hears every packet that comes in to the namespace that this process is in.

    With an interface: what comes in and what goes out there. Raises OSError for none of that name,
    PermissionError without the right to listen (CAP_NET_RAW).
    """
    # With an interface nothing of any other may be heard first: it hears nothing at all before it is bound.
    protocol = socket.htons(ETH_P_ALL) if interface is None else 0
    ear = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, protocol)
    if interface is not None:
        try:
            ear.bind((interface, ETH_P_ALL))
        except (OSError, UnicodeError):
            ear.close()
            raise
    ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_OCTETS)
    ear.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    # Each packet crosses the router twice; one record of it is enough.
    ear.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, interface is None)
    ear.setblocking(False)
    return ear


def hear(
    ear: socket.socket,
    out: BinaryIO,
    ports: frozenset[int] = frozenset({SMTP_PORT}),
    *,
    outgoing: bool = False,
) -> None:
    """Write until the process is ended, nobody reads any more, or the interface is gone.

    What has been heard is in the file whenever there is a pause.
    """
    missed = _Missed(ear)
    try:
        _hear(ear, out, ports, missed, outgoing=outgoing)
    finally:
        # Where there never was a pause, nothing was told of them.
        missed.tell()


def _hear(
    ear: socket.socket, out: BinaryIO, ports: frozenset[int], missed: _Missed, *, outgoing: bool
) -> None:
    out.write(FILE_HEADER)
    buffer = bytearray(LARGEST_PACKET_OCTETS)
    view = memoryview(buffer)
    poll = select.poll()
    poll.register(ear, select.POLLIN)
    # A pipe whose reader has gone says so unasked, also where there is nothing to write.
    poll.register(out, 0)
    while True:
        try:
            size, ancillary, _, address = ear.recvmsg_into([buffer], socket.CMSG_SPACE(TIMESPEC.size))
        except BlockingIOError:
            out.flush()
            missed.tell()
            if any(events & select.POLLERR for end, events in poll.poll() if end == out.fileno()):
                return
            continue
        except OSError as error:
            if error.errno != errno.ENETDOWN:
                raise
            if _is_gone(ear):
                return
            continue
        ethertype, kind = address[1], address[2]
        if (outgoing or kind != socket.PACKET_OUTGOING) and is_wanted(ethertype, view[:size], ports):
            when = TIMESPEC.unpack(ancillary[0][2][: TIMESPEC.size])
            out.write(record(ethertype, kind, when, view[:size]))


def _is_gone(ear: socket.socket) -> bool:
    """Whether the interface that went down will not come back."""
    gone = not ear.getsockname()[0]
    _tell("the interface is gone" if gone else "the interface was down for a while")
    return gone


class _Missed:
    """So many packets that the kernel had no room for: it forgets them with each look."""

    def __init__(self, ear: socket.socket) -> None:
        self._ear = ear
        self._count = 0

    def tell(self) -> None:
        _, more = STATISTICS.unpack(self._ear.getsockopt(SOL_PACKET, PACKET_STATISTICS, STATISTICS.size))
        self._count += more
        if more:
            _tell(f"{self._count} {TOO_SLOW}")


def _tell(words: str) -> None:
    sys.stderr.write(f"{words}\n")
    sys.stderr.flush()


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)


def main() -> None:
    """Command line of the process."""
    path, interface, *numbers = [*sys.argv[1:], ""] if len(sys.argv) == 2 else sys.argv[1:]
    ports = frozenset(map(int, numbers)) or frozenset({SMTP_PORT})
    signal.signal(signal.SIGTERM, _end)
    # Whoever looks on at a terminal ends with Ctrl-C; the pipe's end is our end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    target = sys.stdout.fileno() if path == "-" else Path(path)
    with (
        open_ear(interface or None) as ear,
        contextlib.suppress(BrokenPipeError),
        open(target, "ab", buffering=FILE_BUFFER_OCTETS) as out,  # noqa: PTH123 - may be a descriptor
    ):
        hear(ear, out, ports, outgoing=bool(interface))


if __name__ == "__main__":
    main()
