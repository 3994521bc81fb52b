"""`nightmail status`: is mail protected now? Once, or live with `--watch`."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time

import click

from gateway.cli.shell import (
    FINE,
    NEGATIVE,
    Seconds,
    Settings,
    as_json,
    command,
    print_json,
    print_lines,
    shown,
)
from gateway.config import DEFAULT_PATH, Config
from gateway.config_text import ConfigurationError
from gateway.errors import EnvironmentFailureError
from gateway.policy import limits


@click.command()
@click.option("--watch", is_flag=True, help="Live: the whole screen; a block each time where piped.")
@click.option(
    "--every",
    type=Seconds(limits.WATCH_EVERY_LEAST_SECONDS),
    metavar="SECONDS",
    help=f"With --watch: look so often.  [default: {limits.WATCH_EVERY_SECONDS:g}]",
)
@as_json
@click.pass_obj
@command
def status(settings: Settings, watch: bool, every: float | None, as_json: bool) -> int:
    """Say whether mail is protected now, how much was, and what rang.

    Sessions are told by direction and reason, of today and of this week (days are UTC's), over restarts of
    the daemon. Exit status 1 if no daemon is running or mail passes in clear; with --watch, at the end.
    """
    if every is not None and not watch:
        raise click.UsageError("--every is for --watch")
    if watch:
        return _watch(settings, every or limits.WATCH_EVERY_SECONDS, as_json=as_json)
    return _once(settings, as_json=as_json)


def _once(settings: Settings, *, as_json: bool) -> int:
    from gateway.observe.protection import is_protecting
    from gateway.operator import status as asking

    config = _config(settings)
    answer = asking.ask(config.control_socket)
    if answer is None:
        kept = asking.kept(config.pins_file, int(time.time()))
        if as_json:
            print_json({**kept, "running": False, "protecting": False})
        else:
            starting = _starting(settings, config)
            unheard = asking.unheard(config.control_socket)
            told = asking.without_answer(unheard) if unheard else asking.without_daemon(starting)
            _print_answer(told, good=False)
            print_lines(asking.shares(kept) if kept else [])
        return NEGATIVE
    if as_json:
        print_json({**answer, "running": True, "protecting": is_protecting(answer)})
    else:
        _print_answer(asking.answer(answer), good=is_protecting(answer))
        print_lines(asking.facts(answer))
    return FINE if is_protecting(answer) else NEGATIVE


def _starting(settings: Settings, config: Config) -> str:
    """How a daemon is started here, and mail taken over."""
    from gateway.intercept.wanted import Wanted, read_wanted
    from gateway.operator import service

    is_down = False
    with contextlib.suppress(EnvironmentFailureError):  # the doctor says more
        is_down = read_wanted(config.wanted_file) is Wanted.DOWN
    return service.starting(is_default=settings.path == DEFAULT_PATH, is_down=is_down)


def _config(settings: Settings) -> Config:
    """One that cannot be read says nothing of a daemon that goes on by the one before."""
    from gateway.operator import status as asking

    try:
        return settings.config
    except ConfigurationError as error:
        if not asking.is_running(Config().control_socket):
            raise
        raise ConfigurationError(
            f"{error}; the daemon goes on: ask `nightmail --config {os.devnull} status`"
        ) from None


def _print_answer(line: str, *, good: bool) -> None:
    """In colour at a terminal that has some (and no NO_COLOR)."""
    if not sys.stdout.isatty():
        print_lines([line])
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print(Text(shown(line), style="bold green" if good else "bold red"), soft_wrap=True)


def _watch(settings: Settings, every: float, *, as_json: bool) -> int:
    from gateway.cli.screen import Ears, FullScreen
    from gateway.operator import watching

    watched = watching.Watch(settings.config, _starting(settings, settings.config))
    screen = FullScreen() if sys.stdout.isatty() and not as_json else None
    with Ears(screen) as ears:
        while True:
            moment = watched.look()
            if screen is not None:
                screen.show(moment)
            elif as_json:
                click.echo(json.dumps(watching.as_json(moment), sort_keys=True))
            else:
                print_lines([*watching.told(moment), ""])
            if ears.wait(every):
                break
    watched.close()
    return FINE if moment.protects else NEGATIVE
