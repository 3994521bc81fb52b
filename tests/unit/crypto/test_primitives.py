"""Every public vector of a primitive that is used here, valid and invalid, and what must be refused."""

from __future__ import annotations

import hashlib
import hmac
import pickle
import subprocess
import sys

import pytest

from gateway.crypto.primitives import (
    Aead,
    Ed25519Private,
    MlKemPrivate,
    X25519Private,
    constant_time_equal,
    ed25519_check_public,
    ed25519_verify,
    hkdf,
    mlkem_encapsulate,
)
from gateway.errors import CryptoRefusedError, LocalMisuseError, Reason
from tests.unit.crypto.pairs import VECTORS, vectors

unhex = bytes.fromhex


def test_every_vector_file_has_its_source_written_down() -> None:
    sources = "".join(path.read_text() for path in VECTORS.glob("SOURCES*.md"))
    files = sorted(path.name for path in VECTORS.glob("*.json"))
    assert files
    assert [name for name in files if name not in sources] == []


LOADED_LATE = """
import sys
from gateway.crypto.primitives import *
from gateway.crypto import primitives
loaded = set(sys.modules)
X25519Private(bytes(32)).public
ed25519_verify(Ed25519Private(bytes(32)).public, b"x", Ed25519Private(bytes(32)).sign(b"x"))
ciphertext, _ = mlkem_encapsulate(MlKemPrivate(bytes(64)).public)
MlKemPrivate(bytes(64)).decapsulate(ciphertext)
Aead(bytes(32)).open(bytes(12), Aead(bytes(32)).seal(bytes(12), b"x", b""), b"")
primitives.hkdf(bytes(64), b"x")
print(*sorted(set(sys.modules) - loaded))
"""


def test_nothing_is_loaded_when_a_primitive_is_first_used() -> None:
    """A worker is confined by then, and the program's folder may be closed to it: a checkout in /root."""
    late = subprocess.run([sys.executable, "-c", LOADED_LATE], capture_output=True, check=True, text=True)
    assert late.stdout.split() == []


# --- X25519 -------------------------------------------------------------------------------------------


def test_x25519_vectors() -> None:
    refused = 0
    for test in vectors("x25519.json")["tests"]:
        private = X25519Private(unhex(test["private"]))
        if "ZeroSharedSecret" in test["flags"]:
            with pytest.raises(CryptoRefusedError) as caught:
                private.exchange(unhex(test["public"]))
            assert caught.value.reason is Reason.BAD_KEY
            refused += 1
        else:
            assert private.exchange(unhex(test["public"])) == unhex(test["shared"]), test["id"]
    assert refused == 31


def test_x25519_low_order_keys_are_refused() -> None:
    keys = vectors("x25519.json")["low_order_public_keys"]
    assert len(keys) == 14
    for public in keys:
        with pytest.raises(CryptoRefusedError):
            X25519Private(bytes(range(32))).exchange(unhex(public))


def test_x25519_iterated() -> None:
    vector = vectors("x25519.json")["rfc7748_iterated"]
    k, u = unhex(vector["k"]), unhex(vector["u"])
    for turn in range(1, 1001):
        k, u = X25519Private(k).exchange(u), k
        if turn == 1:
            assert k == unhex(vector["after_1"])
    assert k == unhex(vector["after_1000"])


@pytest.mark.parametrize("length", [0, 31, 33])
def test_x25519_wrong_lengths(length: int) -> None:
    with pytest.raises(CryptoRefusedError):
        X25519Private(bytes(range(32))).exchange(bytes(length))
    with pytest.raises(LocalMisuseError):
        X25519Private(bytes(length))


def test_an_all_zero_result_is_refused_even_if_the_library_gives_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nacl.bindings.crypto_scalarmult", lambda private, public: bytes(32))
    with pytest.raises(CryptoRefusedError):
        X25519Private(bytes(range(32))).exchange(bytes(range(32)))


# --- Ed25519 ------------------------------------------------------------------------------------------


def _verifies(test: dict[str, str]) -> bool:
    try:
        ed25519_verify(unhex(test["pk"]), unhex(test["msg"]), unhex(test["sig"]))
    except CryptoRefusedError:
        return False
    return True


