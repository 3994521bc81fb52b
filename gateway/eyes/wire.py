"""What crossed the wire: a capture file -> TCP sessions, their octets in order, and their round trips.

Pure but for reading the file. It must never guess: a hole in the capture makes a session incomplete, and
says so, because "no word was found" means nothing otherwise. A capture may come from anybody: what is no
packet of a mail session is passed over, what is no capture is told in one line.
Counterparts: `capture`, which writes such files, and `reading`, which makes them readable.
"""

from __future__ import annotations

import logging
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

with warnings.catch_warnings():
    # Importing scapy warns of algorithms that other libraries are about to drop; none is used here.
    warnings.simplefilter("ignore")
    from scapy.error import Scapy_Exception
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6
    from scapy.packet import Padding, Raw
    from scapy.utils import RawPcapReader

from gateway.errors import EnvironmentFailureError
from gateway.eyes.capture import (
    COOKED_HEADER,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    LARGEST_PACKET_OCTETS,
    LINK_LINUX_COOKED,
    SMTP_PORT,
)
from gateway.eyes.reading import FRAME_FIRST_OCTET, FRAME_HEADER_OCTETS

# Its remarks on a damaged file; what they come to is told by us, in one line.
logging.getLogger("scapy").setLevel(logging.CRITICAL)

SEQUENCE_SPACE: Final = 1 << 32
FIRST_FRAME: Final = re.compile(rb"\A(?:[^\r\n]*\r\n)+[\x81\x82]", re.DOTALL)
"""Behind the last clear line of either direction; no SMTP command or reply begins so."""
SAME_PORTS_AT_ONCE: Final = 4
"""Twice two: those of a gateway, and of the connection from the same port before."""
LAST_SECOND: Final = 253_402_300_799
"""Of the year 9999: no capture is of later."""
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
    ack: int | None = None
    """Where its side waits for the other one, raw; None: it does not say."""


@dataclass(frozen=True, slots=True)
class WirePacket:
    """One packet of a session. `fresh` is what it brought that no packet before it had."""

    time: float
    to_server: bool
    flags: int
    octets: bytes
    fresh: bytes

    @property
    def ends(self) -> bool:
        """Whether its side says no more behind it."""
        return bool(self.flags & (FIN | RST))


@dataclass(slots=True)
class Direction:
    """One direction's octets, put in order: packets may come twice, late, or overlap."""

    base: int | None = None
    octets: bytearray = field(default_factory=bytearray)
    """All in order, but for the first `forgotten` ones."""
    forgotten: int = 0
    early: dict[int, bytes] = field(default_factory=dict)
    known: int = 0
    """There are octets up to here, as its own end says."""
    awaited: int = 0
    """The other side has had all up to here, the end counted as an octet."""
    ended: bool = False
    headless: bool = False
    """The other side has had its beginning: that counts where the capture has not."""

    def take(self, seq: int, data: bytes) -> bytes:
        """Add one packet's data; what it made readable, in order."""
        if self.base is None or not data:
            return b""
        offset = self._offset(seq)
        if len(self.early.get(offset, b"")) < len(data):
            self.early[offset] = data
        if offset > self._done:
            return b""  # it waits, as all the others do
        before = len(self.octets)
        for start in sorted(self.early):
            if start > self._done:
                break
            piece = self.early.pop(start)
            self.octets += piece[self._done - start :]
        return bytes(self.octets[before:])

    def end(self, seq: int) -> None:
        """It says no more from here on."""
        if self.base is not None:
            self.ended = True
            self.known = max(self.known, self._offset(seq))

    def acknowledge(self, ack: int) -> None:
        """The other side waits for what comes from here on."""
        if self.base is None:
            self.headless = True
        else:
            self.awaited = max(self.awaited, self._offset(ack))

    def distance(self, number: int | None) -> int:
        """How far this number is from where we are; 0 where that says nothing."""
        if self.base is None or number is None:
            return 0
        return abs(self._offset(number) - self._done)

    def forget(self) -> None:
        """Keep only where we are."""
        self.forgotten += len(self.octets)
        self.octets.clear()

    @property
    def complete(self) -> bool:
        if self.base is None:
            return not self.headless
        return not self.early and self.known <= self._done and self.awaited <= self._done + self.ended

    @property
    def _done(self) -> int:
        return self.forgotten + len(self.octets)

    def _offset(self, seq: int) -> int:
        assert self.base is not None
        # The sequence number wraps at 4 GiB: take the offset that is nearest to where we are.
        here = self.base + self._done
        distance = (seq - here) % SEQUENCE_SPACE
        if distance >= SEQUENCE_SPACE // 2:
            distance -= SEQUENCE_SPACE
        return self._done + distance


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
        """Whether the capture has all octets that it tells of: by one behind them, an answer, or an end."""
        return self._up.complete and self._down.complete

    @property
    def was_reset(self) -> bool:
        return any(packet.flags & RST for packet in self.packets)

    @property
    def has_data(self) -> bool:
        return bool(self._up.octets or self._down.octets)

    def take(self, segment: Segment) -> WirePacket:
        """Add a segment of this session, of either direction."""
        to_server, own, other = self._sides(segment)
        opens = bool(segment.flags & SYN)
        seq = (segment.seq + opens) % SEQUENCE_SPACE
        if opens and own.base is None:
            own.base = seq
        fresh = own.take(seq, segment.octets)
        if segment.flags & FIN:
            own.end((seq + len(segment.octets)) % SEQUENCE_SPACE)
        if segment.ack is not None and not segment.flags & RST:
            other.acknowledge(segment.ack)
        packet = WirePacket(segment.time, to_server, segment.flags, segment.octets, fresh)
        self.packets.append(packet)
        return packet

    def begins_with(self, syn: Segment) -> bool:
        return syn.source == self.client and self._up.base == (syn.seq + 1) % SEQUENCE_SPACE

    def distance(self, segment: Segment) -> int:
        """How far its numbers are from where both sides are by now."""
        _, own, other = self._sides(segment)
        return max(own.distance(segment.seq), other.distance(segment.ack))

    def _sides(self, segment: Segment) -> tuple[bool, Direction, Direction]:
        to_server = segment.source == self.client
        return (True, self._up, self._down) if to_server else (False, self._down, self._up)

    def forget(self) -> None:
        """Let go of packets and octets that have been taken; `complete` still knows of holes."""
        self.packets.clear()
        self._up.forget()
        self._down.forget()


