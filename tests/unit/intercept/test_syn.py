"""Packets as the queue hands them over: right ones are read, all others are None, none raises."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.intercept.syn import Flow, parse_syn

TCP = struct.pack("!HHIIBBHHH", 40025, 25, 1, 0, 0x50, 2, 64240, 0, 0)
V4 = Flow("192.0.2.1", 40025, "198.51.100.7", 25)
V6 = Flow("2001:db8::1", 40025, "2001:db8:1::7", 25)


def ipv4(options: bytes = b"", fragment: int = 0, protocol: int = 6, tcp: bytes = TCP) -> bytes:
    first = 0x40 | (5 + len(options) // 4)
    header = struct.pack("!BBHHHBBH", first, 0, 20 + len(options) + len(tcp), 1, fragment, 64, protocol, 0)
    return header + socket.inet_aton(V4.source) + socket.inet_aton(V4.destination) + options + tcp


def ipv6(*headers: tuple[int, bytes], tcp: bytes = TCP, last: int = 6) -> bytes:
    """`headers`: kind and what follows its next-header octet."""
    kinds = [kind for kind, _ in headers] + [last]
    body = b"".join(bytes([kinds[i + 1]]) + rest for i, (_, rest) in enumerate(headers)) + tcp
    addresses = b"".join(socket.inet_pton(socket.AF_INET6, text) for text in (V6.source, V6.destination))
    return struct.pack("!IHBB", 6 << 28, len(body), kinds[0], 64) + addresses + body


HOP_BY_HOP = (0, bytes([0]) + bytes(6))
DESTINATION = (60, bytes([1]) + bytes(14))
FIRST_FRAGMENT = (44, bytes([0, 0, 1]) + bytes(4))
LATER_FRAGMENT = (44, bytes([0, 1, 0]) + bytes(4))
UNKNOWN = (99, bytes([0]) + bytes(6))


@pytest.mark.parametrize("options", [b"", bytes(4), bytes(40)])
def test_ipv4(options: bytes) -> None:
    flow = parse_syn(ipv4(options))
    assert flow == V4
    assert flow.family == socket.AF_INET
    assert flow.server == ("198.51.100.7", 25)


@pytest.mark.parametrize(
    "headers",
    [(), (HOP_BY_HOP,), (HOP_BY_HOP, DESTINATION), (FIRST_FRAGMENT,), (HOP_BY_HOP,) * 8],
    ids=lambda headers: str(len(headers)),
)
def test_ipv6(headers: tuple[tuple[int, bytes], ...]) -> None:
    flow = parse_syn(ipv6(*headers))
    assert flow == V6
    assert flow.family == socket.AF_INET6


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x00" * 60,
        ipv4(protocol=17),
        ipv4(fragment=1),
        b"\x44" + ipv4()[1:],
        ipv6(last=17),
        ipv6(LATER_FRAGMENT),
        ipv6(UNKNOWN),
        ipv6(*(HOP_BY_HOP,) * 9),
        ipv6((0, bytes([255]) + bytes(6))),
    ],
)
def test_what_is_no_tcp_packet_is_none(packet: bytes) -> None:
    assert parse_syn(packet) is None


@pytest.mark.parametrize("packet", [ipv4(bytes(8)), ipv6(HOP_BY_HOP, DESTINATION)], ids=["v4", "v6"])
def test_cut_anywhere(packet: bytes) -> None:
    whole = len(packet) - len(TCP) + 4  # the ports are all we read
    for length in range(len(packet)):
        assert (parse_syn(packet[:length]) is not None) == (length >= whole)


@given(st.binary(max_size=120))
def test_anything_at_all(packet: bytes) -> None:
    flow = parse_syn(packet)
    assert flow is None or 0 <= flow.source_port <= 0xFFFF


@given(st.data())
def test_damaged_anywhere(data: st.DataObject) -> None:
    packet = bytearray(data.draw(st.sampled_from([ipv4(bytes(8)), ipv6(HOP_BY_HOP, DESTINATION)])))
    packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    parse_syn(bytes(packet))


@given(st.binary(min_size=4, max_size=4), st.integers(0, 65535))
def test_every_ipv4_address_is_read_as_it_is(address: bytes, port: int) -> None:
    packet = ipv4(tcp=struct.pack("!H", port) + TCP[2:])
    flow = parse_syn(packet[:12] + address + packet[16:])
    assert flow == Flow(socket.inet_ntoa(address), port, V4.destination, 25)
