"""The listener on the wire: tcpdump in the wire's namespace, writing a capture file.

Each packet is taken once, as it comes in to the wire and before the delay line. A capture is only as good
as its last packet: `catch_up` sends a token over the wire and waits until the file has it, so everything
that crossed before it is in the file too. Counterpart: `wire`, which reads the file.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.errors import EnvironmentFailureError
from gateway.lab.inotify import MODIFIED, Inotify
from gateway.lab.network import socket_in
from gateway.lab.processes import Process, command_in, read_pid_file, start_in
from gateway.lab.topology import SMTP_PORT, Role, Topology

TOKEN_PORT: Final = 9
"""The discard port."""
TOKEN_OCTETS: Final = 16
SNAPSHOT_OCTETS: Final = 66_000
"""Larger than any packet: segments are joined up to 64 KiB before they reach the capture."""
BUFFER_KIBIBYTES: Final = 64 * 1024
CATCH_UP_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Listener:
    """Where the listener sits and writes."""

    namespace: str
    pcap: Path
    pid_file: Path
    log: Path

    @property
    def process(self) -> Process | None:
        return read_pid_file(self.pid_file)


def capture_command(output: str) -> list[str]:
    """tcpdump, as root, unbuffered, one record for each packet that arrives at the wire's router."""
    what = f"tcp port {SMTP_PORT} or udp port {TOKEN_PORT}"
    return [
        *("tcpdump", "-i", "any", "-Q", "in", "-y", "LINUX_SLL", "-n", "-U", "-Z", "root"),
        *("--immediate-mode", "-s", str(SNAPSHOT_OCTETS), "-B", str(BUFFER_KIBIBYTES), "-w", output, what),
    ]


def start(listener: Listener, topology: Topology, sender: str) -> None:
    """Returns once packets are really being written. `sender`: a namespace whose packets cross the wire."""
    listener.pcap.touch()
    start_in(
        listener.namespace,
        capture_command(str(listener.pcap)),
        log=listener.log,
        pid_file=listener.pid_file,
    )
    catch_up(listener, topology, sender)


def live_command(listener: Listener) -> list[str]:
    """The command line of a second listener, which writes its capture to standard output."""
    return command_in(listener.namespace, capture_command("-"))


def catch_up(listener: Listener, topology: Topology, sender: str) -> None:
    """Wait until the file has all that has crossed the wire so far."""
    (wire,) = topology.with_role(Role.WIRE)
    target = (wire.addresses["wire"].v4, TOKEN_PORT)
    watch = Inotify(listener.pcap, MODIFIED)
    deadline = time.monotonic() + CATCH_UP_SECONDS
    try:
        with socket_in(sender, socket.AF_INET, socket.SOCK_DGRAM) as token_socket:
            tokens: list[bytes] = []
            offset = max(0, listener.pcap.stat().st_size - TOKEN_OCTETS)
            while time.monotonic() < deadline:
                if listener.process is None:
                    raise EnvironmentFailureError(f"the listener has ended: see {listener.log}")
                # Again for each round: while the capture is only starting, tokens pass unseen.
                tokens.append(os.urandom(TOKEN_OCTETS))
                token_socket.sendto(tokens[-1], target)
                while watch.wait(0.2):
                    found, offset = _look(listener.pcap, offset, tokens)
                    if found:
                        return
    finally:
        watch.close()
    raise EnvironmentFailureError(f"the listener is {CATCH_UP_SECONDS:.0f} s behind: see {listener.log}")


def wait_grown(listener: Listener, octets: int, seconds: float) -> None:
    """Wait until the capture is so much larger than now. Raises EnvironmentFailureError."""
    goal = listener.pcap.stat().st_size + octets
    deadline = time.monotonic() + seconds
    watch = Inotify(listener.pcap, MODIFIED)
    try:
        while listener.pcap.stat().st_size < goal:
            if not watch.wait(deadline - time.monotonic()):
                raise EnvironmentFailureError(f"no {octets:,} octets crossed the wire within {seconds:.0f} s")
    finally:
        watch.close()


def _look(pcap: Path, offset: int, tokens: list[bytes]) -> tuple[bool, int]:
    """Whether one of the tokens is in the file behind `offset`, and where to look next."""
    with pcap.open("rb") as capture:
        capture.seek(offset)
        tail = capture.read()
    return any(token in tail for token in tokens), offset + max(0, len(tail) - TOKEN_OCTETS)
