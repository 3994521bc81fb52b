"""An identity under a passphrase: what `nightmail identity export` writes. Pure.

Argon2id makes a key of the passphrase and a fresh salt, so that no two exports share a key and one fixed
nonce serves; the lines before are authenticated along. Counterparts: `primitives`, `rotation` (the inside).
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

from gateway.crypto.keys import Entropy
from gateway.crypto.primitives import AEAD_NONCE_OCTETS, ARGON2_SALT_OCTETS, Aead, argon2id
from gateway.policy import limits

_FIRST_LINE: Final = "nightmail identity export 1"
_NONCE: Final = bytes(AEAD_NONCE_OCTETS)
_LINE_LETTERS: Final = 76


def sealed(plain: bytes, passphrase: bytes, entropy: Entropy) -> str:
    """The whole file, as text."""
    salt = entropy(ARGON2_SALT_OCTETS)
    passes, octets = limits.EXPORT_KDF_PASSES, limits.EXPORT_KDF_OCTETS
    head = f"{_FIRST_LINE}\nargon2id {passes} {octets} {salt.hex()}\n"
    body = Aead(argon2id(passphrase, salt, passes, octets)).seal(_NONCE, plain, head.encode())
    text = base64.b64encode(body).decode()
    lines = [text[at : at + _LINE_LETTERS] for at in range(0, len(text), _LINE_LETTERS)]
    return head + "\n".join(lines) + "\n"


def is_export(text: str) -> bool:
    """Whether it says that it is one, of whatever version."""
    return text.startswith(_FIRST_LINE.rsplit(" ", 1)[0] + " ")


def opened(text: str, passphrase: bytes) -> bytes | None:
    """What is inside; None if it is not such a file. Raises CryptoRefusedError (BAD_TAG) if the passphrase is
    another one, or an octet has changed."""
    lines = text.splitlines()
    if len(lines) < 3 or lines[0] != _FIRST_LINE:
        return None
    try:
        name, passes, octets, salt = lines[1].split(" ")
        body = base64.b64decode("".join(lines[2:]), validate=True)
        numbers = int(passes), int(octets)
        grains = bytes.fromhex(salt)
    except (ValueError, binascii.Error):
        return None
    if name != "argon2id" or len(grains) != ARGON2_SALT_OCTETS or not _is_sane(*numbers):
        return None
    head = "\n".join(lines[:2]) + "\n"
    return Aead(argon2id(passphrase, grains, *numbers)).open(_NONCE, body, head.encode())


def _is_sane(passes: int, octets: int) -> bool:
    """Argon2id takes at least 8 KiB; what is above ours comes from a file that means no good."""
    return 1 <= passes <= limits.EXPORT_KDF_MOST_PASSES and 1 << 13 <= octets <= limits.EXPORT_KDF_MOST_OCTETS
