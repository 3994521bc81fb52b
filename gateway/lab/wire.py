"""What crossed the wire: a capture file -> TCP sessions, their octets in order, and their round trips.

Pure but for reading the file. It must never guess: a hole in the capture makes a session incomplete, and
says so, because "no word was found" means nothing otherwise. Counterparts: `listener`, which writes the
file, and `transcript`, which makes it readable.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

with warnings.catch_warnings():
    # Importing scapy warns of algorithms that other libraries are about to drop; none is used here.
    warnings.simplefilter("ignore")
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6
    from scapy.utils import RawPcapReader

from gateway.lab.capture import COOKED_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, LINK_LINUX_COOKED
from gateway.lab.topology import SMTP_PORT

SEQUENCE_SPACE: Final = 1 << 32
FRAME_FIRST_OCTET: Final = 0x80
FRAME_HEADER_OCTETS: Final = 3
"""docs/protocol.md: type u8 of at least 0x80, length u16, body."""
FIRST_FRAME: Final = re.compile(rb"\A(?:[^\r\n]*\r\n)+[\x81\x82]", re.DOTALL)
"""Behind the last clear line of either direction; no SMTP command or reply begins so."""
FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a session."""

    address: str
    port: int


@dataclass(frozen=True, slots=True)
class Segment:
    """One TCP packet as it is on the wire; `seq` is the raw sequence number."""

    time: float
    source: Endpoint
    destination: Endpoint
    flags: int
    seq: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class WirePacket:
    """One packet of a session. `fresh` is what it brought that no packet before it had."""

    time: float
    to_server: bool
    flags: int
    octets: bytes
    fresh: bytes


@dataclass(slots=True)
class Direction:
    """One direction's octets, put in order: packets may come twice, late, or overlap."""

    base: int | None = None
    octets: bytearray = field(default_factory=bytearray)
    early: dict[int, bytes] = field(default_factory=dict)

    def take(self, seq: int, data: bytes) -> bytes:
        """Add one packet's data; what it made readable, in order."""
        if self.base is None or not data:
            return b""
        offset = self._offset(seq)
        if len(self.early.get(offset, b"")) < len(data):
            self.early[offset] = data
        before = len(self.octets)
        while (start := self._next_start()) is not None:
            piece = self.early.pop(start)
            self.octets += piece[len(self.octets) - start :]
        return bytes(self.octets[before:])

    @property
    def complete(self) -> bool:
        return not self.early

    def _offset(self, seq: int) -> int:
        assert self.base is not None
        # The sequence number wraps at 4 GiB: take the offset that is nearest to where we are.
        here = self.base + len(self.octets)
        distance = (seq - here) % SEQUENCE_SPACE
        if distance >= SEQUENCE_SPACE // 2:
            distance -= SEQUENCE_SPACE
        return len(self.octets) + distance

    def _next_start(self) -> int | None:
        done = len(self.octets)
        for start in [start for start, data in self.early.items() if start + len(data) <= done]:
            del self.early[start]
        return next((start for start in self.early if start <= done), None)


@dataclass(slots=True)
class WireSession:
    """One TCP connection, from its SYN on. The server is the one that was connected to."""

    client: Endpoint
    server: Endpoint
    packets: list[WirePacket] = field(default_factory=list)
    _up: Direction = field(default_factory=Direction)
    _down: Direction = field(default_factory=Direction)

    @property
    def from_client(self) -> bytes:
        return bytes(self._up.octets)

    @property
    def from_server(self) -> bytes:
        return bytes(self._down.octets)

    @property
    def octets(self) -> bytes:
        """Both directions, for a search."""
        return self.from_client + b"\0" + self.from_server

    @property
    def began(self) -> float:
        return self.packets[0].time

    @property
    def complete(self) -> bool:
        """Whether the capture has every octet of it that was acknowledged into order."""
        return self._up.complete and self._down.complete

    @property
    def was_reset(self) -> bool:
        return any(packet.flags & RST for packet in self.packets)

    @property
    def has_data(self) -> bool:
        return bool(self._up.octets or self._down.octets)

    def take(self, segment: Segment) -> WirePacket:
        """Add a segment of this session, of either direction."""
        to_server = segment.source == self.client
        direction = self._up if to_server else self._down
        if segment.flags & SYN:
            direction.base = (segment.seq + 1) % SEQUENCE_SPACE
        fresh = direction.take(segment.seq, segment.octets)
        packet = WirePacket(segment.time, to_server, segment.flags, segment.octets, fresh)
        self.packets.append(packet)
        return packet


