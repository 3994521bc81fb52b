"""What a lab could leave behind on a machine."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from gateway.lab import network
from gateway.lab.lab import Lab
from gateway.lab.place import Place


def traces(place: Place) -> dict[str, Any]:
    """All that a lab could leave behind."""
    lab = Lab(place)
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return {
        "namespaces": network.existing(lab.namespaces),
        "folder": place.folder.exists(),
        "lock": place.lock.exists(),
        "mounts": [line for line in mounts if place.prefix in line or str(place.folder) in line],
        "processes": [
            entry.name
            for entry in Path("/proc").iterdir()
            if entry.name.isdecimal() and str(place.folder).encode() in _command_line(entry)
        ],
    }


NOTHING = {"namespaces": [], "folder": False, "lock": False, "mounts": [], "processes": []}


def _command_line(entry: Path) -> bytes:
    with contextlib.suppress(OSError):
        return (entry / "cmdline").read_bytes()
    return b""
