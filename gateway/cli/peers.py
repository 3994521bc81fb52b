"""`nightmail peers`: what is remembered of other sites' gateways, and of clients."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from gateway.cli.shell import FINE, NEGATIVE, Settings, as_json, command, complaint, print_json, print_lines
from gateway.errors import EnvironmentFailureError


@click.group()
def peers() -> None:
    """Show and correct what is remembered of other sites' gateways."""


@peers.command("list")
@as_json
@click.pass_obj
@command
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
        print_json([showing.as_json(pin) for pin in pins])
    else:
        print_lines([showing.in_one_line(pin) for pin in pins] or ["no peer is remembered yet"])


@peers.command("show", short_help="Show all that is remembered of ADDRESS.")
@click.argument("address")
@as_json
@click.pass_obj
@command
def peers_show(settings: Settings, address: str, as_json: bool) -> int:
    """Show all that is remembered of ADDRESS (192.0.2.7, 192.0.2.7:25, [2001:db8::7]:25)."""
    from gateway.operator import peers as showing
    from gateway.peers.look_store import LookStore
    from gateway.peers.store import PinStore

    destination = named_destination(address)
    path = settings.config.pins_file
    pin = trouble = None
    if path.exists():
        with PinStore.read_only(path) as store:
            pin, trouble = store.lookup(destination), LookStore(store.database).trouble(destination)
    if pin is None:
        return complaint(showing.nobody(destination), NEGATIVE)
    if as_json:
        print_json({**showing.as_json(pin), "trouble": showing.trouble_as_json(trouble)})
    else:
        print_lines([*showing.in_full(pin), *showing.trouble_in_words(trouble)])
    return FINE


@peers.command("history", short_help="Tell what became of ADDRESS since it was first seen.")
@click.argument("address")
@as_json
@click.pass_obj
@command
def peers_history(settings: Settings, address: str, as_json: bool) -> int:
    """Tell what became of ADDRESS since it was first seen: identities, missing offers, failures."""
    from gateway.operator import peers as showing
    from gateway.peers.store import PinStore

    destination = named_destination(address)
    path = settings.config.pins_file
    events = PinStore.read_only(path).history(destination) if path.exists() else ()
    if not events:
        return complaint(f"no history of {destination}: `nightmail peers list` has all peers", NEGATIVE)
    if as_json:
        print_json([showing.event_as_json(event) for event in events])
    else:
        print_lines(showing.event_in_words(event) for event in events)
    return FINE


@peers.command("sources", short_help="List the clients that are remembered.")
@as_json
@click.pass_obj
@command
def peers_sources(settings: Settings, as_json: bool) -> None:
    """List the clients that are remembered: those with a gateway, and those that drop our offers."""
    from gateway.operator import sources as showing
    from gateway.peers.database import Database
    from gateway.peers.source_store import SourceStore

    path = settings.config.pins_file
    now = int(time.time())
    sources = SourceStore(Database.read_only(path)).sources() if path.exists() else []
    if as_json:
        print_json([showing.as_json(source, now) for source in sources])
    else:
        lines = [showing.in_one_line(source, now) for source in sources]
        print_lines(lines or ["no client is remembered yet"])


@peers.command("forget-source", short_help="Forget the client ADDRESS; it gets offers again.")
@click.argument("address")
@click.pass_obj
@command
def peers_forget_source(settings: Settings, address: str) -> int:
    """Forget the client ADDRESS: it is offered encryption again, and may come in clear without an alarm."""
    from gateway.peers.database import Database
    from gateway.peers.source_store import SourceStore

    client = named_destination(address).address
    if not SourceStore(Database(existing(settings.config.pins_file))).forget(client):
        told = f"nothing is remembered of {client}: `nightmail peers sources` has all clients"
        return complaint(told, NEGATIVE)
    click.echo(f"forgotten: {client}")
    return FINE


@peers.command("accept")
@click.argument("address")
@click.argument("fingerprint")
@click.pass_obj
@command
def peers_accept(settings: Settings, address: str, fingerprint: str) -> int:
    """Accept an identity that came to ADDRESS unannounced.

    FINGERPRINT, or its beginning, as `nightmail identity show` prints it at the other site: ask there.
    """
    from gateway.operator import peers as showing
    from gateway.peers.store import PinStore

    destination = named_destination(address)
    with PinStore(existing(settings.config.pins_file)) as store:
        pin = store.lookup(destination)
        if pin is None:
            return complaint(showing.nobody(destination), NEGATIVE)
        found = showing.chosen(pin, fingerprint)
        if len(found) != 1:
            return complaint(showing.not_one(destination, fingerprint, len(found)), NEGATIVE)
        store.accept(destination, found[0].identity)
    click.echo(f"accepted at {destination}: {showing.fingerprint(found[0].identity)}")
    click.echo("what has rung about it stays in `nightmail status` for a day")
    return FINE


@peers.command("forget", short_help="Forget ADDRESS: who answers there next is believed.")
@click.argument("address")
@click.option("--identity", "fingerprint", metavar="FINGERPRINT", help="Forget only this one of several.")
@click.pass_obj
@command
def peers_forget(settings: Settings, address: str, fingerprint: str | None) -> int:
    """Forget ADDRESS: whoever answers there next is believed as at first sight."""
    from gateway.operator import peers as showing
    from gateway.peers.store import PinStore

    destination = named_destination(address)
    with PinStore(existing(settings.config.pins_file)) as store:
        if fingerprint is None:
            if not store.forget(destination):
                return complaint(showing.nobody(destination), NEGATIVE)
            click.echo(f"forgotten: {destination}")
            return FINE
        pin = store.lookup(destination)
        if pin is None:
            return complaint(showing.nobody(destination), NEGATIVE)
        found = showing.chosen(pin, fingerprint)
        if len(found) != 1:
            return complaint(showing.not_one(destination, fingerprint, len(found)), NEGATIVE)
        if store.forget_identity(destination, found[0].identity) is None:
            told = (
                f"the only accepted identity there: `nightmail peers forget {destination}` forgets the peer"
            )
            return complaint(told, NEGATIVE)
    click.echo(f"forgotten at {destination}: {showing.fingerprint(found[0].identity)}")
    return FINE


def named_destination(text: str) -> Any:
    from gateway.operator import peers as showing

    found = showing.destination(text)
    if found is None:
        raise click.UsageError(f"{text}: not an address; allowed: 192.0.2.7, 192.0.2.7:25, [2001:db8::7]:25")
    return found


def existing(path: Path) -> Path:
    """To be written to. A damaged one is said to be so: to set it aside is the daemon's work, which rings."""
    from gateway.peers.store import PinStore

    if not path.exists():
        raise EnvironmentFailureError(f"{path}: no peer is remembered yet")
    with PinStore.read_only(path) as store:
        store.count()
    return path
