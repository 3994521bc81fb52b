"""Who listens on the wire: writes down each connection in which a command behind EHLO could be read.

`python -m bench.chaos.ear FACTS`, in the wire's namespace. Looks at the first octets of each packet towards
port 25; a command always begins a packet here, since all of these clients wait for each reply.
"""

from __future__ import annotations

import select
import sys
import time
from pathlib import Path

from bench.chaos.facts import Writer
from gateway.eyes import capture
from gateway.smtp.capability import VERB_LINE

READABLE = (b"MAIL FROM:", b"NOOP")
HEAD_OCTETS = 256


def listen(facts: Writer) -> None:
    """Until the process is ended."""
    ear = capture.open_ear()
    facts.tell("ready")
    poll = select.poll()
    poll.register(ear, select.POLLIN)
    while True:
        try:
            packet, address = ear.recvfrom(HEAD_OCTETS)
        except BlockingIOError:
            poll.poll()
            continue
        found = command_in(packet, address[1])
        if found is not None:
            source, port, words = found
            readable = words.startswith(READABLE)
            if readable or words.startswith(VERB_LINE):
                kind = "clear" if readable else "dark"
                facts.tell(kind, source=source.hex(), port=port, at=time.monotonic())


def command_in(packet: bytes, ethertype: int) -> tuple[bytes, int, bytes] | None:
    """Source address, source port and first octets of what a packet says to port 25."""
    if ethertype == capture.ETHERTYPE_IPV4:
        start, source = (packet[0] & 0x0F) * 4, packet[12:16]
        is_tcp = packet[9] == capture.TCP
    elif ethertype == capture.ETHERTYPE_IPV6:
        start, source = capture.IPV6_HEADER_OCTETS, packet[8:24]
        is_tcp = packet[6] == capture.TCP
    else:
        return None
    header = packet[start : start + 20]
    if not is_tcp or len(header) < 20 or int.from_bytes(header[2:4], "big") != capture.SMTP_PORT:
        return None
    words = packet[start + (header[12] >> 4) * 4 :]
    return source, int.from_bytes(header[:2], "big"), words


if __name__ == "__main__":
    listen(Writer(Path(sys.argv[1])))
