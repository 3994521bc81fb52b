"""The Noise states against public vectors (IX) and computed ones (IXhfs with ML-KEM), and out of turn."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.crypto.noise import (
    IX,
    IXHFS,
    NNPSK0,
    STEPS,
    CipherState,
    HandshakeState,
    NoiseRole,
    Pattern,
    Step,
    SymmetricState,
)
from gateway.crypto.primitives import Aead, MlKemPrivate, X25519Private
from gateway.errors import CryptoRefusedError, LocalMisuseError, PeerProtocolError
from tests.unit.crypto.listening import listening
from tests.unit.crypto.pairs import octets, vectors

unhex = bytes.fromhex


def _ours(entries: list[dict[str, Any]], pattern: Pattern) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry["protocol_name"] == pattern.protocol_name.decode()]


IX_VECTORS = _ours(vectors("noise_ix.json")["vectors"], IX)
NNPSK0_VECTORS = _ours(vectors("noise_nnpsk0.json")["vectors"], NNPSK0)
IXHFS_VECTORS = _ours(vectors("noise_hfs.json")["computed_ixhfs_mlkem768"], IXHFS)


def test_there_are_vectors() -> None:
    assert (len(IX_VECTORS), len(NNPSK0_VECTORS), len(IXHFS_VECTORS)) == (3, 1, 2)


def _written(state: HandshakeState, message: dict[str, str]) -> None:
    written = state.write_tokens() + state.write_payload(unhex(message["payload"]))
    assert written == unhex(message["ciphertext"])


def _read(state: HandshakeState, message: dict[str, str]) -> None:
    assert state.read_payload(state.read_tokens(unhex(message["ciphertext"]))) == unhex(message["payload"])


def _transport(messages: list[dict[str, str]], keys: tuple[bytes, bytes]) -> None:
    """Both directions by turns, the initiator first, sealed and opened."""
    seals, opens = [CipherState(key) for key in keys], [CipherState(key) for key in keys]
    for index, message in enumerate(messages):
        payload, ciphertext = unhex(message["payload"]), unhex(message["ciphertext"])
        assert seals[index % 2].encrypt_with_ad(b"", payload) == ciphertext
        out = bytearray(len(payload))
        opens[index % 2].decrypt_into(b"", ciphertext, out)
        assert out == payload


@pytest.mark.parametrize("vector", IX_VECTORS, ids=lambda vector: str(vector["source"]))
def test_ix_vectors(vector: dict[str, Any]) -> None:
    sides = {
        role: HandshakeState(
            IX,
            role,
            unhex(vector[f"{name}_prologue"]),
            X25519Private(unhex(vector[f"{name}_static"])),
            X25519Private(unhex(vector[f"{name}_ephemeral"])),
        )
        for role, name in ((NoiseRole.INITIATOR, "init"), (NoiseRole.RESPONDER, "resp"))
    }
    initiator, responder = sides[NoiseRole.INITIATOR], sides[NoiseRole.RESPONDER]
    first, second, *transport = vector["messages"]
    _written(initiator, first)
    _read(responder, first)
    _written(responder, second)
    _read(initiator, second)
    assert initiator.h == responder.h
    if vector["handshake_hash"]:
        assert initiator.h == unhex(vector["handshake_hash"])
    assert initiator.rs == X25519Private(unhex(vector["resp_static"])).public
    keys = initiator.split()
    assert keys == responder.split()
    _transport(transport, keys)


@pytest.mark.parametrize("vector", NNPSK0_VECTORS, ids=lambda vector: str(vector["source"]))
def test_nnpsk0_vectors(vector: dict[str, Any]) -> None:
    initiator, responder = (
        HandshakeState(
            NNPSK0,
            role,
            unhex(vector[f"{name}_prologue"]),
            None,
            X25519Private(unhex(vector[f"{name}_ephemeral"])),
            psk=unhex(vector["psk"]),
        )
        for role, name in ((NoiseRole.INITIATOR, "init"), (NoiseRole.RESPONDER, "resp"))
    )
    first, second, *transport = vector["messages"]
    _written(initiator, first)
    _read(responder, first)
    _written(responder, second)
    _read(initiator, second)
    assert initiator.h == responder.h == unhex(vector["handshake_hash"])
    keys = initiator.split()
    assert keys == responder.split()
    _transport(transport, keys)


@pytest.mark.parametrize("role", NoiseRole, ids=lambda role: str(role.value))
@pytest.mark.parametrize("pattern", [IX, NNPSK0], ids=lambda pattern: pattern.protocol_name.decode())
def test_a_pattern_without_a_key_that_it_needs(pattern: Pattern, role: NoiseRole) -> None:
    """Ours to give: no peer can leave it out."""
    e = X25519Private(octets("e", 32))
    state = HandshakeState(pattern, role, b"", None, e)
    with pytest.raises(LocalMisuseError):
        if role is NoiseRole.INITIATOR:
            state.write_tokens()
        else:
            state.read_payload(state.read_tokens(2 * e.public))
            state.write_tokens()


@pytest.mark.parametrize("vector", IXHFS_VECTORS, ids=lambda vector: f"{len(vector['prologue'])}")
def test_ixhfs_vectors(vector: dict[str, Any]) -> None:
    prologue = unhex(vector["prologue"])
    kem = MlKemPrivate(unhex(vector["init_kem_seed_d_z"]))
    shared = unhex(vector["kem_shared_secret"])
    recovered: list[bytes] = []

    initiator = HandshakeState(
        IXHFS,
        NoiseRole.INITIATOR,
        prologue,
        X25519Private(unhex(vector["init_static"])),
        X25519Private(unhex(vector["init_ephemeral"])),
        listening(kem, recovered),
    )
    first, second, *transport = vector["messages"]
    _written(initiator, first)
    _read(initiator, second)
    assert initiator.h == unhex(vector["handshake_hash"])

    def encapsulate(public: bytes) -> tuple[bytes, bytes]:
        """The library draws its own m, so the responder is given the ciphertext that the initiator read."""
        assert public == kem.public
        return recovered[0], shared

    responder = HandshakeState(
        IXHFS,
        NoiseRole.RESPONDER,
        prologue,
        X25519Private(unhex(vector["resp_static"])),
        X25519Private(unhex(vector["resp_ephemeral"])),
        encapsulate=encapsulate,
    )
    _read(responder, first)
    _written(responder, second)
    assert responder.h == initiator.h
    keys = initiator.split()
    assert keys == responder.split() == (unhex(vector["split_k1"]), unhex(vector["split_k2"]))
    _transport(transport, keys)


# --- CipherState --------------------------------------------------------------------------------------


def test_rekey_is_that_of_the_specification() -> None:
    """4.2: the first 32 octets of ENCRYPT(k, 2^64 - 1, zerolen, zeros), and the counter runs on."""
    key = octets("a key", 32)
    cipher = CipherState(key)
    cipher.encrypt_with_ad(b"", b"one")
    cipher.rekey()
    next_key = Aead(key).seal(bytes(4) + b"\xff" * 8, bytes(32), b"")[:32]
    expected = Aead(next_key).seal(bytes(4) + (1).to_bytes(8, "little"), b"two", b"ad")
    assert cipher.encrypt_with_ad(b"ad", b"two") == expected
    assert cipher.n == 2


def test_the_counter_stays_where_a_message_failed() -> None:
    key = octets("a key", 32)
    sealing, opening = CipherState(key), CipherState(key)
    sealed = sealing.encrypt_with_ad(b"ad", b"words")
    with pytest.raises(CryptoRefusedError):
        opening.decrypt_with_ad(b"other", sealed)
    assert opening.n == 0
    assert opening.decrypt_with_ad(b"ad", sealed) == b"words"


def test_symmetric_state_begins_with_the_padded_name() -> None:
    assert SymmetricState(b"name").h == b"name" + bytes(60)
    with pytest.raises(LocalMisuseError):
        SymmetricState(b"n" * 65)


# --- Turns --------------------------------------------------------------------------------------------

CALLS = {
    Step.WRITE_TOKENS: lambda state: state.write_tokens(),
    Step.WRITE_PAYLOAD: lambda state: state.write_payload(b""),
    Step.READ_TOKENS: lambda state: state.read_tokens(bytes(5000)),
    Step.READ_PAYLOAD: lambda state: state.read_payload(bytes(100)),
    Step.SPLIT: lambda state: state.split(),
}


def _state(role: NoiseRole) -> HandshakeState:
    return HandshakeState(
        IX, role, b"", X25519Private(octets("static", 32)), X25519Private(octets("ephemeral", 32))
    )


@pytest.mark.parametrize("role", NoiseRole)
@pytest.mark.parametrize("at", Step)
@pytest.mark.parametrize("call", CALLS, ids=lambda call: str(call.value))
def test_every_call_at_every_step(role: NoiseRole, at: Step, call: Step) -> None:
    state = _state(role)
    state.step = at
    if call is not at:
        with pytest.raises(LocalMisuseError):
            CALLS[call](state)
        assert state.step is at


@pytest.mark.parametrize("role", NoiseRole)
def test_the_steps_lead_from_first_to_last(role: NoiseRole) -> None:
    walked = [next(iter(STEPS[role]))]
    while walked[-1] in STEPS[role]:
        walked.append(STEPS[role][walked[-1]])
    assert len(walked) == 6
    assert walked[-1] is Step.OVER


def test_a_handshake_that_raised_is_dead() -> None:
    state = _state(NoiseRole.RESPONDER)
    with pytest.raises(PeerProtocolError):
        state.read_tokens(bytes(63))
    assert state.step is Step.OVER
    with pytest.raises(LocalMisuseError):
        state.read_tokens(bytes(64))


def test_a_missing_kem_key_is_our_mistake() -> None:
    keys = X25519Private(octets("static", 32)), X25519Private(octets("ephemeral", 32))
    with pytest.raises(LocalMisuseError):
        HandshakeState(IXHFS, NoiseRole.INITIATOR, b"", *keys).write_tokens()


def test_states_print_redacted() -> None:
    for state in (_state(NoiseRole.INITIATOR), SymmetricState(b"name"), CipherState(bytes(32))):
        assert "redacted" in repr(state)
