"""Checks of primitives, keys and the handshake. Counterparts: gateway/crypto/, docs/protocol.md section 4."""

from __future__ import annotations

from typing import Final

from tests.mutants.mutant import Edit, Mutant, Room, mutants_of

_primitives = Room("gateway/crypto/primitives.py")
_primitives.lacks(
    "X25519 keys of small order are refused",
    """        except nacl.exceptions.RuntimeError as error:
            raise CryptoRefusedError(Reason.BAD_KEY, "X25519 public key of small order") from error
""",
    """        except nacl.exceptions.RuntimeError:
            return bytes(X25519_OCTETS)
""",
)
_primitives.lacks(
    "an all-zero X25519 result is refused",
    "        if constant_time_equal(shared, bytes(X25519_OCTETS)):",
    "        if False:",
)
_primitives.lacks(
    "an identity has one encoding only", "    if y >= _ED25519_PRIME:", "    if y >= _ED25519_PRIME * 2:"
)
_primitives.lacks(
    "an identity of small order is refused", "    if y in _SMALL_ORDER_Y:", "    if y in frozenset():"
)
_primitives.lacks(
    "a signature is verified",
    '        raise CryptoRefusedError(Reason.BAD_SIGNATURE, "signature does not verify") from error',
    "        del error",
)
_primitives.lacks(
    "an ML-KEM key that FIPS 203 refuses is refused",
    '        raise CryptoRefusedError(Reason.BAD_KEY, "ML-KEM public key refused") from error',
    "        del error\n        shared, ciphertext = bytes(32), bytes(MLKEM_CIPHERTEXT_OCTETS)",
)
_primitives.lacks(
    "the tag of a handshake field is verified",
    """            return self._cipher.decrypt(nonce, sealed, associated)
        except InvalidTag as error:
            raise CryptoRefusedError(Reason.BAD_TAG, "tag does not verify") from error
""",
    """            return self._cipher.decrypt(nonce, sealed, associated)
        except InvalidTag:
            return bytes(sealed[:-AEAD_TAG_OCTETS])
""",
)
_primitives.lacks(
    "the tag of a record is verified",
    """            out[:] = bytes(len(out))
            raise CryptoRefusedError(Reason.BAD_TAG, "tag does not verify") from error
""",
    "            del error\n",
)
_primitives.lacks(
    "the buffer of a failed record is wiped", "            out[:] = bytes(len(out))\n", "            pass\n"
)
_primitives.lacks(
    "secrets are compared in constant time",
    "    return hmac.compare_digest(one, other)",
    "    return one == other",
)
_primitives.lacks(
    "secrets print redacted",
    '        return f"<{type(self).__name__}: redacted>"',
    '        return f"<{type(self).__name__}: {[getattr(self, name) for name in self.__slots__]}>"',
)
_primitives.lacks(
    "secrets are not serialised",
    '        raise LocalMisuseError(f"{type(self).__name__} must not be serialised")',
    "        return super().__reduce__()",
)

_keys = Room("gateway/crypto/keys.py")
_DATES = "    if not_after > epoch + ENDORSEMENT_DAYS or not epoch - 1 <= today <= not_after:"
_keys.lacks("an endorsement lasts 14 days at most", _DATES, "    if not epoch - 1 <= today <= not_after:")
_keys.lacks(
    "an endorsement that has ended is refused",
    _DATES,
    "    if not_after > epoch + ENDORSEMENT_DAYS or not epoch - 1 <= today:",
)
_keys.lacks(
    "an endorsement that has not begun is refused",
    _DATES,
    "    if not_after > epoch + ENDORSEMENT_DAYS or today > not_after:",
)
_keys.lacks(
    "the endorsement's signature is verified",
    "    identity.verify(Label.STATIC, body, endorsement)\n",
    "",
)
_keys.lacks(
    "the endorsement covers its dates",
    '    return static + epoch.to_bytes(4, "big") + not_after.to_bytes(4, "big")',
    "    return static",
)
_keys.lacks(
    "the endorsement covers the static key",
    '    return static + epoch.to_bytes(4, "big") + not_after.to_bytes(4, "big")',
    '    return epoch.to_bytes(4, "big") + not_after.to_bytes(4, "big")',
)
_keys.lacks(
    "a remembered endorsement is that of the same key and identity",
    "    whole = identity.octets + body + endorsement",
    "    whole = endorsement",
)
_keys.lacks(
    "only a verified endorsement is remembered",
    """    identity.verify(Label.STATIC, body, endorsement)
    if cache is not None:
        cache.remember(whole)
""",
    """    if cache is not None:
        cache.remember(whole)
    identity.verify(Label.STATIC, body, endorsement)
""",
)
_keys.lacks(
    "signatures are told apart by labels",
    '    STATIC = b"nightmail static\\0"',
    '    STATIC = b"nightmail offer\\0"',
)
_keys.lacks(
    "ephemerals serve once",
    "        pair, self._pair = self._pair, None\n        return pair",
    "        return self._pair",
)
_keys.lacks(
    "an old static key is not endorsed anew",
    "    if not today - 1 <= static.epoch <= today:",
    "    if False:",
)
_keys.lacks(
    "an identity is checked where it is read",
    "        ed25519_check_public(self.octets)",
    "        len(self.octets)",
)