class Assembler:
    """Segments in, sessions out; also for a live view."""

    def __init__(self) -> None:
        self.sessions: list[WireSession] = []
        self._open: dict[tuple[Endpoint, Endpoint], WireSession] = {}
        self._first: dict[tuple[Endpoint, Endpoint], int] = {}

    def take(self, segment: Segment) -> tuple[WireSession, WirePacket] | None:
        """The session that it belongs to; None for a connection whose beginning was not seen."""
        key = (segment.source, segment.destination)
        if segment.flags & SYN and not segment.flags & ACK and self._first.get(key) != segment.seq:
            self._first[key] = segment.seq
            session = WireSession(segment.source, segment.destination)
            self._open[key] = session
            self.sessions.append(session)
        found = self._open.get(key) or self._open.get((segment.destination, segment.source))
        return None if found is None else (found, found.take(segment))


def segments(source: Path | IO[bytes], since: float = 0.0) -> Iterator[Segment]:
    """Every SMTP segment of a capture, or of a capture that is still being written to a pipe."""
    reader = RawPcapReader(str(source) if isinstance(source, Path) else source)
    try:
        if reader.linktype != LINK_LINUX_COOKED:
            raise ValueError(f"capture of link type {reader.linktype}, not {LINK_LINUX_COOKED}")
        resolution = 1e-9 if reader.nano else 1e-6
        for frame, meta in reader:
            when = meta.sec + meta.usec * resolution
            segment = _segment(frame, when) if when >= since else None
            if segment is not None:
                yield segment
    finally:
        reader.close()


def _segment(frame: bytes, when: float) -> Segment | None:
    kind = int.from_bytes(frame[COOKED_HEADER.size - 2 : COOKED_HEADER.size], "big")
    if kind not in {ETHERTYPE_IPV4, ETHERTYPE_IPV6}:
        return None
    packet = (IP if kind == ETHERTYPE_IPV4 else IPv6)(frame[COOKED_HEADER.size :])
    if TCP not in packet:
        return None
    tcp = packet[TCP]
    if SMTP_PORT not in (tcp.sport, tcp.dport):
        return None
    return Segment(
        time=when,
        source=Endpoint(packet.src, tcp.sport),
        destination=Endpoint(packet.dst, tcp.dport),
        flags=int(tcp.flags),
        seq=int(tcp.seq),
        octets=bytes(tcp.payload),
    )


def sessions(pcap: Path, since: float = 0.0) -> list[WireSession]:
    """Every session of a capture that began at or after `since` (time.time()), in order."""
    assembler = Assembler()
    for segment in segments(pcap, since):
        assembler.take(segment)
    return assembler.sessions


def round_trips(session: WireSession) -> int:
    """How often the server's data followed upon data of the client: so often the client had to wait.

    The last record of a sealed direction does not count: it only ends it, as a FIN does in clear, which
    does not count either, and nobody waits for it.
    """
    ends = {True: _end_of_speech(session.from_client), False: _end_of_speech(session.from_server)}
    taken = {True: 0, False: 0}
    count = 0
    client_spoke_last = False
    for packet in session.packets:
        speaks = bool(packet.fresh) and taken[packet.to_server] < ends[packet.to_server]
        taken[packet.to_server] += len(packet.fresh)
        if not speaks:
            continue
        if not packet.to_server and client_spoke_last:
            count += 1
        client_spoke_last = packet.to_server
    return count


def _end_of_speech(octets: bytes) -> int:
    """Where the last frame of a sealed direction begins; for a direction in clear its whole length."""
    found = FIRST_FRAME.search(octets)
    if found is None:
        return len(octets)
    last = position = found.end() - 1
    while position + FRAME_HEADER_OCTETS <= len(octets) and octets[position] >= FRAME_FIRST_OCTET:
        last = position
        position += FRAME_HEADER_OCTETS + int.from_bytes(octets[position + 1 : position + 3], "big")
    return last


def found_words(session: WireSession, words: dict[str, bytes]) -> set[str]:
    """Which kinds of words a listener finds in the session, whatever their case."""
    octets = session.octets.lower()
    return {kind for kind, word in words.items() if word.lower() in octets}
