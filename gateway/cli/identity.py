"""`nightmail identity`: show it, rotate it, carry it to another machine."""

from __future__ import annotations

import getpass
import time
import warnings
from pathlib import Path

import click

from gateway.cli.shell import FINE, NEGATIVE, Settings, as_json, command, complaint, print_json, print_lines
from gateway.errors import EnvironmentFailureError
from gateway.policy import limits

passphrase_file = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Take the passphrase from the first line of FILE (/dev/fd/3: of that descriptor); else it is asked.",
)


@click.group()
def identity() -> None:
    """The identity of this site, as peers remember it."""


@identity.command("show", short_help="Print the fingerprint of this site's identity.")
@as_json
@click.pass_obj
@command
def identity_show(settings: Settings, as_json: bool) -> int:
    """Print the fingerprint of this site's identity, to be compared by telephone."""
    from gateway.operator import identity as showing
    from gateway.runtime import identity_file as keeping

    path = settings.config.identity_file
    kept = keeping.load(path)
    if kept is None:
        return complaint(f"{path}: no identity yet; it is made at the daemon's first start", NEGATIVE)
    if as_json:
        print_json({**showing.as_json(kept), "file": str(path)})
    else:
        print_lines(showing.told(kept))
    return FINE


@identity.command("rotate", short_help="Give this site a new identity, which peers accept.")
@click.option(
    "--announce-days",
    type=click.IntRange(1, limits.ROTATION_ANNOUNCE_MOST_DAYS),
    metavar="N",
    help="Tell peers of the new identity for so long before it is used."
    f"  [default: {limits.ROTATION_ANNOUNCE_DAYS}]",
)
@click.option(
    "--now", "at_once", is_flag=True, help="Use the new identity at once: the key may have been stolen."
)
@click.option("--undo", is_flag=True, help="Take an announced identity back.")
@click.pass_obj
@command
def identity_rotate(settings: Settings, announce_days: int | None, at_once: bool, undo: bool) -> int:
    """Give this site a new identity, which peers accept because the old one says so.

    It is announced first, so that most peers know it before it is used. With --now an announced one, or
    a new one, is used at once. A running daemon follows within a second or two; no session is cut.
    """
    from gateway.operator import identity as rotating

    if at_once and undo:
        raise click.UsageError("--now and --undo: one or the other")
    if announce_days is not None and (at_once or undo):
        raise click.UsageError("--announce-days is for an announcement: --now and --undo make none")
    path, now = settings.config.identity_file, int(time.time())
    if undo:
        answer = rotating.undo(path)
    elif at_once:
        answer = rotating.rotate_now(path, now)
    else:
        answer = rotating.announce(path, now, announce_days or limits.ROTATION_ANNOUNCE_DAYS)
    if answer.lines:
        print_lines(answer.lines)
    return complaint(answer.complaint, NEGATIVE) if answer.complaint else FINE


@identity.command("export", short_help="Write the identity to FILE, under a passphrase.")
@click.argument("file", type=click.Path(path_type=Path))
@passphrase_file
@click.pass_obj
@command
def identity_export(settings: Settings, file: Path, passphrase_file: Path | None) -> int:
    """Write the identity, and a rotation under way, to FILE under a passphrase.

    With FILE and passphrase a broken gateway is replaced within minutes. Whoever has both is this site.
    """
    from gateway.operator import identity as carrying

    # Nobody invents a passphrase for nothing.
    carrying.require_exportable(settings.config.identity_file, file)
    passphrase = _passphrase(passphrase_file, confirm=True)
    fingerprint = carrying.export(settings.config.identity_file, file, passphrase)
    print_lines([f"{file}: holds {fingerprint} under your passphrase; keep the two apart"])
    return FINE


@identity.command("import")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--replace", is_flag=True, help="Set the identity that is here aside.")
@passphrase_file
@click.pass_obj
@command
def identity_import(settings: Settings, file: Path, replace: bool, passphrase_file: Path | None) -> int:
    """Make the identity in FILE that of this machine.

    FILE is an export, or an identity file of another machine or of a backup. The machine that it came from
    must not go on using it, unless both serve the same site.
    """
    from gateway.operator import identity as carrying

    text = carrying.read(file)
    passphrase = _passphrase(passphrase_file, confirm=False) if carrying.is_export(text) else b""
    print_lines(carrying.import_(settings.config.identity_file, file, text, passphrase, replace=replace))
    return FINE


def _passphrase(file: Path | None, *, confirm: bool) -> bytes:
    """Never from the command line: everybody on the machine can read that."""
    if file is None:
        text = _asked(confirm)
    else:
        try:
            with file.open("rb") as source:
                octets = source.read(limits.PASSPHRASE_OCTETS + 1)
        except OSError as error:
            raise EnvironmentFailureError(f"{file}: passphrase cannot be read: {error.strerror}") from None
        text = octets.partition(b"\n")[0].rstrip(b"\r").decode("utf-8", "surrogateescape")
    if confirm and len(text) < limits.PASSPHRASE_LETTERS:
        raise EnvironmentFailureError(f"a passphrase has at least {limits.PASSPHRASE_LETTERS} letters")
    return str(text).encode("utf-8", "surrogateescape")


def _asked(confirm: bool) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))
        except getpass.GetPassWarning:
            raise EnvironmentFailureError(
                "no terminal to ask for a passphrase on: --passphrase-file FILE gives it"
            ) from None
