"""The commands; parsing and printing only.

Exit status: 0 fine, 1 a negative finding or a failure, 2 wrong usage or configuration. Errors are one line on
standard error. Heavy rooms are imported inside the commands, so that `--help` needs none of them. The frame
and the daemon's commands are here; `peers`, `identity` and those that look have files of their own; `shell`
is shared by all.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from gateway import __version__, form
from gateway.cli.doctor import doctor
from gateway.cli.identity import identity
from gateway.cli.peers import peers
from gateway.cli.seeing import COMMANDS as SEEING
from gateway.cli.shell import (
    FINE,
    NEGATIVE,
    USAGE,
    Settings,
    as_json,
    command,
    complaint,
    print_json,
    print_lines,
)
from gateway.cli.status import status
from gateway.config import DEFAULT_PATH

if TYPE_CHECKING:
    from gateway.operator.service import Service

__all__ = ["Settings", "main", "nightmail"]


class LazyGroup(click.Group):
    """Adds `lab` when it is asked for: it needs the optional packages of the extra of the same name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), "lab"})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        return _lab() if cmd_name == "lab" and found is None else found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """In a list `lab` stands by its line alone: it takes longer to load than all else."""
        self.add_command(_listed_lab())
        try:
            super().format_commands(ctx, formatter)
        finally:
            del self.commands["lab"]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """`nightmail help status` is another way to say `nightmail status --help`."""
        if args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        if args == ["--help"]:
            click.echo(ctx.get_help())
            ctx.exit()
        return super().resolve_command(ctx, args)


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


_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""What a file or a terminal that the answer is led to may say of it."""


_ROOTS_FOLDERS: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")
"""Where iptables and nft are. `su` without a dash, cron, and shells of others than root do not look there."""


def main() -> NoReturn:
    """The command line; ends the process."""
    folders = [*os.environ.get("PATH", os.defpath).split(os.pathsep), *_ROOTS_FOLDERS]
    os.environ["PATH"] = os.pathsep.join(dict.fromkeys(folders))
    if sys.stdout is None:  # closed by whoever called: nobody wants the answer but for its exit status
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  # for as long as the process lives
    try:
        sys.exit(nightmail.main(prog_name="nightmail", standalone_mode=False) or FINE)
    except BrokenPipeError:
        _drop_output()
        sys.exit(NEGATIVE)
    except click.exceptions.Abort:
        sys.exit(complaint("interrupted", NEGATIVE))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(USAGE)
    except click.UsageError as error:
        sys.exit(complaint(_misused(error), USAGE))
    except click.ClickException as error:
        sys.exit(complaint(error.format_message(), USAGE))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            _drop_output()
            sys.exit(complaint(f"the answer cannot be written: {error.strerror}", NEGATIVE))
        if damage := form.damage(error):
            sys.exit(complaint(damage, NEGATIVE))
        # A bug of ours; where it is, in one line that fits into a report.
        where = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}: {error}"
        sys.exit(complaint(f"internal error, please report it: {told}", NEGATIVE))


def _drop_output() -> None:
    """What could not be written is not tried again at the end: that would say so anew, and end with 120."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _misused(error: click.UsageError) -> str:
    """What was wrong, and where it stands how it is said."""
    told = error.format_message()
    if error.ctx is None:
        return told
    if isinstance(error, click.NoSuchOption) and error.option_name == "--config":
        return f"{told} It stands before the command: `nightmail --config FILE {error.ctx.info_name}`"
    return f"{told} (`{error.ctx.command_path} --help` says what there is)"


nightmail.add_command(doctor)
nightmail.add_command(peers)
nightmail.add_command(identity)
nightmail.add_command(status)
for seeing in SEEING:
    nightmail.add_command(seeing)


# --- The daemon --------------------------------------------------------------------------------------


@nightmail.command()
@click.pass_obj
@command
def run(settings: Settings) -> int:
    """Run the gateway in the foreground, as a service does.

    Puts the rules in place first, unless `nightmail down` was said last. SIGTERM ends it: running sessions
    may finish, new connections go directly.
    """
    from gateway.operator import lifecycle
    from gateway.runtime.supervisor import supervisor

    config = lifecycle.resolved(settings.config)
    return supervisor.run(config)


@nightmail.command(short_help="Load configuration and program anew; no session ends.")
@as_json
@click.pass_obj
@command
def reload(settings: Settings, as_json: bool) -> None:
    """Load the configuration, and the program after an upgrade, anew: no session ends, no connection waits.

    What is wrong with the configuration is said here, and then nothing has changed. A service manager can
    send SIGHUP instead; the log says then how it went.
    """
    from gateway.operator import reloading

    done = reloading.reload(settings.config)
    if as_json:
        print_json(asdict(done))
    else:
        click.echo(done.told)


