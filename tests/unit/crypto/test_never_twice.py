"""Nonces and ephemerals never come twice: counted where every one of them passes, at the primitives.

Whole sessions of both machines with the system's own randomness: handshakes of both forms, records in both
directions, a rekey now and then. A thousand sessions in an ordinary run, a hundred thousand in a long one.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import mlkem
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import crypto_scalarmult_base

from gateway.crypto import noise, primitives, records
from gateway.crypto.keys import Ephemerals
from gateway.session.context import GatewayKeys
from gateway.session.sending import SendingSession
from tests.holding import HoldingSession
from tests.playbook import EHLO, GREETING, LONG_REPLY, REPLY, Playbook, gateway_keys, receiving, sending

SESSIONS = 1_000
MANY_SESSIONS = 100_000


@dataclass
class Counted:
    """Short hashes: of two different things equal by chance in 10^7, once in 10^5 runs."""

    seen: dict[str, set[int]] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)
    rekeyed: dict[bytes, int] = field(default_factory=dict)

    def count(self, kind: str, *parts: bytes) -> None:
        digest = hashlib.blake2b(b"\0".join(parts), digest_size=8).digest()
        seen = self.seen.setdefault(kind, set())
        before = len(seen)
        seen.add(int.from_bytes(digest, "big"))
        self.times[kind] = self.times.get(kind, 0) + 1
        if len(seen) == before:
            self.twice.append(kind)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    """Stands where keys and nonces pass: the libraries' AEAD, private keys and encapsulation."""
    books = Counted()

    class CountedCipher:
        def __init__(self, key: bytes) -> None:
            self._key, self._cipher = bytes(key), ChaCha20Poly1305(key)
            self.decrypt, self.decrypt_into = self._cipher.decrypt, self._cipher.decrypt_into

        def encrypt(self, nonce: bytes, *rest: Any) -> bytes:
            self._count(nonce)
            return self._cipher.encrypt(nonce, *rest)

        def encrypt_into(self, nonce: bytes, *rest: Any) -> int:
            self._count(nonce)
            return self._cipher.encrypt_into(nonce, *rest)

        def _count(self, nonce: bytes) -> None:
            if (
                nonce == noise._REKEY_NONCE
            ):  # each side derives the next key for itself: one message, twice made
                books.rekeyed[self._key] = books.rekeyed.get(self._key, 0) + 1
            else:
                books.count("key and nonce", self._key, nonce)

    def counted_x25519(octets: bytes) -> bytes:
        public = crypto_scalarmult_base(octets)
        books.count("X25519 key", public)
        return public

    class CountedMlKem:
        @staticmethod
        def from_seed_bytes(seed: bytes) -> mlkem.MLKEM768PrivateKey:
            key = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed)
            books.count("ML-KEM key", key.public_key().public_bytes_raw())
            return key

    class CountedEncapsulation:
        def __init__(self, public: bytes) -> None:
            self._public = mlkem.MLKEM768PublicKey.from_public_bytes(public)

        from_public_bytes = classmethod(lambda cls, public: cls(public))

        def encapsulate(self) -> tuple[bytes, bytes]:
            shared, ciphertext = self._public.encapsulate()
            books.count("ML-KEM ciphertext", ciphertext)
            return shared, ciphertext

    monkeypatch.setattr(primitives, "ChaCha20Poly1305", CountedCipher)
    monkeypatch.setattr("nacl.bindings.crypto_scalarmult_base", counted_x25519)
    counted_kem = SimpleNamespace(MLKEM768PrivateKey=CountedMlKem, MLKEM768PublicKey=CountedEncapsulation)
    monkeypatch.setattr(primitives, "mlkem", counted_kem)
    # Four records to a key in place of 16,384, so that rekeys happen.
    monkeypatch.setattr(records, "_REKEY_MASK", 3)
    yield books


def _sessions(count: int) -> None:
    """From greeting to QUIT: two machines that hand each other what they send."""
    s_keys, r_keys = gateway_keys("S"), gateway_keys("R")
    for number in range(count):
        _session(s_keys, r_keys, LONG_REPLY if number % 4 == 0 else REPLY)


def _session(s_keys: GatewayKeys, r_keys: GatewayKeys, reply: bytes) -> None:
    s_book = Playbook(_fresh(sending(keys=s_keys)))
    r_book = Playbook(_fresh(receiving(keys=r_keys)))
    r_book.near(GREETING)
    s_book.far(r_book.to_far)
    told = {"S": 0, "R": len(r_book.to_far)}

    def settle() -> None:
        for _ in range(4):
            for name, one, other in (("S", s_book, r_book), ("R", r_book, s_book)):
                new = one.to_far[told[name] :]
                told[name] = len(one.to_far)
                if new:
                    other.far(new)

    s_book.near(EHLO)
    settle()
    r_book.near(reply)
    settle()
    for line in (b"MAIL FROM:<a@a.example>\r\n", b"RCPT TO:<b@b.example>\r\n", b"QUIT\r\n"):
        s_book.near(line)
        settle()
        r_book.near(b"250 2.0.0 Ok\r\n")
        settle()
    assert s_book.state == r_book.state == "channel"


def _fresh(machine: Any) -> Any:
    """The same machine with the system's randomness in place of the tests'."""
    context = machine._context
    if isinstance(machine, SendingSession):
        answers = functools.partial(Ephemerals.draw_for_answer, os.urandom)
        return SendingSession(replace(context, entropy=os.urandom, draw_ephemerals=answers))
    return HoldingSession(
        replace(context, entropy=os.urandom, draw_ephemerals=lambda: Ephemerals.draw(os.urandom))
    )


def _check(books: Counted, sessions: int) -> None:
    assert books.twice == []
    # One key of each gateway for the day, and of each session R's e and S's e.
    assert books.times["X25519 key"] == 2 * sessions + 2
    assert books.times["ML-KEM key"] == sessions
    assert books.times["ML-KEM ciphertext"] == sessions - -(-sessions // 4)
    assert books.times["key and nonce"] >= 10 * sessions
    assert max(books.rekeyed.values()) == 2
    assert len(books.rekeyed) >= sessions


def test_in_a_thousand_sessions(counted: Counted) -> None:
    _sessions(SESSIONS)
    _check(counted, SESSIONS)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_in_a_hundred_thousand_sessions(counted: Counted) -> None:
    _sessions(MANY_SESSIONS)
    _check(counted, MANY_SESSIONS)


def test_the_count_sees_a_nonce_that_comes_twice(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that stands still would be seen, and so would an ephemeral that is drawn twice."""
    state = noise.CipherState(bytes(range(32)))
    state.encrypt_with_ad(b"", b"one")
    state.n = 0
    state.encrypt_with_ad(b"", b"two")
    for _ in range(2):
        Ephemerals.draw(lambda count: bytes(count))
    assert counted.twice == ["key and nonce", "X25519 key", "ML-KEM key"]
