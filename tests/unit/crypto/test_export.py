"""An identity under a passphrase: there and back, and nothing else."""

from __future__ import annotations

import contextlib

import nacl.bindings
import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from gateway.crypto.export import is_export, opened, sealed
from gateway.crypto.primitives import argon2id
from gateway.errors import CryptoRefusedError, Reason
from gateway.policy import limits
from tests.unit.crypto.pairs import octets

PLAIN = b"seed 00\nsince 0"
PHRASE = "zw\u00f6lf Buchstaben".encode()


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least that Argon2id takes, whatever is asked for, which counts all the same; the real figures are
    tried once below."""
    honest = nacl.bindings.crypto_pwhash_alg

    def least(size: int, phrase: bytes, salt: bytes, passes: int, octets: int, alg: int) -> bytes:
        return honest(size, phrase + b" %d %d" % (passes, octets), salt, 1, 8192, alg)

    monkeypatch.setattr(nacl.bindings, "crypto_pwhash_alg", least)


def draw(count: int) -> bytes:
    return octets("salt", count)


def test_there_and_back() -> None:
    text = sealed(PLAIN, PHRASE, draw)
    assert is_export(text)
    assert opened(text, PHRASE) == PLAIN
    assert all(len(line) < 80 for line in text.splitlines())
    assert text.isascii()


def test_two_exports_have_nothing_in_common() -> None:
    one, other = sealed(PLAIN, PHRASE, draw), sealed(PLAIN, PHRASE, lambda count: octets("other", count))
    assert one.splitlines()[2:] != other.splitlines()[2:]


@pytest.mark.parametrize("phrase", [b"", PHRASE[:-1], PHRASE + b" ", PHRASE.upper()])
def test_another_passphrase(phrase: bytes) -> None:
    with pytest.raises(CryptoRefusedError) as caught:
        opened(sealed(PLAIN, PHRASE, draw), phrase)
    assert caught.value.reason is Reason.BAD_TAG


def test_every_letter_counts() -> None:
    """Changed anywhere it is refused, or is no such file; never another identity."""
    text = sealed(PLAIN, PHRASE, draw).rstrip("\n")
    for index, letter in enumerate(text):
        changed = text[:index] + ("1" if letter != "1" else "2") + text[index + 1 :]
        with contextlib.suppress(CryptoRefusedError):
            # PLAIN: base64's last letter has spare bits that nobody reads.
            assert opened(changed, PHRASE) in ((None, PLAIN) if index == len(text) - 3 else (None,))


HEAD = "nightmail export".replace("export", "identity export 1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEAD,
        f"{HEAD}\nargon2id 1 8192 {'0' * 32}",
        f"{HEAD}\nargon2id 1 8192 {'0' * 30}\nAAAA",
        f"{HEAD}\nargon2i 1 8192 {'0' * 32}\nAAAA",
        f"{HEAD}\nargon2id 0 8192 {'0' * 32}\nAAAA",
        f"{HEAD}\nargon2id {limits.EXPORT_KDF_MOST_PASSES + 1} 8192 {'0' * 32}\nAAAA",
        f"{HEAD}\nargon2id 1 {limits.EXPORT_KDF_MOST_OCTETS + 1} {'0' * 32}\nAAAA",
        f"{HEAD}\nargon2id 1 8191 {'0' * 32}\nAAAA",
        f"{HEAD}\nargon2id 1 8192 {'0' * 32}\nA*AA",
        f"{HEAD}\nargon2id one 8192 {'0' * 32}\nAAAA",
        "nightmail identity export 2\nargon2id 1 8192 0\nAAAA",
    ],
)
def test_what_is_no_export(text: str) -> None:
    assert opened(text, PHRASE) is None


def test_a_version_to_come_is_known_as_one() -> None:
    assert is_export("nightmail identity export 2\n")
    assert not is_export("nightmail identity 1\n")


def test_the_real_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    text = sealed(PLAIN, PHRASE, draw)
    assert text.splitlines()[1].split()[:3] == ["argon2id", "3", str(256 * 1024 * 1024)]
    assert opened(text, PHRASE) == PLAIN


def test_argon2id_is_the_one_of_rfc_9106(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against another library's; one lane, as libsodium has it. Memory is counted in KiB there."""
    monkeypatch.undo()
    salt = b"somesaltsomesalt"
    for passes, mebibytes in ((1, 8), (2, 8), (3, 16)):
        other = Argon2id(salt=salt, length=32, iterations=passes, lanes=1, memory_cost=mebibytes * 1024)
        assert argon2id(PHRASE, salt, passes, mebibytes * 1024 * 1024) == other.derive(PHRASE)
