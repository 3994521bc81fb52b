"""Before a reload: does the program on the disk take the configuration on the disk?

Asked of that program itself, in a process of its own, since the running one may be older.
Counterpart: the hidden command `preflight`, whose answer this reads.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel, ruleset, tproxy
from gateway.intercept.ruleset import Slot
from gateway.intercept.wanted import Wanted, read_wanted
from gateway.observe import sinks
from gateway.policy import limits
from gateway.runtime import identity_file
from gateway.runtime.order import require_tellable
from gateway.runtime.supervisor.handover import command_for

_COMMAND: Final = "preflight"
_PROGRAMS: Final = (
    "gateway.runtime.supervisor.supervisor",
    "gateway.runtime.signer",
    "gateway.runtime.worker.worker",
)
"""By name: they share no code, and the first one imports this."""
_WITH_METRICS: Final = ("gateway.runtime.supervisor.metrics",)


def facts(config: Config) -> dict[str, Any]:
    """What running connections depend on: none of it may change under them."""
    return {
        "placement": config.placement.value,
        "marks.mask": config.marks.mask,
        "kernel.table": config.table,
        "kernel.zone": config.zone,
        "bridge.name": config.bridge,
        "bridge.port": config.bridge_port,
        "bridge.interface": config.bridge_interface,
        "bridge.table": config.bridge_table,
        "daemon.state_dir": str(config.state_dir),
        "daemon.run_dir": str(config.run_dir),
        "daemon.workers": config.workers,
    }


def require_whole(config: Config) -> None:
    """Raises ImportError for what the next supervisor, its signer or its workers could not load either."""
    for name in (*_PROGRAMS, *(_WITH_METRICS if config.metrics_listen is not None else ())):
        importlib.import_module(name)


def require_startable(config: Config) -> None:
    """Raises EnvironmentFailureError for what would end the next supervisor at its start: there is no way
    back to this one then. Takes a resolved configuration."""
    for directory in (config.state_dir, config.run_dir):
        make_directory(directory)
    # A socket that is there is handed over; another one has to be made.
    if not config.control_socket.is_socket() and not os.access(config.run_dir, os.W_OK):
        raise EnvironmentFailureError(f"{config.run_dir}: cannot be written")
    kernel.require_interfaces(config)
    kernel.inside_networks(config)
    require_tellable(config)
    identity_file.load(config.identity_file)
    ruleset.free_slot(config.workers, slots_in_use(config))
    if read_wanted(config.wanted_file) is Wanted.UP:
        kernel.require_taken(config)
    sinks.opened(config, config.log_file).close()


def slots_in_use(config: Config) -> set[int]:
    """On whose ports somebody listens: a worker, also one that finishes its sessions when its supervisor was
    killed, or a stranger."""
    return {slot.index for slot in ruleset.all_slots(config) if tproxy.is_in_use(slot.port)}


def make_directory(path: Path) -> None:
    """Raises EnvironmentFailureError where it is not there and cannot be."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFailureError(f"{path}: cannot be made: {error.strerror}") from None


async def trouble(config: Config, slots: Iterable[Slot]) -> str:
    """Why a reload cannot be, in one line; empty if it can. `slots` are those in use."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command_for(_COMMAND),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(limits.RELOAD_SECONDS):
                told, complaint = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return "the new program has not answered in time"
        if process.returncode != 0:
            return (
                complaint.decode(errors="replace").strip().removeprefix("nightmail: ") or "it does not start"
            )
        new = json.loads(told)
        running = {key: value for key, value in facts(config).items() if key != "daemon.workers"}
        # What an older program does not know it does not change; where it is set, that refuses the file.
        changed = [key for key, value in running.items() if new.get(key, value) != value]
        if changed:
            return f"{', '.join(changed)}: changes with a restart only (nightmail down, stop, nightmail up)"
        ruleset.free_slot(new["daemon.workers"], {slot.index for slot in slots})
    except (EnvironmentFailureError, ValueError, KeyError, OSError) as error:
        return str(error)
    return ""
