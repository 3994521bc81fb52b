"""Records between two gateways in memory: there and back, too late, too early, and under which keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto import primitives
from gateway.crypto.frames import FrameKind, FrameReader, frame
from gateway.crypto.handshake import OfferForm
from gateway.crypto.keys import IdentityPublic
from gateway.crypto.noise import CipherState
from gateway.crypto.records import (
    INNER_HEADER_OCTETS,
    RECORD_OVERHEAD_OCTETS,
    Direction,
    Record,
    RecordLayer,
    RecordType,
    VerifiedPeer,
)
from gateway.errors import LocalMisuseError, Reason
from gateway.policy.limits import RECORD_CONTENT_OCTETS, RECORD_SEND_OCTETS, REKEY_AFTER_RECORDS
from tests.unit.crypto.opening import opened, refused
from tests.unit.crypto.pairs import R_IDENTITY, S_IDENTITY, TODAY, handshaken, layers, octets

# --- There and back ------------------------------------------------------------------------------------

SENT = [
    (RecordType.PAD, b""),
    (RecordType.DATA, b"MAIL FROM:<a@a.example>\r\n"),
    (RecordType.DATA, b""),
    (RecordType.DATA, octets("largest", RECORD_CONTENT_OCTETS)),
    (RecordType.PARAMS, b"\x02\0\x01\x01"),
    (RecordType.STATEMENT, octets("statement", 196)),
    (RecordType.CLOSE, b""),
]


@pytest.mark.parametrize("form", OfferForm, ids=lambda form: str(form.value))
@pytest.mark.parametrize("from_s", [True, False])
def test_every_kind_in_both_directions(form: OfferForm, from_s: bool) -> None:
    r, s = layers(form)
    one, other = (s, r) if from_s else (r, s)
    wire = b"".join(one.seal(kind, content) for kind, content in SENT)
    assert opened(other, wire) == [Record(kind, content) for kind, content in SENT]


@settings(max_examples=60)
@given(
    st.sampled_from([0, 1, 100, 16383, 16384, 16385, 32768, 65536, 70000]),
    st.one_of(st.just(0), st.integers(22, 800), st.integers(45_000, 150_000)),
)
def test_data_of_any_size_arrives_and_its_padding_is_exact(size: int, pad: int) -> None:
    r, s = layers(OfferForm.SHORT)
    data = octets("data", size)
    plain, padded = len(layers(OfferForm.SHORT)[1].seal_data(data)), s.seal_data(data, pad)
    assert len(padded) == plain + pad
    records = opened(r, padded)
    assert {record.kind for record in records} <= {RecordType.DATA, RecordType.PAD}
    assert b"".join(record.content for record in records) == data


@given(st.integers(1, 21))
def test_small_paddings_fit_behind_content(pad: int) -> None:
    _, s = layers(OfferForm.SHORT)
    assert len(s.seal_data(bytes(16384), pad)) == 16384 + RECORD_OVERHEAD_OCTETS + pad
    assert len(s.seal_pad(pad)) == RECORD_OVERHEAD_OCTETS


@settings(max_examples=40)
@given(st.integers(22, 400_000))
def test_pad_records_have_exactly_the_size_asked_for(size: int) -> None:
    r, s = layers(OfferForm.SHORT)
    wire = s.seal_pad(size)
    assert len(wire) == size
    assert {record.kind for record in opened(r, wire)} == {RecordType.PAD}


def test_nothing_is_nothing() -> None:
    _, s = layers()
    assert s.seal_data(b"") == b""
    assert s._sending.n == 0


def test_inner_padding_is_seen_in_the_size_alone() -> None:
    r, s = layers()
    plain, padded = s.seal(RecordType.DATA, b"words"), s.seal(RecordType.DATA, b"words", inner_pad=300)
    assert len(padded) == len(plain) + 300
    assert opened(r, plain + padded) == [Record(RecordType.DATA, b"words")] * 2


def test_full_records_carry_what_limits_say() -> None:
    _, s = layers()
    frames = FrameReader().feed(s.seal_data(bytes(3 * RECORD_SEND_OCTETS + 1)))
    assert [len(each.body) for each in frames] == [RECORD_SEND_OCTETS + 19] * 3 + [20]


def test_equal_contents_look_different() -> None:
    _, s = layers()
    assert s.seal(RecordType.DATA, b"same") != s.seal(RecordType.DATA, b"same")
    frames = FrameReader().feed(s.seal_data(bytes(2 * RECORD_SEND_OCTETS)))
    assert frames[0].body != frames[1].body


# --- The peer proves itself ----------------------------------------------------------------------------


def test_no_peer_before_its_first_record() -> None:
    r, s = layers()
    for layer in (r, s):
        with pytest.raises(LocalMisuseError):
            layer.peer()
    opened(s, r.seal(RecordType.PARAMS))
    peer = s.peer()
    assert (peer.identity, peer.epoch, peer.form) == (R_IDENTITY.public, TODAY, OfferForm.FULL)
    opened(r, s.seal(RecordType.PAD))
    assert r.peer().identity == S_IDENTITY.public


def test_a_record_that_fails_proves_nobody() -> None:
    r, s = layers()
    body = bytearray(FrameReader().feed(r.seal(RecordType.PARAMS))[0].body)
    body[0] ^= 1
    refused(s, bytes(body))
    with pytest.raises(LocalMisuseError):
        s.peer()


def test_verified_peers_are_made_by_record_layers_alone() -> None:
    with pytest.raises(LocalMisuseError):
        VerifiedPeer(IdentityPublic(R_IDENTITY.public.octets), 1, OfferForm.FULL, 0, object())


def test_a_result_makes_one_layer() -> None:
    result = handshaken().at_sending
    RecordLayer(result)
    with pytest.raises(LocalMisuseError):
        RecordLayer(result)


# --- The end of a direction ----------------------------------------------------------------------------


@pytest.mark.parametrize("last", [RecordType.CLOSE, RecordType.RESET])
@pytest.mark.parametrize("late", [RecordType.DATA, RecordType.PAD, RecordType.CLOSE, RecordType.IGNORABLE])
def test_nothing_comes_after_the_last_record(last: RecordType, late: RecordType) -> None:
    r, s = layers(OfferForm.SHORT)
    opened(r, s.seal(last))
    assert r.receives is Direction.CLOSED
    s.sends = Direction.RUNNING  # a peer that does not keep to it
    body = FrameReader().feed(s.seal(late))[0].body
    assert refused(r, body) is Reason.OCTETS_AFTER_CLOSE
    with pytest.raises(LocalMisuseError):
        r.open(body)


@pytest.mark.parametrize("last", [RecordType.CLOSE, RecordType.RESET])
def test_we_send_nothing_after_the_last_record(last: RecordType) -> None:
    _, s = layers(OfferForm.SHORT)
    s.seal(last)
    sends: tuple[Callable[[], bytes], ...] = (
        lambda: s.seal(RecordType.DATA, b"late"),
        lambda: s.seal(RecordType.CLOSE),
        lambda: s.seal_data(bytes(RECORD_SEND_OCTETS)),
        lambda: s.seal_data(b"late"),
        lambda: s.seal_pad(100),
        lambda: s.seal(RecordType.IGNORABLE),
    )
    for send in sends:
        with pytest.raises(LocalMisuseError):
            send()


def test_the_two_directions_end_alone() -> None:
    r, s = layers()
    opened(r, s.seal(RecordType.CLOSE))
    assert opened(s, r.seal(RecordType.DATA, b"250 2.0.0 Ok\r\n"))[0].content == b"250 2.0.0 Ok\r\n"


# --- Our own mistakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "content", "pad"),
    [
        (RecordType.OPEN, b"", 0),
        (RecordType.END, b"", 0),
        (RecordType.PAD, b"a", 0),
        (RecordType.CLOSE, b"a", 0),
        (RecordType.DATA, bytes(RECORD_CONTENT_OCTETS + 1), 0),
        (RecordType.DATA, b"a", RECORD_CONTENT_OCTETS),
        (RecordType.DATA, b"a", -1),
    ],
)
def test_records_that_we_do_not_make(kind: RecordType, content: bytes, pad: int) -> None:
    _, s = layers(OfferForm.SHORT)
    with pytest.raises(LocalMisuseError):
        s.seal(kind, content, pad)
    assert s._sending.n == 0
    assert s.sends is Direction.RUNNING


# --- Keys and nonces -----------------------------------------------------------------------------------


@pytest.fixture
def sealed_under(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bytes, bytes]]]:
    """Key and nonce of every seal there is."""
    seen: list[tuple[bytes, bytes]] = []

    class Watched:
        """The library's cipher: all that seals goes through it."""

        def __init__(self, key: bytes) -> None:
            self._key, self._cipher = key, ChaCha20Poly1305(key)
            self.decrypt, self.decrypt_into = self._cipher.decrypt, self._cipher.decrypt_into

        def encrypt(self, nonce: bytes, *rest: Any) -> bytes:
            seen.append((self._key, nonce))
            return self._cipher.encrypt(nonce, *rest)

        def encrypt_into(self, nonce: bytes, *rest: Any) -> int:
            seen.append((self._key, nonce))
            return self._cipher.encrypt_into(nonce, *rest)

    monkeypatch.setattr(primitives, "ChaCha20Poly1305", Watched)
    yield seen
    assert seen


