"""Both sides of the handshake, from keys to a `HandshakeResult`: the one proof a record layer is made of.

R (`ReceivingHandshake`) writes the offer and reads the answer; S (`SendingHandshake`) reads the offer and
writes the answer. Each serves one offer and one answer; after an error it is dead. Says nothing to anybody:
what goes on the wire when a handshake fails is the session's.
Counterparts: `noise`, `messages`, `records`; `resumption`, which is the same with a ticket.
"""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from typing import Final

from gateway.crypto.keys import (
    EndorsedStatic,
    EndorsementCache,
    Ephemerals,
    IdentityPublic,
    Label,
    StaticKey,
    check_endorsement,
)
from gateway.crypto.messages import (
    ANSWER_PAYLOAD,
    OFFER_PAYLOAD,
    OFFER_SIGNED,
    AnswerFlags,
    DialledAddress,
    OfferFlags,
    OfferForm,
    prologue,
)
from gateway.crypto.noise import IX, IXHFS, CipherState, HandshakeState, NoiseRole, Pattern
from gateway.crypto.tickets import Ticket
from gateway.errors import IdentityHashed, LocalMisuseError, PeerProtocolError, Reason

__all__ = [
    "HandshakeResult",
    "OfferForm",
    "OfferedPeer",
    "ReceivingHandshake",
    "SendingHandshake",
    "finish",
    "prologue",
]

PATTERNS: Final[dict[OfferForm, Pattern]] = {OfferForm.FULL: IXHFS, OfferForm.SHORT: IX}

_PROOF: Final = object()
"""Held by this file alone: what was not made by a finished handshake is no result."""


@dataclass(frozen=True, slots=True)
class OfferedPeer:
    """What an offer with a good signature says. Not to be remembered: R has not proven anything yet."""

    identity: IdentityPublic
    epoch: int
    flags: int
    form: OfferForm


class TrafficCiphers:
    """The two directions' ciphers, to be taken once: two layers over one key would repeat nonces."""

    __slots__ = ("_pair",)

    def __init__(self, sending: bytes, receiving: bytes) -> None:
        self._pair: tuple[CipherState, CipherState] | None = (CipherState(sending), CipherState(receiving))

    def take(self) -> tuple[CipherState, CipherState]:
        """Sending, then receiving."""
        if self._pair is None:
            raise LocalMisuseError("these traffic keys are in use already")
        pair, self._pair = self._pair, None
        return pair

    def __repr__(self) -> str:
        return "<TrafficCiphers: redacted>"


@dataclass(frozen=True, slots=True)
class HandshakeResult:
    """A finished handshake. At S the peer has yet to prove itself by its first record."""

    identity: IdentityPublic
    epoch: int
    flags: int
    form: OfferForm
    dialled: DialledAddress
    """Where S believes it dialled: at R to be compared, at S what it said."""
    handshake_hash: bytes
    ciphers: TrafficCiphers
    ticket: Ticket | None
    """Where both sides keep one. At S not before the peer has proven itself."""
    resumed: bool
    """Made with a ticket; then `form` is that of the handshake which the ticket goes back to."""
    proof: InitVar[object]

    def __post_init__(self, proof: object) -> None:
        if proof is not _PROOF:
            raise LocalMisuseError("a HandshakeResult is made by a handshake")


def finish(
    noise: HandshakeState,
    peer: OfferedPeer,
    flags: int,
    dialled: DialledAddress,
    *,
    keeps_ticket: bool,
    used: Ticket | None = None,
) -> HandshakeResult:
    """What a handshake that is read and written to its end leaves; it raises for any other.

    `flags`: the peer's; `keeps_ticket`: both sides have said so; `used`: the ticket that it was made with.
    """
    ticket = None
    if keeps_ticket and peer.form is OfferForm.FULL:
        root = None if used is None else used.root
        ticket = Ticket.of(noise, peer.identity, peer.epoch, root)
    handshake_hash = noise.h
    of_initiator, of_responder = noise.split()
    ours, theirs = (of_initiator, of_responder) if noise.is_initiator else (of_responder, of_initiator)
    return HandshakeResult(
        identity=peer.identity,
        epoch=peer.epoch,
        flags=flags,
        form=peer.form,
        dialled=dialled,
        handshake_hash=handshake_hash,
        ciphers=TrafficCiphers(ours, theirs),
        ticket=ticket,
        resumed=used is not None,
        proof=_PROOF,
    )


class ReceivingState(IdentityHashed):
    START = "start"
    TO_SIGN = "to-sign"
    OFFERED = "offered"
    OVER = "over"


