"""An ML-KEM key that can be listened at, for vectors that do not name the ciphertext."""

from __future__ import annotations

from gateway.crypto.primitives import MlKemPrivate


class ListeningKey(MlKemPrivate):
    """An ML-KEM key that keeps the ciphertexts it was given."""

    def __init__(self, key: MlKemPrivate, heard: list[bytes]) -> None:
        self._key = key._key
        self.public = key.public
        self._heard = heard

    def decapsulate(self, ciphertext: bytes) -> bytes:
        self._heard.append(ciphertext)
        return super().decapsulate(ciphertext)
