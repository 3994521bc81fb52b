"""What all commands have in common: the configuration, exit statuses, one-line errors, printing."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, Final, ParamSpec

import click

from gateway.config import DEFAULT_PATH, Config, load
from gateway.config_text import ConfigurationError
from gateway.errors import EnvironmentFailureError
from gateway.policy import limits

FINE: Final = 0
NEGATIVE: Final = 1
USAGE: Final = 2

P = ParamSpec("P")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text.")


class Settings:
    """The configuration, read when a command first needs it: `lab` and `--help` must work without."""

    def __init__(self, path: Path | None) -> None:
        self.path = path or DEFAULT_PATH
        self._must_exist = path is not None

    @property
    def config(self) -> Config:
        """Without a file at the default place all defaults hold."""
        return load(self.path) if self._must_exist or _stands(self.path) else Config()

    def words(self, *command: str) -> list[str]:
        """A command of ours about the same configuration."""
        return ["nightmail", *(["--config", str(self.path)] if self._must_exist else []), *command]


class Seconds(click.ParamType):  # type: ignore[type-arg]
    """So many that clocks and timers take them. No help tells how many: nobody comes near to either end."""

    name = "seconds"

    def __init__(self, least: float) -> None:
        self._least, self._most = least, limits.ASKED_MOST_SECONDS

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        seconds: float = click.FLOAT.convert(value, param, ctx)
        if math.isnan(seconds):  # neither below nor above anything
            self.fail(f"{value} is no number of seconds", param, ctx)
        if not self._least <= seconds <= self._most:
            self.fail(f"{value} is not allowed; allowed: {self._least:g} to {self._most:.0f}", param, ctx)
        return seconds


def _stands(path: Path) -> bool:
    """Also a link that leads nowhere: to whoever made it, there is a configuration."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def complaint(message: str, code: int) -> int:
    click.echo(shown(f"nightmail: {' '.join(message.split())}"), err=True)
    return code


def with_rights(message: str) -> str:
    """What is denied to anybody but root is mostly denied for that."""
    denied = os.strerror(errno.EACCES).lower() in message.lower()
    return f"{message}: run as root" if denied and os.geteuid() != 0 else message


def command(work: Callable[P, int | None]) -> Callable[P, None]:
    """Ends a command with its exit status; an expected error becomes one line."""

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = work(*args, **kwargs) or FINE
        except ConfigurationError as error:
            code = complaint(str(error), USAGE)
        except EnvironmentFailureError as error:
            code = complaint(with_rights(str(error)), NEGATIVE)
        except PermissionError as error:
            code = complaint(with_rights(f"{error.filename}: {error.strerror}"), NEGATIVE)
        if code:
            raise click.exceptions.Exit(code)

    return run


def print_json(facts: Any) -> None:
    click.echo(json.dumps(facts, indent=2, sort_keys=True))


def print_lines(lines: Iterable[str]) -> None:
    """Whatever stands in them: names that strangers gave themselves, words of a worker's, a file's names."""
    for line in lines:
        click.echo(shown(line))


def shown(line: str) -> str:
    """One line, whose every character takes a place on the screen and does nothing else; bounded."""
    cut = line if len(line) <= limits.LOG_LINE_OCTETS else f"{line[: limits.LOG_LINE_OCTETS]}..."
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in cut)
