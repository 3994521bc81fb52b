"""The protocol's own vectors: read and made again by the gateway, and read by the second implementation."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gateway.crypto.frames import FrameReader
from gateway.crypto.handshake import (
    HandshakeResult,
    OfferForm,
    SendingHandshake,
    prologue,
)
from gateway.crypto.keys import Ephemerals, IdentityKey, StaticKey, endorse
from gateway.crypto.messages import DialledAddress
from gateway.crypto.primitives import MlKemPrivate, X25519Private
from gateway.crypto.records import RecordLayer
from gateway.policy.limits import REKEY_AFTER_RECORDS
from tests.holding import HoldingHandshake
from tests.unit.crypto.oracle import Gateway, Stream
from tests.unit.crypto.pairs import vectors
from tests.vectors.make_nightmail import encapsulating, made

unhex = bytes.fromhex
each_vector = pytest.mark.parametrize(
    "vector", vectors("nightmail.json")["vectors"], ids=lambda vector: str(vector["form"])
)


def _prologue(vector: dict[str, Any]) -> bytes:
    return prologue((vector["greeting"] + vector["reply"]).encode(), vector["from_sender"].encode())


def _offered(vector: dict[str, Any]) -> HoldingHandshake:
    seed = vector["kem_seed_d_z"]
    one = HoldingHandshake(
        IdentityKey.from_seed(unhex(vector["r_identity_seed"])),
        StaticKey(X25519Private(unhex(vector["r_static"])), vector["today"]),
        Ephemerals(X25519Private(unhex(vector["r_ephemeral"])), MlKemPrivate(unhex(seed)) if seed else None),
        _prologue(vector),
    )
    assert one.make_offer(OfferForm(vector["form"])) == unhex(vector["offer"])
    return one


def _answered(vector: dict[str, Any]) -> tuple[bytes, HandshakeResult]:
    identity = IdentityKey.from_seed(unhex(vector["s_identity_seed"]))
    static = StaticKey(X25519Private(unhex(vector["s_static"])), vector["today"])
    endorsed = endorse(identity, static, vector["today"])
    assert endorsed.not_after == vector["not_after"]
    e = Ephemerals(X25519Private(unhex(vector["s_ephemeral"])))
    other = SendingHandshake(identity.public, endorsed, e, _prologue(vector))
    with encapsulating(unhex(vector["m"] or "")):
        other.read_offer(unhex(vector["offer"]))
    return other.write_answer(_dialled(vector))


def _dialled(vector: dict[str, Any]) -> DialledAddress:
    return DialledAddress(unhex(vector["dialled_address"]), vector["dialled_port"])


@each_vector
def test_the_gateway_reads_them(vector: dict[str, Any]) -> None:
    assert _prologue(vector) == unhex(vector["prologue"])
    result = _offered(vector).read_answer(unhex(vector["answer"]), vector["today"])
    assert result.handshake_hash == unhex(vector["handshake_hash"])
    assert result.dialled == _dialled(vector)
    layer = RecordLayer(result)
    for entry in (entry for entry in vector["records"] if entry["from"] == "S"):
        if entry["number"] == REKEY_AFTER_RECORDS:
            layer._receiving.n = REKEY_AFTER_RECORDS
            layer._receiving.rekey()
        [frame] = FrameReader().feed(unhex(entry["frame"]))
        record = layer.open(frame.body)
        assert (int(record.kind), record.content) == (entry["type"], unhex(entry["content"]))


@each_vector
def test_the_gateway_makes_them_again(vector: dict[str, Any]) -> None:
    answer, result = _answered(vector)
    assert answer == unhex(vector["answer"])
    _seals(RecordLayer(result), vector, "S")
    _seals(RecordLayer(_offered(vector).read_answer(unhex(vector["answer"]), vector["today"])), vector, "R")


def test_the_file_is_what_the_code_makes() -> None:
    assert vectors("nightmail.json") == made(), "run `python -m tests.vectors.make_nightmail`"


def _seals(layer: RecordLayer, vector: dict[str, Any], name: str) -> None:
    for entry in (entry for entry in vector["records"] if entry["from"] == name):
        if entry["number"] == REKEY_AFTER_RECORDS:
            layer._sending.n = REKEY_AFTER_RECORDS
            layer._sending.rekey()
        sealed = layer._seal(entry["type"], unhex(entry["content"]), entry["zeros"])
        assert sealed == unhex(entry["frame"])


@each_vector
def test_the_second_implementation_reads_them(vector: dict[str, Any]) -> None:
    seed = vector["kem_seed_d_z"]
    oracle = Gateway(
        Ed25519PrivateKey.from_private_bytes(unhex(vector["r_identity_seed"])),
        X25519PrivateKey.from_private_bytes(unhex(vector["r_static"])),
        vector["today"],
        X25519PrivateKey.from_private_bytes(unhex(vector["r_ephemeral"])),
    )
    if seed:
        oracle.kem = MLKEM768PrivateKey.from_seed_bytes(unhex(seed))
    assert oracle.receive_offer(unhex(vector["prologue"]), full=bool(seed)) == unhex(vector["offer"])
    ours, theirs = oracle.receive_answer(unhex(vector["answer"]))
    assert oracle.t.h == unhex(vector["handshake_hash"])
    assert (ours.key, theirs.key) == (unhex(vector["key_r_to_s"]), unhex(vector["key_s_to_r"]))
    streams: dict[str, Stream] = {"R": ours, "S": theirs}
    for entry in vector["records"]:
        streams[entry["from"]].n = entry["number"]
        got = streams[entry["from"]].open_all(unhex(entry["frame"]))
        assert got == [(entry["type"], unhex(entry["content"]))]
