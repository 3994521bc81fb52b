"""The text of a configuration file: read within bounds, and where in it a key stands. Knows no key.

What is said of it is one line, with the file and, where it can be told, the line in it; and no word of the
file reaches a terminal or a log as it stands. Counterpart: `config`, which knows what may stand there.
"""

from __future__ import annotations

import codecs
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.errors import EnvironmentFailureError
from gateway.policy import limits


class ConfigurationError(EnvironmentFailureError):
    """What the operator wrote cannot be. The message is one line."""


_SET_TWICE: Final = "Cannot overwrite a value"
"""tomllib's words, which name no key."""
_NO_VALUE: Final = "Invalid value"
"""Its words for a text without quotation marks, mostly."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file as it was read; an empty text where there is none, and all defaults hold."""

    path: Path
    text: str = field(default="", repr=False)


def read(path: Path) -> tuple[Written, dict[str, Any]]:
    """The text, and what TOML makes of it. Raises ConfigurationError."""
    text = _text(path)
    try:
        return Written(path, text), tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax(path, text, error) from None
    except (ValueError, RecursionError):  # 5,000 digits, 1,000 brackets: not what TOMLDecodeError is for
        raise ConfigurationError(f"{path}: a number too long, or lists or tables too deep") from None


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            octets = file.read(limits.CONFIG_FILE_OCTETS + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    if len(octets) > limits.CONFIG_FILE_OCTETS:
        raise ConfigurationError(f"{path}: larger than {limits.CONFIG_FILE_OCTETS} octets")
    if octets.startswith(codecs.BOM_UTF8):
        raise ConfigurationError(f"{path}:1: begins with a byte order mark; allowed: UTF-8 without one")
    for number, row in enumerate(octets.split(b"\n"), start=1):
        if row.count(b".") > limits.CONFIG_LINE_DOTS:
            raise ConfigurationError(
                f"{path}:{number}: over {limits.CONFIG_LINE_DOTS} dots; allowed: lists on several lines"
            )
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        line = octets[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{path}:{line}: not UTF-8") from None


def _syntax(path: Path, text: str, error: tomllib.TOMLDecodeError) -> ConfigurationError:
    message = one_line(str(error))
    at = re.search(r" ?\(at (?:line (\d+), column (\d+)|end of document)\)", message)
    if at is None:
        return ConfigurationError(f"{path}: {message}")
    rows = text.rstrip().split("\n")
    number, place = (int(at[1]), f"column {at[2]}") if at[1] else (len(rows), "end of file")
    said = message[: at.start()]
    if said == _SET_TWICE:
        said = f"{one_line(rows[number - 1].partition('=')[0].strip())}: is set already, further up"
    if said == _NO_VALUE:
        place += '; allowed: "text" in quotation marks, a number, true, false, a list in brackets'
    return ConfigurationError(f"{path}:{number}: {said} ({place})")


def located(written: Written, key: str, problem: str, entry: object = None) -> ConfigurationError:
    """What is wrong with a key, with the file and the line that sets it.

    With `entry` the line is that of this entry of the key's list.
    """
    line = line_of(written.text, key)
    if line is not None and isinstance(entry, str):
        line = _line_of_entry(written.text, line, entry)
    where = f"{written.path}:{line}" if line is not None else str(written.path)
    return ConfigurationError(f"{where}: {one_line(key)}: {problem}")


def line_of(text: str, key: str) -> int | None:
    """The line that sets `key`, by searching: tomllib does not tell. None where it is written unusually."""
    section = ""
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if line.startswith("["):
            section = _bare(line.lstrip("[").partition("]")[0])
            if section == key:
                return number
            continue
        name, found, _ = line.partition("=")
        # Partition and strip, no pattern with two ways to eat a blank: a line of blanks would take for ever.
        if found and re.fullmatch(r"[A-Za-z0-9_.\"' -]+", name.strip()):
            name = _bare(name)
            full = f"{section}.{name}" if section else name
            if full == key or key.startswith(full + "."):
                return number
    return None


def _line_of_entry(text: str, first: int, entry: str) -> int:
    """The line from `first` on in which `entry` stands in quotes, as far as the list can go; else `first`."""
    for number, line in enumerate(text.split("\n"), start=1):
        if number > first and (line.lstrip().startswith("[") or "=" in line.partition("#")[0]):
            break
        if number >= first and (f'"{entry}"' in line or f"'{entry}'" in line):
            return number
    return first


def _bare(name: str) -> str:
    return re.sub(r"[\"'\s]", "", name)


def shown(value: object) -> str:
    """A value as the operator wrote it, or nearly so."""
    try:
        return one_line(_spelled(value))
    except (ValueError, RecursionError):  # a number of thousands of digits, tables deep in each other
        return "this value"


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_spelled, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{name} = {_spelled(inner)}' for name, inner in value.items())} }}"
    return str(value)


def one_line(text: str) -> str:
    """Of a file's own words: no control characters, and not too many of them."""
    cut = text if len(text) <= limits.ENV_TEXT_OCTETS else text[: limits.ENV_TEXT_OCTETS] + "..."
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in cut)
