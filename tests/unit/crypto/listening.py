"""An ML-KEM key that can be listened at, for vectors that do not name the ciphertext."""

from __future__ import annotations

from typing import Any

from gateway.crypto.primitives import MlKemPrivate
from tests.unit.crypto.pairs import octets


class _Listening:
    """The library's key, and what it was given."""

    def __init__(self, key: Any, heard: list[bytes]) -> None:
        self._key, self._heard = key, heard

    def decapsulate(self, ciphertext: bytes) -> bytes:
        self._heard.append(ciphertext)
        return self._key.decapsulate(ciphertext)


def listening(key: MlKemPrivate, heard: list[bytes]) -> MlKemPrivate:
    """The same key, which keeps the ciphertexts that it is given."""
    made = MlKemPrivate(octets("to be replaced", 64))
    made.public = key.public
    made._key = _Listening(key._key, heard)  # type: ignore[assignment]
    return made
