"""Facts, one JSON object a line: written by a process of the load, followed by the command.

Times are of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Fact = dict[str, Any]


def moment_of(fact: Fact) -> float:
    """When it was seen, or else when it began; 0 where it tells neither."""
    moment: float = fact["at"] if "at" in fact else fact.get("began", 0.0)
    return moment


class Writer:
    """Appends; each line is in the file when `tell` returns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def tell(self, kind: str, **fields: Any) -> None:
        self._file.write(json.dumps({"kind": kind, **fields}).encode() + b"\n")


class Reader:
    """Follows one file from its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def fresh(self) -> list[Fact]:
        """The whole lines since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            octets = file.read()
        whole = octets.rfind(b"\n") + 1
        self._offset += whole
        return [json.loads(line) for line in octets[:whole].splitlines()]