class Assembler:
    """Segments in, sessions out; also for a live view.

    Of one pair of ports there may be several at once: a capture of all interfaces of a gateway has the one
    that comes in and the one that goes on, which differ by their sequence numbers alone.
    """

    def __init__(self) -> None:
        self.sessions: list[WireSession] = []
        self._open: dict[tuple[Endpoint, Endpoint], list[WireSession]] = {}

    def take(self, segment: Segment) -> tuple[WireSession, WirePacket] | None:
        """The session that it belongs to; None for a connection whose beginning was not seen."""
        key = (segment.source, segment.destination)
        if segment.flags & SYN and not segment.flags & ACK:
            same = self._open.setdefault(key, [])
            if not any(session.begins_with(segment) for session in same):
                session = WireSession(segment.source, segment.destination)
                same.insert(0, session)
                del same[SAME_PORTS_AT_ONCE:]
                self.sessions.append(session)
        same_ports = self._open.get(key) or self._open.get((segment.destination, segment.source))
        if same_ports is None:
            return None
        found = min(same_ports, key=lambda session: session.distance(segment))
        return found, found.take(segment)


def segments(
    source: Path | IO[bytes], since: float = 0.0, ports: frozenset[int] = frozenset({SMTP_PORT})
) -> Iterator[Segment]:
    """Every segment to or from one of `ports` in a capture (pcap or pcapng), finished or still being written.

    Raises EnvironmentFailureError, one line, for what cannot be read.
    """
    name = str(source) if isinstance(source, Path) else "the capture"
    try:
        file = source.open("rb") if isinstance(source, Path) else source
    except OSError as error:
        raise EnvironmentFailureError(f"{name}: cannot be read: {error.strerror or error}") from None
    with file:
        try:
            reader = RawPcapReader(file)
        except (Scapy_Exception, EOFError, OSError, struct.error):
            raise EnvironmentFailureError(f"{name}: no capture file (pcap or pcapng)") from None
        reader.f = _Watched(reader.f)
        for octets, when, link in _frames(reader, name):
            segment = _segment(octets, link, when, ports) if when >= since else None
            if segment is not None:
                yield segment


