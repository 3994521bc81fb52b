"""The far gateway off and on again, and both upgraded."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from bench.chaos.faults.fault import ITS_SESSIONS, Subject, on_daemon
from bench.chaos.ground import World
from bench.chaos.service import Service
from gateway.lab import gateways

SUBJECT: Final = Subject()
fault: Final = SUBJECT.fault


@fault(
    "far-gateway-off-and-on",
    "every process of gateway b is killed and stays away",
    "started again",
    seconds=3.0,
    breaks_tcp=ITS_SESSIONS,
    quick=True,
)
@on_daemon("b")
def _far_off(world: World, service: Service) -> Iterator[None]:
    service.switch_off()
    world.clear_from = float("inf")
    try:
        yield
    finally:
        service.switch_on()
        world.clear_from = time.monotonic() + 0.5


@fault(
    "upgrade",
    "`nightmail reload` at both gateways, twice: the program is loaded anew",
    "nothing to undo",
    seconds=3.0,
    quick=True,
)
def _upgrade(world: World) -> Iterator[None]:
    for _ in range(2):
        for service in world.services.values():
            command = gateways.nightmail_command("--config", str(service.gateway.configuration), "reload")
            service.in_mounts(*command)
    yield
