"""Which machine this is, as far as it can be told: so that a copy of a disk is not taken for the original.

Two marks, hashed with a label of ours (machine-id(5) wants it not to leave the machine): the installation's,
and the hardware's or virtual machine's. A copied image often has the first one in common, never the second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.crypto.primitives import sha512

_LABEL: Final = b"nightmail machine\0"
_MARK_OCTETS: Final = 16
_INSTALLATION: Final = "etc/machine-id"
_HARDWARE: Final = "sys/class/dmi/id/product_uuid"
_UNKNOWN: Final = "-"
_MARK: Final = re.compile(rf"[0-9a-f]{{{2 * _MARK_OCTETS}}}|{_UNKNOWN}")


@dataclass(frozen=True, slots=True)
class Machine:
    """Each mark in hex, or "-" where there is none (containers, boards without DMI)."""

    installation: str = _UNKNOWN
    hardware: str = _UNKNOWN

    def is_another_than(self, other: Machine) -> bool:
        """Whether a mark that both have differs. What is unknown proves nothing."""
        pairs = ((self.installation, other.installation), (self.hardware, other.hardware))
        return any(_UNKNOWN not in pair and pair[0] != pair[1] for pair in pairs)

    def __str__(self) -> str:
        return f"{self.installation} {self.hardware}"

    @classmethod
    def parse(cls, text: str) -> Machine | None:
        marks = text.split(" ")
        return cls(*marks) if len(marks) == 2 and all(map(_MARK.fullmatch, marks)) else None


def this_machine(root: Path = Path("/")) -> Machine:
    return Machine(_mark(root / _INSTALLATION), _mark(root / _HARDWARE))


def _mark(path: Path) -> str:
    try:
        text = path.read_text("ascii").strip().lower()
    except (OSError, UnicodeDecodeError):
        return _UNKNOWN
    # "uninitialized" (machine-id(5)) and boards' fillers are the same everywhere.
    digits = text.replace("-", "")
    if not re.fullmatch("[0-9a-f]{32}", digits) or len(set(digits)) == 1:
        return _UNKNOWN
    return sha512(_LABEL + digits.encode())[:_MARK_OCTETS].hex()
