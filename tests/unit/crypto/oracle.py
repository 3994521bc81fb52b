"""A second implementation of offer, answer and records: small, slow, written from docs/protocol.md.

Shares no code with `gateway.crypto` and, but for the AEAD and ML-KEM, no primitive either: X25519, Ed25519
and HKDF come from another library or another part of one. Checks as much as a peer must. For tests only.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305


def derive(chaining_key: bytes, secret: bytes) -> tuple[bytes, bytes]:
    extracted = hmac.digest(chaining_key, secret, "sha512")
    first = hmac.digest(extracted, b"\1", "sha512")
    return first, hmac.digest(extracted, first + b"\2", "sha512")


class Transcript:
    """h, ck, k and n, by hand."""

    def __init__(self, name: bytes, prologue: bytes) -> None:
        self.h = self.ck = name + bytes(64 - len(name))
        self.k = b""
        self.n = 0
        self.absorb(prologue)

    def absorb(self, data: bytes) -> None:
        self.h = hashlib.sha512(self.h + data).digest()

    def key(self, secret: bytes) -> None:
        self.ck, k = derive(self.ck, secret)
        self.k, self.n = k[:32], 0

    def _nonce(self) -> bytes:
        self.n += 1
        return struct.pack("<LQ", 0, self.n - 1)

    def seal(self, plain: bytes) -> bytes:
        sealed = ChaCha20Poly1305(self.k).encrypt(self._nonce(), plain, self.h)
        self.absorb(sealed)
        return sealed

    def open(self, sealed: bytes) -> bytes:
        plain = ChaCha20Poly1305(self.k).decrypt(self._nonce(), sealed, self.h)
        self.absorb(sealed)
        return plain

    def split(self) -> tuple[bytes, bytes]:
        one, two = derive(self.ck, b"")
        return one[:32], two[:32]


def mix(key: X25519PrivateKey, public: bytes) -> bytes:
    return key.exchange(X25519PublicKey.from_public_bytes(public))


@dataclass
class Stream:
    """One direction of records."""

    key: bytes
    n: int = 0

    def _cipher(self) -> tuple[ChaCha20Poly1305, bytes]:
        if self.n and self.n % 16384 == 0:
            self.key = ChaCha20Poly1305(self.key).encrypt(bytes(4) + b"\xff" * 8, bytes(32), None)[:32]
        self.n += 1
        return ChaCha20Poly1305(self.key), struct.pack("<LQ", 0, self.n - 1)

    def seal(self, kind: int, content: bytes, zeros: int = 0) -> bytes:
        cipher, nonce = self._cipher()
        inner = struct.pack(">BH", kind, len(content)) + content + bytes(zeros)
        header = struct.pack(">BH", 0x82, len(inner) + 16)
        return header + cipher.encrypt(nonce, inner, header)

    def open_all(self, wire: bytes) -> list[tuple[int, bytes]]:
        records = []
        while wire:
            kind, length = struct.unpack(">BH", wire[:3])
            assert kind == 0x82
            cipher, nonce = self._cipher()
            inner = cipher.decrypt(nonce, wire[3 : 3 + length], wire[:3])
            what, size = struct.unpack(">BH", inner[:3])
            assert not any(inner[3 + size :])
            records.append((what, inner[3 : 3 + size]))
            wire = wire[3 + length :]
        return records


@dataclass
class Gateway:
    """One site's keys; `receive_*` is R's part, `send_*` is S's."""

    identity: Ed25519PrivateKey
    static: X25519PrivateKey
    day: int
    e: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    kem: MLKEM768PrivateKey = field(default_factory=MLKEM768PrivateKey.generate)
    facts: dict[str, bytes | int] = field(default_factory=dict)

    def me(self) -> bytes:
        return self.identity.public_key().public_bytes_raw()

    def receive_offer(self, prologue: bytes, *, full: bool) -> bytes:
        name = (
            b"Noise_IXhfs_25519+MLKEM768_ChaChaPoly_SHA512" if full else b"Noise_IX_25519_ChaChaPoly_SHA512"
        )
        self.t = t = Transcript(name, prologue)
        parts = [self.e.public_key().public_bytes_raw()]
        if full:
            parts.append(self.kem.public_key().public_bytes_raw())
        parts.append(self.static.public_key().public_bytes_raw())
        for part in parts:
            t.absorb(part)
        unsigned = self.me() + struct.pack(">LH", self.day, 0)
        payload = unsigned + self.identity.sign(b"nightmail offer\0" + t.h + unsigned)
        t.absorb(payload)
        self.full = full
        return b"".join(parts) + payload

    def receive_answer(self, message: bytes) -> tuple[Stream, Stream]:
        """Our direction, then theirs."""
        t, at = self.t, 32
        t.absorb(message[:32])
        t.key(mix(self.e, message[:32]))
        if self.full:
            ciphertext = t.open(message[32 : 32 + 1104])
            t.key(self.kem.decapsulate(ciphertext))
            at += 1104
        t.key(mix(self.static, message[:32]))
        static = t.open(message[at : at + 48])
        t.key(mix(self.e, static))
        payload = t.open(message[at + 48 :])
        who, epoch, until, flags, endorsement, address, port = struct.unpack(">32sLLH64s16sH", payload)
        signed = b"nightmail static\0" + static + payload[32:40]
        Ed25519PublicKey.from_public_bytes(who).verify(endorsement, signed)
        assert epoch - 1 <= self.day <= until <= epoch + 14
        self.facts = {"identity": who, "epoch": epoch, "flags": flags, "address": address, "port": port}
        ours, theirs = t.split()
        return Stream(ours), Stream(theirs)

    def send_answer(
        self, prologue: bytes, offer: bytes, dialled: tuple[bytes, int]
    ) -> tuple[bytes, Stream, Stream]:
        """Message 2, our direction, theirs."""
        full = len(offer) == 1350
        name = (
            b"Noise_IXhfs_25519+MLKEM768_ChaChaPoly_SHA512" if full else b"Noise_IX_25519_ChaChaPoly_SHA512"
        )
        t = Transcript(name, prologue)
        kem_key = offer[32:1216] if full else b""
        re, rs, payload = offer[:32], offer[-134:-102], offer[-102:]
        for part in (re, kem_key, rs) if full else (re, rs):
            t.absorb(part)
        who, epoch, flags, signature = struct.unpack(">32sLH64s", payload)
        Ed25519PublicKey.from_public_bytes(who).verify(signature, b"nightmail offer\0" + t.h + payload[:38])
        t.absorb(payload)
        self.facts = {"identity": who, "epoch": epoch, "flags": flags}

        e = self.e
        message = e.public_key().public_bytes_raw()
        t.absorb(message)
        t.key(mix(e, re))
        if full:
            shared, ciphertext = MLKEM768PublicKey.from_public_bytes(kem_key).encapsulate()
            message += t.seal(ciphertext)
            t.key(shared)
        t.key(mix(e, rs))
        static = self.static.public_key().public_bytes_raw()
        message += t.seal(static)
        t.key(mix(self.static, re))
        dates = struct.pack(">LL", self.day, self.day + 14)
        endorsement = self.identity.sign(b"nightmail static\0" + static + dates)
        address, port = dialled
        message += t.seal(self.me() + dates + bytes(2) + endorsement + address + struct.pack(">H", port))
        theirs, ours = t.split()
        return message, Stream(ours), Stream(theirs)
