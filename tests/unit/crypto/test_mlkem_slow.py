"""The encapsulation that the protocol's vectors are made with, against the vectors of others."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.crypto.pairs import vectors
from tests.vectors.mlkem_slow import encapsulate

ENCAPS = vectors("mlkem768.json")["encaps"]


@pytest.mark.parametrize("vector", ENCAPS, ids=lambda vector: f"{vector['source']}-{vector['id']}")
def test_it_is_ml_kem(vector: dict[str, Any]) -> None:
    ciphertext, secret = encapsulate(bytes.fromhex(vector["ek"]), bytes.fromhex(vector["m"]))
    assert (ciphertext.hex(), secret.hex()) == (vector["c"], vector["k"])
