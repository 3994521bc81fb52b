"""`nightmail explain`: what would happen to a connection to or from an address now, and why.

Works on configuration and memory of peers directly, so it needs no running daemon; whether one runs is told.
Follows the rules, and `runtime.worker.surroundings`: where it is first (`aside`), then the lists, then the
rest after failures, then the pin.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from gateway.config import Config, Network
from gateway.errors import EnvironmentFailureError, Reason
from gateway.intercept import kernel
from gateway.observe.protection import is_protecting
from gateway.operator import peers as showing
from gateway.operator import sources as clients
from gateway.operator import status as asking
from gateway.operator.aside import Aside, aside
from gateway.peers.history import PeerEvent
from gateway.peers.look_store import LookStore, Trouble
from gateway.peers.pins import Destination, Pin
from gateway.peers.source_store import SourceStore
from gateway.peers.sources import Source
from gateway.peers.store import PinStore
from gateway.policy import limits

_SILENT: Final = "the daemon does not answer"


@dataclass(frozen=True, slots=True)
class Story:
    """All that is known of one destination, and of its address as a client."""

    destination: Destination
    takes_port: bool
    daemon: str
    """Why none protects; empty: one does, as far as it says."""
    silent: bool = False
    """A daemon runs, and has not said."""
    listed: str = ""
    """The entry of exceptions.never, or of exceptions.never_offer (`offers_only`), that it falls under."""
    offers_only: bool = False
    always: str = ""
    """The entry of exceptions.always that it falls under: nothing else keeps it in clear then."""
    pin: Pin | None = None
    rest_until: int = 0
    history: tuple[PeerEvent, ...] = ()
    trouble: Trouble | None = None
    source: Source | None = None
    ignoring: tuple[Mapping[str, Any], ...] = ()
    """Of each worker: how many offers in a row the address has ignored, and whether it gets fewer now."""
    at_gate: tuple[str, ...] = ()
    """Servers to which the kernel lets its sessions by, those apart whose turn it is."""
    dead_end: bool = False
    """The kernel lets SYNs there by."""
    aside: Aside | None = None
    """Why it is none of ours, by where it is."""

    @property
    def is_asked(self) -> bool:
        """Whether a gateway here looks at connections there at all."""
        return self.takes_port and self.aside is None

    @property
    def verdict(self) -> Reason | None:
        """Why a session of ours to it would stay in clear; None: it is encrypted if an offer comes."""
        if not self.takes_port:
            return Reason.NOT_OURS
        if self.aside is not None:
            return self.aside.reason
        if self.daemon:
            return Reason.BYPASSED
        if self.always:
            return None
        if self.listed and not self.offers_only:
            return Reason.NEVER
        if self.rest_until:
            return Reason.RECENTLY_FAILED
        return Reason.DEAD_END if self.dead_end else None


def destinations(text: str) -> list[Destination]:
    """An address, or all addresses of a name. Raises EnvironmentFailureError for a name without any, and
    ValueError for what can be neither."""
    named, place = showing.destination(text), showing.place(text)
    if named is not None:
        return [named]
    if place is None:
        raise ValueError("an address or a name, and a port from 1 to 65535 behind a colon if it is not 25")
    name, port = place
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or "not a name"
        raise EnvironmentFailureError(
            f"{name}: no address, and no name of one: {why}; name a mail server, not its domain"
        ) from None
    return list(dict.fromkeys(Destination(str(entry[4][0]), port) for entry in found))


def story(config: Config, destination: Destination, now: int) -> Story:
    """Raises EnvironmentFailureError where the memory of peers cannot be read."""
    always = _entry(config.always, destination.address)
    listed, offers_only = ("", False) if always else _listed(config, destination.address)
    known: dict[str, Any] = {}
    if config.pins_file.exists():
        with PinStore.read_only(config.pins_file) as store:
            rests = [path for path in store.resting_paths(now) if path.destination == destination]
            pin = store.lookup(destination)
            known = {
                "pin": pin,
                "rest_until": rests[0].failures.rest_until if rests and pin is None else 0,
                "history": tuple(store.history(destination)),
                "trouble": LookStore(store.database).trouble(destination),
                "source": SourceStore(store.database).source(destination.address),
            }
    daemon, silent = _daemon(config)
    if not daemon and not silent and not always and not listed:
        known["ignoring"], known["at_gate"] = _ignoring(config, destination.address)
    takes_port = destination.port in config.ports
    dead_end = kernel.DEAD_ENDS.has((destination.address, destination.port))
    found = (destination, takes_port, daemon, silent, listed, offers_only, always)
    return Story(*found, **known, dead_end=dead_end, aside=aside(config, destination.address))


def _listed(config: Config, address: str) -> tuple[str, bool]:
    never = _entry(config.never, address)
    if never:
        return never, False
    for one in config.never_ipsets:
        if one.family == ip_address(address).version and kernel.is_in_ipset(one.name, address):
            return str(one), False
    offers = _entry(config.never_offer, address)
    return offers, bool(offers)


def _entry(networks: tuple[Network, ...], address: str) -> str:
    parsed = ip_address(address)
    return next((str(one) for one in networks if parsed.version == one.version and parsed in one), "")


def _daemon(config: Config) -> tuple[str, bool]:
    """Why none protects, and whether one runs that has not said."""
    try:
        answer = asking.ask(config.control_socket)
    except EnvironmentFailureError:
        return "", True  # its workers may carry mail all the same
    if answer is None:
        return ("", True) if asking.unheard(config.control_socket) else ("no daemon is running", False)
    return "" if is_protecting(answer) else "the daemon does not protect (`nightmail status` says why)", False


def _ignoring(config: Config, address: str) -> tuple[tuple[Mapping[str, Any], ...], tuple[str, ...]]:
    """What the workers of the daemon count and nobody writes down, and what follows in the kernel; nothing of
    one that cannot tell it."""
    with contextlib.suppress(EnvironmentFailureError):
        answer = asking.ask(config.control_socket, f"ignored {address}\n".encode()) or {}
        ignored, at_gate = answer.get("ignored"), answer.get("at_gate")
        return (
            tuple(one for one in ignored if isinstance(one, dict)) if isinstance(ignored, list) else (),
            tuple(map(str, at_gate)) if isinstance(at_gate, list) else (),
        )
    return (), ()


def told(story: Story, now: int) -> Iterator[str]:
    """The story, for a person."""
    yield str(story.destination)
    yield f"  {_now(story)}"
    if story.daemon and story.is_asked:
        yield "  What follows holds once a daemon protects."
    if story.silent and story.is_asked:
        yield f"  That holds if a gateway carries it now: {_SILENT} (`nightmail doctor` says more)."
    yield from (f"  {line}" for line in _remembered(story))
    if story.trouble is not None:
        yield from showing.trouble_in_words(story.trouble)
    for event in story.history:
        yield f"  {showing.event_in_words(event)}"
    if story.source is not None and story.source.seen_day:
        yield f"  As a client: {clients.in_one_line(story.source, now)}"
    yield from (f"  {line}" for line in _offers_to(story))
    if story.listed:
        yield "  As a client it gets no offer from us: the same list."


def _now(story: Story) -> str:
    verdict = story.verdict
    if not story.takes_port:
        return f"A connection there passes untouched: port {story.destination.port} is not in mail.ports."
    if story.aside is not None:
        return f"A connection there passes untouched, in clear: {story.aside.why}."
    if verdict is Reason.BYPASSED:
        return f"A connection there now goes in clear: {story.daemon}."
    if verdict is Reason.NEVER:
        return f"A session there stays in clear: {story.listed} is in exceptions.never."
    if verdict is Reason.RECENTLY_FAILED:
        until = asking.when(story.rest_until)
        return f"A session there stays in clear until {until}: handshakes failed several times in a row."
    if verdict is Reason.DEAD_END:
        return "A session there goes in clear, unseen: nothing was offered there, session after session."
    if story.always:
        return f"A session there is always looked at: {story.always} is in exceptions.always."
    if story.pin is not None:
        return "A session there is encrypted. If it came without an offer it would go in clear, and ring."
    return (
        "A session there is encrypted if the other end offers it, else in clear; no gateway is known there."
    )


def _remembered(story: Story) -> Iterator[str]:
    if story.pin is None and story.is_asked:
        yield "Nobody is remembered there: whoever offers first is believed."
    if story.pin is None:
        return
    yield "Remembered there:"
    yield from list(showing.in_full(story.pin))[1:]


def _offers_to(story: Story) -> Iterator[str]:
    """Each worker counts for itself, and forgets with its process."""
    most = max((one.get("in_a_row", 0) for one in story.ignoring), default=0)
    resting = [one.get("worker") for one in story.ignoring if one.get("rests")]
    if resting:
        where = "" if len(resting) == len(story.ignoring) else f" (by worker {', '.join(map(str, resting))})"
        yield (
            f"As a client it gets an offer in one session of {limits.OFFERS_REST_ONE_IN} only{where}: it has"
            f" ignored {limits.OFFERS_IGNORED_IN_A_ROW} in a row. That ends with the first one that it takes,"
            " with any new gateway that is met, and with a reload; `offers.rest = false` forbids it."
        )
    elif most:
        few = "1 offer" if most == 1 else f"{most} offers in a row"
        yield f"As a client it has ignored {few}, and gets one in each session."
    if story.at_gate:
        servers = ", ".join(story.at_gate)
        yield f"The others, of those to {servers}, pass at the gate, unseen."


def as_json(story: Story, now: int) -> dict[str, Any]:
    return {
        "address": story.destination.address,
        "port": story.destination.port,
        "untouched": story.aside.why if story.aside is not None else None,
        "stays_in_clear": story.verdict.value if story.verdict is not None else None,
        "daemon": _SILENT if story.silent else story.daemon or "protects",
        "listed": story.listed or None,
        "listed_for_offers_only": story.offers_only,
        "listed_as_always": story.always or None,
        "rests_until": story.rest_until or None,
        "peer": showing.as_json(story.pin) if story.pin is not None else None,
        "trouble": showing.trouble_as_json(story.trouble),
        "history": [showing.event_as_json(event) for event in story.history],
        "offers_ignored": [dict(one) for one in story.ignoring],
        "passes_at_gate": list(story.at_gate),
        "client": clients.as_json(story.source, now) if story.source and story.source.seen_day else None,
    }
