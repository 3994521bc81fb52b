"""`nightmail lab ...`: parsing and printing only; the work is done in `lab`.

Exit status as everywhere: 0 fine, 1 a failure in one line on standard error, 2 wrong usage. `lab exec` has
that of the command it ran.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Final, ParamSpec

import click

from gateway.config import Placement
from gateway.errors import EnvironmentFailureError
from gateway.eyes.transcript import Line, Transcript
from gateway.lab import listener, processes
from gateway.lab.gateways import INTERFACES
from gateway.lab.lab import DELIVERY_SECONDS, Delivered, Lab
from gateway.lab.overview import overview
from gateway.lab.place import Place
from gateway.lab.wan import Wan

if TYPE_CHECKING:
    from gateway.eyes import wire

P = ParamSpec("P")
SITES: Final = click.Choice(["a", "b", "c"])
UNITS: Final = {"": 1.0, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "kib": 1024.0, "mib": 1024.0**2}
SECONDS: Final = {"ms": 0.001, "s": 1.0, "us": 0.000001}

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of text.")


def _command(work: Callable[P, int | None]) -> Callable[P, None]:
    """An expected failure becomes one line and exit status 1."""

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            code = work(*args, **kwargs) or 0
        except EnvironmentFailureError as error:
            click.echo(f"nightmail: {' '.join(str(error).split())}", err=True)
            code = 1
        if code:
            raise click.exceptions.Exit(code)

    return run


class Duration(click.ParamType):  # type: ignore[type-arg]
    """`80ms`, `0.2s`, `0`; the value is in seconds."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|us|s)", str(value))
        if found is None and value != "0":
            self.fail(f"{value} is no time; allowed: 80ms, 0.2s, 0", param, ctx)
        return 0.0 if found is None else float(found[1]) * SECONDS[found[2]]


class Share(click.ParamType):  # type: ignore[type-arg]
    """`1%`, `0.5%`, `0`; the value is 0 to 1."""

    name = "percent"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)%", str(value))
        if found is None and value != "0":
            self.fail(f"{value} is no share; allowed: 1%, 0.5%, 0", param, ctx)
        return 0.0 if found is None else float(found[1]) / 100


class Size(click.ParamType):  # type: ignore[type-arg]
    """`5MB`, `20k`, `1000`; the value is in octets."""

    name = "octets"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]*)", str(value).lower())
        if found is None or found[2] not in UNITS:
            self.fail(f"{value} is no size; allowed: 1000, 20k, 5MB, 1MiB", param, ctx)
        return int(float(found[1]) * UNITS[found[2]])


def _lab(context: click.Context) -> Lab:
    return Lab(context.find_object(Place) or Place())


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    short_help="Two sites with gateways and one without, to try it out.",
)
def lab() -> None:
    """Two sites with gateways and one without, on this machine, with real mail servers.

    \b
        mta-a -- gw-a -- wire -- gw-b -- mta-b
                          |
                        mta-c

    Everything is in network namespaces (nm-...) and in one folder. Needs root; touches nothing else.
    """


@lab.command()
@click.option("--without-gateways", is_flag=True, help="Plain routers: mail as it is without Nightmail.")
@click.option(
    "--placement",
    type=click.Choice([placement.value for placement in INTERFACES]),
    default=Placement.ROUTER.value,
    show_default=True,
    help="Where the gateways stand: on the routers gw-a and gw-b, on the mail servers mta-a and mta-b, "
    "or on gw-a and gw-b as bridges without an address.",
)
@click.option("--tls", "offer_starttls", is_flag=True, help="mta-b offers STARTTLS itself.")
@as_json
@click.pass_context
@_command
def up(
    context: click.Context, without_gateways: bool, placement: str, offer_starttls: bool, as_json: bool
) -> None:
    """Build the lab and wait until it works."""
    one = _lab(context)
    one.placement = Placement(placement)
    one.up(
        with_gateways=not without_gateways,
        offer_starttls=offer_starttls,
        progress=lambda step: click.echo(f"... {step}", err=True),
    )
    if as_json:
        click.echo(json.dumps(overview(one), indent=2))
    else:
        click.echo("the lab is up; `nightmail lab mail a b` sends mail, `nightmail lab down` ends it")


