"""Many ML-KEM-768 runs in one hash, as the accumulated vector of Go's library gives it.

Key generation and decapsulation are ours, encapsulation with a given m is `mlkem_slow`'s; the sum covers
implicit rejection as well, of one random ciphertext each run.
"""

from __future__ import annotations

import hashlib

import pytest

from gateway.crypto.primitives import MLKEM_CIPHERTEXT_OCTETS, MLKEM_SEED_OCTETS, MlKemPrivate
from tests.unit.crypto.pairs import vectors
from tests.vectors.mlkem_slow import encapsulate

VECTOR = vectors("mlkem768.json")["accumulated"]
_EACH = MLKEM_SEED_OCTETS + 32 + MLKEM_CIPHERTEXT_OCTETS


def _sum(runs: int) -> str:
    stream = hashlib.shake_128().digest(runs * _EACH)
    hashed = hashlib.shake_128()
    for at in range(0, runs * _EACH, _EACH):
        drawn = stream[at : at + _EACH]
        seed, m, random = drawn[:64], drawn[64:96], drawn[96:]
        key = MlKemPrivate(seed)
        ciphertext, shared = encapsulate(key.public, m)
        assert key.decapsulate(ciphertext) == shared
        for octets in (key.public, ciphertext, shared, key.decapsulate(random)):
            hashed.update(octets)
    return hashed.hexdigest(32)


def test_a_hundred() -> None:
    assert (
        hashlib.shake_128().hexdigest(32)
        == "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26"
    )
    assert _sum(100) == VECTOR["sum_100"]


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_ten_thousand() -> None:
    assert _sum(10_000) == VECTOR["sum_10000"]
