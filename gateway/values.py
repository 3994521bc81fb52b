"""Numbers, names, ports, folders: values as the configuration spells them, checked. Pure.

Each check answers the value for the field of `config.Config`, or raises ValueError(what is allowed); of one
entry of a list, EntryError.
Counterparts: `config`, and `addresses` and `outlets`, which check values of their own kinds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final


class EntryError(ValueError):
    """The message is what is allowed; `entry` is what cannot be: of a list that one. `why` may be empty."""

    def __init__(self, allowed: str, entry: object, why: str = "") -> None:
        super().__init__(allowed)
        self.entry = entry
        self.why = why


def whole_number(least: int, most: int, *, besides: Sequence[int] = ()) -> Callable[[object], int]:
    """The check for a number from `least` to `most`, but for some."""

    def check(value: object) -> int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and isinstance(value, int) and least <= value <= most and value not in besides:
            return value
        but = f", not {', '.join(map(str, besides))}" if besides else ""
        raise ValueError(f"a whole number from {least} to {most}{but}")

    return check


def interface_names(value: object) -> tuple[str, ...]:
    """Nothing that iptables would take for a pattern or another word."""
    allowed = 'a list of interface names, such as ["eth1"]'
    if not isinstance(value, list) or not value:
        raise ValueError(allowed)
    for name in value:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}", name):
            raise EntryError(allowed, name)
    return tuple(dict.fromkeys(value))


def interface_name(value: object) -> str:
    try:
        (name,) = interface_names([value])
    except ValueError:
        raise ValueError('the name of an interface, such as "br0"') from None
    return name


def ports(value: object) -> tuple[int, ...]:
    allowed = "a list of 1 to 15 ports, such as [25]"
    if not isinstance(value, list) or not 1 <= len(value) <= 15:
        raise ValueError(allowed)
    for port in value:
        if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
            raise EntryError(allowed, port)
    return tuple(dict.fromkeys(value))


def yes_or_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("true or false")
    return value


def mark_mask(value: object) -> int:
    """As `intercept.marks.MarkBits` wants it."""
    allowed = "eight neighbouring bits, such as 0xff000000"
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(allowed)
    if value not in {0xFF << shift for shift in range(25)}:
        raise EntryError(allowed, value, f"{value:#x}")
    return value


def folder(value: object) -> Path:
    """The path of a file will do as well: nothing is looked at."""
    allowed = "an absolute path without .."
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(allowed)
    path = Path(value)
    if not path.is_absolute() or ".." in path.parts:
        raise ValueError(allowed)
    return path


_EVERYBODYS: Final = re.compile(
    r"/+(bin|boot|dev|etc|home|lib|lib64|media|mnt|opt|proc|root|run|sbin|srv|sys|tmp|usr|var"
    r"|usr/(bin|lib|local|sbin|share)|var/(cache|lib|local|lock|log|mail|run|spool|tmp))?"
)
"""What nobody passes through any more would stop the machine, its mail servers among it (FHS 3.0)."""


def own_folder(value: object) -> Path:
    """The daemon gives it another group and mode, which are for nobody but it."""
    path = folder(value)
    if _EVERYBODYS.fullmatch(str(path)):
        raise ValueError("an absolute path without .., of a folder that is the gateway's alone")
    return path


def user(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z_][a-z0-9_-]{0,22}", value) or value == "root":
        raise ValueError("the name of a user other than root")
    return value