@lab.command()
@click.pass_context
@_command
def down(context: click.Context) -> None:
    """End the lab; nothing of it stays."""
    click.echo("the lab is gone" if _lab(context).down() else "no lab is up")


@lab.command()
@as_json
@click.pass_context
@_command
def status(context: click.Context, as_json: bool) -> int:
    """Show what is there. Exit status 1 if no lab is up."""
    one = _lab(context)
    one.require_up()
    facts = overview(one)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return 0
    for name, node in facts["nodes"].items():
        addresses = "  ".join(f"{pair['v4']} {pair['v6']}" for pair in node["addresses"].values())
        more = "  ".join(node[key] for key in ("gateway", "address") if key in node)
        click.echo(f"{name:6} {node['processes']:3} processes  {more:14} {addresses}")
    heard = facts["listener"]
    click.echo(
        f"listener {'runs' if heard['runs'] else 'IS DEAD'}: {heard['octets']:,} octets in {heard['capture']}"
    )
    click.echo(f"wan: round trip {facts['wan']['rtt_ms']:g} ms, loss {facts['wan']['loss']:.1%}")
    click.echo(f"folder: {facts['folder']}")
    return 0


@lab.command(name="mail", short_help="Send real mail from one site to another.")
@click.argument("sender", type=SITES)
@click.argument("recipient", type=SITES)
@click.option("--size", type=Size(), default=0, help="Attach so many octets: 20k, 5MB.")
@click.option(
    "--count",
    type=click.IntRange(1, 100_000),
    default=1,
    show_default=True,
    metavar="N",
    help="So many mails.",
)
@click.option("--six", is_flag=True, help="By IPv6 (to USER@six.DOMAIN) instead of IPv4.")
@click.option("--wait/--no-wait", default=True, help="Wait for delivery (the default), or only send.")
@click.option(
    "--seconds", type=float, default=DELIVERY_SECONDS, show_default=True, metavar="N", help="Longest wait."
)
@as_json
@click.pass_context
@_command
def mail_command(
    context: click.Context,
    sender: str,
    recipient: str,
    size: int,
    count: int,
    six: bool,
    wait: bool,
    seconds: float,
    as_json: bool,
) -> None:
    """Send real mail from SENDER's mail server to a user at RECIPIENT (a, b or c)."""
    one = _lab(context)
    one.require_up()
    mails = one.compose(sender, recipient, count=count, size=size, six=six)
    if not wait:
        one.send(sender, mails)
        facts = [{"name": letter.name, "from": letter.sender, "to": letter.recipient} for letter in mails]
        click.echo(json.dumps(facts, indent=2) if as_json else f"{count} given to mta-{sender}")
        return
    _tell_delivered(one.deliver(sender, recipient, mails, seconds), as_json=as_json)


def _tell_delivered(delivered: list[Delivered], *, as_json: bool) -> None:
    if as_json:
        facts = [
            {
                "name": found.mail.name,
                "from": found.mail.sender,
                "to": found.mail.recipient,
                "seconds": round(found.seconds, 6),
                "file": str(found.delivery.path),
            }
            for found in delivered
        ]
        click.echo(json.dumps(facts, indent=2))
        return
    for found in delivered:
        way, milliseconds = f"{found.mail.sender} -> {found.mail.recipient}", found.seconds * 1000
        click.echo(f"{way}: in the mailbox after {milliseconds:.0f} ms")


