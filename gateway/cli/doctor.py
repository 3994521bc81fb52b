"""`nightmail doctor`: what is wrong on this machine, and the commands that mend it."""

from __future__ import annotations

import sys

import click

from gateway.cli.shell import FINE, NEGATIVE, Settings, as_json, command, print_json, print_lines
from gateway.config import DEFAULT_PATH


@click.command(short_help="Look for what is wrong, and say what mends it.")
@as_json
@click.pass_obj
@command
def doctor(settings: Settings, as_json: bool) -> int:
    """Look for all that keeps mail from being protected, and say for each trouble the one command that
    mends it.

    The first line answers: all green, or how many troubles. Besides looking, it makes one connection for
    each address family through the gate, from and to network namespaces of its own. Changes nothing. Exit
    status 1 if there is a trouble.
    """
    from gateway.operator import doctor as examining

    def waiting() -> None:
        if sys.stderr.isatty():
            click.echo("trying a connection through the gate ...", err=True)

    diagnosis = examining.examine(
        settings.config, settings.path, is_default=settings.path == DEFAULT_PATH, on_trial=waiting
    )
    if as_json:
        print_json(examining.as_json(diagnosis))
    else:
        print_lines(examining.told(diagnosis))
    return FINE if diagnosis.all_green else NEGATIVE
