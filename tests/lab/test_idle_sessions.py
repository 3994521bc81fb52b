"""Thousands of sessions that are open and do nothing: their memory is bounded, others' mail keeps its rate.

With the benchmark's planes and holders. Sixteen senders hold sessions through both gateways, each past EHLO
and in the channel; another one sends mail, 20 at a time. Namespaces nmb-idle...
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import bars, idle, load, planes
from bench.planes import PAIRS, SOURCES, Plane, Variant
from bench.rivals import growth, holding, room
from tests.lab.probes import eventually

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),  # opening them takes longest
    pytest.mark.skipif(not load.SOURCE.exists(), reason="needs Postfix's smtp-source"),
]
KEPT = 0.7
MOST_OF_THEM = 0.98
PARALLEL, SESSIONS = 20, 300
TRIES = 5
"""Other work on the machine comes and goes; what idle sessions take away is gone in every one of them."""


@contextlib.contextmanager
def standing(workers: int) -> Iterator[Plane]:
    def change(_: Plane, text: str) -> str:
        assert text.count("[daemon]\n") == 1
        return text.replace("[daemon]\n", f"[daemon]\nworkers = {workers}\n")

    with (
        planes.standing("idle", [Variant.CHANNEL], change=change) as standing,
        contextlib.ExitStack() as stack,
    ):
        plane = standing[Variant.CHANNEL]
        for address in plane.destinations:  # one process would run out of descriptors
            stack.enter_context(load.sink(plane, address))
        yield plane


def rate(plane: Plane, program: Path) -> float:
    """Mails a second of the sender that holds none, to receivers that hold none."""
    mine = plane.destinations[0::SOURCES]
    done = load.drive(plane, program, parallel=PARALLEL, sessions=SESSIONS, octets=4096, destinations=mine)
    return done.sessions_per_second


def octets(plane: Plane) -> dict[str, int]:
    return {name: idle.pss(plane.gateway_pids(name)) for name in plane.names}


def held(plane: Plane, sessions: int) -> dict[str, int]:
    """How many each gateway has, once it has nearly all: a worker that is late lets some pass."""

    def nearly_all() -> dict[str, int] | None:
        counts = {one.node.name: holding.open_sessions(one) or 0 for one in plane.gateways}
        return counts if min(counts.values()) >= MOST_OF_THEM * sessions else None

    found: dict[str, int] = eventually(nearly_all, 30.0, f"{sessions} sessions that each gateway knows of")
    return found


@pytest.mark.parametrize(("workers", "sessions"), [(1, 8000), (4, 20_000)])
def test_idle_sessions_are_small_and_leave_others_their_rate(workers: int, sessions: int) -> None:
    allowed = room.descriptors(growth.DESCRIPTORS)
    with standing(workers) as plane, contextlib.ExitStack() as stack:
        program = load.esmtp_source(plane.folder)
        theirs = [to for number, to in enumerate(plane.destinations) if number % SOURCES]
        assert len(theirs) == PAIRS - PAIRS // SOURCES
        before = max(rate(plane, program) for _ in range(3))
        holding.settle(plane, 0)
        without = octets(plane)
        for part in growth.parts(sessions, allowed):
            stack.enter_context(holding.held(plane, part, theirs, plane.holders))
        counts = held(plane, sessions)
        each = {name: (now - without[name]) / counts[name] for name, now in octets(plane).items()}

        best = 0.0
        for _ in range(TRIES):
            best = max(best, rate(plane, program) / before)
            if best >= KEPT:
                break
        held(plane, sessions)
        grown = {name: (now - without[name]) / counts[name] for name, now in octets(plane).items()}
        told = f"octets of one: {each}, after other mail {grown}; others keep {best:.2f} of {before:.0f}/s"
        print(told)
        assert max(*each.values(), *grown.values()) <= bars.IDLE_OCTETS, told
        assert best >= KEPT, told