@lab.command()
@click.option("--recorded", is_flag=True, help="Show what has crossed the wire so far, and end.")
@click.pass_context
@_command
def listen(context: click.Context, recorded: bool) -> None:
    """Show what a listener on the wire sees, as it happens. Ctrl-C ends it."""
    from gateway.eyes import wire  # and with it scapy, which loads for long

    one = _lab(context)
    one.require_up()
    show = _Show(one, wire.Assembler())
    if recorded:
        listener.catch_up(one.listener, one.topology, one.namespace("mta-c"))
        for segment in wire.segments(one.listener.pcap):
            show.take(segment)
        show.finish()
        return
    click.echo("listening on the wire; Ctrl-C ends it", err=True)
    with subprocess.Popen(
        listener.live_command(one.listener), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as capture:
        assert capture.stdout is not None
        try:
            for segment in wire.segments(capture.stdout):
                show.take(segment)
        except (KeyboardInterrupt, EOFError):
            pass
        finally:
            capture.terminate()
            show.finish()


class _Show:
    """Prints sessions as they grow, each line with the two sites it is between."""

    def __init__(self, one: Lab, assembler: wire.Assembler) -> None:
        self._lab = one
        self._assembler = assembler
        self._readers: dict[int, tuple[str, str, Transcript]] = {}

    def take(self, segment: wire.Segment) -> None:
        found = self._assembler.take(segment)
        if found is None:
            return
        session, packet = found
        if id(session) not in self._readers:
            client, server = self._name(session.client.address), self._name(session.server.address)
            self._readers[id(session)] = (client, server, Transcript())
            click.echo(f"--- {client}:{session.client.port} connects to {server} ({session.server.address})")
        client, server, reader = self._readers[id(session)]
        if packet.fresh:
            self._print(client, server, reader.feed(packet.to_server, packet.fresh))
        if packet.ends:
            self._print(client, server, reader.finish())

    def finish(self) -> None:
        for client, server, reader in self._readers.values():
            self._print(client, server, reader.finish())

    def _name(self, address: str) -> str:
        node = self._lab.topology.node_at(address)
        return address if node is None else node.name

    @staticmethod
    def _print(client: str, server: str, lines: list[Line]) -> None:
        for line in lines:
            arrow = "->" if line.to_server else "<-"
            click.echo(f"{client} {arrow} {server}  {line.text}")
        sys.stdout.flush()


@lab.command(name="wan")
@click.option("--rtt", type=Duration(), required=True, help="Round trip over the wire: 80ms; 0 takes it off.")
@click.option("--loss", type=Share(), default=0.0, help="Share of packets lost, each way: 1%.")
@click.pass_context
@_command
def wan_command(context: click.Context, rtt: float, loss: float) -> None:
    """Make the wire long, and bad.

    Every packet that crosses the wire waits for half of RTT, in order. LOSS drops each packet for itself with
    that chance, in both directions, so a round trip meets it about twice as often; TCP sends again, and mail
    only becomes slower. The listener stands in front of the line: it also sees what is lost.
    """
    one = _lab(context)
    one.require_up()
    with one.locked():
        one.set_wan(Wan(rtt, loss))
    if rtt or loss:
        click.echo(f"the wire: round trip {rtt * 1000:g} ms, each packet lost with a chance of {loss:.1%}")
    else:
        click.echo("the wire: short and good again")


@lab.command(name="gateway", short_help="Start, stop or kill a site's gateway.")
@click.argument("action", type=click.Choice(["start", "stop", "kill"]))
@click.argument("letter", type=click.Choice(["a", "b"]))
@click.pass_context
@_command
def gateway_command(context: click.Context, action: str, letter: str) -> None:
    """Start, stop (as an operator does) or kill (as a crash does) the gateway of a site."""
    one = _lab(context)
    one.require_up()
    with one.locked():
        if action == "start":
            one.start_gateway(letter)
            click.echo(f"gw-{letter} serves")
        elif action == "stop":
            one.stop_gateway(letter)
            click.echo(f"gw-{letter} has ended; mail passes it by")
        else:
            click.echo(f"gw-{letter}: {one.kill_gateway(letter)} processes killed; mail passes it by")


@lab.command(
    name="exec", context_settings={"ignore_unknown_options": True}, short_help="Run a command on a node."
)
@click.argument("node")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, required=True, metavar="-- COMMAND...")
@click.pass_context
@_command
def exec_command(context: click.Context, node: str, words: tuple[str, ...]) -> None:
    """Run a command on NODE (mta-a, gw-a, wire, gw-b, mta-b, mta-c).

    Its exit status is ours. On a gateway `nightmail status`, and any other command of nightmail's, asks that
    gateway.
    """
    one = _lab(context)
    one.require_up()
    arguments = processes.command_in(one.namespace(node), one.words_on(node, words))
    sys.stdout.flush()
    try:
        os.execvp(arguments[0], arguments)  # noqa: S606 no shell is what is wanted
    except OSError as error:
        raise EnvironmentFailureError(f"{arguments[0]}: {error.strerror}") from None
