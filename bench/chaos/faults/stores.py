"""The disk of the daemon, and its memory of peers."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Final

from bench.chaos.faults.fault import ITS_SESSIONS, Subject, on_daemon
from bench.chaos.ground import World
from bench.chaos.service import Service

SUBJECT: Final = Subject()
fault: Final = SUBJECT.fault


@fault("disk-full", "not an octet left in the state directory", "room again", quick=True)
@on_daemon("a")
def _disk_full(world: World, service: Service) -> Iterator[None]:
    filler = service.state / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    world.meet_a_stranger()
    try:
        yield
    finally:
        filler.unlink()


@fault("pins-locked", "another process holds the memory of peers locked", "it lets go", seconds=3.0)
@on_daemon("a")
def _locked(world: World, service: Service) -> Iterator[None]:
    with service.holding_pins():
        world.meet_a_stranger()
        yield


@fault(
    "pins-corrupt",
    "the memory of peers is overwritten with noise while it is in use",
    "the daemon moves it aside",
)
@on_daemon("a")
def _corrupt(world: World, service: Service) -> Iterator[None]:
    with (service.state / "peers.db").open("r+b") as file:
        file.write(os.urandom(64 * 1024))
    (service.state / "peers.db-wal").unlink(missing_ok=True)
    world.meet_a_stranger()
    yield


@fault("pins-deleted", "the memory of peers is deleted while it is in use", "the daemon makes another")
@on_daemon("a")
def _deleted(world: World, service: Service) -> Iterator[None]:
    for path in service.state.glob("peers.db*"):
        path.unlink()
    world.meet_a_stranger()
    yield


@fault(
    "pins-read-only",
    "the daemon dies, and starts on a state directory that is read-only",
    "writable, and started again",
    seconds=5.0,
    breaks_tcp=ITS_SESSIONS,
)
@on_daemon("a")
def _read_only(world: World, service: Service) -> Iterator[None]:
    state = str(service.gateway.folder / "state")
    service.switch_off()
    service.in_mounts("mount", "-o", "remount,ro", state)
    service.switch_on()
    try:
        yield
    finally:
        service.switch_off()
        service.in_mounts("mount", "-o", "remount,rw", state)
        service.switch_on()


@fault(
    "power-loss",
    "the daemon dies, and starts on copies of the memory's files that were made in mid-write",
    "nothing to undo",
    seconds=3.0,
    breaks_tcp=ITS_SESSIONS,
)
@on_daemon("a")
def _power_loss(world: World, service: Service) -> Iterator[None]:
    torn = world.lab.place.folder / "torn"
    shutil.rmtree(torn, ignore_errors=True)
    torn.mkdir()
    service.tear_pins(torn)
    service.switch_off()
    for path in service.state.glob("peers.db*"):
        path.unlink()
    for path in torn.iterdir():
        shutil.copy(path, service.state / path.name)
    service.switch_on()
    yield