class ReceivingHandshake:
    """R's side, Noise's initiator: `to_sign`, `offer`, then `read_answer`, each once.

    Knows the identity by its public key only: who holds the other half signs what `to_sign` gives out.
    """

    def __init__(
        self,
        identity: IdentityPublic,
        static: StaticKey,
        ephemerals: Ephemerals,
        prologue: bytes,
        endorsements: EndorsementCache | None = None,
    ) -> None:
        self._identity = identity
        self._static = static
        self._ephemerals = ephemerals
        self._prologue = prologue
        self._endorsements = endorsements
        self._form = OfferForm.FULL
        self._noise: HandshakeState | None = None
        self._keys_told = b""
        self._values: dict[str, bytes | int] = {}
        self._keeps_ticket = False
        self.state = ReceivingState.START

    def to_sign(self, form: OfferForm, flags: int = OfferFlags.NONE) -> bytes:
        """What the identity is to sign behind `Label.OFFER`: everything in message 1, and the prologue."""
        if self.state is not ReceivingState.START:
            raise LocalMisuseError(f"offer in state {self.state.value}")
        self.state = ReceivingState.OVER
        e, e1 = self._ephemerals.take()
        noise = HandshakeState(
            PATTERNS[form], NoiseRole.INITIATOR, self._prologue, self._static.private, e, e1
        )
        self._keys_told = noise.write_tokens()
        self._values = {
            "identity": self._identity.octets,
            "epoch": self._static.epoch,
            "flags": flags,
        }
        self._keeps_ticket = bool(flags & OfferFlags.KEEPS_TICKET)
        self._noise, self._form, self.state = noise, form, ReceivingState.TO_SIGN
        return OFFER_SIGNED.encode({"hash": noise.h, **self._values})

    def offer(self, signature: bytes) -> bytes:
        """Message 1 with the identity's signature in it; 1,350 or 166 octets."""
        if self.state is not ReceivingState.TO_SIGN or self._noise is None:
            raise LocalMisuseError(f"signature in state {self.state.value}")
        payload = OFFER_PAYLOAD.encode({**self._values, "signature": signature})
        self.state = ReceivingState.OFFERED
        return self._keys_told + self._noise.write_payload(payload)

    def read_answer(self, message: bytes, today: int) -> HandshakeResult:
        """Message 2. Raises PeerProtocolError or CryptoRefusedError; either way this was the only try."""
        if self.state is not ReceivingState.OFFERED or self._noise is None:
            raise LocalMisuseError(f"answer in state {self.state.value}")
        noise, self._noise, self.state = self._noise, None, ReceivingState.OVER
        if len(message) != self._form.answer_octets:
            raise PeerProtocolError(Reason.BAD_FRAME, f"message 2 of {len(message)} octets")
        values = ANSWER_PAYLOAD.decode(noise.read_payload(noise.read_tokens(message)))
        identity = IdentityPublic(values["identity"])
        if identity == self._identity:
            raise PeerProtocolError(Reason.OWN_IDENTITY, "our own identity answers")
        epoch, not_after = values["epoch"], values["not_after"]
        endorsement = values["endorsement"]
        check_endorsement(identity, noise.rs, (epoch, not_after), endorsement, today, self._endorsements)
        flags = values["flags"]
        return finish(
            noise,
            OfferedPeer(identity, epoch, OfferFlags.NONE, self._form),
            flags,
            DialledAddress(values["address"], values["port"]),
            keeps_ticket=self._keeps_ticket and bool(flags & AnswerFlags.KEEPS_TICKET),
        )


class SendingState(IdentityHashed):
    START = "start"
    READ = "read"
    OVER = "over"


class SendingHandshake:
    """S's side, Noise's responder: `read_offer`, then `write_answer`, each once."""

    def __init__(
        self, identity: IdentityPublic, endorsed: EndorsedStatic, ephemerals: Ephemerals, prologue: bytes
    ) -> None:
        if endorsed.identity != identity:
            raise LocalMisuseError("the static key is endorsed by another identity")
        self._endorsed = endorsed
        self._ephemerals = ephemerals
        self._prologue = prologue
        self._noise: HandshakeState | None = None
        self._offered: OfferedPeer | None = None
        self._tokens = b""
        self.state = SendingState.START

    def read_offer(self, offer: bytes) -> OfferedPeer:
        """Verify message 1 against what the mail servers said. Raises PeerProtocolError: BAD_OFFER,
        BAD_KEY, BAD_SIGNATURE (also where greeting or reply were tampered with), OWN_IDENTITY."""
        if self.state is not SendingState.START:
            raise LocalMisuseError(f"offer in state {self.state.value}")
        self.state = SendingState.OVER
        form = OfferForm.of_offer(offer)
        e, _ = self._ephemerals.take()
        static = self._endorsed.static.private
        noise = HandshakeState(PATTERNS[form], NoiseRole.RESPONDER, self._prologue, static, e)
        sealed = noise.read_tokens(offer)
        signed_hash = noise.h
        payload = noise.read_payload(sealed)
        values = OFFER_PAYLOAD.decode(payload)
        identity = IdentityPublic(values["identity"])
        signed = signed_hash + payload[: OFFER_PAYLOAD.octets_before("signature")]
        identity.verify(Label.OFFER, signed, values["signature"])
        if identity == self._endorsed.identity:
            raise PeerProtocolError(Reason.OWN_IDENTITY, "our own identity offers")
        # Now, not in write_answer: unusable keys are refused before the verb, and the sender's first
        # command does not wait for the arithmetic.
        self._tokens = noise.write_tokens()
        offered = OfferedPeer(identity, values["epoch"], values["flags"], form)
        self._noise, self._offered, self.state = noise, offered, SendingState.READ
        return offered

    def write_answer(
        self, dialled: DialledAddress, flags: int = AnswerFlags.NONE
    ) -> tuple[bytes, HandshakeResult]:
        """Message 2 and the result. Nothing that the peer did can make this raise."""
        if self.state is not SendingState.READ or self._noise is None or self._offered is None:
            raise LocalMisuseError(f"answer in state {self.state.value}")
        noise, self._noise, self.state = self._noise, None, SendingState.OVER
        offered, endorsed = self._offered, self._endorsed
        payload = ANSWER_PAYLOAD.encode(
            {
                "identity": endorsed.identity.octets,
                "epoch": endorsed.static.epoch,
                "not_after": endorsed.not_after,
                "flags": flags,
                "endorsement": endorsed.endorsement,
                "address": dialled.address16,
                "port": dialled.port,
            }
        )
        message = self._tokens + noise.write_payload(payload)
        keeps_ticket = bool(offered.flags & OfferFlags.KEEPS_TICKET and flags & AnswerFlags.KEEPS_TICKET)
        return message, finish(noise, offered, offered.flags, dialled, keeps_ticket=keeps_ticket)
