"""Whether the operator wants the rules up: a word in a file that outlives daemon and reboot.

`nightmail up` and `down` write it; the supervisor, which puts back rules that others removed, reads it first,
so that `down` stays down. No file: up, for a gateway that has just been installed.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
from pathlib import Path
from typing import Final

from gateway.errors import EnvironmentFailureError

_FILE_OCTETS: Final = 4096


class Wanted(enum.Enum):
    UP = "up"
    DOWN = "down"


def read_wanted(path: Path) -> Wanted:
    """What was last asked for. Raises EnvironmentFailureError for a file that says something else."""
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(_FILE_OCTETS))
        return Wanted(document["wanted"])
    except FileNotFoundError:
        return Wanted.UP
    except OSError as error:
        raise EnvironmentFailureError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise EnvironmentFailureError(
            f"{path}: says neither up nor down; say it again with `nightmail up` or `nightmail down`"
        ) from None


def record_wanted(path: Path, wanted: Wanted) -> None:
    """Whole or not at all: a reader finds the old word or the new one. Raises EnvironmentFailureError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(json.dumps({"wanted": wanted.value}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise EnvironmentFailureError(f"{path}: cannot be written: {error.strerror}") from None
