"""Gateways in one process with their identity: what a worker and the signer do together. For tests only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.crypto.handshake import ReceivingHandshake
from gateway.crypto.keys import EndorsementCache, Ephemerals, IdentityKey, Label, StaticKey
from gateway.crypto.messages import OfferFlags, OfferForm
from gateway.session import commands as c
from gateway.session.context import GatewayKeys, ReceivingContext
from gateway.session.events import Event, OfferSigned
from gateway.session.receiving import ReceivingSession


@dataclass(frozen=True, slots=True)
class HeldKeys(GatewayKeys):
    """With the identity's private key, which a gateway's session never has."""

    key: IdentityKey


class HoldingHandshake:
    """R's handshake that signs its own offer. Around it, not of its kind: no class that is interpreted can be
    of a compiled one's kind."""

    def __init__(
        self,
        identity: IdentityKey,
        static: StaticKey,
        ephemerals: Ephemerals,
        prologue: bytes,
        endorsements: EndorsementCache | None = None,
    ) -> None:
        self._handshake = ReceivingHandshake(identity.public, static, ephemerals, prologue, endorsements)
        self._key = identity

    def make_offer(self, form: OfferForm, flags: int = OfferFlags.NONE) -> bytes:
        return self._handshake.offer(self._key.sign(Label.OFFER, self._handshake.to_sign(form, flags)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handshake, name)


class HoldingSession:
    """R's session whose offers are signed at once; around it, too."""

    def __init__(self, context: ReceivingContext) -> None:
        self._session = ReceivingSession(context)

    def handle(self, event: Event, now: float) -> list[c.Command]:
        commands: list[c.Command] = []
        for command in self._session.handle(event, now):
            if isinstance(command, c.SignOffer):
                assert isinstance(self._context.keys, HeldKeys)
                signature = self._context.keys.key.sign(Label.OFFER, command.to_sign)
                commands += self._session.handle(OfferSigned(signature), now)
            else:
                commands.append(command)
        return commands

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


ReceivingMachine = ReceivingSession | HoldingSession
"""R's session, whoever holds its identity."""
