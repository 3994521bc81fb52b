"""Sessions that are held open and do nothing, and the memory that they take on a gateway."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import gateway
from bench import idle
from bench.planes import Plane
from gateway.lab import gateways, processes

SETTLE_SECONDS: Final = 1.5
WARM_SESSIONS: Final = 16
READY_SECONDS: Final = 240.0
END_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one node's processes (PSS), in octets."""

    variant: str
    node: str
    sessions: int
    without: int
    with_them: int

    @property
    def octets_per_session(self) -> float:
        return (self.with_them - self.without) / self.sessions


def driver(plane: Plane, *words: str) -> list[str]:
    """The command line of the driver in the sender's namespace."""
    root = Path(gateway.__file__).parent.parent
    command = ["env", f"PYTHONPATH={root}", sys.executable, "-m", "bench.rivals.driver", *words]
    return processes.command_in(plane.namespace("mta-a"), command)


@contextlib.contextmanager
def held(
    plane: Plane, sessions: int, destinations: Sequence[str] = (), sources: Sequence[str] = ()
) -> Iterator[None]:
    """So many more sessions, open from end to end while the context lasts; to all servers, or to these.

    From each server's usual source, or from all of `sources` to each.
    """
    origins = [word for source in sources for word in ("--source", source)]
    command = driver(
        plane, "hold", "--sessions", str(sessions), *origins, *(destinations or plane.destinations)
    )
    log = plane.folder / "holder.log"
    with log.open("ab") as words:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            last = log.read_text(errors="replace").strip().splitlines()[-1:]
            raise SystemExit(f"bench: {plane.variant.value}: {sessions} sessions are not to be had: {last}")
        yield
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def memory(plane: Plane, nodes: tuple[str, ...], sessions: int) -> list[Memory]:
    """Wants daemons that have carried next to nothing: what was freed earlier would hide new sessions."""
    with held(plane, WARM_SESSIONS):
        pass
    settle(plane, 0)
    without = {node: idle.pss(plane.gateway_pids(node)) for node in nodes}
    with held(plane, sessions):
        settle(plane, sessions)
        with_them = {node: idle.pss(plane.gateway_pids(node)) for node in nodes}
    settle(plane, 0)
    return [Memory(plane.variant.value, node, sessions, without[node], with_them[node]) for node in nodes]


def settle(plane: Plane, sessions: int) -> None:
    """Until our own gateways count so many sessions; then a while, which is all that others let us know."""
    deadline = time.monotonic() + idle.OPEN_SECONDS
    for one in plane.gateways:
        while (count := open_sessions(one)) != sessions:
            if time.monotonic() > deadline:
                raise SystemExit(f"bench: {one.namespace}: {count} sessions are open, not {sessions}")
            time.sleep(0.2)
    time.sleep(SETTLE_SECONDS)


def by_worker(plane: Plane) -> dict[str, list[int]]:
    """How many sessions each worker of each gateway has, by its own account."""
    found = {}
    for one in plane.gateways:
        status = gateways.ask(one)
        if status is None:
            raise SystemExit(f"bench: {one.namespace}: the gateway does not answer")
        found[one.node.name] = [worker["sessions"] for worker in status["workers"]]
    return found


def open_sessions(one: gateways.Gateway) -> int | None:
    return tally(one, "sessions-open")


def tally(one: gateways.Gateway, name: str) -> int | None:
    """One of its counts; None if nobody answers. Workers report theirs once a second."""
    status = gateways.ask(one)
    return None if status is None else int(status["counters"]["tallies"].get(name, 0))
