"""Where on a machine a lab is, and what it leaves there for whoever comes next: a lock and a state file."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.errors import EnvironmentFailureError


@dataclass(frozen=True, slots=True)
class Place:
    """Tests have places of their own."""

    prefix: str = ""
    """Of the namespaces' names; empty: the topology's own."""
    folder: Path = Path("/var/lib/nightmail-lab")
    lock: Path = Path("/run/nightmail-lab.lock")

    @property
    def state_file(self) -> Path:
        return self.folder / "state.json"

    def state(self) -> dict[str, Any] | None:
        """What is written of the lab that is here; None where nothing is, or nothing that can be read."""
        try:
            state = json.loads(self.state_file.read_text())
        except (OSError, ValueError):
            return None
        return state if isinstance(state, dict) else None

    def write_state(self, state: dict[str, Any]) -> None:
        fresh = self.state_file.with_suffix(".new")
        fresh.write_text(json.dumps(state) + "\n")
        fresh.rename(self.state_file)


def boot_id() -> str:
    """Of this boot of the machine: no namespace outlives it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def take_lock(path: Path) -> int:
    """An exclusive lock, or EnvironmentFailureError at once. The file is unlinked by its last holder."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise EnvironmentFailureError(
                f"another lab is at work (process {holder}); one machine has one lab at a time"
            ) from None
        # Whoever held it before may have unlinked it after we opened it: then it locks nothing any more.
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return descriptor
        os.close(descriptor)
