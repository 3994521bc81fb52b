"""Packets of many mail sessions, sent through routers from outside of them, and the CPU time that this takes.

    ends (c0, c1, ...) --lan-- router 0, 1, ... --wan-- ends (s0, s1, ...)

No client and no server: frames are made here, both directions, and what a router sends on is for a MAC that
nobody has, so that it ends with the veth pair. A packet's whole way is then within the system call that
sends it, and in the CPU time of this thread: there is nothing else to be taken off. Counterpart: `rules`,
which says what stands in the routers.
"""

from __future__ import annotations

import ctypes
import ipaddress
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import planes
from gateway.lab import network, processes

OWNER: Final = "rules"
ENDS: Final = f"{planes.PREFIX}{OWNER}-ends"
LAN_MAC, WAN_MAC, NOBODYS_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02", "02:00:00:00:00:ff"
CLIENT: Final = {4: "10.1.0.2", 6: "fd00:1::2"}
SERVER: Final = {4: "10.2.0.2", 6: "fd00:2::2"}
MAIL_PORT: Final = 25

SESSIONS: Final = 64
"""Of one batch: so many packets go with one system call."""
BATCHES: Final = 3
FIRST_PORT, LAST_PORT = 1024, 64000

FIN, SYN, RST, ACK = 1, 2, 4, 16
COMMANDS: Final = 9
COMMAND, REPLY = bytes(30), bytes(60)

# <linux/if_packet.h>
_SOL_PACKET: Final = 263
_PACKET_VNET_HDR: Final = 15
_PACKET_QDISC_BYPASS: Final = 20
_VNET: Final = struct.Struct("=BBHHHH")
_NEEDS_CHECKSUM: Final = 1
"""As between two programs of one machine, or from a card that has looked: nobody computes a checksum."""
_ETHER: Final = 14


@dataclass(frozen=True, slots=True)
class Step:
    """One packet of a session."""

    to_server: bool
    flags: int
    sequence: int
    acknowledged: int
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Took:
    """CPU time: microseconds of a session, and nanoseconds of a packet between its beginning and its end."""

    session: float
    to_server: float
    from_server: float


def session_steps() -> list[Step]:
    """Forty packets: what passes a gateway in a session of smtp-source, which ends with a reset."""
    client, server = 1001, 5001
    steps = [Step(True, SYN, 1000, 0), Step(False, SYN | ACK, 5000, client), Step(True, ACK, client, server)]
    for _ in range(COMMANDS):
        steps.append(Step(False, ACK, server, client, REPLY))
        server += len(REPLY)
        steps += [Step(True, ACK, client, server), Step(True, ACK, client, server, COMMAND)]
        client += len(COMMAND)
        steps.append(Step(False, ACK, server, client))
    return [*steps, Step(True, RST, client, 0)]


# --- Routers ------------------------------------------------------------------------------------------


def router(number: int) -> str:
    return f"{planes.PREFIX}{OWNER}-{number}"


@contextmanager
def standing(count: int) -> Iterator[None]:
    """So many routers, and their ends; gone behind it, with what a killed run has left."""
    with planes.alone(OWNER):
        network.create([ENDS, *map(router, range(count))])
        for number in range(count):
            _build(number)
        yield


def _build(number: int) -> None:
    name = router(number)
    _ip(
        name,
        "link set lo up",
        f"link add lan address {LAN_MAC} type veth peer name c{number} netns {ENDS}",
        f"link add wan address {WAN_MAC} type veth peer name s{number} netns {ENDS}",
        "link set lan up",
        "link set wan up",
        "addr add 10.1.0.1/24 dev lan",
        "addr add 10.2.0.1/24 dev wan",
        "addr add fd00:1::1/64 dev lan nodad",
        "addr add fd00:2::1/64 dev wan nodad",
        *(f"neigh replace {CLIENT[family]} lladdr {NOBODYS_MAC} dev lan" for family in (4, 6)),
        *(f"neigh replace {SERVER[family]} lladdr {NOBODYS_MAC} dev wan" for family in (4, 6)),
    )
    _ip(ENDS, f"link set c{number} up", f"link set s{number} up")
    network.inside(name, _forward)


def _forward() -> None:
    for switch in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        Path("/proc/sys/net", switch).write_text("1")


def _ip(namespace: str, *lines: str) -> None:
    processes.run_in(namespace, ["ip", "-batch", "-"], stdin="\n".join([*lines, ""]).encode())


# --- Frames -------------------------------------------------------------------------------------------


def frame(step: Step, family: int) -> bytearray:
    """One packet as the socket takes it; its client's port is put in later."""
    client, server = CLIENT[family], SERVER[family]
    source, target = (client, server) if step.to_server else (server, client)
    ports = (0, MAIL_PORT) if step.to_server else (MAIL_PORT, 0)
    words = (*ports, step.sequence, step.acknowledged, 5 << 4, step.flags, 65000, 0, 0)
    segment = struct.pack("!HHIIBBHHH", *words) + step.payload
    head = _ip4(source, target, len(segment)) if family == 4 else _ip6(source, target, len(segment))
    vnet = _VNET.pack(_NEEDS_CHECKSUM, 0, 0, 0, _ETHER + len(head), 16)
    mac = bytes.fromhex((LAN_MAC if step.to_server else WAN_MAC).replace(":", ""))
    kind = b"\x08\x00" if family == 4 else b"\x86\xdd"
    return bytearray(vnet + mac + bytes.fromhex("020000000003") + kind + head + segment)


