"""Two gateways in memory, with keys that are the same in every run. For tests only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.crypto.handshake import (
    HandshakeResult,
    OfferForm,
    SendingHandshake,
    prologue,
)
from gateway.crypto.keys import EndorsedStatic, EndorsementCache, Ephemerals, IdentityKey, StaticKey, endorse
from gateway.crypto.messages import DialledAddress, OfferFlags
from gateway.crypto.records import RecordLayer
from tests.holding import HoldingHandshake

VECTORS = Path(__file__).parents[2] / "vectors"
TODAY = 20781
GREETING = b"220 mx.b.example ESMTP\r\n"
REPLY = b"250-mx.b.example\r\n250-PIPELINING\r\n250 SIZE 10240000\r\n"
EHLO = b"EHLO mail.a.example\r\n"
PROLOGUE = prologue(GREETING + REPLY, EHLO)
DIALLED = DialledAddress.from_text("192.0.2.25", 25)


def vectors(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def octets(label: str, count: int) -> bytes:
    """The same octets for the same label, for keys that are worth nothing."""
    return hashlib.shake_256(label.encode()).digest(count)


def entropy_for_testing_only(label: str) -> Callable[[int], bytes]:
    """A stream that never repeats within itself."""
    calls = 0

    def draw(count: int) -> bytes:
        nonlocal calls
        calls += 1
        return octets(f"{label} {calls}", count)

    return draw


R_IDENTITY = IdentityKey.from_seed(octets("identity of R", 32))
S_IDENTITY = IdentityKey.from_seed(octets("identity of S", 32))
R_STATIC = StaticKey.draw(entropy_for_testing_only("static of R"), TODAY)
S_ENDORSED = endorse(S_IDENTITY, StaticKey.draw(entropy_for_testing_only("static of S"), TODAY), TODAY)


def receiving(
    label: str = "R",
    prologue: bytes = PROLOGUE,
    identity: IdentityKey = R_IDENTITY,
    static: StaticKey = R_STATIC,
    cache: EndorsementCache | None = None,
) -> HoldingHandshake:
    ephemerals = Ephemerals.draw(entropy_for_testing_only(label))
    return HoldingHandshake(identity, static, ephemerals, prologue, cache)


def sending(
    label: str = "S",
    prologue: bytes = PROLOGUE,
    identity: IdentityKey = S_IDENTITY,
    endorsed: EndorsedStatic = S_ENDORSED,
) -> SendingHandshake:
    ephemerals = Ephemerals.draw_for_answer(entropy_for_testing_only(label))
    return SendingHandshake(identity.public, endorsed, ephemerals, prologue)


@dataclass(frozen=True, slots=True)
class Handshaken:
    offer: bytes
    answer: bytes
    at_receiving: HandshakeResult
    at_sending: HandshakeResult


def handshaken(form: OfferForm = OfferForm.FULL, flags: int = OfferFlags.NONE) -> Handshaken:
    one, other = receiving(), sending()
    offer = one.make_offer(form, flags)
    other.read_offer(offer)
    answer, at_sending = other.write_answer(DIALLED)
    return Handshaken(offer, answer, one.read_answer(answer, TODAY), at_sending)


def layers(form: OfferForm = OfferForm.FULL) -> tuple[RecordLayer, RecordLayer]:
    """R's, then S's."""
    done = handshaken(form)
    return RecordLayer(done.at_receiving), RecordLayer(done.at_sending)
