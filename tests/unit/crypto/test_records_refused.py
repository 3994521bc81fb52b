"""Records that are tampered with, out of order, another channel's, or nonsense under the right key."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto import primitives
from gateway.crypto.frames import FrameKind, FrameReader
from gateway.crypto.handshake import OfferForm
from gateway.crypto.records import (
    Direction,
    Record,
    RecordLayer,
    RecordType,
)
from gateway.errors import LocalMisuseError, PeerProtocolError, Reason
from tests.unit.crypto.opening import opened, refused
from tests.unit.crypto.pairs import layers


def _sealed_inner(layer: RecordLayer, inner: bytes) -> bytes:
    """A frame body with any inner plaintext, under the right key: what a peer gone mad would send."""
    header = bytes((FrameKind.RECORD,)) + (len(inner) + 16).to_bytes(2, "big")
    return layer._sending.encrypt_with_ad(header, inner)


# --- Tampering -----------------------------------------------------------------------------------------


def test_every_octet_of_a_record_is_protected() -> None:
    """Header included: a length that grew swallows what follows, and then fails."""
    _, s = layers(OfferForm.SHORT)
    wire = s.seal(RecordType.DATA, b"DATA\r\n", inner_pad=9)
    following = s.seal(RecordType.DATA, bytes(600))
    for index in range(len(wire)):
        changed = bytearray(wire + following)
        changed[index] ^= 1
        r, _ = layers(OfferForm.SHORT)
        with pytest.raises(PeerProtocolError):
            r.open(FrameReader().feed(bytes(changed))[0].body)
        assert r.receives in (Direction.RUNNING, Direction.DEAD)
        assert r._receiving.n == 0


def test_a_length_that_grew_waits_and_then_fails() -> None:
    r, s = layers()
    wire = bytearray(s.seal(RecordType.DATA, b"one") + s.seal(RecordType.DATA, b"two"))
    wire[2] += 1
    frame_read = FrameReader().feed(bytes(wire[: wire[2] + 3]))[0]
    assert refused(r, frame_read.body) is Reason.BAD_TAG


def test_every_cut_of_a_record_isrefused() -> None:
    body = FrameReader().feed(layers()[1].seal(RecordType.DATA, b"DATA\r\n"))[0].body
    for length in range(len(body)):
        assert refused(layers()[0], body[:length]) in (Reason.BAD_TAG, Reason.BAD_RECORD)


@pytest.mark.parametrize("order", [order for order in itertools.permutations(range(3)) if order != (0, 1, 2)])
def test_order_is_protected(order: tuple[int, ...]) -> None:
    r, s = layers(OfferForm.SHORT)
    bodies = [FrameReader().feed(s.seal(RecordType.DATA, b"same"))[0].body for _ in range(3)]
    with pytest.raises(PeerProtocolError) as caught:
        for index in order:
            r.open(bodies[index])
    assert caught.value.reason is Reason.BAD_TAG


def test_replay_drop_and_reflection() -> None:
    for attack in ("replay", "drop", "reflect"):
        r, s = layers(OfferForm.SHORT)
        bodies = [FrameReader().feed(s.seal(RecordType.DATA, b"words"))[0].body for _ in range(2)]
        if attack == "reflect":
            assert refused(s, bodies[0]) is Reason.BAD_TAG
            continue
        if attack == "replay":
            r.open(bodies[0])
            assert refused(r, bodies[0]) is Reason.BAD_TAG
        else:
            assert refused(r, bodies[1]) is Reason.BAD_TAG


def test_a_record_of_another_channel() -> None:
    r, _ = layers(OfferForm.SHORT)
    _, s = layers(OfferForm.FULL)
    assert refused(r, FrameReader().feed(s.seal(RecordType.DATA, b"words"))[0].body) is Reason.BAD_TAG


def _tampered(s: RecordLayer) -> bytes:
    body = bytearray(FrameReader().feed(s.seal(RecordType.DATA, b"RCPT TO:<b@b.example>"))[0].body)
    body[-1] ^= 1
    return bytes(body)


def _of_no_type(s: RecordLayer) -> bytes:
    return _sealed_inner(s, b"\x09\0\x05words")


@pytest.mark.parametrize(
    ("made", "reason"),
    [(_tampered, Reason.BAD_TAG), (_of_no_type, Reason.BAD_RECORD)],
    ids=["tampered", "of no type"],
)
def test_plaintext_of_a_failed_record_is_wiped(
    made: Callable[[RecordLayer], bytes], reason: Reason, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffers: list[bytearray] = []

    class Watched:
        """The library's cipher, which leaves what it has decrypted behind."""

        def __init__(self, key: bytes) -> None:
            self._cipher = ChaCha20Poly1305(key)
            self.encrypt, self.encrypt_into = self._cipher.encrypt, self._cipher.encrypt_into
            self.decrypt = self._cipher.decrypt

        def decrypt_into(self, nonce: bytes, data: bytes, ad: bytes, out: bytearray) -> int:
            buffers.append(out)
            return self._cipher.decrypt_into(nonce, data, ad, out)

    monkeypatch.setattr(primitives, "ChaCha20Poly1305", Watched)
    r, s = layers()
    assert refused(r, made(s)) is reason
    assert buffers
    assert [any(buffer) for buffer in buffers] == [False]


