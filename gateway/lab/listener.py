"""The listener on the wire: a capturing process in the wire's namespace, and the file that it writes.

A capture is only as good as its last packet: `catch_up` sends a token over the wire and waits until the file
has it, so everything that crossed before it is in the file too. Counterparts: `eyes.capture`, the process,
and `eyes.wire`, which reads the file.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gateway
from gateway.errors import EnvironmentFailureError
from gateway.eyes.capture import TOKEN_PORT
from gateway.lab.inotify import MODIFIED, Inotify
from gateway.lab.network import socket_in
from gateway.lab.processes import Process, command_in, read_pid_file, start_in
from gateway.lab.topology import Role, Topology

TOKEN_OCTETS: Final = 16
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
    """The command line of the capturing process; "-" is its standard output."""
    root = Path(gateway.__file__).parent.parent
    return ["env", f"PYTHONPATH={root}", sys.executable, "-m", "gateway.eyes.capture", output]


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
                    raise EnvironmentFailureError(f"the listener has ended: {_last_words(listener)}")
                # Again for each round: while the capture is only starting, tokens pass unseen.
                tokens.append(os.urandom(TOKEN_OCTETS))
                token_socket.sendto(tokens[-1], target)
                while watch.wait(0.2):
                    found, offset = _look(listener.pcap, offset, tokens)
                    if found:
                        return
    finally:
        watch.close()
    raise EnvironmentFailureError(f"the listener is {CATCH_UP_SECONDS:.0f} s behind: {_last_words(listener)}")


def _last_words(listener: Listener) -> str:
    lines = listener.log.read_text(errors="replace").strip().splitlines() if listener.log.exists() else []
    return lines[-1] if lines else "it said nothing"


def wait_size(listener: Listener, octets: int, seconds: float) -> None:
    """Wait until the capture is so large. Raises EnvironmentFailureError."""
    deadline = time.monotonic() + seconds
    watch = Inotify(listener.pcap, MODIFIED)
    try:
        while listener.pcap.stat().st_size < octets:
            if not watch.wait(deadline - time.monotonic()):
                raise EnvironmentFailureError(f"not {octets:,} octets on the wire within {seconds:.0f} s")
    finally:
        watch.close()


def _look(pcap: Path, offset: int, tokens: list[bytes]) -> tuple[bool, int]:
    """Whether one of the tokens is in the file behind `offset`, and where to look next."""
    with pcap.open("rb") as capture:
        capture.seek(offset)
        tail = capture.read()
    return any(token in tail for token in tokens), offset + max(0, len(tail) - TOKEN_OCTETS)
