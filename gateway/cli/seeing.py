"""The commands that look: `audit`, `explain`, `ping`."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.shell import FINE, NEGATIVE, Seconds, Settings, as_json, command, print_json, print_lines
from gateway.errors import EnvironmentFailureError
from gateway.policy import limits

if TYPE_CHECKING:
    from gateway.operator.audit import Table
    from gateway.peers.pins import Destination


# --- audit -------------------------------------------------------------------------------------------


@click.command(short_help="Say what a listener on the line learns.")
@click.option(
    "--read", "file", type=click.Path(path_type=Path), metavar="FILE", help="A pcap or pcapng file."
)
@click.option("--interface", metavar="NAME", help="Listen here until Ctrl-C. Needs root.")
@click.option("--seconds", type=Seconds(0.1), metavar="N", help="With --interface: listen for so long.")
@click.option(
    "--port",
    "ports",
    type=click.IntRange(1, 65535),
    multiple=True,
    default=(25,),
    metavar="N",
    help="A port that mail is spoken on; may be given again.  [default: 25]",
)
@click.option(
    "--show-addresses", "show", is_flag=True, help="People's addresses unmasked; in JSON also what was read."
)
@as_json
@command
def audit(
    file: Path | None,
    interface: str | None,
    seconds: float | None,
    ports: tuple[int, ...],
    show: bool,
    as_json: bool,
) -> int:
    """Say what a listener on the line learns: from a capture, or by listening.

    By pair of servers and by session: who wrote to whom and how many words, where it could be read; volumes
    and times, where it could not. Listen outside of the gateway to see what the world sees.
    """
    if (file is None) == (interface is None):
        raise click.UsageError("one of --read FILE and --interface NAME")
    if seconds is not None and interface is None:
        raise click.UsageError("--seconds is for --interface")
    try:
        from gateway.operator import audit as auditing
    except ModuleNotFoundError as error:
        raise EnvironmentFailureError(f"audit needs {error.name}: install nightmail[lab]") from None
    if file is not None:
        report = auditing.read(file, frozenset(ports))
    else:
        assert interface is not None
        until = f"for {seconds:g} s" if seconds is not None else "until Ctrl-C"
        report = auditing.listen(
            interface,
            frozenset(ports),
            seconds,
            lambda: click.echo(f"listening on {interface} {until}", err=True),
        )
    if as_json:
        print_json(auditing.as_json(report, show=show))
        return FINE
    for table in auditing.tables(report, show=show):
        print_table(table)
    print_lines(auditing.remarks(report))
    return FINE


def print_table(table: Table) -> None:
    """With lines and colours at a terminal that rich is there for; else plain columns."""
    if sys.stdout.isatty():
        try:
            from rich.console import Console
            from rich.table import Table as RichTable
            from rich.text import Text
        except ModuleNotFoundError:
            pass
        else:
            shown = RichTable(*table.headings, title=table.title, title_justify="left")
            for row in table.rows:
                # As Text: what strangers wrote is never taken for markup.
                shown.add_row(*map(Text, row))
            Console().print(shown)
            return
    click.echo(table.title)
    print_lines(plain_columns([table.headings, *table.rows]))
    click.echo("")


def plain_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


# --- explain -----------------------------------------------------------------------------------------


@click.command(short_help="Tell what would become of a session to ADDRESS, and why.")
@click.argument("where", metavar="ADDRESS|NAME")
@as_json
@click.pass_obj
@command
def explain(settings: Settings, where: str, as_json: bool) -> int:
    """Tell what would happen to a connection to ADDRESS now, why, and what is remembered.

    NAME: all its addresses. Exit status 1 if one of them would stay in clear whatever it offers.
    """
    from gateway.operator import explain as explaining

    config, now = settings.config, int(time.time())
    stories = [explaining.story(config, one, now) for one in destinations(where)]
    if as_json:
        print_json([explaining.as_json(story, now) for story in stories])
    else:
        for story in stories:
            print_lines(explaining.told(story, now))
    return NEGATIVE if any(story.verdict is not None for story in stories) else FINE


def destinations(where: str) -> list[Destination]:
    from gateway.operator import explain as explaining

    try:
        return explaining.destinations(where)
    except ValueError as error:
        raise click.UsageError(f"{where}: not allowed; allowed: {error}") from None


# --- ping --------------------------------------------------------------------------------------------


@click.command()
@click.argument("where", metavar="ADDRESS|NAME")
@click.option(
    "--seconds",
    type=Seconds(0.1),
    default=limits.PING_SECONDS,
    show_default=True,
    metavar="N",
    help="Give up after so long.",
)
@as_json
@click.pass_obj
@command
def ping(settings: Settings, where: str, seconds: float, as_json: bool) -> int:
    """See whether ADDRESS has a gateway, and whose.

    Opens a session to port 25 there as far as the encrypted channel, and tells times, keys and offer. No mail
    is sent, nothing is remembered, and root is not needed but for what is remembered. NAME: all its addresses
    (of the mail server, not of its domain). Exit status 1 if one of them was not protected.
    """
    from gateway.operator import ping as pinging
    from gateway.operator import ping_told as telling

    config = settings.config
    found = [pinging.ping(config, one, seconds) for one in destinations(where)]
    if as_json:
        print_json([telling.as_json(one) for one in found])
    else:
        for one in found:
            print_lines(telling.told(one))
    return FINE if all(one.protected for one in found) else NEGATIVE


COMMANDS: tuple[click.Command, ...] = (audit, explain, ping)
