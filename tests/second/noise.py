"""Noise, revision 34, as far as IX, IXhfs and NNpsk0 need it (docs/protocol.md, 4.1)."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from tests.second import chacha, mlkem
from tests.second.curve25519 import x25519, x25519_public

FULL = b"Noise_IXhfs_25519+MLKEM768_ChaChaPoly_SHA512"
SHORT = b"Noise_IX_25519_ChaChaPoly_SHA512"
RESUMED = b"Noise_NNpsk0_25519_ChaChaPoly_SHA512"


class Refused(Exception):
    """What the peer sent is refused; the argument names the check."""


def hkdf(chaining: bytes, material: bytes) -> tuple[bytes, bytes]:
    """Noise's HKDF with two outputs, each of 64 octets (which is RFC 5869 with an empty info)."""
    first, second, _ = hkdf3(chaining, material)
    return first, second


def hkdf3(chaining: bytes, material: bytes) -> tuple[bytes, bytes, bytes]:
    """The same with three."""
    secret = hmac.digest(chaining, material, "sha512")
    first = hmac.digest(secret, b"\1", "sha512")
    second = hmac.digest(secret, first + b"\2", "sha512")
    return first, second, hmac.digest(secret, second + b"\3", "sha512")


def nonce(number: int) -> bytes:
    return bytes(4) + number.to_bytes(8, "little")


def dh(private: bytes, public: bytes) -> bytes:
    shared = x25519(private, public)
    if not any(shared):
        raise Refused("X25519 result of zeros")
    return shared


@dataclass
class Symmetric:
    """SymmetricState with its CipherState."""

    h: bytes
    ck: bytes
    k: bytes | None = None
    n: int = 0

    @classmethod
    def named(cls, name: bytes, prologue: bytes) -> Symmetric:
        h = name.ljust(64, b"\0")
        state = cls(h, h)
        state.mix_hash(prologue)
        return state

    def mix_hash(self, octets: bytes) -> None:
        self.h = hashlib.sha512(self.h + octets).digest()

    def mix_key(self, material: bytes) -> None:
        self.ck, k = hkdf(self.ck, material)
        self.k, self.n = k[:32], 0

    def mix_key_and_hash(self, psk: bytes) -> None:
        self.ck, h, k = hkdf3(self.ck, psk)
        self.mix_hash(h)
        self.k, self.n = k[:32], 0

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        sealed = plaintext
        if self.k is not None:
            sealed = chacha.seal(self.k, nonce(self.n), self.h, plaintext)
            self.n += 1
        self.mix_hash(sealed)
        return sealed

    def decrypt_and_hash(self, sealed: bytes) -> bytes:
        plaintext: bytes | None = sealed
        if self.k is not None:
            plaintext = chacha.unseal(self.k, nonce(self.n), self.h, sealed)
            self.n += 1
        if plaintext is None:
            raise Refused("tag of the handshake")
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """The keys (initiator to responder, responder to initiator): R to S, S to R."""
        first, second = hkdf(self.ck, b"")
        return first[:32], second[:32]

    def ticket(self) -> tuple[bytes, bytes]:
        """(secret, name), behind message 2 (4.6)."""
        first, second = hkdf(self.ck, b"nightmail ticket\0" + self.h)
        return first[:32], second[:16]


@dataclass
class Initiator:
    """R. `kem_seed` is None in the short form."""

    prologue: bytes
    static: bytes
    ephemeral: bytes
    kem_seed: bytes | None
    state: Symmetric = field(init=False)
    _kem_private: bytes = b""

    def begin(self) -> bytes:
        """e, e1, s of message 1; the payload is the caller's to add by `state.encrypt_and_hash`."""
        self.state = Symmetric.named(FULL if self.kem_seed else SHORT, self.prologue)
        e, e1 = x25519_public(self.ephemeral), b""
        self.state.mix_hash(e)
        if self.kem_seed:
            e1, self._kem_private = mlkem.keys(self.kem_seed)
            self.state.encrypt_and_hash(e1)
        return e + e1 + self.state.encrypt_and_hash(x25519_public(self.static))

    def finish(self, message: bytes) -> tuple[bytes, bytes]:
        """(static key, payload) of message 2."""
        state, rest = self.state, message[32:]
        e = message[:32]
        state.mix_hash(e)
        state.mix_key(dh(self.ephemeral, e))
        if self.kem_seed:
            sealed, rest = rest[: mlkem.CIPHERTEXT + 16], rest[mlkem.CIPHERTEXT + 16 :]
            state.mix_key(mlkem.decapsulate(self._kem_private, state.decrypt_and_hash(sealed)))
        state.mix_key(dh(self.static, e))
        s = state.decrypt_and_hash(rest[:48])
        state.mix_key(dh(self.ephemeral, s))
        return s, state.decrypt_and_hash(rest[48:])


@dataclass
class Responder:
    """S."""

    prologue: bytes
    static: bytes
    ephemeral: bytes
    kem_randomness: bytes
    state: Symmetric = field(init=False)

    def read(self, message: bytes, full: bool) -> tuple[bytes, bytes]:
        """(h behind the s token, payload) of message 1."""
        self.state = state = Symmetric.named(FULL if full else SHORT, self.prologue)
        self._e, rest = message[:32], message[32:]
        self._e1 = b""
        state.mix_hash(self._e)
        if full:
            self._e1, rest = rest[: mlkem.EK], rest[mlkem.EK :]
            state.mix_hash(self._e1)
        self._s = state.decrypt_and_hash(rest[:32])
        h = state.h
        return h, state.decrypt_and_hash(rest[32:])

    def answer(self, payload: bytes) -> bytes:
        state = self.state
        e, ekem1 = x25519_public(self.ephemeral), b""
        state.mix_hash(e)
        state.mix_key(dh(self.ephemeral, self._e))
        if self._e1:
            if not mlkem.acceptable(self._e1):
                raise Refused("ML-KEM key")
            shared, ciphertext = mlkem.encapsulate(self._e1, self.kem_randomness)
            ekem1 = state.encrypt_and_hash(ciphertext)
            state.mix_key(shared)
        state.mix_key(dh(self.ephemeral, self._s))
        s = state.encrypt_and_hash(x25519_public(self.static))
        state.mix_key(dh(self.static, self._e))
        return e + ekem1 + s + state.encrypt_and_hash(payload)