def port_at(step: Step, family: int) -> int:
    """Where in its frame the client's port is."""
    return _VNET.size + _ETHER + (20 if family == 4 else 40) + (0 if step.to_server else 2)


def _ip4(source: str, target: str, octets: int) -> bytes:
    addresses = [ipaddress.ip_address(one).packed for one in (source, target)]
    words = (0x45, 0, 20 + octets, 0, 0x4000, 64, socket.IPPROTO_TCP, 0, *addresses)
    head = bytearray(struct.pack("!BBHHHBBH4s4s", *words))
    total = sum(struct.unpack("!10H", head))
    struct.pack_into("!H", head, 10, ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
    return bytes(head)


def _ip6(source: str, target: str, octets: int) -> bytes:
    addresses = [ipaddress.ip_address(one).packed for one in (source, target)]
    return struct.pack("!IHBB16s16s", 6 << 28, octets, socket.IPPROTO_TCP, 64, *addresses)


# --- Sending ------------------------------------------------------------------------------------------


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Head(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("vectors", ctypes.POINTER(_Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("head", _Head), ("sent", ctypes.c_uint))


_send: Final = ctypes.CDLL(None, use_errno=True).sendmmsg


class _Phase:
    """The same packet of all sessions of a batch."""

    def __init__(self, step: Step, family: int) -> None:
        self.step = step
        self._port_at = port_at(step, family)
        self._frames = [frame(step, family) for _ in range(SESSIONS)]
        whole = [(ctypes.c_char * len(one)).from_buffer(one) for one in self._frames]
        self._vectors = (_Vector * SESSIONS)(*(_Vector(ctypes.addressof(one), len(one)) for one in whole))
        self._kept = whole
        self._messages = (_Message * SESSIONS)()
        for message, vector in zip(self._messages, self._vectors, strict=True):
            message.head.vectors, message.head.vector_count = ctypes.pointer(vector), 1

    def of_ports(self, first: int) -> None:
        for number, octets in enumerate(self._frames):
            struct.pack_into("!H", octets, self._port_at, first + number)

    def send(self, sock: int) -> int:
        """Nanoseconds of this thread."""
        begun = time.thread_time_ns()
        sent = _send(sock, self._messages, SESSIONS, 0)
        took = time.thread_time_ns() - begun
        if sent != SESSIONS:
            raise OSError(ctypes.get_errno(), f"{sent} of {SESSIONS} packets were sent")
        return took


class Flood:
    """Sends sessions through any of the routers."""

    def __init__(self, family: int, count: int) -> None:
        self._phases = [_Phase(step, family) for step in session_steps()]
        self._ends = [(_bound(f"c{number}"), _bound(f"s{number}")) for number in range(count)]
        self._ports = dict.fromkeys(range(count), FIRST_PORT)

    def take(self, number: int, between: Callable[[], object] = int) -> Took:
        """One round; its first batch only warms. `between` is done before each packet of all sessions."""
        self._batch(number, between)
        batches = [self._batch(number, between) for _ in range(BATCHES)]
        took = [sum(several) / BATCHES / SESSIONS for several in zip(*batches, strict=True)]
        middle = [(phase.step.to_server, one) for phase, one in zip(self._phases, took, strict=True)][3:-1]
        there, back = ([one for to_server, one in middle if to_server is way] for way in (True, False))
        return Took(sum(took) / 1000, sum(there) / len(there), sum(back) / len(back))

    def _batch(self, number: int, between: Callable[[], object]) -> list[int]:
        first = self._ports[number]
        self._ports[number] = FIRST_PORT if first + SESSIONS > LAST_PORT else first + SESSIONS
        for phase in self._phases:
            phase.of_ports(first)
        client, server = (end.fileno() for end in self._ends[number])
        took = []
        for phase in self._phases:
            between()
            took.append(phase.send(client if phase.step.to_server else server))
        return took

    def close(self) -> None:
        for pair in self._ends:
            for end in pair:
                end.close()


def _bound(interface: str) -> socket.socket:
    def made() -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        sock.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        sock.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        sock.bind((interface, 0))
        return sock

    return network.inside(ENDS, made)


def in_turns(
    flood: Flood, names: Sequence[str], turns: int, between: Callable[[], object]
) -> Mapping[str, list[Took]]:
    """Rounds of all routers, each turn beginning with another one."""
    took: dict[str, list[Took]] = {name: [] for name in names}
    numbers = {name: number for number, name in enumerate(names)}
    for turn in range(turns):
        for name in planes.in_turn(names, turn):
            took[name].append(flood.take(numbers[name], between))
    return took
