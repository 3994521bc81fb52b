"""Prints `nightmail.json`. Run `python -m tests.vectors.make_nightmail` from the project's root.

Each run gives another answer to the full offer, as encapsulation draws randomness. For tests only.
"""

from __future__ import annotations

import json
from typing import Any

from gateway.crypto.handshake import ReceivingHandshake, SendingHandshake, TrafficCiphers, prologue
from gateway.crypto.keys import Ephemerals, IdentityKey, StaticKey, endorse
from gateway.crypto.messages import DialledAddress, OfferForm
from gateway.crypto.noise import HandshakeState
from gateway.crypto.primitives import MlKemPrivate, X25519Private
from gateway.crypto.records import RecordLayer, RecordType
from gateway.policy.limits import REKEY_AFTER_RECORDS
from tests.unit.crypto.pairs import EHLO, GREETING, REPLY, octets

TODAY = 20781
DIALLED = DialledAddress.from_text("192.0.2.25", 25)
RECORDS = (
    ("R", RecordType.PARAMS, b"\x02\0\x01\x01", 0),
    ("S", RecordType.PARAMS, b"", 0),
    ("S", RecordType.DATA, b"MAIL FROM:<a@a.example>\r\n", 100),
    ("R", RecordType.DATA, b"250 2.1.0 Ok\r\n", 0),
)


def _vector(form: OfferForm) -> dict[str, Any]:
    keys = {
        name: octets(f"nightmail vector {form.value} {name}", size)
        for name, size in (
            ("r_identity_seed", 32),
            ("r_static", 32),
            ("r_ephemeral", 32),
            ("kem_seed_d_z", 64),
            ("s_identity_seed", 32),
            ("s_static", 32),
            ("s_ephemeral", 32),
        )
    }
    seen = prologue(GREETING + REPLY, EHLO)
    r_static = StaticKey(X25519Private(keys["r_static"]), TODAY)
    s_identity = IdentityKey.from_seed(keys["s_identity_seed"])
    endorsed = endorse(s_identity, StaticKey(X25519Private(keys["s_static"]), TODAY), TODAY)
    r_ephemerals = Ephemerals(X25519Private(keys["r_ephemeral"]), MlKemPrivate(keys["kem_seed_d_z"]))
    one = ReceivingHandshake(IdentityKey.from_seed(keys["r_identity_seed"]), r_static, r_ephemerals, seen)
    other = SendingHandshake(s_identity, endorsed, Ephemerals(X25519Private(keys["s_ephemeral"])), seen)
    offer = one.offer(form)
    other.read_offer(offer)
    split: list[bytes] = []
    honest = HandshakeState.split

    def listening(self: HandshakeState) -> tuple[bytes, bytes]:
        split[:] = honest(self)
        return split[0], split[1]

    HandshakeState.split = listening  # type: ignore[method-assign]
    answer, at_sending = other.write_answer(DIALLED)
    result = one.read_answer(answer, TODAY)
    HandshakeState.split = honest  # type: ignore[method-assign]
    assert isinstance(result.ciphers, TrafficCiphers)
    return {
        "form": form.value,
        "today": TODAY,
        **{name: value.hex() for name, value in keys.items()},
        "kem_seed_d_z": keys["kem_seed_d_z"].hex() if form is OfferForm.FULL else None,
        "greeting": GREETING.decode(),
        "reply": REPLY.decode(),
        "from_sender": EHLO.decode(),
        "prologue": seen.hex(),
        "dialled_address": DIALLED.address16.hex(),
        "dialled_port": DIALLED.port,
        "not_after": endorsed.not_after,
        "offer": offer.hex(),
        "answer": answer.hex(),
        "handshake_hash": result.handshake_hash.hex(),
        "key_r_to_s": split[0].hex(),
        "key_s_to_r": split[1].hex(),
        "records": _records({"R": RecordLayer(result), "S": RecordLayer(at_sending)}),
    }


def _records(layers: dict[str, RecordLayer]) -> list[dict[str, Any]]:
    entries = [_record(layers, *record) for record in RECORDS]
    for name in ("R", "S"):
        while layers[name]._sending.n < REKEY_AFTER_RECORDS:
            layers[name].seal(RecordType.PAD)
        entries.append(_record(layers, name, RecordType.DATA, b"under the second key", 0))
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


if __name__ == "__main__":
    print(json.dumps({"vectors": [_vector(form) for form in OfferForm]}, indent=1))
