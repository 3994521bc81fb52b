"""The commands; parsing and printing only.

Exit status: 0 fine, 1 a negative finding or a failure, 2 wrong usage or configuration. Errors are one line on
standard error. Heavy rooms are imported inside the commands, so that `--help` needs none of them.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any, Final, NoReturn, ParamSpec

import click

from gateway import __version__
from gateway.config import DEFAULT_PATH, Config, ConfigurationError, load
from gateway.errors import EnvironmentFailureError

FINE: Final = 0
NEGATIVE: Final = 1
USAGE: Final = 2

P = ParamSpec("P")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text.")


class LazyGroup(click.Group):
    """Adds `lab` when it is asked for: it needs the optional packages of the extra of the same name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "lab"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return _lab() if cmd_name == "lab" else super().get_command(ctx, cmd_name)


class Settings:
    """The configuration, read when a command first needs it: `lab` and `--help` must work without."""

    def __init__(self, path: Path | None) -> None:
        self.path = path or DEFAULT_PATH
        self._must_exist = path is not None

    @property
    def config(self) -> Config:
        """Without a file at the default place all defaults hold."""
        return load(self.path) if self._must_exist or self.path.exists() else Config()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="nightmail", message="%(prog)s %(version)s")
@click.option(
    "--config",
    "path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Configuration file.  [default: {DEFAULT_PATH}, all defaults if there is none]",
)
@click.pass_context
def nightmail(context: click.Context, path: Path | None) -> None:
    """Carry mail between sites encrypted, without touching a mail server.

    A gateway on the path of a site's mail takes over connections to port 25; where the other end has one too,
    the session travels encrypted between the two. All other mail flows exactly as before.
    """
    context.obj = Settings(path)


def main() -> NoReturn:
    """The command line; ends the process."""
    try:
        sys.exit(nightmail.main(prog_name="nightmail", standalone_mode=False) or FINE)
    except (click.exceptions.Abort, BrokenPipeError):
        sys.exit(NEGATIVE)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(USAGE)
    except click.ClickException as error:
        sys.exit(_complaint(error.format_message(), USAGE))
    except Exception as error:
        # A bug of ours; where it is, in one line that fits into a report.
        where = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {error}"
        sys.exit(_complaint(f"internal error, please report it: {told}", NEGATIVE))


def _complaint(message: str, code: int) -> int:
    click.echo(f"nightmail: {' '.join(message.split())}", err=True)
    return code


def _command(work: Callable[P, int | None]) -> Callable[P, None]:
    """Ends a command with its exit status; an expected error becomes one line."""

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = work(*args, **kwargs) or FINE
        except ConfigurationError as error:
            code = _complaint(str(error), USAGE)
        except EnvironmentFailureError as error:
            code = _complaint(str(error), NEGATIVE)
        if code:
            raise click.exceptions.Exit(code)

    return run


def _print_json(facts: Any) -> None:
    click.echo(json.dumps(facts, indent=2, sort_keys=True))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


# --- The daemon --------------------------------------------------------------------------------------


@nightmail.command()
@click.pass_obj
@_command
def run(settings: Settings) -> int:
    """Run the gateway in the foreground, as a service does.

    Puts the rules in place first, unless `nightmail down` was said last. SIGTERM ends it: running sessions
    may finish, new connections go directly.
    """
    from gateway.operator import lifecycle
    from gateway.runtime import supervisor

    config = lifecycle.resolved(settings.config)
    return supervisor.run(config)


@nightmail.command()
@as_json
@click.pass_obj
@_command
def status(settings: Settings, as_json: bool) -> int:
    """Say whether mail is protected now, how much was, and what rang.

    Exit status 1 if no daemon is running or mail passes in clear.
    """
    from gateway.operator import status as asking

    config = settings.config
    answer = asking.ask(config.control_socket)
    if answer is None:
        if as_json:
            _print_json({"running": False})
        else:
            click.echo("NO, mail passes in clear: no daemon is running (`nightmail run` starts it)")
        return NEGATIVE
    if as_json:
        _print_json({"running": True, **answer})
    else:
        _print_lines(asking.told(answer))
    return FINE if asking.is_protecting(answer) else NEGATIVE


# --- Rules -------------------------------------------------------------------------------------------


@nightmail.command()
@as_json
@click.pass_obj
@_command
def check(settings: Settings, as_json: bool) -> int:
    """Look whether this machine can do what the configuration asks for.

    Changes nothing. Exit status 1 if something would keep mail from being protected.
    """
    from gateway.operator import check as checking

    findings = checking.findings(settings.config)
    if as_json:
        _print_json([asdict(finding) for finding in findings])
    else:
        _print_lines(f"{'ok  ' if found.good else 'BAD '} {found.name}: {found.text}" for found in findings)
    return FINE if all(finding.good for finding in findings) else NEGATIVE


@nightmail.command()
@as_json
@click.pass_obj
@_command
def plan(settings: Settings, as_json: bool) -> None:
    """Show what `up` would change in the kernel now. Changes nothing."""
    from gateway.operator import lifecycle

    found = lifecycle.plan(lifecycle.resolved(settings.config))
    if as_json:
        _print_json(asdict(found))
        return
    _print_lines(found.changes or ["nothing to change: all rules are in place"])
    _print_lines(f"note: {remark}" for remark in found.remarks)


@nightmail.command()
@click.pass_obj
@_command
def up(settings: Settings) -> None:
    """Put the rules in place, now and after each start."""
    from gateway.operator import lifecycle

    click.echo(lifecycle.up(lifecycle.resolved(settings.config)))


