"""Makes `nightmail.json`. Run `python -m tests.vectors.make_nightmail` from the project's root.

The same in every run: encapsulation, whose randomness is the library's own otherwise, is done by
`mlkem_slow` with a given `m`. docs/protocol.md prints it as its appendix. For tests only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric import mlkem
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from gateway.crypto import primitives
from gateway.crypto.frames import FrameKind, frame
from gateway.crypto.handshake import (
    PATTERNS,
    HandshakeResult,
    SendingHandshake,
    prologue,
)
from gateway.crypto.keys import EndorsedStatic, Ephemerals, IdentityKey, StaticKey, endorse
from gateway.crypto.messages import AnswerFlags, DialledAddress, OfferFlags, OfferForm
from gateway.crypto.noise import HandshakeState, NoiseRole
from gateway.crypto.padding import flight_padding
from gateway.crypto.primitives import MlKemPrivate, X25519Private
from gateway.crypto.records import RecordLayer, RecordType
from gateway.crypto.resumption import ReceivingResumption, SendingResumption
from gateway.crypto.statement import make_statement
from gateway.crypto.tickets import Ticket
from gateway.policy.limits import REKEY_AFTER_RECORDS
from gateway.smtp.capability import VERB_LINE, append_offer
from tests.holding import HoldingHandshake
from tests.unit.crypto.pairs import EHLO, GREETING, REPLY, octets
from tests.vectors.mlkem_slow import encapsulate

FILE = Path(__file__).with_name("nightmail.json")

TODAY = 20781
DIALLED = DialledAddress.from_text("192.0.2.25", 25)
RECORDS = (
    # Padded flights of 512 octets: PARAMS of R; PARAMS and a command of S; a reply of R.
    ("R", RecordType.PARAMS, b"\x02\0\x01\x01", flight_padding(26)),
    ("S", RecordType.PARAMS, b"", 0),
    ("S", RecordType.DATA, b"MAIL FROM:<a@a.example>\r\n", flight_padding(22 + 47)),
    ("R", RecordType.DATA, b"250 2.1.0 Ok\r\n", flight_padding(36)),
    ("R", RecordType.PAD, b"", 5),
    ("R", RecordType.IGNORABLE, b"", 0),
)
FLIGHTS = (
    *((0, octets) for octets in (1, 36, 511, 512, 513, 527, 528, 529, 1000, 1024, 1025, 4096, 4097)),
    *((0, octets) for octets in (10_000, 100_000, 1_000_000)),
    *((512, octets) for octets in (22, 36, 512, 513)),
    (1024, 36),
)
"""Octets when padded last, and octets since."""
SERIAL = 1_795_000_000


@dataclass(frozen=True)
class Shaken:
    """One handshake, read and made by the gateway."""

    offer: bytes
    answer: bytes
    at_receiving: HandshakeResult
    at_sending: HandshakeResult
    split: tuple[bytes, bytes]


def _keys(form: str, *names: tuple[str, int]) -> dict[str, bytes]:
    return {name: octets(f"nightmail vector {form} {name}", size) for name, size in names}


_ALL_KEYS = (
    ("r_identity_seed", 32),
    ("r_static", 32),
    ("r_ephemeral", 32),
    ("kem_seed_d_z", 64),
    ("s_identity_seed", 32),
    ("s_static", 32),
    ("s_ephemeral", 32),
    ("m", 32),
)
SEEN = prologue(GREETING + REPLY, EHLO)


def _endorsed(keys: dict[str, bytes]) -> EndorsedStatic:
    identity = IdentityKey.from_seed(keys["s_identity_seed"])
    return endorse(identity, StaticKey(X25519Private(keys["s_static"]), TODAY), TODAY)


def _shaken(form: OfferForm, keys: dict[str, bytes], flags: int = 0) -> Shaken:
    r_static = StaticKey(X25519Private(keys["r_static"]), TODAY)
    s_identity = IdentityKey.from_seed(keys["s_identity_seed"])
    r_ephemerals = Ephemerals(X25519Private(keys["r_ephemeral"]), MlKemPrivate(keys["kem_seed_d_z"]))
    one = HoldingHandshake(IdentityKey.from_seed(keys["r_identity_seed"]), r_static, r_ephemerals, SEEN)
    s_ephemerals = Ephemerals(X25519Private(keys["s_ephemeral"]))
    other = SendingHandshake(s_identity.public, _endorsed(keys), s_ephemerals, SEEN)
    offer = one.make_offer(form, flags)
    with encapsulating(keys["m"]):
        other.read_offer(offer)
    with splitting() as split:
        answer, at_sending = other.write_answer(DIALLED, flags)
    return Shaken(offer, answer, one.read_answer(answer, TODAY), at_sending, split[0])


def _resumed_with(ticket: Ticket, keys: dict[str, bytes]) -> Shaken:
    e, other_e = (Ephemerals(X25519Private(keys[name])) for name in ("r_ephemeral", "s_ephemeral"))
    one, other = ReceivingResumption(ticket, e, SEEN), SendingResumption(ticket, other_e, SEEN)
    offer = one.offer(OfferFlags.KEEPS_TICKET)
    other.read_offer(offer)
    with splitting() as split:
        answer, at_sending = other.write_answer(DIALLED, AnswerFlags.KEEPS_TICKET)
    return Shaken(offer, answer, one.read_answer(answer, TODAY), at_sending, split[0])


def _surroundings() -> dict[str, Any]:
    return {
        "greeting": GREETING.decode(),
        "reply": REPLY.decode(),
        "from_sender": EHLO.decode(),
        "prologue": SEEN.hex(),
        "dialled_address": DIALLED.address16.hex(),
        "dialled_port": DIALLED.port,
    }


def _steps(shaken: Shaken) -> dict[str, Any]:
    return {
        "offer": shaken.offer.hex(),
        "offer_lines": append_offer(REPLY, shaken.offer)[len(REPLY) :].decode(),
        "answer": shaken.answer.hex(),
        "verb_and_answer": (VERB_LINE + frame(FrameKind.ANSWER, shaken.answer)).hex(),
        "handshake_hash": shaken.at_receiving.handshake_hash.hex(),
        "key_r_to_s": shaken.split[0].hex(),
        "key_s_to_r": shaken.split[1].hex(),
    }


def _vector(form: OfferForm) -> dict[str, Any]:
    keys = _keys(form.value, *_ALL_KEYS)
    shaken = _shaken(form, keys)
    endorsed = _endorsed(keys)
    return {
        "form": form.value,
        "today": TODAY,
        **{name: value.hex() for name, value in keys.items()},
        "kem_seed_d_z": keys["kem_seed_d_z"].hex() if form is OfferForm.FULL else None,
        "m": keys["m"].hex() if form is OfferForm.FULL else None,
        **_surroundings(),
        "not_after": endorsed.not_after,
        "hash_signed": _hash_signed(form, keys, SEEN).hex(),
        "endorsement": endorsed.endorsement.hex(),
        **_steps(shaken),
        "records": _records({"R": RecordLayer(shaken.at_receiving), "S": RecordLayer(shaken.at_sending)}),
    }


def _resumed() -> dict[str, Any]:
    """A full handshake that leaves a ticket, and the one that is made with it and leaves another."""
    before = _shaken(OfferForm.FULL, _keys("full", *_ALL_KEYS), OfferFlags.KEEPS_TICKET)
    keys = _keys("resumed", ("r_ephemeral", 32), ("s_ephemeral", 32))
    shaken = _resumed_with(_ticket(before), keys)
    return {
        "form": "resumed",
        "flags": int(OfferFlags.KEEPS_TICKET),
        **_surroundings(),
        "before": {
            "offer": before.offer.hex(),
            "answer": before.answer.hex(),
            "handshake_hash": before.at_receiving.handshake_hash.hex(),
        },
        **_secret_and_name(before),
        **{name: value.hex() for name, value in keys.items()},
        **_steps(shaken),
        "records": _records({"R": RecordLayer(shaken.at_receiving), "S": RecordLayer(shaken.at_sending)}),
        **{f"next_{name}": value for name, value in _secret_and_name(shaken).items()},
    }


def _ticket(shaken: Shaken) -> Ticket:
    at_receiving, at_sending = shaken.at_receiving.ticket, shaken.at_sending.ticket
    assert at_receiving is not None
    assert at_sending is not None
    assert (at_receiving.secret, at_receiving.name) == (at_sending.secret, at_sending.name)
    return at_receiving


def _secret_and_name(shaken: Shaken) -> dict[str, str]:
    ticket = _ticket(shaken)
    return {"ticket_secret": ticket.secret.hex(), "ticket_name": ticket.name.hex()}


@contextmanager
def splitting() -> Iterator[list[tuple[bytes, bytes]]]:
    """What Split gives, which leaves the handshake inside of ciphers only: a responder's two are its last."""
    keys: list[bytes] = []
    split: list[tuple[bytes, bytes]] = []

    def listening(key: bytes) -> ChaCha20Poly1305:
        keys.append(key)
        return ChaCha20Poly1305(key)

    with patch.object(primitives, "ChaCha20Poly1305", listening):
        yield split
    of_responder, of_initiator = keys[-2:]
    split.append((of_initiator, of_responder))


