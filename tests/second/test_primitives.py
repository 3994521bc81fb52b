"""The second implementation's own primitives against the vectors that the product's are tested with."""

from __future__ import annotations

import pytest

from tests.second import chacha, mlkem, noise
from tests.second.curve25519 import ed25519_acceptable, ed25519_public, ed25519_sign, ed25519_verifies, x25519
from tests.second.records import padme
from tests.second.vectors import octets, vectors


def test_x25519() -> None:
    for case in vectors("x25519")["tests"]:
        private, public, shared = octets(case, "private", "public", "shared")
        assert x25519(private, public) == shared, case
        if not any(shared):
            with pytest.raises(noise.Refused):
                noise.dh(private, public)


def test_ed25519() -> None:
    cases = vectors("ed25519")
    for case in cases["sign"]:
        seed, public, message, signature = octets(case, "seed", "pk", "msg", "sig")
        assert ed25519_public(seed) == public
        assert ed25519_sign(seed, message) == signature
    for case in cases["verify"]:
        valid = ed25519_verifies(*octets(case, "pk", "msg", "sig"))
        assert valid == (case["result"] == "valid"), case
    for case in cases["low_order_public_keys"]:
        assert not ed25519_acceptable(bytes.fromhex(case["pk"])), case


def test_chacha20_poly1305() -> None:
    tried = 0
    for case in vectors("chacha20poly1305")["tests"]:
        key, once, associated, message, ciphertext, tag = octets(case, "key", "iv", "aad", "msg", "ct", "tag")
        if len(once) != 12:
            continue  # other nonces are no part of RFC 8439
        tried += 1
        valid = case["result"] == "valid"
        assert chacha.unseal(key, once, associated, ciphertext + tag) == (message if valid else None), case
        assert (chacha.seal(key, once, associated, message) == ciphertext + tag) == valid, case
    assert tried > 100


def test_mlkem768() -> None:
    cases = vectors("mlkem768")
    for case in cases["keygen"]:
        d, z, ek, dk = octets(case, "d", "z", "ek", "dk")
        assert mlkem.keys(d + z) == (ek, dk)
    for case in cases["encaps"]:
        ek, m, c, k = octets(case, "ek", "m", "c", "k")
        assert mlkem.acceptable(ek)
        assert mlkem.encapsulate(ek, m) == (k, c)
    for case in cases["encaps_invalid_ek"]:
        assert not mlkem.acceptable(bytes.fromhex(case["ek"])), case
    for case in cases["decaps_from_seed"]:
        if case["result"] == "valid":
            seed, c, k = octets(case, "seed_d_z", "c", "k")
            assert mlkem.decapsulate(mlkem.keys(seed)[1], c) == k, case


def test_hkdf_is_that_of_rfc_5869() -> None:
    """Noise's two outputs are 128 octets of HKDF with the chaining key as salt and an empty info."""
    tried = 0
    for case in vectors("hkdf_sha512")["tests"]:
        if case["info"] or case["result"] != "valid" or case["size"] > 128:
            continue
        tried += 1
        material, salt, okm = octets(case, "ikm", "salt", "okm")
        assert b"".join(noise.hkdf(salt, material))[: len(okm)] == okm
    assert tried


def test_padme() -> None:
    for size, padded in vectors("padme")["pairs"]:
        assert padme(size) == padded
