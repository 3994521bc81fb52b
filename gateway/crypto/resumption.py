"""The handshake with a ticket: both sides, from the ticket to a `HandshakeResult`.

In place of static keys, ML-KEM and signatures both show that they have the ticket; the ephemeral keys are
fresh as always. Each serves one offer and one answer; after an error it is dead. Takes the ticket as given:
that it is used once, and for whom, is `tickets`. Counterpart: `handshake`, the one that needs no ticket.
"""

from __future__ import annotations

from typing import Final

from gateway.crypto.handshake import HandshakeResult, OfferedPeer, finish
from gateway.crypto.keys import Ephemerals
from gateway.crypto.messages import (
    RESUMED_ANSWER_OCTETS,
    RESUMED_ANSWER_PAYLOAD,
    RESUMED_OFFER_OCTETS,
    RESUMED_OFFER_PAYLOAD,
    TICKET_NAME_OCTETS,
    AnswerFlags,
    DialledAddress,
    OfferFlags,
    OfferForm,
)
from gateway.crypto.noise import NNPSK0, HandshakeState, NoiseRole
from gateway.crypto.tickets import Ticket
from gateway.errors import CryptoRefusedError, LocalMisuseError, PeerProtocolError, Reason

_FORM: Final = OfferForm.FULL
"""Tickets come of full handshakes alone."""


def ticket_name(offer: bytes) -> bytes | None:
    """The name of the ticket in a resumed offer; None for an offer of another form."""
    return offer[:TICKET_NAME_OCTETS] if len(offer) == RESUMED_OFFER_OCTETS else None


class _Resumption:
    """What both sides have: the handshake, which each step takes, and gives back once it is done."""

    def __init__(self, role: NoiseRole, ticket: Ticket, ephemerals: Ephemerals, prologue: bytes) -> None:
        e, _ = ephemerals.take()
        self._ticket = ticket
        self._noise: HandshakeState | None = HandshakeState(
            NNPSK0, role, prologue, None, e, psk=ticket.secret
        )

    def _take(self) -> HandshakeState:
        if self._noise is None:
            raise LocalMisuseError("this handshake is over")
        noise, self._noise = self._noise, None
        return noise


class ReceivingResumption(_Resumption):
    """R's side, Noise's initiator: `offer`, then `read_answer`, each once."""

    def __init__(self, ticket: Ticket, ephemerals: Ephemerals, prologue: bytes) -> None:
        super().__init__(NoiseRole.INITIATOR, ticket, ephemerals, prologue)
        self._keeps_ticket = False

    def offer(self, flags: int = OfferFlags.NONE) -> bytes:
        """Name and message 1; 66 octets."""
        noise = self._take()
        tokens = noise.write_tokens()
        sealed = noise.write_payload(RESUMED_OFFER_PAYLOAD.encode({"flags": flags}))
        self._keeps_ticket = bool(flags & OfferFlags.KEEPS_TICKET)
        self._noise = noise
        return self._ticket.name + tokens + sealed

    def read_answer(self, message: bytes, today: int) -> HandshakeResult:
        """Message 2. Raises PeerProtocolError or CryptoRefusedError; either way this was the only try.

        `today` does not matter: the ticket is younger than a day.
        """
        noise = self._take()
        if len(message) != RESUMED_ANSWER_OCTETS:
            raise PeerProtocolError(Reason.BAD_FRAME, f"message 2 of {len(message)} octets")
        values = RESUMED_ANSWER_PAYLOAD.decode(noise.read_payload(noise.read_tokens(message)))
        flags = values["flags"]
        return finish(
            noise,
            OfferedPeer(self._ticket.identity, self._ticket.epoch, OfferFlags.NONE, _FORM),
            flags,
            DialledAddress(values["address"], values["port"]),
            keeps_ticket=self._keeps_ticket and bool(flags & AnswerFlags.KEEPS_TICKET),
            used=self._ticket,
        )


class SendingResumption(_Resumption):
    """S's side, Noise's responder: `read_offer`, then `write_answer`, each once."""

    def __init__(self, ticket: Ticket, ephemerals: Ephemerals, prologue: bytes) -> None:
        super().__init__(NoiseRole.RESPONDER, ticket, ephemerals, prologue)
        self._offered: OfferedPeer | None = None
        self._tokens = b""

    def read_offer(self, offer: bytes) -> OfferedPeer:
        """Verify message 1 against what the mail servers said. Raises PeerProtocolError: BAD_KEY; BAD_OFFER,
        also where greeting or reply were tampered with."""
        noise = self._take()
        if len(offer) != RESUMED_OFFER_OCTETS or offer[:TICKET_NAME_OCTETS] != self._ticket.name:
            raise PeerProtocolError(Reason.BAD_OFFER, f"offer of {len(offer)} octets, for another ticket")
        sealed = noise.read_tokens(offer[TICKET_NAME_OCTETS:])
        try:
            payload = noise.read_payload(sealed)
        except CryptoRefusedError as error:
            # The tag stands for the signature: it is the offer that is spoilt, not a frame.
            raise PeerProtocolError(Reason.BAD_OFFER, error.detail) from error
        values = RESUMED_OFFER_PAYLOAD.decode(payload)
        # Now, not in write_answer: as in `handshake.SendingHandshake`.
        self._tokens = noise.write_tokens()
        flags = values["flags"]
        self._offered = OfferedPeer(self._ticket.identity, self._ticket.epoch, flags, _FORM)
        self._noise = noise
        return self._offered

    def write_answer(
        self, dialled: DialledAddress, flags: int = AnswerFlags.NONE
    ) -> tuple[bytes, HandshakeResult]:
        """Message 2 and the result. Nothing that the peer did can make this raise."""
        noise, offered = self._take(), self._offered
        if offered is None:
            raise LocalMisuseError("an answer to no offer")
        payload = RESUMED_ANSWER_PAYLOAD.encode(
            {"flags": flags, "address": dialled.address16, "port": dialled.port}
        )
        message = self._tokens + noise.write_payload(payload)
        keeps_ticket = bool(offered.flags & OfferFlags.KEEPS_TICKET and flags & AnswerFlags.KEEPS_TICKET)
        return message, finish(
            noise, offered, offered.flags, dialled, keeps_ticket=keeps_ticket, used=self._ticket
        )
