"""The Noise Protocol Framework (revision 34) as far as this protocol uses it; names are the specification's.

CipherState, SymmetricState and HandshakeState stand in the order of its section 5, for 25519, ChaChaPoly
and SHA512, with the KEM tokens of the hybrid forward secrecy extension (revision 1), and with section 9's
pre-shared key. Patterns are data.
Knows nothing of mail, identities or signatures: payloads are octets. A handshake that raised is dead.
Counterpart: `handshake`, which fills the payloads and checks them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha512
from typing import Final

from gateway.crypto.primitives import (
    AEAD_KEY_OCTETS,
    AEAD_TAG_OCTETS,
    HASH_OCTETS,
    MLKEM_CIPHERTEXT_OCTETS,
    MLKEM_PUBLIC_OCTETS,
    X25519_OCTETS,
    Aead,
    MlKemPrivate,
    Octets,
    X25519Private,
    hkdf,
    hkdf_three,
    mlkem_encapsulate,
)
from gateway.errors import IdentityHashed, LocalMisuseError, PeerProtocolError, Reason


class Token(IdentityHashed):
    """Message tokens: sections 7.1 and 9, and section 4 of the extension for `e1` and `ekem1`."""

    E = "e"
    E1 = "e1"
    S = "s"
    EE = "ee"
    EKEM1 = "ekem1"
    SE = "se"
    ES = "es"
    PSK = "psk"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A protocol name and its messages, the initiator's first."""

    protocol_name: bytes
    messages: tuple[tuple[Token, ...], ...]
    has_psk: bool = False


IX: Final = Pattern(
    b"Noise_IX_25519_ChaChaPoly_SHA512",
    (
        (Token.E, Token.S),
        (Token.E, Token.EE, Token.SE, Token.S, Token.ES),
    ),
)
IXHFS: Final = Pattern(
    b"Noise_IXhfs_25519+MLKEM768_ChaChaPoly_SHA512",
    (
        (Token.E, Token.E1, Token.S),
        (Token.E, Token.EE, Token.EKEM1, Token.SE, Token.S, Token.ES),
    ),
)
NNPSK0: Final = Pattern(
    b"Noise_NNpsk0_25519_ChaChaPoly_SHA512",
    (
        (Token.PSK, Token.E),
        (Token.E, Token.EE),
    ),
    has_psk=True,
)


# --- 5.1 The CipherState object ------------------------------------------------------------------------

_NONCE: Final = struct.Struct("<IQ")
"""12.3, ChaChaPoly: 32 zero bits, then the counter, least significant octet first."""
_REKEY_NONCE: Final = _NONCE.pack(0, 2**64 - 1)


class CipherState:
    """A key and its counter. Nothing else in this package makes a nonce."""

    __slots__ = ("_aead", "n")

    def __init__(self, key: bytes) -> None:
        self._aead = Aead(key)
        self.n = 0

    def encrypt_with_ad(self, ad: bytes, plaintext: Octets) -> bytes:
        # 2^64 - 1 is reserved; at a million records per second that is 584,000 years away.
        sealed = self._aead.seal(_NONCE.pack(0, self.n), plaintext, ad)
        self.n += 1
        return sealed

    def encrypt_into(self, ad: bytes, plaintext: Octets, out: bytearray | memoryview) -> None:
        """As encrypt_with_ad, into `out` (16 octets longer)."""
        self._aead.seal_into(_NONCE.pack(0, self.n), plaintext, ad, out)
        self.n += 1

    def decrypt_with_ad(self, ad: bytes, ciphertext: bytes) -> bytes:
        """Raises CryptoRefusedError; the counter then stays."""
        plaintext = self._aead.open(_NONCE.pack(0, self.n), ciphertext, ad)
        self.n += 1
        return plaintext

    def decrypt_into(self, ad: bytes, ciphertext: Octets, out: bytearray) -> None:
        """As decrypt_with_ad, into `out` (16 octets shorter), which is wiped if the tag is wrong."""
        self._aead.open_into(_NONCE.pack(0, self.n), ciphertext, ad, out)
        self.n += 1

    def rekey(self) -> None:
        """4.2 REKEY: another key, from which the old one cannot be had. The counter runs on."""
        self._aead = Aead(self._aead.seal(_REKEY_NONCE, bytes(AEAD_KEY_OCTETS), b"")[:AEAD_KEY_OCTETS])

    def __repr__(self) -> str:
        return f"<CipherState n={self.n}: redacted>"


# --- 5.2 The SymmetricState object ---------------------------------------------------------------------


