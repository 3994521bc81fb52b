"""Whether the operator wants the rules up: a word in a file that outlives daemon and reboot.

`nightmail up` and `down` write it; the supervisor, which puts back rules that others removed, reads it first,
so that `down` stays down. No file: up, for a gateway that has just been installed. A word may be for this
boot alone: the number that the kernel gives to each boot stands beside it, and after the next one the lasting
word counts again.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.durable import sync_folder
from gateway.errors import EnvironmentFailureError
from gateway.policy import limits

STARTED: Final = "started"
ENABLED: Final = "enabled"
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Wanted(enum.Enum):
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class Word:
    """What stands in the file."""

    lasting: Wanted = Wanted.UP
    this_boot: Wanted | None = None
    """In place of it until the next boot. None: the same."""
    service: tuple[str, ...] = ()
    """What `up` did to the service (STARTED, ENABLED), for `down` to take back."""
    downs: int = 0
    """How often `down` has been said: who looks after a `down` and an `up` finds only that the rules are
    gone, and is to know that nobody else has removed them."""

    @property
    def counts(self) -> Wanted:
        """The one that holds now."""
        return self.this_boot or self.lasting

    @property
    def ends_with_boot(self) -> bool:
        """Whether the next boot finds another one."""
        return self.counts is not self.lasting


def read_wanted(path: Path) -> Wanted:
    """What holds now. Raises EnvironmentFailureError for a file that says something else."""
    return read_word(path).counts


def read_word(path: Path) -> Word:
    """Raises EnvironmentFailureError as `read_wanted`."""
    try:
        with path.open("rb") as file:
            return _word(json.loads(file.read(limits.WANTED_FILE_OCTETS)))
    except FileNotFoundError:
        return Word()
    except OSError as error:
        raise EnvironmentFailureError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise EnvironmentFailureError(
            f"{path}: says neither up nor down; say it again with `nightmail up` or `nightmail down`"
        ) from None


def record_word(path: Path, word: Word) -> None:
    """Whole or not at all: a reader finds the old word or the new one. Raises EnvironmentFailureError."""
    document: dict[str, Any] = {"wanted": word.lasting.value}
    if word.this_boot is not None:
        document["this_boot"] = {"wanted": word.this_boot.value, "boot": _this_boot()}
    if word.service:
        document["service"] = list(word.service)
    if word.downs:
        document["downs"] = word.downs
    record_octets(path, json.dumps(document).encode() + b"\n")


def record_octets(path: Path, octets: bytes) -> None:
    """As they are: for who gives back what stood there before."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(octets)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        if isinstance(error, OSError):
            raise EnvironmentFailureError(f"{path}: cannot be written: {error.strerror}") from None
        raise


def _word(document: Any) -> Word:
    lasting = Wanted(document["wanted"])
    service = tuple(map(str, document.get("service", ())))
    downs = int(document.get("downs", 0))
    here = document.get("this_boot")
    if here is None:
        return Word(lasting, None, service, downs)
    if here["boot"] == _this_boot():
        return Word(lasting, Wanted(here["wanted"]), service, downs)
    # A service that was started alone is gone with its boot.
    return Word(lasting, None, service if ENABLED in service else (), downs)


def _this_boot() -> str:
    """Empty where the kernel does not tell: then a word for this boot holds until the next one is said."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return ""