def test_ed25519_verify_vectors() -> None:
    tests = vectors("ed25519.json")["verify"]
    assert len(tests) == 151
    for test in tests:
        assert _verifies(test) is (test["result"] == "valid"), test["id"]


def test_ed25519_sign_vectors() -> None:
    tests = vectors("ed25519.json")["sign"]
    assert len(tests) == 24
    for test in tests:
        key = Ed25519Private(unhex(test["seed"]))
        assert key.public == unhex(test["pk"])
        assert key.sign(unhex(test["msg"])) == unhex(test["sig"])


def test_ed25519_edge_points_are_treated_as_libsodium_treats_them() -> None:
    tests = vectors("ed25519.json")["edge_points"]
    assert len(tests) == 282
    for test in tests:
        assert _verifies(test) is (test["observed"]["libsodium"] == "accept"), test["id"]
        if "low_order_A" in test["flags"] or "non_canonical_A" in test["flags"]:
            with pytest.raises(CryptoRefusedError):
                ed25519_check_public(unhex(test["pk"]))


def test_ed25519_low_order_keys_are_refused_before_any_signature() -> None:
    keys = vectors("ed25519.json")["low_order_public_keys"]
    assert len(keys) == 14
    for key in keys:
        with pytest.raises(CryptoRefusedError) as caught:
            ed25519_check_public(unhex(key["pk"]))
        assert caught.value.reason is Reason.BAD_KEY


@pytest.mark.parametrize("length", [0, 63, 65])
def test_ed25519_wrong_signature_lengths(length: int) -> None:
    public = Ed25519Private(bytes(range(32))).public
    with pytest.raises(CryptoRefusedError) as caught:
        ed25519_verify(public, b"message", bytes(length))
    assert caught.value.reason is Reason.BAD_SIGNATURE


# --- ML-KEM-768 ---------------------------------------------------------------------------------------


def test_mlkem_key_generation_vectors() -> None:
    tests = vectors("mlkem768.json")["keygen"]
    assert len(tests) == 12
    for test in tests:
        assert MlKemPrivate(unhex(test["d"] + test["z"])).public == unhex(test["ek"])


def test_mlkem_decapsulation_vectors() -> None:
    tests = vectors("mlkem768.json")["decaps_from_seed"]
    refused = 0
    for test in tests:
        if test["result"] == "valid":
            key = MlKemPrivate(unhex(test["seed_d_z"]))
            assert key.decapsulate(unhex(test["c"])) == unhex(test["k"]), test["id"]
            continue
        refused += 1
        seed = unhex(test["seed_d_z"])
        if len(seed) != 64:
            with pytest.raises(LocalMisuseError):
                MlKemPrivate(seed)
            continue
        with pytest.raises(CryptoRefusedError):
            MlKemPrivate(seed).decapsulate(unhex(test["c"]))
    assert (len(tests), refused) == (80, 40)


def test_mlkem_bad_public_keys_are_refused() -> None:
    tests = vectors("mlkem768.json")["encaps_invalid_ek"]
    assert len(tests) == 144
    for test in tests:
        with pytest.raises(CryptoRefusedError) as caught:
            mlkem_encapsulate(unhex(test["ek"]))
        assert caught.value.reason is Reason.BAD_KEY


def test_mlkem_good_public_keys_are_accepted() -> None:
    for test in vectors("mlkem768.json")["encaps"]:
        ciphertext, shared = mlkem_encapsulate(unhex(test["ek"]))
        assert (len(ciphertext), len(shared)) == (1088, 32)


def test_mlkem_round_trip_and_freshness() -> None:
    key = MlKemPrivate(bytes(range(64)))
    one, other = mlkem_encapsulate(key.public), mlkem_encapsulate(key.public)
    assert one != other
    assert key.decapsulate(one[0]) == one[1]
    assert key.decapsulate(other[0]) == other[1]


# --- ChaCha20-Poly1305 --------------------------------------------------------------------------------


