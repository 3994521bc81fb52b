"""The gateway against a second implementation of the same text, each in both roles."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gateway.crypto.frames import FrameReader
from gateway.crypto.handshake import HandshakeResult, OfferForm
from gateway.crypto.records import RecordLayer, RecordType
from tests.unit.crypto.oracle import Gateway, Stream
from tests.unit.crypto.pairs import (
    DIALLED,
    EHLO,
    GREETING,
    R_IDENTITY,
    REPLY,
    S_IDENTITY,
    TODAY,
    octets,
    receiving,
    sending,
)

each_form = pytest.mark.parametrize("form", OfferForm, ids=lambda form: str(form.value))
SEEN = GREETING + REPLY
PROLOGUE = b"Nightmail 1\0" + len(SEEN).to_bytes(4, "big") + SEEN + len(EHLO).to_bytes(4, "big") + EHLO


def _oracle() -> Gateway:
    identity = Ed25519PrivateKey.from_private_bytes(octets("identity of the oracle", 32))
    return Gateway(identity, X25519PrivateKey.generate(), TODAY)


def _they_talk(result: HandshakeResult, ours: Stream, theirs: Stream) -> None:
    """`ours` and `theirs` are the oracle's directions. Over a change of keys in both."""
    layer = RecordLayer(result)
    content = octets("content", 40_000)
    for turn in range(3):
        layer._sending.n = layer._receiving.n = ours.n = theirs.n = (turn * 16384 - 2) * (turn > 0)
        wire = layer.seal(RecordType.PARAMS, b"\x02\0\x01\x01", inner_pad=7)
        wire += layer.seal_data(content) + layer.seal(RecordType.PAD)
        got = theirs.open_all(wire)
        assert [kind for kind, _ in got] == [4, 1, 1, 1, 0]
        assert b"".join(text for kind, text in got if kind == 1) == content
        wire = b"".join(
            ours.seal(1, content[index : index + 9000], index % 50) for index in range(0, 40_000, 9000)
        )
        wire += ours.seal(0x55, b"new")
        records = [layer.open(frame.body) for frame in FrameReader().feed(wire)]
        assert b"".join(record.content for record in records) == content


@each_form
def test_the_oracle_answers_our_offer(form: OfferForm) -> None:
    oracle, one = _oracle(), receiving()
    answer, ours, theirs = oracle.send_answer(PROLOGUE, one.make_offer(form), (DIALLED.address16, 25))
    result = one.read_answer(answer, TODAY)
    assert (result.identity.octets, result.epoch, result.dialled) == (oracle.me(), TODAY, DIALLED)
    assert oracle.facts == {"identity": R_IDENTITY.public.octets, "epoch": TODAY, "flags": 0}
    _they_talk(result, ours, theirs)


@each_form
def test_we_answer_the_oracles_offer(form: OfferForm) -> None:
    oracle, other = _oracle(), sending()
    offered = other.read_offer(oracle.receive_offer(PROLOGUE, full=form is OfferForm.FULL))
    assert (offered.identity.octets, offered.epoch, offered.form) == (oracle.me(), TODAY, form)
    answer, result = other.write_answer(DIALLED)
    ours, theirs = oracle.receive_answer(answer)
    assert oracle.facts == {
        "identity": S_IDENTITY.public.octets,
        "epoch": TODAY,
        "flags": 0,
        "address": DIALLED.address16,
        "port": 25,
    }
    _they_talk(result, ours, theirs)


@each_form
def test_the_oracle_talks_to_itself(form: OfferForm) -> None:
    """Else agreement with it would say little."""
    one, other = _oracle(), _oracle()
    offer = one.receive_offer(PROLOGUE, full=form is OfferForm.FULL)
    answer, s_ours, s_theirs = other.send_answer(PROLOGUE, offer, (bytes(16), 25))
    r_ours, r_theirs = one.receive_answer(answer)
    assert r_theirs.open_all(s_ours.seal(1, b"MAIL")) == [(1, b"MAIL")]
    assert s_theirs.open_all(r_ours.seal(1, b"250")) == [(1, b"250")]
