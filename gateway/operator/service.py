"""The packaged service, as systemd knows it: looked at, started and enabled by `up`, and back by `down`.

Where there is no systemd, or it does not know the unit, there is no service, and nobody misses it.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.errors import EnvironmentFailureError
from gateway.intercept.wanted import ENABLED, STARTED
from gateway.policy import limits

UNIT: Final = "nightmail.service"
_BACK: Final = {STARTED: "stop", ENABLED: "disable"}
_SYSTEMD: Final = Path("/run/systemd/system")
"""There while systemd is the first process: sd_booted(3)."""
_RUNS: Final = ("active", "activating", "reloading")
_ENDS: Final = "deactivating"


@dataclass(frozen=True, slots=True)
class Service:
    """Of one moment."""

    is_active: bool
    is_enabled: bool
    """Whether it starts with the machine."""
    is_ending: bool = False
    """It has been told to stop, and its daemon lets sessions end: a start waits for that."""


def found() -> Service | None:
    """None: no systemd, or no such unit, or one that is masked: then somebody does not want it."""
    if not _SYSTEMD.is_dir():
        return None
    try:
        said = _systemctl("show", "--property=LoadState,ActiveState,UnitFileState", UNIT)
    except EnvironmentFailureError:
        return None
    facts = dict(line.partition("=")[::2] for line in said.splitlines())
    if facts.get("LoadState") != "loaded":
        return None
    state = facts.get("ActiveState")
    return Service(state in _RUNS, facts.get("UnitFileState") == "enabled", state == _ENDS)


def starting(*, is_default: bool, is_down: bool = False) -> str:
    """How a daemon is started here. `is_default`: the service reads this configuration; `is_down`: the rules
    are to stay out."""
    has_service = is_default and found() is not None
    if is_down:
        then = "" if has_service else ", then `nightmail run`,"
        return f"`nightmail down` was said: `nightmail up`{then} takes mail over again"
    if has_service:
        return "`nightmail up` starts it; `journalctl -u nightmail` says why the last one ended"
    return "`nightmail run` starts it"


def start() -> None:
    """Returns when it serves. Raises EnvironmentFailureError, as all of these."""
    try:
        _systemctl("start", UNIT)
    except EnvironmentFailureError as error:
        raise EnvironmentFailureError(f"{error} (`journalctl -u nightmail` says why)") from None


def enable() -> None:
    """It starts with the machine from now on."""
    _systemctl("enable", "--quiet", UNIT)


def take_back(done: str) -> None:
    """The reverse of `start` (STARTED) or `enable` (ENABLED)."""
    _systemctl(_BACK[done], *(("--quiet",) if done == ENABLED else ()), UNIT)


def _systemctl(*words: str) -> str:
    try:
        done = subprocess.run(
            ["systemctl", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limits.SERVICE_SECONDS,
            check=False,
        )
    except OSError as error:
        raise EnvironmentFailureError(f"systemctl: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise EnvironmentFailureError(
            f"systemctl {words[0]} has not ended after {limits.SERVICE_SECONDS:g} s"
        ) from None
    if done.returncode != 0:
        lines = done.stderr.split("\n")
        raise EnvironmentFailureError(f"systemctl {words[0]}: {lines[0] or 'failed without a word'}")
    return done.stdout