@nightmail.command(short_help="Try whether alarms reach people.")
@as_json
@click.pass_obj
@command
def ring(settings: Settings, as_json: bool) -> int:
    """Send a trial alarm by each way that the running daemon has been told: mail, command.

    Says for each whether it went; exit status 1 if one did not. A mail that a server has taken may still be
    thrown away behind it: look whether it arrives.
    """
    from gateway.operator import ringing

    tried = ringing.ring(settings.config)
    if as_json:
        print_json([asdict(way) for way in tried])
    else:
        print_lines(way.told for way in tried)
    return FINE if all(way.went for way in tried) else NEGATIVE


@nightmail.command(hidden=True)
@click.pass_obj
@command
def preflight(settings: Settings) -> None:
    """What a running daemon asks the program on the disk before it reloads."""
    from gateway.operator import lifecycle
    from gateway.runtime.supervisor import preflight as asked

    config = lifecycle.resolved(settings.config)
    asked.require_whole(config)
    asked.require_startable(config)
    print_json(asked.facts(config))


# --- Rules -------------------------------------------------------------------------------------------


@nightmail.command(short_help="Look whether this machine can do what is configured.")
@as_json
@click.pass_obj
@command
def check(settings: Settings, as_json: bool) -> int:
    """Look whether this machine can do what the configuration asks for.

    Changes nothing. Exit status 1 if something would keep mail from being protected; the last line says then
    where to go on.
    """
    from gateway.operator import check as checking

    findings = checking.findings(settings.config)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_lines(checking.told(findings, settings.words("doctor")))
    return FINE if all(finding.good for finding in findings) else NEGATIVE


until_reboot = click.option(
    "--until-reboot", is_flag=True, help="For this boot alone: the next one finds what was said before."
)


@nightmail.command(short_help="Show what `up` would change now; changes nothing.")
@until_reboot
@as_json
@click.pass_obj
@command
def plan(settings: Settings, as_json: bool, until_reboot: bool) -> None:
    """Show what `up` would change now: rules, routes, switches, files, services. Changes nothing."""
    from gateway.operator import lifecycle, planning

    config = lifecycle.resolved(settings.config)
    found = planning.plan(config, _service(settings), until_reboot=until_reboot)
    if as_json:
        print_json(planning.as_json(found))
    else:
        print_lines(planning.told(found))


@nightmail.command(short_help="Take mail over, now and after each start: rules and service.")
@until_reboot
@click.pass_obj
@command
def up(settings: Settings, until_reboot: bool) -> None:
    """Put the rules in place, now and after each start; all of them, or none.

    Starts and enables the service too, where there is one that reads this configuration.
    """
    from gateway.operator import lifecycle

    # To be asked to end, or to lose the terminal, is to be interrupted: what is half done is undone.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, signal.default_int_handler)
    config = lifecycle.resolved(settings.config)
    click.echo(lifecycle.up(config, _service(settings), until_reboot=until_reboot))


@nightmail.command(short_help="Take the rules out; mail passes as if there were no gateway.")
@until_reboot
@click.pass_obj
@command
def down(settings: Settings, until_reboot: bool) -> None:
    """Take the rules out and leave them out; mail then passes as if there were no gateway.

    What `up` did to the service is taken back before. Sessions that are open have 20 s to end, and
    the rest is reset; Ctrl-C resets them at once.
    """
    from gateway.operator import lifecycle

    # To be asked to end is to be interrupted: nobody waits for sessions any longer.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    click.echo(lifecycle.down(settings.config, until_reboot=until_reboot))


def _service(settings: Settings) -> Service | None:
    """The one that reads the same configuration."""
    from gateway.operator import service

    return service.found() if settings.path == DEFAULT_PATH else None


# --- The lab -----------------------------------------------------------------------------------------


_NEEDED: Final = "scapy"
"""What the extra brings. `lab` loads it when there is something to read."""
_LAB: Final = "Two sites with gateways and one without, to try it out."


def _listed_lab() -> click.Command:
    return click.Command("lab", short_help=_LAB) if find_spec(_NEEDED) else _lab_missing(_NEEDED)


def _lab() -> click.Command:
    if find_spec(_NEEDED) is None:
        return _lab_missing(_NEEDED)
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
    @command
    def lab(words: tuple[str, ...]) -> int:
        return complaint(f"the lab needs {package}: install nightmail[lab]", NEGATIVE)

    return lab