class SymmetricState:
    """Chaining key, transcript hash, and a cipher once there is a key."""

    __slots__ = ("_cipher", "_ck", "h")

    def __init__(self, protocol_name: bytes) -> None:
        if len(protocol_name) > HASH_OCTETS:  # those would be hashed; this protocol has none
            raise LocalMisuseError(f"protocol name of {len(protocol_name)} octets")
        self.h = protocol_name.ljust(HASH_OCTETS, b"\0")
        self._ck = self.h
        self._cipher: CipherState | None = None

    def mix_key(self, input_key_material: bytes) -> None:
        self._ck, temporary = hkdf(self._ck, input_key_material)
        self._cipher = CipherState(temporary[:AEAD_KEY_OCTETS])

    def mix_key_and_hash(self, input_key_material: bytes) -> None:
        self._ck, hashed, temporary = hkdf_three(self._ck, input_key_material)
        self.mix_hash(hashed)
        self._cipher = CipherState(temporary[:AEAD_KEY_OCTETS])

    def mix_hash(self, data: bytes) -> None:
        self.h = sha512(self.h + data).digest()

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        ciphertext = self._cipher.encrypt_with_ad(self.h, plaintext) if self._cipher else plaintext
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        plaintext = self._cipher.decrypt_with_ad(self.h, ciphertext) if self._cipher else ciphertext
        self.mix_hash(ciphertext)
        return plaintext

    @property
    def tag_octets(self) -> int:
        """How much longer than its plaintext the next field is."""
        return AEAD_TAG_OCTETS if self._cipher else 0

    def derived(self, label: bytes) -> tuple[bytes, bytes]:
        """Two secrets of 64 octets beside those of `split`, which has no label."""
        return hkdf(self._ck, label + self.h)

    def split(self) -> tuple[bytes, bytes]:
        """Initiator's sending key, then the responder's."""
        one, two = hkdf(self._ck, b"")
        return one[:AEAD_KEY_OCTETS], two[:AEAD_KEY_OCTETS]

    def __repr__(self) -> str:
        return "<SymmetricState: redacted>"


# --- 5.3 The HandshakeState object ---------------------------------------------------------------------


class NoiseRole(IdentityHashed):
    """Who speaks first. The receiving gateway is the initiator."""

    INITIATOR = "initiator"
    RESPONDER = "responder"


class Step(IdentityHashed):
    """What a handshake does next; each message is two steps, as its payload may depend on its tokens."""

    WRITE_TOKENS = "write-tokens"
    WRITE_PAYLOAD = "write-payload"
    READ_TOKENS = "read-tokens"
    READ_PAYLOAD = "read-payload"
    SPLIT = "split"
    OVER = "over"
    """Split, or dead after an error."""


STEPS: Final = {
    NoiseRole.INITIATOR: {
        Step.WRITE_TOKENS: Step.WRITE_PAYLOAD,
        Step.WRITE_PAYLOAD: Step.READ_TOKENS,
        Step.READ_TOKENS: Step.READ_PAYLOAD,
        Step.READ_PAYLOAD: Step.SPLIT,
        Step.SPLIT: Step.OVER,
    },
    NoiseRole.RESPONDER: {
        Step.READ_TOKENS: Step.READ_PAYLOAD,
        Step.READ_PAYLOAD: Step.WRITE_TOKENS,
        Step.WRITE_TOKENS: Step.WRITE_PAYLOAD,
        Step.WRITE_PAYLOAD: Step.SPLIT,
        Step.SPLIT: Step.OVER,
    },
}
_MESSAGE_OF: Final = {
    NoiseRole.INITIATOR: {Step.WRITE_TOKENS: 0, Step.READ_TOKENS: 1},
    NoiseRole.RESPONDER: {Step.READ_TOKENS: 0, Step.WRITE_TOKENS: 1},
}

_LOCAL_S: Final = {(Token.SE, NoiseRole.INITIATOR), (Token.ES, NoiseRole.RESPONDER)}
_REMOTE_S: Final = {(Token.SE, NoiseRole.RESPONDER), (Token.ES, NoiseRole.INITIATOR)}
"""`se` is the initiator's static key with the responder's ephemeral one, `es` the other way round."""

Encapsulate = Callable[[bytes], tuple[bytes, bytes]]


