"""X25519, Ed25519, ML-KEM-768, ChaCha20-Poly1305 and HKDF: each wrapped once, with its refusals.

The only file that imports PyNaCl and cryptography. It knows sizes and what a primitive must refuse, and
nothing of messages. Whatever a peer can cause surfaces as `CryptoRefusedError`, never as an exception of
a library; whatever only our own code can cause is a `LocalMisuseError`.

Secrets print redacted. They are not wiped: Python copies `bytes` at will and cannot overwrite them, so
lifetimes are kept short instead. The one thing that is wiped is unauthenticated plaintext (`open_into`).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final, NoReturn

import nacl.bindings
import nacl.exceptions
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.backends.openssl import backend as _backend
from cryptography.hazmat.primitives.asymmetric import mlkem
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gateway.errors import CryptoRefusedError, LocalMisuseError, Reason

X25519_OCTETS: Final = 32
ED25519_PUBLIC_OCTETS: Final = 32
ED25519_SEED_OCTETS: Final = 32
ED25519_SIGNATURE_OCTETS: Final = 64
MLKEM_PUBLIC_OCTETS: Final = 1184
MLKEM_CIPHERTEXT_OCTETS: Final = 1088
MLKEM_SEED_OCTETS: Final = 64
AEAD_KEY_OCTETS: Final = 32
AEAD_TAG_OCTETS: Final = 16
AEAD_NONCE_OCTETS: Final = 12
HASH_OCTETS: Final = 64
ARGON2_SALT_OCTETS: Final = 16

_LOADED_WITH_US: Final = _backend
"""The library loads it at the first key: too late in a worker, to which a checkout in /root is closed."""

Octets = bytes | bytearray | memoryview

_ED25519_PRIME: Final = 2**255 - 19
_SMALL_ORDER_8: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
"""y of points of order 8 (RFC 8032's curve), as is its negative; orders 1, 2, 4 have y = 1, -1, 0."""
_SMALL_ORDER_Y: Final = frozenset((0, 1, _ED25519_PRIME - 1, _SMALL_ORDER_8, _ED25519_PRIME - _SMALL_ORDER_8))


class _Secret:
    """Base of everything that must not reach a log, a traceback or a pickle."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: redacted>"

    def __reduce__(self) -> NoReturn:
        raise LocalMisuseError(f"{type(self).__name__} must not be serialised")


class X25519Private(_Secret):
    """A private key with its public one; for static and ephemeral keys alike."""

    __slots__ = ("_octets", "public")

    def __init__(self, octets: bytes) -> None:
        _must_measure("X25519 private key", octets, X25519_OCTETS)
        self._octets = octets
        self.public: bytes = nacl.bindings.crypto_scalarmult_base(octets)

    def exchange(self, public: bytes) -> bytes:
        """The shared secret. Refuses what would make it all zero (RFC 7748 section 6.1, small order)."""
        if len(public) != X25519_OCTETS:
            raise CryptoRefusedError(Reason.BAD_KEY, "X25519 public key of a wrong length")
        try:
            shared = nacl.bindings.crypto_scalarmult(self._octets, public)
        except nacl.exceptions.RuntimeError as error:
            raise CryptoRefusedError(Reason.BAD_KEY, "X25519 public key of small order") from error
        # libsodium refuses already; a build that did not would let anybody know the secret.
        if constant_time_equal(shared, bytes(X25519_OCTETS)):
            raise CryptoRefusedError(Reason.BAD_KEY, "all-zero X25519 result")
        return shared


class Ed25519Private(_Secret):
    """A signing key, made from its seed (RFC 8032 calls that the private key)."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        _must_measure("Ed25519 seed", seed, ED25519_SEED_OCTETS)
        self.public, self._secret = nacl.bindings.crypto_sign_seed_keypair(seed)

    def sign(self, message: bytes) -> bytes:
        """The 64 octets of the signature alone."""
        return nacl.bindings.crypto_sign(message, self._secret)[:ED25519_SIGNATURE_OCTETS]


def ed25519_check_public(public: bytes) -> None:
    """Refuse keys of small order (they verify anything) and encodings that are not reduced.

    PyNaCl refuses these when verifying; `cryptography` does not. Checked here too, so that no other
    path can let one in, and so that one identity has exactly one encoding.
    """
    if len(public) != ED25519_PUBLIC_OCTETS:
        raise CryptoRefusedError(Reason.BAD_KEY, "Ed25519 public key of a wrong length")
    y = int.from_bytes(public, "little") & ((1 << 255) - 1)
    if y >= _ED25519_PRIME:
        raise CryptoRefusedError(Reason.BAD_KEY, "Ed25519 public key not in its one encoding")
    if y in _SMALL_ORDER_Y:
        raise CryptoRefusedError(Reason.BAD_KEY, "Ed25519 public key of small order")


def ed25519_verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Return, or raise `CryptoRefusedError`: BAD_KEY for the key, BAD_SIGNATURE for the rest."""
    ed25519_check_public(public)
    if len(signature) != ED25519_SIGNATURE_OCTETS:
        raise CryptoRefusedError(Reason.BAD_SIGNATURE, "signature of a wrong length")
    try:
        nacl.bindings.crypto_sign_open(signature + message, public)
    except nacl.exceptions.BadSignatureError as error:
        raise CryptoRefusedError(Reason.BAD_SIGNATURE, "signature does not verify") from error


class MlKemPrivate(_Secret):
    """An ML-KEM-768 key pair from the seed d || z of FIPS 203."""

    __slots__ = ("_key", "public")

    def __init__(self, seed: bytes) -> None:
        _must_measure("ML-KEM seed", seed, MLKEM_SEED_OCTETS)
        self._key = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed)
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """The shared secret. A wrong ciphertext of the right length gives another secret, not an error."""
        try:
            return self._key.decapsulate(ciphertext)
        except ValueError as error:
            raise CryptoRefusedError(Reason.BAD_KEY, "ML-KEM ciphertext refused") from error


def mlkem_encapsulate(public: bytes) -> tuple[bytes, bytes]:
    """Ciphertext, then shared secret. Refuses keys that FIPS 203 7.2 refuses (length, coefficients).

    The randomness is the library's own: it takes none. The one draw in this room that is not handed in.
    """
    try:
        shared, ciphertext = mlkem.MLKEM768PublicKey.from_public_bytes(public).encapsulate()
    except ValueError as error:
        raise CryptoRefusedError(Reason.BAD_KEY, "ML-KEM public key refused") from error
    return ciphertext, shared


class Aead(_Secret):
    """ChaCha20-Poly1305 (RFC 8439) under one key. Nonces are the caller's care."""

    __slots__ = ("_cipher", "seal")

    def __init__(self, key: bytes) -> None:
        if len(key) != AEAD_KEY_OCTETS:
            raise LocalMisuseError(f"AEAD key must have {AEAD_KEY_OCTETS} octets, not {len(key)}")
        self._cipher = ChaCha20Poly1305(key)
        self.seal: Callable[[bytes, Octets, bytes], bytes] = self._cipher.encrypt
        """Nonce, plaintext, associated data -> ciphertext and tag: the library's own."""

    def seal_into(
        self, nonce: bytes, plaintext: Octets, associated: bytes, out: bytearray | memoryview
    ) -> None:
        """Encrypt into `out`, 16 octets longer than `plaintext`."""
        self._cipher.encrypt_into(nonce, plaintext, associated, out)

    def open(self, nonce: bytes, sealed: bytes, associated: bytes) -> bytes:
        try:
            return self._cipher.decrypt(nonce, sealed, associated)
        except InvalidTag as error:
            raise CryptoRefusedError(Reason.BAD_TAG, "tag does not verify") from error

    def open_into(self, nonce: bytes, sealed: Octets, associated: bytes, out: bytearray) -> None:
        """Decrypt into `out`, 16 octets shorter than `sealed`. On a bad tag `out` is wiped before raising:
        the library leaves unauthenticated plaintext in it."""
        try:
            self._cipher.decrypt_into(nonce, sealed, associated, out)
        except InvalidTag as error:
            out[:] = bytes(len(out))
            raise CryptoRefusedError(Reason.BAD_TAG, "tag does not verify") from error


def constant_time_equal(one: bytes, other: bytes) -> bool:
    """Equality whose time tells lengths at most."""
    return hmac.compare_digest(one, other)


def sha512(data: bytes) -> bytes:
    return hashlib.sha512(data).digest()


_SHA512: Final = SHA512()


def hkdf(chaining_key: bytes, input_key_material: bytes) -> tuple[bytes, bytes]:
    """Noise's HKDF (revision 34, 4.3) with two outputs of 64 octets: RFC 5869 with an empty info.

    In one call: three of `hmac.digest` take twice as long, and a handshake needs five of these.
    """
    both = HKDF(_SHA512, 2 * HASH_OCTETS, chaining_key, None).derive(input_key_material)
    return both[:HASH_OCTETS], both[HASH_OCTETS:]


def hkdf_three(chaining_key: bytes, input_key_material: bytes) -> tuple[bytes, bytes, bytes]:
    """The same with three outputs."""
    out = HKDF(_SHA512, 3 * HASH_OCTETS, chaining_key, None).derive(input_key_material)
    return out[:HASH_OCTETS], out[HASH_OCTETS : 2 * HASH_OCTETS], out[2 * HASH_OCTETS :]


def argon2id(passphrase: bytes, salt: bytes, passes: int, octets: int) -> bytes:
    """An AEAD key (RFC 9106). `octets` of memory are used for the time; fails as MemoryError without them."""
    _must_measure("Argon2id salt", salt, ARGON2_SALT_OCTETS)
    try:
        key: bytes = nacl.bindings.crypto_pwhash_alg(
            AEAD_KEY_OCTETS, passphrase, salt, passes, octets, nacl.bindings.crypto_pwhash_ALG_ARGON2ID13
        )
    except nacl.exceptions.RuntimeError:
        raise MemoryError(f"Argon2id needs {octets} octets") from None
    return key


def _must_measure(what: str, octets: bytes, wanted: int) -> None:
    if len(octets) != wanted:
        raise LocalMisuseError(f"{what} must have {wanted} octets, not {len(octets)}")