@nightmail.command()
@click.pass_obj
@_command
def down(settings: Settings) -> None:
    """Take the rules out and leave them out; mail then passes as if there were no gateway."""
    from gateway.operator import lifecycle

    click.echo(lifecycle.down(settings.config))


# --- Peers -------------------------------------------------------------------------------------------


@nightmail.group()
def peers() -> None:
    """Show and correct what is remembered of other sites' gateways."""


@peers.command("list")
@as_json
@click.pass_obj
@_command
def peers_list(settings: Settings, as_json: bool) -> None:
    """List all remembered destinations."""
    from gateway.operator import peers as showing
    from gateway.peers.store import PinStore

    path = settings.config.pins_file
    pins = []
    if path.exists():
        with PinStore.read_only(path) as store:
            pins = store.pins()
    if as_json:
        _print_json([showing.as_json(pin) for pin in pins])
    else:
        _print_lines([showing.in_one_line(pin) for pin in pins] or ["no peer is remembered yet"])


@peers.command("show")
@click.argument("address")
@as_json
@click.pass_obj
@_command
def peers_show(settings: Settings, address: str, as_json: bool) -> int:
    """Show all that is remembered of ADDRESS (192.0.2.7, 192.0.2.7:25, [2001:db8::7]:25)."""
    from gateway.operator import peers as showing
    from gateway.peers.store import PinStore

    destination = _destination(address)
    path = settings.config.pins_file
    pin = None
    if path.exists():
        with PinStore.read_only(path) as store:
            pin = store.lookup(destination)
    if pin is None:
        return _complaint(f"no peer is remembered at {destination}", NEGATIVE)
    if as_json:
        _print_json(showing.as_json(pin))
    else:
        _print_lines(showing.in_full(pin))
    return FINE


@peers.command("accept")
@click.argument("address")
@click.argument("fingerprint")
@click.pass_obj
@_command
def peers_accept(settings: Settings, address: str, fingerprint: str) -> int:
    """Accept an identity that came to ADDRESS unannounced.

    FINGERPRINT, or its beginning, as `nightmail identity show` prints it at the other site: ask there.
    """
    from gateway.operator import peers as showing
    from gateway.peers.store import PinStore

    destination = _destination(address)
    with PinStore(_existing(settings.config.pins_file)) as store:
        pin = store.lookup(destination)
        found = showing.chosen(pin, fingerprint) if pin is not None else []
        if len(found) != 1:
            return _complaint(f"{len(found)} identities at {destination} begin so: {fingerprint}", NEGATIVE)
        store.accept(destination, found[0].identity)
    click.echo(f"accepted at {destination}: {showing.fingerprint(found[0].identity)}")
    return FINE


@peers.command("forget")
@click.argument("address")
@click.option("--identity", "fingerprint", metavar="FINGERPRINT", help="Forget only this one of several.")
@click.pass_obj
@_command
def peers_forget(settings: Settings, address: str, fingerprint: str | None) -> int:
    """Forget ADDRESS: whoever answers there next is believed as at first sight."""
    from gateway.operator import peers as showing
    from gateway.peers.store import PinStore

    destination = _destination(address)
    with PinStore(_existing(settings.config.pins_file)) as store:
        if fingerprint is None:
            if not store.forget(destination):
                return _complaint(f"nothing is remembered at {destination}", NEGATIVE)
            click.echo(f"forgotten: {destination}")
            return FINE
        pin = store.lookup(destination)
        found = showing.chosen(pin, fingerprint) if pin is not None else []
        if len(found) != 1:
            return _complaint(f"{len(found)} identities at {destination} begin so: {fingerprint}", NEGATIVE)
        if store.forget_identity(destination, found[0].identity) is None:
            return _complaint(f"the only accepted identity at {destination}: forget the whole peer", NEGATIVE)
    click.echo(f"forgotten at {destination}: {showing.fingerprint(found[0].identity)}")
    return FINE


def _destination(text: str) -> Any:
    from gateway.operator import peers as showing

    found = showing.destination(text)
    if found is None:
        raise click.UsageError(f"{text}: not an address; allowed: 192.0.2.7, 192.0.2.7:25, [2001:db8::7]:25")
    return found


def _existing(path: Path) -> Path:
    if not path.exists():
        raise EnvironmentFailureError(f"{path}: no peer is remembered yet")
    return path


# --- Identity ----------------------------------------------------------------------------------------


@nightmail.group()
def identity() -> None:
    """The identity of this site, as peers remember it."""


@identity.command("show")
@as_json
@click.pass_obj
@_command
def identity_show(settings: Settings, as_json: bool) -> int:
    """Print the fingerprint of this site's identity, to be compared by telephone."""
    from gateway.crypto.keys import IdentityKey
    from gateway.runtime import identity_file as keeping

    path = settings.config.identity_file
    seed = keeping.load(path)
    if seed is None:
        return _complaint(f"{path}: no identity yet; it is made at the first `nightmail run`", NEGATIVE)
    fingerprint = IdentityKey.from_seed(seed).public.fingerprint
    if as_json:
        _print_json({"fingerprint": fingerprint, "file": str(path)})
    else:
        click.echo(fingerprint)
    return FINE


# --- The lab -----------------------------------------------------------------------------------------


def _lab() -> click.Command:
    try:
        from gateway.lab.commands import lab
    except ModuleNotFoundError as error:
        return _lab_missing(error.name or "a package")
    found: click.Command = lab
    return found


def _lab_missing(package: str) -> click.Command:
    @click.command(
        "lab",
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
        short_help="Mail between two sites on this machine (needs the extra: nightmail[lab]).",
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    @_command
    def lab(words: tuple[str, ...]) -> int:
        return _complaint(f"the lab needs {package}: install nightmail[lab]", NEGATIVE)

    return lab