def test_no_nonce_serves_twice_under_one_key(sealed_under: list[tuple[bytes, bytes]]) -> None:
    """Handshake, both directions, small and full records, and over the change of keys."""
    r, s = layers()
    for layer in (r, s):
        for _ in range(REKEY_AFTER_RECORDS // 2):
            layer.seal(RecordType.DATA, b"a")
            layer.seal_data(b"b")
        layer.seal_data(bytes(5 * RECORD_SEND_OCTETS + 3), pad=70_000)
        layer.seal(RecordType.IGNORABLE)
        layer.seal_pad(200)
        layer.seal(RecordType.CLOSE)
    assert len(sealed_under) > 2 * REKEY_AFTER_RECORDS
    assert len(set(sealed_under)) == len(sealed_under)


def _at(layer: RecordLayer, count: int) -> None:
    layer._sending.n = layer._receiving.n = count


def test_keys_change_after_so_many_records_and_the_counter_runs_on() -> None:
    r, s = layers(OfferForm.SHORT)
    key_before = s._sending._aead
    for _ in range(REKEY_AFTER_RECORDS - 1):
        s.seal(RecordType.PAD)
    assert s._sending._aead is key_before
    s.seal(RecordType.PAD)
    assert s._sending._aead is not key_before
    assert s._sending.n == REKEY_AFTER_RECORDS
    expected = CipherState(bytes(32))
    expected._aead, expected.n = key_before, REKEY_AFTER_RECORDS
    expected.rekey()
    header = bytes((FrameKind.RECORD, 0, 20))
    assert s.seal(RecordType.DATA, b"a") == header + expected.encrypt_with_ad(header, b"\x01\0\x01a")
    assert r._receiving.n == 0


@pytest.mark.parametrize("before", range(6))
def test_both_sides_change_keys_at_the_same_record(before: int) -> None:
    """Also in the middle of one write of full records."""
    r, s = layers(OfferForm.SHORT)
    _at(r, REKEY_AFTER_RECORDS - before)
    _at(s, REKEY_AFTER_RECORDS - before)
    data = octets("bulk", 4 * RECORD_SEND_OCTETS + 5)
    assert b"".join(record.content for record in opened(r, s.seal_data(data))) == data
    assert opened(s, r.seal(RecordType.DATA, b"250 Ok"))[0].content == b"250 Ok"


def test_a_peer_that_forgets_to_change_keys_is_not_understood() -> None:
    r, s = layers(OfferForm.SHORT)
    _at(r, REKEY_AFTER_RECORDS - 1)
    _at(s, REKEY_AFTER_RECORDS - 1)
    old = s._sending._aead
    opened(r, s.seal(RecordType.DATA, b"one"))
    s._sending._aead = old
    assert refused(r, FrameReader().feed(s.seal(RecordType.DATA, b"two"))[0].body) is Reason.BAD_TAG


def test_associated_data_is_the_frame_header() -> None:
    r, s = layers(OfferForm.SHORT)
    inner = b"\x01\0\x01a"
    assert refused(r, s._sending.encrypt_with_ad(b"", inner)) is Reason.BAD_TAG
    assert frame(FrameKind.RECORD, bytes(INNER_HEADER_OCTETS + 16))[:3] == b"\x82\0\x13"


def test_layers_print_redacted() -> None:
    assert "redacted" in repr(layers()[0])