class _Watched:
    """A file that remembers that it was broken: to scapy's reader a packed stream that is damaged, or cut
    off, is one that has ended, and what came behind would count as never sent."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.broken = False

    def read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except (OSError, EOFError, zlib.error):
            self.broken = True
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _frames(reader: Any, name: str) -> Iterator[tuple[bytes, float, int]]:
    """Octets, time and link type of each frame; both kinds of file."""
    while True:
        try:
            # Not next(), which cuts at 65,535 octets: a frame of the largest packet has more.
            octets, meta = reader._read_packet(LARGEST_PACKET_OCTETS)
        except EOFError:
            if reader.f.broken:
                raise EnvironmentFailureError(f"{name}: a damaged capture file") from None
            return
        except (Scapy_Exception, struct.error, LookupError, ValueError):
            raise EnvironmentFailureError(f"{name}: a damaged capture file") from None
        if hasattr(meta, "caplen"):
            link, when = reader.linktype, meta.sec + meta.usec * (1e-9 if reader.nano else 1e-6)
        elif meta.tshigh is None:
            raise EnvironmentFailureError(f"{name}: a capture without times, which cannot be read here")
        else:
            link, when = meta.linktype, ((meta.tshigh << 32) + meta.tslow) / meta.tsresol
        if when > LAST_SECOND:
            raise EnvironmentFailureError(f"{name}: a damaged capture file")
        yield octets, when, _known(link, name)


def _known(link: int, name: str) -> int:
    if link not in _NETWORK_PACKET:
        raise EnvironmentFailureError(f"{name}: a capture of link type {link}, which cannot be read here")
    return link


def _of_cooked(frame: bytes) -> tuple[int, bytes]:
    return _untagged(frame, COOKED_HEADER.size)


def _of_cooked_2(frame: bytes) -> tuple[int, bytes]:
    return int.from_bytes(frame[:2], "big"), frame[COOKED_2_OCTETS:]


def _of_ethernet(frame: bytes) -> tuple[int, bytes]:
    return _untagged(frame, ETHERNET_OCTETS)


def _untagged(frame: bytes, position: int) -> tuple[int, bytes]:
    """The header ends there with a type, which may be that of a tag with another type behind it."""
    kind = int.from_bytes(frame[position - 2 : position], "big")
    while kind in ETHERTYPES_VLAN and len(frame) >= position + VLAN_OCTETS:
        position += VLAN_OCTETS
        kind = int.from_bytes(frame[position - 2 : position], "big")
    return kind, frame[position:]


def _of_nothing(frame: bytes) -> tuple[int, bytes]:
    """The version is in the packet's first half octet."""
    version = frame[0] >> 4 if frame else 0
    return {4: ETHERTYPE_IPV4, 6: ETHERTYPE_IPV6}.get(version, 0), frame


def _of_bsd_loopback(frame: bytes) -> tuple[int, bytes]:
    return _of_nothing(frame[4:])


ETHERNET_OCTETS: Final = 14
VLAN_OCTETS: Final = 4
ETHERTYPES_VLAN: Final = frozenset({0x8100, 0x88A8, 0x9100})
COOKED_2_OCTETS: Final = 20
# <pcap/dlt.h>: which link types there are, and how the packet of the network is found in a frame of each.
_NETWORK_PACKET: Final[dict[int, Callable[[bytes], tuple[int, bytes]]]] = {
    0: _of_bsd_loopback,
    1: _of_ethernet,
    12: _of_nothing,
    101: _of_nothing,
    108: _of_bsd_loopback,
    LINK_LINUX_COOKED: _of_cooked,
    228: _of_nothing,
    229: _of_nothing,
    276: _of_cooked_2,
}


def _segment(frame: bytes, link: int, when: float, ports: frozenset[int]) -> Segment | None:
    kind, octets = _NETWORK_PACKET[link](frame)
    if kind not in {ETHERTYPE_IPV4, ETHERTYPE_IPV6}:
        return None
    try:
        packet = (IP if kind == ETHERTYPE_IPV4 else IPv6)(octets)
    except struct.error:  # cut off within its first header
        return None
    if TCP not in packet:
        return None
    tcp = packet[TCP]
    if ports.isdisjoint((tcp.sport, tcp.dport)):
        return None
    # Short Ethernet frames are filled up; what fills them is no octet of the session.
    spoken = (
        tcp.payload.load if isinstance(tcp.payload, Raw) and not isinstance(tcp.payload, Padding) else b""
    )
    return Segment(
        time=when,
        source=Endpoint(packet.src, tcp.sport),
        destination=Endpoint(packet.dst, tcp.dport),
        flags=int(tcp.flags),
        seq=int(tcp.seq),
        octets=bytes(spoken),
        ack=int(tcp.ack) if int(tcp.flags) & ACK else None,
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
