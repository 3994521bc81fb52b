"""The state machines under the other suites that published vectors of these patterns use.

Nightmail has one suite, and no way to choose. The vectors of IX with AESGCM, SHA256 and BLAKE2s still say
whether tokens, hashes and keys are mixed in the right order, so here the primitives below the states are
exchanged for the ones that a vector names, and every vector of a pattern of ours is replayed.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.crypto import noise
from gateway.crypto.noise import IX, IXHFS, NNPSK0, HandshakeState, NoiseRole, Pattern, SymmetricState
from gateway.crypto.primitives import Aead, MlKemPrivate, X25519Private
from tests.unit.crypto.listening import listening
from tests.unit.crypto.pairs import vectors

unhex = bytes.fromhex
HASHES: dict[str, Callable[..., Any]] = {
    "SHA512": hashlib.sha512,
    "SHA256": hashlib.sha256,
    "BLAKE2s": hashlib.blake2s,
}


class AesGcm:
    """As `Aead`, for AESGCM: Noise puts its counter most significant octet first there."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, nonce: bytes, plaintext: bytes, associated: bytes) -> bytes:
        return self._cipher.encrypt(_turned(nonce), bytes(plaintext), associated)

    def open(self, nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
        return self._cipher.decrypt(_turned(nonce), sealed, associated)

    def open_into(self, nonce: bytes, sealed: bytes, associated: bytes, out: bytearray) -> None:
        out[:] = self.open(nonce, sealed, associated)


def _turned(nonce: bytes) -> bytes:
    return struct.pack(">IQ", *struct.unpack("<IQ", nonce))


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def choose(name: str) -> None:
        cipher, hash_name = name.split("_")[-2:]
        hashed = HASHES[hash_name]

        def hkdf(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
            temporary = hmac.digest(chaining_key, material, hashed)
            first = hmac.digest(temporary, b"\x01", hashed)
            return first, hmac.digest(temporary, first + b"\x02", hashed)

        def hkdf_three(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes, bytes]:
            first, second = hkdf(chaining_key, material)
            temporary = hmac.digest(chaining_key, material, hashed)
            return first, second, hmac.digest(temporary, second + b"\x03", hashed)

        class Symmetric(SymmetricState):
            """5.2: a name longer than the hash is hashed; none of ours is."""

            def __init__(self, protocol_name: bytes) -> None:
                size = hashed().digest_size
                long = len(protocol_name) > size
                super().__init__(b"")
                self.h = hashed(protocol_name).digest() if long else protocol_name.ljust(size, b"\0")
                self._ck = self.h

        monkeypatch.setattr(noise, "sha512", hashed)
        monkeypatch.setattr(noise, "hkdf", hkdf)
        monkeypatch.setattr(noise, "hkdf_three", hkdf_three)
        monkeypatch.setattr(noise, "Aead", AesGcm if cipher == "AESGCM" else Aead)
        monkeypatch.setattr(noise, "SymmetricState", Symmetric)

    return choose


def _state(role: NoiseRole, pattern: Pattern, vector: dict[str, Any], **more: Any) -> HandshakeState:
    side = "init" if role is NoiseRole.INITIATOR else "resp"
    prologue = vector[f"{side}_prologue"] if f"{side}_prologue" in vector else vector["prologue"]
    e = X25519Private(unhex(vector[f"{side}_ephemeral"]))
    s = X25519Private(unhex(vector[f"{side}_static"])) if f"{side}_static" in vector else None
    named = Pattern(vector["protocol_name"].encode(), pattern.messages, pattern.has_psk)
    return HandshakeState(named, role, unhex(prologue), s, e, **more)


def _replay(initiator: HandshakeState, responder: HandshakeState, messages: list[dict[str, str]]) -> None:
    """Both messages, then the transport: each octet as it was published, written and read."""
    first, second, *transport = messages
    for writer, reader, message in ((initiator, responder, first), (responder, initiator, second)):
        payload, ciphertext = unhex(message["payload"]), unhex(message["ciphertext"])
        assert writer.write_tokens() + writer.write_payload(payload) == ciphertext
        assert reader.read_payload(reader.read_tokens(ciphertext)) == payload
    assert initiator.h == responder.h
    keys = initiator.split()
    assert keys == responder.split()
    ciphers = [noise.CipherState(key) for key in keys]
    for index, message in enumerate(transport):
        sealed = ciphers[index % 2].encrypt_with_ad(b"", unhex(message["payload"]))
        assert sealed == unhex(message["ciphertext"])


IX_VECTORS = vectors("noise_ix.json")["vectors"]


@pytest.mark.parametrize("vector", IX_VECTORS, ids=lambda one: f"{one['protocol_name']} {one['source']}")
def test_every_vector_of_ix(vector: dict[str, Any], suite: Callable[[str], None]) -> None:
    suite(vector["protocol_name"])
    initiator, responder = (_state(role, IX, vector) for role in NoiseRole)
    _replay(initiator, responder, vector["messages"])
    if vector["handshake_hash"]:
        assert initiator.h == unhex(vector["handshake_hash"])


NNPSK0_VECTORS = vectors("noise_nnpsk0.json")["vectors"]


@pytest.mark.parametrize("vector", NNPSK0_VECTORS, ids=lambda one: str(one["protocol_name"]))
def test_every_vector_of_nnpsk0(vector: dict[str, Any], suite: Callable[[str], None]) -> None:
    suite(vector["protocol_name"])
    psk = unhex(vector["psk"])
    initiator, responder = (_state(role, NNPSK0, vector, psk=psk) for role in NoiseRole)
    _replay(initiator, responder, vector["messages"])
    assert initiator.h == unhex(vector["handshake_hash"])


def test_those_are_all_of_them() -> None:
    assert (len(IX_VECTORS), len(NNPSK0_VECTORS)) == (18, 6)
    assert len({vector["protocol_name"] for vector in IX_VECTORS}) == 6
    assert len({vector["protocol_name"] for vector in NNPSK0_VECTORS}) == 6


@pytest.mark.parametrize("vector", vectors("noise_hfs.json")["computed_ixhfs_mlkem768"])
def test_every_vector_of_ixhfs_with_mlkem768(vector: dict[str, Any], suite: Callable[[str], None]) -> None:
    """The responder is given the vector's ciphertext: the library draws its own randomness."""
    suite(vector["protocol_name"])
    shared = unhex(vector["kem_shared_secret"])
    kem = MlKemPrivate(unhex(vector["init_kem_seed_d_z"]))
    heard: list[bytes] = []
    listener = _state(NoiseRole.INITIATOR, IXHFS, vector, e1=listening(kem, heard))
    listener.write_tokens()
    listener.write_payload(unhex(vector["messages"][0]["payload"]))
    listener.read_payload(listener.read_tokens(unhex(vector["messages"][1]["ciphertext"])))
    assert kem.decapsulate(heard[0]) == shared

    initiator = _state(NoiseRole.INITIATOR, IXHFS, vector, e1=kem)
    responder = _state(NoiseRole.RESPONDER, IXHFS, vector, encapsulate=lambda public: (heard[0], shared))
    _replay(initiator, responder, vector["messages"])
    assert initiator.h == unhex(vector["handshake_hash"])