_handshake = Room("gateway/crypto/handshake.py")
_handshake.lacks(
    "the offer's signature is verified",
    '        identity.verify(Label.OFFER, signed, values["signature"])\n',
    "",
)
_SIGNED = 'OFFER_SIGNED.encode({"hash": noise.h, **self._values})'
_VERIFIED = 'OFFER_PAYLOAD.octets_before("signature")'
_handshake.lacks(
    "the offer's signature covers the epoch",
    _SIGNED,
    f"{_SIGNED}[:-6]",
    _VERIFIED,
    'OFFER_PAYLOAD.octets_before("epoch")',
)
_handshake.lacks(
    "the offer's signature covers the flags",
    _SIGNED,
    f"{_SIGNED}[:-2]",
    _VERIFIED,
    'OFFER_PAYLOAD.octets_before("flags")',
)
_handshake.lacks(
    "the offer's signature covers the transcript",
    _SIGNED,
    'OFFER_SIGNED.encode({"hash": bytes(64), **self._values})',
    '        signed = signed_hash + payload[: OFFER_PAYLOAD.octets_before("signature")]',
    '        signed = bytes(64) + payload[: OFFER_PAYLOAD.octets_before("signature")]',
)
_handshake.lacks(
    "S refuses its own identity", "        if identity == self._endorsed.identity:", "        if False:"
)
_handshake.lacks("R refuses its own identity", "        if identity == self._identity:", "        if False:")
_handshake.lacks(
    "message 2 has the length of its offer",
    "        if len(message) != self._form.answer_octets:",
    "        if False:",
)
_handshake.lacks(
    "unusable keys are found before the verb",
    "        self._tokens = noise.write_tokens()\n",
    "",
    "        message = self._tokens + noise.write_payload(payload)",
    "        message = noise.write_tokens() + noise.write_payload(payload)",
)
_handshake.lacks(
    "only a handshake makes a result", "        if proof is not _PROOF:", "        if proof is None:"
)
_handshake.lacks(
    "traffic keys are taken once",
    "        pair, self._pair = self._pair, None\n        return pair",
    "        return self._pair",
)
_handshake.lacks(
    "R checks the endorsement",
    "        check_endorsement(identity, noise.rs, ",
    "        len((noise.rs, ",
    "endorsement, today, self._endorsements)",
    "endorsement, today, self._endorsements))",
)

_noise = Room("gateway/crypto/noise.py")
_FULL = "        (Token.E, Token.EE, Token.EKEM1, Token.SE, Token.S, Token.ES),"
_noise.lacks("the prologue is in the transcript", "        self._symmetric.mix_hash(prologue)\n", "")
_noise.lacks(
    "fields are bound to the transcript",
    "self._cipher.encrypt_with_ad(self.h, plaintext)",
    'self._cipher.encrypt_with_ad(b"", plaintext)',
    "self._cipher.decrypt_with_ad(self.h, ciphertext)",
    'self._cipher.decrypt_with_ad(b"", ciphertext)',
)
_noise.lacks(
    "e1 is in the transcript",
    "            return symmetric.encrypt_and_hash(self._kem().public)",
    "            return self._kem().public",
    "            self._re1 = symmetric.decrypt_and_hash(sealed)",
    "            self._re1 = sealed",
)
_noise.lacks("ee is exchanged", _FULL, _FULL.replace("Token.EE, ", ""))
_noise.lacks("se is exchanged", _FULL, _FULL.replace("Token.SE, ", ""))
_noise.lacks("es is exchanged", _FULL, _FULL.replace(", Token.ES", ""))
_noise.lacks(
    "the ML-KEM secret is in the keys",
    "            symmetric.mix_key(shared)\n",
    "",
    "            symmetric.mix_key(self._kem().decapsulate(symmetric.decrypt_and_hash(sealed)))",
    "            self._kem().decapsulate(symmetric.decrypt_and_hash(sealed))",
)
_noise.lacks(
    "a handshake that raised is dead",
    "        self.step = Step.OVER\n        return",
    "        return",
)
_noise.lacks(
    "no nonce serves twice",
    "        sealed = self._aead.seal(_NONCE.pack(0, self.n), plaintext, ad)\n        self.n += 1\n",
    "        sealed = self._aead.seal(_NONCE.pack(0, self.n), plaintext, ad)\n",
    "        self._aead.open_into(_NONCE.pack(0, self.n), ciphertext, ad, out)\n        self.n += 1\n",
    "        self._aead.open_into(_NONCE.pack(0, self.n), ciphertext, ad, out)\n",
)
_noise.lacks(
    "each direction has its own key",
    "        return one[:AEAD_KEY_OCTETS], two[:AEAD_KEY_OCTETS]",
    "        return one[:AEAD_KEY_OCTETS], one[:AEAD_KEY_OCTETS]",
)
_noise.lacks(
    "REKEY gives another key",
    '        self._aead = Aead(self._aead.seal(_REKEY_NONCE, bytes(AEAD_KEY_OCTETS), b"")[:AEAD_KEY_OCTETS])',
    "        self._aead = self._aead",
)

_statement = Room("gateway/crypto/statement.py")
_statement.lacks(
    "a statement is signed by the old identity",
    '    old.verify(Label.STATEMENT_OLD, signed, values["by_old"])\n',
    "",
)
_statement.lacks(
    "a statement is signed by the new identity",
    '    new.verify(Label.STATEMENT_NEW, signed, values["by_new"])\n',
    "",
)
_statement.lacks("a statement leads somewhere", "    if old == new:", "    if False:")

_ONE_ANSWER: Final = Mutant(
    "an offer takes one answer",
    (
        Edit(
            "gateway/crypto/handshake.py",
            "        noise, self._noise, self.state = self._noise, None, ReceivingState.OVER",
            "        noise = self._noise",
        ),
        Edit("gateway/crypto/noise.py", "        if self.step is not step:", "        if False:"),
    ),
)
"""Two guards stand one behind the other; each alone is enough."""

CRYPTO: Final[tuple[Mutant, ...]] = (
    *mutants_of(_primitives, _keys, _handshake, _noise, _statement),
    _ONE_ANSWER,
)
