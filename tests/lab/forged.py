"""SYNs with forged sources, octet for octet; whoever is forged is nobody."""

from __future__ import annotations

import random
import struct
from ipaddress import ip_address

FORGED = {False: "203.0.113.{}", True: "2001:db8:bad::{:x}"}
FORGED_NETWORK = {False: "203.0.113.0/24", True: "2001:db8:bad::/64"}
FORGED_HOSTS = 250


def syn(source: str, port: int, target: str) -> bytes:
    here, there = ip_address(source), ip_address(target)
    header = struct.pack("!HHIIBBHHH", port, 25, random.getrandbits(32), 0, 6 << 4, 2, 64240, 0, 0)
    options = struct.pack("!BBH", 2, 4, 1460)
    length = len(header) + len(options)
    if here.version == 4:
        pseudo = here.packed + there.packed + struct.pack("!BBH", 0, 6, length)
        outer = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, 6, 0)
        outer += here.packed + there.packed
    else:
        pseudo = here.packed + there.packed + struct.pack("!IHBB", length, 0, 0, 6)
        outer = struct.pack("!IHBB", 6 << 28, length, 6, 64) + here.packed + there.packed
    segment = header + options
    segment = segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]
    return outer + segment


def checksum(octets: bytes) -> int:
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
