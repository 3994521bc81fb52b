"""A receiving session brought to where a test of it begins, against scripted far gateways."""

from __future__ import annotations

from gateway.crypto.keys import Label
from gateway.session import commands as c
from gateway.session.receiving import ReceivingSession
from tests.playbook import (
    DIALLED,
    EHLO,
    GREETING,
    R_KEYS,
    REPLY,
    FarSendingGateway,
    Playbook,
    receiving,
)

MAIL = b"MAIL FROM:<alice@a.example>\r\n"
REFUSAL = b"454 4.7.0 "


def greeted(**surroundings: object) -> Playbook:
    book = Playbook(receiving(**surroundings))  # type: ignore[arg-type]
    book.near(GREETING)
    book.far(EHLO)
    return book


def offered(reply: bytes = REPLY, **surroundings: object) -> Playbook:
    book = greeted(**surroundings)
    book.near(reply)
    return book


def signing(reply: bytes = REPLY, **surroundings: object) -> Playbook:
    """A session whose signer has not answered yet."""
    context = receiving(**surroundings)._context  # type: ignore[arg-type]
    book = Playbook(ReceivingSession(context))
    book.near(GREETING)
    book.far(EHLO)
    book.near(reply)
    assert book.state == "signing"
    return book


def signature_for(book: Playbook) -> bytes:
    (asked,) = book.all_of(c.SignOffer)
    return R_KEYS.key.sign(Label.OFFER, asked.to_sign)


def the_offer(book: Playbook) -> bytes:
    """The EHLO reply as it went out."""
    assert book.to_far.startswith(GREETING)
    return book.to_far[len(GREETING) :]


def far_s(book: Playbook, **how: object) -> FarSendingGateway:
    return FarSendingGateway(the_offer(book), **how)  # type: ignore[arg-type]


class Channelled:
    """A playbook in its channel, and the scripted S at the other end."""

    def __init__(self, flight: bytes = MAIL, reply: bytes = REPLY, **surroundings: object) -> None:
        dialled = surroundings.pop("say_dialled", DIALLED)
        self.book = offered(reply, **surroundings)
        self.mark = len(self.book.to_far)
        self.s = far_s(self.book, dialled=dialled)
        self.book.far(self.s.answer + self.s.says(flight))
        if flight and self.book.machine.deadline is not None:
            self.book.deadline()  # the receiver takes its time

    @property
    def heard(self) -> FarSendingGateway:
        return self.s.take(self.book.to_far[self.mark :])