def test_a_layer_that_failed_is_dead_in_that_direction() -> None:
    r, s = layers()
    good = FrameReader().feed(s.seal(RecordType.DATA, b"words"))[0].body
    refused(r, bytes(len(good)))
    assert r.receives is Direction.DEAD
    with pytest.raises(LocalMisuseError):
        r.open(good)


# --- What a verified record may not hold ---------------------------------------------------------------


@pytest.mark.parametrize("octet", [6, 7, *range(8, 0x40)])
def test_reserved_and_unknown_types_are_errors(octet: int) -> None:
    r, s = layers(OfferForm.SHORT)
    assert refused(r, _sealed_inner(s, bytes((octet, 0, 0)))) is Reason.BAD_RECORD
    assert r.receives is Direction.DEAD


@pytest.mark.parametrize("octet", [0x40, 0x41, 0x7F, 0x80, 0xFF])
def test_ignorable_types_are_ignored(octet: int) -> None:
    r, s = layers(OfferForm.SHORT)
    wire = s._seal(octet, b"something new", 0) + s.seal(RecordType.DATA, b"words")
    assert opened(r, wire) == [Record(RecordType.IGNORABLE, b""), Record(RecordType.DATA, b"words")]


@pytest.mark.parametrize(
    "inner",
    [
        b"\x01\0\x04abc",
        b"\x01\xff\xff",
        b"\x01\0\x01a\0\0\x01\0",
        b"\x01\0\0" + bytes(500) + b"\x80",
        b"\0\0\x01a",
        b"\x02\0\x01a",
        b"\x03\0\x01a",
        b"\x40\0\x09abc",
    ],
    ids=["short", "far too short", "padding", "last of padding", "PAD", "CLOSE", "RESET", "ignorable"],
)
def test_nonsense_under_the_right_key_is_an_error(inner: bytes) -> None:
    r, s = layers(OfferForm.SHORT)
    assert refused(r, _sealed_inner(s, inner)) is Reason.BAD_RECORD


@pytest.mark.parametrize("inner", [b"", b"\x01", b"\x01\0"])
def test_records_without_room_for_a_header(inner: bytes) -> None:
    r, s = layers(OfferForm.SHORT)
    assert refused(r, _sealed_inner(s, inner)) is Reason.BAD_RECORD


@given(st.binary(max_size=200))
@settings(max_examples=40)
def test_random_bodies_never_open(body: bytes) -> None:
    r, _ = layers(OfferForm.SHORT)
    assert refused(r, body) in (Reason.BAD_TAG, Reason.BAD_RECORD)
