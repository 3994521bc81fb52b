"""One packet as the queue hands it over -> whose connection to where.

Pure. Must never trust a length, an offset or a chain of headers: anybody on the wire writes these
octets. What it does not understand is None, and the caller lets the packet pass.
"""

from __future__ import annotations

import socket  # for the names of the two families and inet_ntop: no input or output
from typing import Final, NamedTuple

_TCP: Final = 6
_IPV4_HEADER: Final = 20
_IPV6_HEADER: Final = 40
_TCP_PORTS: Final = 4
# RFC 8200 4.1: headers that may stand between IPv6's and TCP's and are shaped (next, length, ...).
_HOP_BY_HOP, _ROUTING, _DESTINATION, _MOBILITY, _FRAGMENT = 0, 43, 60, 135, 44
_SKIPPED: Final = frozenset({_HOP_BY_HOP, _ROUTING, _DESTINATION, _MOBILITY})
_FRAGMENT_HEADER: Final = 8
# The kernel has already found TCP in this packet; nobody who means well sends more headers than this.
_EXTENSION_HEADERS: Final = 8


class Flow(NamedTuple):
    """One connection as its client named it. Addresses are in their canonical text form.

    A tuple, because it is a key in half a dozen dictionaries, and tuples hash in C.
    """

    source: str
    source_port: int
    destination: str
    destination_port: int

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.destination else socket.AF_INET

    @property
    def server(self) -> tuple[str, int]:
        """Destination address and port."""
        return self.destination, self.destination_port

    def __str__(self) -> str:
        return f"{self.source}.{self.source_port}>{self.destination}.{self.destination_port}"


def parse_syn(packet: bytes) -> Flow | None:
    """Addresses and ports of a TCP packet that begins at its IP header; None if it is anything else."""
    if not packet:
        return None
    version = packet[0] >> 4
    if version == 4:
        return _ipv4(packet)
    return _ipv6(packet) if version == 6 else None


def _ipv4(packet: bytes) -> Flow | None:
    header = (packet[0] & 0x0F) * 4
    if header < _IPV4_HEADER or len(packet) < header + _TCP_PORTS or packet[9] != _TCP:
        return None
    if int.from_bytes(packet[6:8]) & 0x1FFF:
        return None  # a later fragment: what follows the header are no ports
    return _flow(socket.AF_INET, packet[12:16], packet[16:20], packet[header : header + _TCP_PORTS])


def _ipv6(packet: bytes) -> Flow | None:
    if len(packet) < _IPV6_HEADER:
        return None
    tcp = _ipv6_tcp_offset(packet)
    if tcp is None or len(packet) < tcp + _TCP_PORTS:
        return None
    return _flow(socket.AF_INET6, packet[8:24], packet[24:40], packet[tcp : tcp + _TCP_PORTS])


def _ipv6_tcp_offset(packet: bytes) -> int | None:
    kind, offset = packet[6], _IPV6_HEADER
    for _ in range(_EXTENSION_HEADERS):
        if kind == _TCP:
            return offset
        if len(packet) < offset + _FRAGMENT_HEADER:
            return None
        if kind == _FRAGMENT:
            if int.from_bytes(packet[offset + 2 : offset + 4]) & 0xFFF8:
                return None
            kind, offset = packet[offset], offset + _FRAGMENT_HEADER
        elif kind in _SKIPPED:
            kind, offset = packet[offset], offset + 8 * (packet[offset + 1] + 1)
        else:
            return None
    return offset if kind == _TCP else None


def _flow(family: socket.AddressFamily, source: bytes, destination: bytes, ports: bytes) -> Flow:
    return Flow(
        source=socket.inet_ntop(family, source),
        source_port=int.from_bytes(ports[:2]),
        destination=socket.inet_ntop(family, destination),
        destination_port=int.from_bytes(ports[2:]),
    )