def test_aead_vectors() -> None:
    tests = vectors("chacha20poly1305.json")["tests"]
    assert len(tests) == 209
    for test in tests:
        aead = Aead(unhex(test["key"]))
        nonce, aad, message = unhex(test["iv"]), unhex(test["aad"]), unhex(test["msg"])
        sealed = unhex(test["ct"] + test["tag"])
        if test["iv_bits"] != 96:  # only our own code could do this; the library refuses
            with pytest.raises(ValueError, match=r"(?i)nonce"):
                aead.seal(nonce, message, aad)
            continue
        out = bytearray(b"\xaa" * len(unhex(test["ct"])))
        if test["result"] == "valid":
            assert aead.seal(nonce, message, aad) == sealed
            assert aead.open(nonce, sealed, aad) == message
            aead.open_into(nonce, sealed, aad, out)
            assert out == message
            continue
        with pytest.raises(CryptoRefusedError) as caught:
            aead.open(nonce, sealed, aad)
        assert caught.value.reason is Reason.BAD_TAG
        with pytest.raises(CryptoRefusedError):
            aead.open_into(nonce, sealed, aad, out)
        assert out == bytes(len(out))


def test_plaintext_of_a_bad_tag_is_wiped() -> None:
    """The library leaves it in the buffer: the first half shows that there is something to wipe."""
    aead = Aead(bytes(32))
    sealed = bytearray(aead.seal(bytes(12), b"secret words" * 9, b""))
    sealed[-1] ^= 1
    left = bytearray(len(sealed) - 16)
    with pytest.raises(Exception):  # noqa: B017
        aead._cipher.decrypt_into(bytes(12), sealed, b"", left)
    assert b"secret words" in left
    out = bytearray(len(sealed) - 16)
    with pytest.raises(CryptoRefusedError):
        aead.open_into(bytes(12), sealed, b"", out)
    assert out == bytes(len(out))


# --- HMAC and HKDF ------------------------------------------------------------------------------------


def hmac_sha512(key: bytes, data: bytes) -> bytes:
    """The standard library's: what HKDF is compared with, by its definition."""
    return hmac.digest(key, data, "sha512")


def test_hmac_vectors() -> None:
    """So that what HKDF is compared with is right."""
    tests = vectors("hmac_sha512.json")["tests"]
    assert len(tests) == 180
    for test in tests:
        tag = hmac_sha512(unhex(test["key"]), unhex(test["msg"]))[: test["tag_bits"] // 8]
        assert constant_time_equal(tag, unhex(test["tag"])) is (test["result"] == "valid"), test["id"]


def _expanded(pseudorandom_key: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869's expansion in full, over HMAC; Noise's uses two blocks and no info."""
    output, block = b"", b""
    for index in range(1, -(-size // 64) + 1):
        block = hmac_sha512(pseudorandom_key, block + info + bytes((index,)))
        output += block
    return output[:size]


def test_hkdf_vectors() -> None:
    tests = vectors("hkdf_sha512.json")["tests"]
    noise_form = 0
    for test in tests:
        salt, ikm, info = unhex(test["salt"]), unhex(test["ikm"]), unhex(test["info"])
        if test["result"] == "invalid":
            assert test["size"] > 255 * 64
            continue
        output = _expanded(hmac_sha512(salt, ikm), info, test["size"])
        if "okm" in test:
            assert output == unhex(test["okm"]), test["id"]
        else:
            assert hashlib.sha256(output).hexdigest() == test["okm_sha256"]
        if not info:
            assert b"".join(hkdf(salt, ikm))[: test["size"]] == output
            noise_form += 1
    assert (len(tests), noise_form) == (83, 30)


# --- Secrets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    [
        X25519Private(bytes(range(32))),
        Ed25519Private(bytes(range(32))),
        MlKemPrivate(bytes(range(64))),
        Aead(bytes(range(32))),
    ],
    ids=lambda secret: type(secret).__name__,
)
def test_secrets_print_redacted_and_do_not_pickle(secret: object) -> None:
    for text in (repr(secret), str(secret), f"{secret}"):
        assert "redacted" in text
        assert "0102" not in text
        assert "\\x01" not in text
    with pytest.raises(LocalMisuseError):
        pickle.dumps(secret)