class HandshakeState:
    """One side of one handshake of two messages.

    `s` static, `e` ephemeral; `e1` the initiator's KEM key, `psk` the shared one, where the pattern has them.
    Writing and reading raise LocalMisuseError out of turn, PeerProtocolError for what the peer did; then it
    is dead.
    """

    def __init__(
        self,
        pattern: Pattern,
        role: NoiseRole,
        prologue: bytes,
        s: X25519Private | None,
        e: X25519Private,
        e1: MlKemPrivate | None = None,
        encapsulate: Encapsulate = mlkem_encapsulate,
        psk: bytes | None = None,
    ) -> None:
        self._pattern = pattern
        self._role = role
        self.is_initiator = role is NoiseRole.INITIATOR
        self._s, self._e, self._e1, self._psk = s, e, e1, psk
        self._encapsulate = encapsulate
        self._re1 = b""
        self.re = b""
        self.rs = b""
        self._symmetric = SymmetricState(pattern.protocol_name)
        self._symmetric.mix_hash(prologue)
        self.step = next(iter(STEPS[role]))

    @property
    def h(self) -> bytes:
        """The transcript hash so far; after the last payload it names this handshake (11.2)."""
        return self._symmetric.h

    def write_tokens(self) -> bytes:
        after = self._begin(Step.WRITE_TOKENS)
        written = b""
        for token in self._pattern.messages[_MESSAGE_OF[self._role][Step.WRITE_TOKENS]]:
            written += self._write(token)
        self.step = after
        return written

    def write_payload(self, payload: bytes) -> bytes:
        after = self._begin(Step.WRITE_PAYLOAD)
        sealed = self._symmetric.encrypt_and_hash(payload)
        self.step = after
        return sealed

    def read_tokens(self, message: bytes) -> bytes:
        """Reads the tokens at the message's head; returns the rest, which is the payload, still sealed."""
        after = self._begin(Step.READ_TOKENS)
        for token in self._pattern.messages[_MESSAGE_OF[self._role][Step.READ_TOKENS]]:
            message = self._read(token, message)
        self.step = after
        return message

    def read_payload(self, sealed: bytes) -> bytes:
        after = self._begin(Step.READ_PAYLOAD)
        payload = self._symmetric.decrypt_and_hash(sealed)
        self.step = after
        return payload

    def derived(self, label: bytes) -> tuple[bytes, bytes]:
        """Two secrets of 64 octets that both sides have once all is read and written; before `split`."""
        if self.step is not Step.SPLIT:
            raise LocalMisuseError(f"secrets of a handshake that is at {self.step.value}")
        return self._symmetric.derived(label)

    def split(self) -> tuple[bytes, bytes]:
        """Initiator's sending key, then the responder's; once."""
        self._begin(Step.SPLIT)
        return self._symmetric.split()

    def __repr__(self) -> str:
        return f"<HandshakeState {self._role.value} {self.step.value}: redacted>"

    # A step leaves `step` at OVER until it is done: whatever raises in between leaves a dead machine.

    def _begin(self, step: Step) -> Step:
        """Answers which step comes behind it."""
        if self.step is not step:
            raise LocalMisuseError(f"{step.value} in a handshake that is at {self.step.value}")
        self.step = Step.OVER
        return STEPS[self._role][step]

    def _write(self, token: Token) -> bytes:
        symmetric = self._symmetric
        if token is Token.E:
            self._mix_e(self._e.public)
            return self._e.public
        if token is Token.E1:
            return symmetric.encrypt_and_hash(self._kem().public)
        if token is Token.S:
            return symmetric.encrypt_and_hash(self._static().public)
        if token is Token.EKEM1:
            ciphertext, shared = self._encapsulate(self._re1)
            sealed = symmetric.encrypt_and_hash(ciphertext)
            symmetric.mix_key(shared)
            return sealed
        self._mix_secret(token)
        return b""

    def _read(self, token: Token, message: bytes) -> bytes:
        symmetric = self._symmetric
        if token is Token.E:
            self.re, message = _cut(message, X25519_OCTETS)
            self._mix_e(self.re)
        elif token is Token.E1:
            sealed, message = _cut(message, MLKEM_PUBLIC_OCTETS + symmetric.tag_octets)
            self._re1 = symmetric.decrypt_and_hash(sealed)
        elif token is Token.S:
            sealed, message = _cut(message, X25519_OCTETS + symmetric.tag_octets)
            self.rs = symmetric.decrypt_and_hash(sealed)
        elif token is Token.EKEM1:
            sealed, message = _cut(message, MLKEM_CIPHERTEXT_OCTETS + symmetric.tag_octets)
            symmetric.mix_key(self._kem().decapsulate(symmetric.decrypt_and_hash(sealed)))
        else:
            self._mix_secret(token)
        return message

    def _mix_e(self, public: bytes) -> None:
        """9.2: with a pre-shared key the ephemeral goes into the key, too: no two handshakes share one."""
        self._symmetric.mix_hash(public)
        if self._pattern.has_psk:
            self._symmetric.mix_key(public)

    def _mix_secret(self, token: Token) -> None:
        """9: `psk`; 7.1: `ee`, `es`, `se`: which of the two keys each side uses depends on its role."""
        if token is Token.PSK:
            if self._psk is None:
                raise LocalMisuseError("this pattern needs a pre-shared key")
            self._symmetric.mix_key_and_hash(self._psk)
            return
        ours = self._static() if (token, self._role) in _LOCAL_S else self._e
        theirs = self.rs if (token, self._role) in _REMOTE_S else self.re
        self._symmetric.mix_key(ours.exchange(theirs))

    def _static(self) -> X25519Private:
        if self._s is None:
            raise LocalMisuseError("this pattern needs a static key")
        return self._s

    def _kem(self) -> MlKemPrivate:
        if self._e1 is None:
            raise LocalMisuseError("this pattern needs an ML-KEM key")
        return self._e1


def _cut(message: bytes, octets: int) -> tuple[bytes, bytes]:
    if len(message) < octets:
        raise PeerProtocolError(Reason.BAD_FRAME, "handshake message ends early")
    return message[:octets], message[octets:]
