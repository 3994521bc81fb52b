"""Connection tracking, and the queue of SYNs."""

from __future__ import annotations

import signal
import socket
import struct
import time
from collections.abc import Iterator
from typing import Final

from bench.chaos.faults.fault import Subject
from bench.chaos.ground import World
from bench.chaos.service import signal_all

SUBJECT: Final = Subject()
fault: Final = SUBJECT.fault


@fault(
    "conntrack-flushed",
    "the connection tracking table of both gateways' machines is emptied",
    "nothing to undo",
    quick=True,
)
def _conntrack_flushed(world: World) -> Iterator[None]:
    for node in map(world.home, "ab"):
        # Without entries to delete the tool says so by its status.
        world.sh(node, "sh -c conntrack${IFS}-F;conntrack${IFS}-F${IFS}-f${IFS}ipv6;true")
    yield


FULL: Final = """\
table inet chaos_full
delete table inet chaos_full
table inet chaos_full {
    chain arriving { type filter hook prerouting priority -199; ct state new drop; }
    chain leaving { type filter hook output priority -199; ct state new drop; }
}
"""


@fault(
    "conntrack-full",
    "no new entry in the connection tracking table of gateway a (injected: the limit is the machine's)",
    "room again",
)
def _conntrack_full(world: World) -> Iterator[None]:
    world.feed(world.home("a"), "nft -f -", FULL)
    try:
        yield
    finally:
        world.sh(world.home("a"), "nft delete table inet chaos_full")


OVERRUN_SYNS: Final = 20_000
OVERRUN_STOP_SECONDS: Final = 0.25


@fault(
    "queue-overrun",
    f"{OVERRUN_SYNS:,} SYNs from one source while the workers stand still for {OVERRUN_STOP_SECONDS} s",
    "nothing to undo",
    seconds=3.0,
    quick=True,
)
def _overrun(world: World) -> Iterator[None]:
    service = world.services.get("a")
    pids = service.workers() if service is not None else []
    signal_all(pids, signal.SIGSTOP)
    try:
        until = time.monotonic() + OVERRUN_STOP_SECONDS
        world.inside("mta-a", lambda: _syns(OVERRUN_SYNS, until))
    finally:
        signal_all(pids, signal.SIGCONT)
    yield


def _syns(count: int, until: float) -> None:
    """Towards an address of site b that nobody has; each from another port."""
    source, target = socket.inet_aton("10.11.0.77"), socket.inet_aton("10.12.0.200")
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for number in range(count):
            if time.monotonic() > until:
                return
            raw.sendto(_syn(source, 1024 + number, target), ("10.12.0.200", 0))


def _syn(source: bytes, port: int, target: bytes) -> bytes:
    tcp = struct.pack("!HHIIBBHHH", port, 25, 1, 0, 5 << 4, 2, 64240, 0, 0)
    pseudo = source + target + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(tcp))
    total = sum(struct.unpack(f"!{len(pseudo + tcp) // 2}H", pseudo + tcp))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    outer = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0x4000, 64, socket.IPPROTO_TCP, 0)
    return outer + source + target + tcp[:16] + struct.pack("!H", total) + tcp[18:]