@contextmanager
def encapsulating(m: bytes) -> Iterator[None]:
    """The library encapsulates with this `m`. Never outside of tests: `m` must be drawn anew each time."""

    class Given:
        def __init__(self, public: bytes) -> None:
            self._public = public

        from_public_bytes = classmethod(lambda cls, public: cls(public))

        def encapsulate(self) -> tuple[bytes, bytes]:
            ciphertext, shared = encapsulate(self._public, m)
            return shared, ciphertext

    given = SimpleNamespace(MLKEM768PublicKey=Given, MLKEM768PrivateKey=mlkem.MLKEM768PrivateKey)
    with patch.object(primitives, "mlkem", given):
        yield


def _hash_signed(form: OfferForm, keys: dict[str, bytes], seen: bytes) -> bytes:
    """`h` behind the `s` token of message 1: what R signs."""
    e, static = X25519Private(keys["r_ephemeral"]), X25519Private(keys["r_static"])
    e1 = MlKemPrivate(keys["kem_seed_d_z"])
    state = HandshakeState(PATTERNS[form], NoiseRole.INITIATOR, seen, static, e, e1)
    state.write_tokens()
    return state.h


def _records(layers: dict[str, RecordLayer]) -> list[dict[str, Any]]:
    entries = [_record(layers, *record) for record in RECORDS]
    for name in ("R", "S"):
        while layers[name]._sending.n < REKEY_AFTER_RECORDS:
            layers[name].seal(RecordType.PAD)
        entries.append(_record(layers, name, RecordType.DATA, b"under the second key", 0))
    entries.append(_record(layers, "S", RecordType.CLOSE, b"", 0))
    entries.append(_record(layers, "R", RecordType.RESET, b"", 0))
    return entries


def _record(
    layers: dict[str, RecordLayer], name: str, kind: RecordType, content: bytes, zeros: int
) -> dict[str, Any]:
    return {
        "from": name,
        "number": layers[name]._sending.n,
        "type": int(kind),
        "content": content.hex(),
        "zeros": zeros,
        "frame": layers[name].seal(kind, content, zeros).hex(),
    }


def _statement() -> dict[str, Any]:
    seeds = [octets(f"nightmail vector {name} identity", 32) for name in ("old", "new")]
    old, new = (IdentityKey.from_seed(seed) for seed in seeds)
    return {
        "old_seed": seeds[0].hex(),
        "new_seed": seeds[1].hex(),
        "serial": SERIAL,
        "content": make_statement(old, new, SERIAL).hex(),
        "old_fingerprint": old.public.fingerprint,
        "new_fingerprint": new.public.fingerprint,
    }


def made() -> dict[str, Any]:
    """All of the file."""
    return {
        "vectors": [_vector(form) for form in OfferForm],
        "resumed": _resumed(),
        "statement": _statement(),
        "padding": [[n, d, n + d + flight_padding(d, n)] for n, d in FLIGHTS],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(made(), indent=1) + "\n")
