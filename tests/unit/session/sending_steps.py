"""A sending session brought to where a test of it begins, against scripted far gateways."""

from __future__ import annotations

from gateway.peers.pins import Destination, MetPeer, Pin, updated
from gateway.session import commands as c
from tests.playbook import (
    EHLO,
    GREETING,
    R_KEYS,
    TODAY,
    FarReceivingGateway,
    Playbook,
    sending,
)

MAIL = b"MAIL FROM:<alice@a.example>\r\n"
RCPT = b"RCPT TO:<bob@b.example>\r\n"
CONTENT = b"BDAT 11 LAST\r\nhello world"
DESTINATION = Destination("192.0.2.25", 25)
LATER = 1_800_000_000


def pin_of(*keys_and_epochs: tuple[object, int], full: bool = True) -> Pin:
    pin: Pin | None = None
    for keys, epoch in keys_and_epochs:
        octets = keys.identity.octets  # type: ignore[attr-defined]
        pin = updated(pin, DESTINATION, MetPeer(octets, epoch, full), LATER)
    assert pin is not None
    return pin


R_PIN = pin_of((R_KEYS, TODAY))


def started(**surroundings: object) -> Playbook:
    """Greeting and EHLO have passed."""
    book = Playbook(sending(**surroundings))  # type: ignore[arg-type]
    book.far(GREETING)
    book.near(EHLO)
    return book


def ready(r: FarReceivingGateway, **surroundings: object) -> Playbook:
    """The sender has its EHLO reply, and has not said its first command."""
    book = started(**surroundings)
    book.far(r.reply)
    return book


def confirming(r: FarReceivingGateway, flight: bytes = MAIL, **surroundings: object) -> Playbook:
    book = ready(r, **surroundings)
    book.near(flight)
    r.take(book.to_far)
    return book


def channelled(r: FarReceivingGateway, flight: bytes = MAIL, **surroundings: object) -> Playbook:
    book = confirming(r, flight, **surroundings)
    book.far(r.params())
    return book


def redialled(book: Playbook, r: FarReceivingGateway) -> Playbook:
    """A redial up to and with the EHLO reply of the new connection."""
    assert book.state == "redialling"
    assert book.commands[-1] == c.Redial() or c.Redial() in book.commands
    book.redialled()
    book.far(r.greeting)
    assert book.to_far == EHLO
    book.far(r.reply)
    return book
