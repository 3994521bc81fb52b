"""Makes `nightmail.json`. Run `python -m tests.vectors.make_nightmail` from the project's root.

The same in every run: encapsulation, whose randomness is the library's own otherwise, is done by
`mlkem_slow` with a given `m`. docs/protocol.md prints it as its appendix. For tests only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from gateway.crypto import handshake
from gateway.crypto.frames import FrameKind, frame
from gateway.crypto.handshake import (
    PATTERNS,
    SendingHandshake,
    TrafficCiphers,
    prologue,
)
from gateway.crypto.keys import Ephemerals, IdentityKey, StaticKey, endorse
from gateway.crypto.messages import DialledAddress, OfferForm
from gateway.crypto.noise import HandshakeState, NoiseRole
from gateway.crypto.padding import flight_padding
from gateway.crypto.primitives import MlKemPrivate, X25519Private
from gateway.crypto.records import RecordLayer, RecordType
from gateway.crypto.statement import make_statement
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
            ("m", 32),
        )
    }
    seen = prologue(GREETING + REPLY, EHLO)
    r_static = StaticKey(X25519Private(keys["r_static"]), TODAY)
    s_identity = IdentityKey.from_seed(keys["s_identity_seed"])
    endorsed = endorse(s_identity, StaticKey(X25519Private(keys["s_static"]), TODAY), TODAY)
    r_ephemerals = Ephemerals(X25519Private(keys["r_ephemeral"]), MlKemPrivate(keys["kem_seed_d_z"]))
    one = HoldingHandshake(IdentityKey.from_seed(keys["r_identity_seed"]), r_static, r_ephemerals, seen)
    other = SendingHandshake(
        s_identity.public, endorsed, Ephemerals(X25519Private(keys["s_ephemeral"])), seen
    )
    offer = one.make_offer(form)
    with encapsulating(keys["m"]):
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
        "m": keys["m"].hex() if form is OfferForm.FULL else None,
        "greeting": GREETING.decode(),
        "reply": REPLY.decode(),
        "from_sender": EHLO.decode(),
        "prologue": seen.hex(),
        "dialled_address": DIALLED.address16.hex(),
        "dialled_port": DIALLED.port,
        "not_after": endorsed.not_after,
        "hash_signed": _hash_signed(form, keys, seen).hex(),
        "offer": offer.hex(),
        "offer_lines": append_offer(REPLY, offer)[len(REPLY) :].decode(),
        "endorsement": endorsed.endorsement.hex(),
        "answer": answer.hex(),
        "verb_and_answer": (VERB_LINE + frame(FrameKind.ANSWER, answer)).hex(),
        "handshake_hash": result.handshake_hash.hex(),
        "key_r_to_s": split[0].hex(),
        "key_s_to_r": split[1].hex(),
        "records": _records({"R": RecordLayer(result), "S": RecordLayer(at_sending)}),
    }


@contextmanager
def encapsulating(m: bytes) -> Iterator[None]:
    """The handshake encapsulates with this `m`. Never outside of tests: `m` must be drawn anew each time."""
    handshake.HandshakeState = partial(  # type: ignore[attr-defined, assignment]
        HandshakeState, encapsulate=lambda ek: encapsulate(ek, m)
    )
    try:
        yield
    finally:
        handshake.HandshakeState = HandshakeState  # type: ignore[attr-defined]


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
        "statement": _statement(),
        "padding": [[n, d, n + d + flight_padding(d, n)] for n, d in FLIGHTS],
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(made(), indent=1) + "\n")
