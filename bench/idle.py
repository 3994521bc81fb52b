"""Memory of sessions that are open and do nothing: in clear and in the channel, after EHLO and a NOOP.

The NOOP is there because the channel begins with the first command behind EHLO, and not before.

PSS of all processes of one gateway, with and without the sessions; the kernel's socket memory is not in it.
It wants daemons that have carried next to nothing: memory that was freed earlier would hide new sessions.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.delivery import Talk
from bench.planes import Plane
from gateway.lab import gateways, network

WARM_SESSIONS: Final = 16
"""So that what is set up with the first sessions is not counted as theirs."""
SETTLE_SECONDS: Final = 3.0
OPEN_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Idle:
    """One gateway's memory, in octets."""

    variant: str
    gateway: str
    sessions: int
    pss_without: int
    pss_with: int

    @property
    def octets_per_session(self) -> float:
        return (self.pss_with - self.pss_without) / self.sessions


def measure(plane: Plane, sessions: int) -> list[Idle]:
    """Opens the sessions, looks, and closes them."""
    with contextlib.ExitStack() as stack:
        _open(plane, WARM_SESSIONS, stack)
    _wait_until_open(plane, 0)
    names = [one.node.name for one in plane.gateways]
    before = {name: pss(plane.gateway_pids(name)) for name in names}
    with contextlib.ExitStack() as stack:
        _open(plane, sessions, stack)
        _wait_until_open(plane, sessions)
        after = {name: pss(plane.gateway_pids(name)) for name in names}
    return [Idle(plane.variant.value, name, sessions, before[name], after[name]) for name in names]


def pss(pids: list[int]) -> int:
    """Proportional set size of these processes, in octets."""
    total = 0
    for pid in pids:
        found = re.search(r"^Pss:\s+(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        assert found is not None
        total += int(found[1]) * 1024
    return total


def _open(plane: Plane, sessions: int, stack: contextlib.ExitStack) -> None:
    # One thread enters the namespace once; sockets stay in the namespace they were made in.
    made = network.inside(
        plane.namespace("mta-a"),
        lambda: [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(sessions)],
    )
    for sock in made:
        stack.enter_context(sock)
    for number, sock in enumerate(made):
        sock.settimeout(OPEN_SECONDS)
        try:
            sock.connect((plane.destinations[number % len(plane.destinations)], 25))
            talk = Talk(sock)
            talk.expect(b"220")
            talk.say(b"EHLO mta-a.a.test\r\n", b"250")
            talk.say(b"NOOP\r\n", b"250")
        except (OSError, ValueError) as error:
            raise SystemExit(
                f"bench: {plane.variant.value}: idle session {number} does not open: {error}"
            ) from None


def _wait_until_open(plane: Plane, sessions: int) -> None:
    """Until every gateway has just so many sessions by its own account; then a while for it to settle."""
    deadline = time.monotonic() + OPEN_SECONDS
    for one in plane.gateways:
        while (open_now := _sessions_open(gateways.ask(one))) != sessions:
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: {one.namespace}: {open_now} sessions are open, not {sessions}")
            time.sleep(0.2)
    time.sleep(SETTLE_SECONDS)


def _sessions_open(status: dict[str, Any] | None) -> int | None:
    if status is None:
        return None
    found: int = status["counters"]["tallies"].get("sessions-open", 0)
    return found
