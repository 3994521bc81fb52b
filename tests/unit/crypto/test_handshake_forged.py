"""Peers that sign nonsense: keys that make secrets known, other labels, other times, other sites' words."""

from __future__ import annotations

import pytest

from gateway.crypto.handshake import (
    OfferForm,
)
from gateway.crypto.keys import (
    IdentityKey,
    Label,
    StaticKey,
    endorse,
)
from gateway.crypto.messages import ANSWER_PAYLOAD, OFFER_PAYLOAD
from gateway.crypto.noise import IX, IXHFS, HandshakeState, NoiseRole
from gateway.crypto.primitives import MlKemPrivate, X25519Private
from gateway.errors import Reason
from tests.holding import HoldingHandshake
from tests.unit.crypto.pairs import (
    DIALLED,
    PROLOGUE,
    R_IDENTITY,
    S_ENDORSED,
    S_IDENTITY,
    TODAY,
    entropy_for_testing_only,
    octets,
    receiving,
    sending,
)
from tests.unit.crypto.refusals import refused

each_form = pytest.mark.parametrize("form", OfferForm, ids=lambda form: str(form.value))
SMALL_ORDER = bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")


def _forged_offer(form: OfferForm, identity: bytes = R_IDENTITY.public.octets, **public: bytes) -> bytes:
    """An offer signed in good order, with public keys of our choice in it."""
    keys: dict[str, X25519Private | MlKemPrivate] = {
        "s": X25519Private(octets("s", 32)),
        "e": X25519Private(octets("e", 32)),
        "e1": MlKemPrivate(octets("e1", 64)),
    }
    for name, value in public.items():
        keys[name].public = value
    pattern = IXHFS if form is OfferForm.FULL else IX
    noise = HandshakeState(pattern, NoiseRole.INITIATOR, PROLOGUE, keys["s"], keys["e"], keys["e1"])  # type: ignore[arg-type]
    tokens = noise.write_tokens()
    unsigned = identity + TODAY.to_bytes(4, "big") + bytes(2)
    payload = unsigned + R_IDENTITY.sign(Label.OFFER, noise.h + unsigned)
    assert len(payload) == OFFER_PAYLOAD.octets
    return tokens + noise.write_payload(payload)


@each_form
@pytest.mark.parametrize("key", ["e", "s"])
@pytest.mark.parametrize("public", [bytes(32), SMALL_ORDER], ids=["zero", "order 8"])
def test_small_order_points_in_an_offer(form: OfferForm, key: str, public: bytes) -> None:
    offer = _forged_offer(form, **{key: public})
    assert refused(lambda: sending().read_offer(offer)) is Reason.BAD_KEY


def test_a_bad_kem_key_in_an_offer() -> None:
    offer = _forged_offer(OfferForm.FULL, e1=b"\xff" * 1184)
    assert refused(lambda: sending().read_offer(offer)) is Reason.BAD_KEY


def test_a_small_order_identity_in_an_offer() -> None:
    """Such a key verifies signatures that nobody made."""
    offer = _forged_offer(OfferForm.FULL, identity=b"\x01" + bytes(31))
    assert refused(lambda: sending().read_offer(offer)) is Reason.BAD_KEY


@pytest.mark.parametrize("label", [label for label in Label if label is not Label.OFFER])
def test_an_offer_signed_under_another_label(label: Label, monkeypatch: pytest.MonkeyPatch) -> None:
    good = _forged_offer(OfferForm.FULL)
    sending().read_offer(good)
    monkeypatch.setattr(Label.OFFER, "_value_", label.value)
    bad = _forged_offer(OfferForm.FULL)
    monkeypatch.undo()
    assert refused(lambda: sending().read_offer(bad)) is Reason.BAD_SIGNATURE


def _forged_answer(
    changed: dict[str, bytes | int], identity: IdentityKey = S_IDENTITY, static_public: bytes | None = None
) -> tuple[bytes, HoldingHandshake]:
    """An answer to R's own offer, sealed in good order, with a payload of our choice."""
    one = receiving()
    offer = one.make_offer(OfferForm.FULL)
    drawn = StaticKey.draw(entropy_for_testing_only("forged static"), TODAY)
    endorsed = endorse(identity, drawn, TODAY)
    if static_public is not None:
        drawn.private.public = static_public
    e = X25519Private(octets("forged e", 32))
    noise = HandshakeState(IXHFS, NoiseRole.RESPONDER, PROLOGUE, drawn.private, e)
    noise.read_payload(noise.read_tokens(offer))
    values: dict[str, bytes | int] = {
        "identity": identity.public.octets,
        "epoch": TODAY,
        "not_after": endorsed.not_after,
        "flags": 0,
        "endorsement": endorsed.endorsement,
        "address": DIALLED.address16,
        "port": DIALLED.port,
    }
    return noise.write_tokens() + noise.write_payload(ANSWER_PAYLOAD.encode(values | changed)), one


def test_a_forged_answer_without_a_change_is_good() -> None:
    """Else the tests below would show nothing."""
    answer, one = _forged_answer({})
    assert one.read_answer(answer, TODAY).identity == S_IDENTITY.public


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"identity": IdentityKey.from_seed(bytes(32)).public.octets}, Reason.BAD_SIGNATURE),
        ({"identity": b"\x01" + bytes(31)}, Reason.BAD_KEY),
        ({"epoch": TODAY - 1}, Reason.ENDORSEMENT_EXPIRED),
        ({"epoch": TODAY + 1}, Reason.BAD_SIGNATURE),
        ({"epoch": TODAY + 2, "not_after": TODAY + 3}, Reason.ENDORSEMENT_EXPIRED),
        ({"not_after": TODAY + 13}, Reason.BAD_SIGNATURE),
        ({"not_after": TODAY - 1}, Reason.ENDORSEMENT_EXPIRED),
        ({"not_after": 0xFFFFFFFF}, Reason.ENDORSEMENT_EXPIRED),
        ({"endorsement": S_ENDORSED.endorsement}, Reason.BAD_SIGNATURE),
        ({"endorsement": bytes(64)}, Reason.BAD_SIGNATURE),
    ],
)
def test_answers_that_r_refuses(changed: dict[str, bytes | int], reason: Reason) -> None:
    answer, one = _forged_answer(changed)
    assert refused(lambda: one.read_answer(answer, TODAY)) is reason


def test_a_small_order_static_key_in_an_answer() -> None:
    answer, one = _forged_answer({}, static_public=SMALL_ORDER)
    assert refused(lambda: one.read_answer(answer, TODAY)) is Reason.BAD_KEY


def test_a_small_order_ephemeral_in_an_answer() -> None:
    one = receiving()
    one.make_offer(OfferForm.SHORT)
    assert refused(lambda: one.read_answer(SMALL_ORDER + bytes(188), TODAY)) is Reason.BAD_KEY


@pytest.mark.parametrize("day", [-2, 15])
def test_an_answer_of_another_time(day: int) -> None:
    answer, one = _forged_answer({})
    assert refused(lambda: one.read_answer(answer, TODAY + day)) is Reason.ENDORSEMENT_EXPIRED


def test_our_own_identity_answering() -> None:
    """A sending gateway refuses this by itself; so this one is forged by hand."""
    answer, one = _forged_answer({}, identity=R_IDENTITY)
    assert refused(lambda: one.read_answer(answer, TODAY)) is Reason.OWN_IDENTITY
