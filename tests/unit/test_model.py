"""The symbolic model against the code: the same fields in the same order under the same labels.

Orders are compared with the code's tables; what a signature covers is made again from the model's tables and
verified, so a field that moves in either place is seen.
"""

from __future__ import annotations

import hashlib

import nacl.bindings
import pytest

from gateway.crypto import noise
from gateway.crypto.handshake import SendingHandshake
from gateway.crypto.keys import Ephemerals, IdentityKey, Label, StaticKey, endorse
from gateway.crypto.messages import (
    ANSWER_PAYLOAD,
    OFFER_PAYLOAD,
    RESUMED_ANSWER_PAYLOAD,
    RESUMED_OFFER_PAYLOAD,
    STATEMENT,
    DialledAddress,
    Layout,
    OfferFlags,
    OfferForm,
    prologue,
)
from gateway.crypto.statement import make_statement
from tests.holding import HoldingHandshake
from tests.model import messages as model
from tests.model import spass
from tests.model.asking import Verdict
from tests.model.queries import queries
from tests.model.world import Check, World

TODAY = 20_000
SAID = prologue(b"from the receiver", b"from the sender")
WIDTHS = {"e": 32, "e1": 1184, "s": 32}


def entropy(octets: int) -> bytes:
    return hashlib.shake_128(b"model").digest(octets)


IDENTITY = IdentityKey.from_seed(b"r" * 32)
OTHER = IdentityKey.from_seed(b"s" * 32)


def fields(message: bytes, layout: Layout) -> dict[str, bytes]:
    """Each field's own octets, where the layout has it."""
    begins = {field.name: layout.octets_before(field.name) for field in layout.fields}
    return {field.name: message[begins[field.name] :][: field.octets] for field in layout.fields}


def verify(identity: IdentityKey, label: str, body: bytes, signature: bytes) -> None:
    signed = signature + model.LABELS[label] + body
    nacl.bindings.crypto_sign_open(signed, identity.public.octets)


# --- Order ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "pattern"),
    [
        ((model.MESSAGE_1, model.MESSAGE_2), noise.IXHFS),
        ((model.RESUMED_1, model.RESUMED_2), noise.NNPSK0),
    ],
    ids=["full", "resumed"],
)
def test_the_tokens_are_those_of_the_pattern(
    ours: tuple[tuple[str, ...], ...], pattern: noise.Pattern
) -> None:
    assert ours == tuple(tuple(token.value for token in message) for message in pattern.messages)


def test_the_short_form_is_the_full_one_without_the_kem() -> None:
    kem = {"e1", "ekem1"}
    for ours, theirs in zip((model.MESSAGE_1, model.MESSAGE_2), noise.IX.messages, strict=True):
        assert tuple(token for token in ours if token not in kem) == tuple(token.value for token in theirs)


@pytest.mark.parametrize(
    ("ours", "layout"),
    [
        (model.OFFER, OFFER_PAYLOAD),
        (model.ANSWER, ANSWER_PAYLOAD),
        (model.STATEMENT, STATEMENT),
        (model.RESUMED_OFFER, RESUMED_OFFER_PAYLOAD),
        (model.RESUMED_ANSWER, RESUMED_ANSWER_PAYLOAD),
    ],
    ids=["offer", "answer", "statement", "resumed-offer", "resumed-answer"],
)
def test_the_fields_are_those_of_the_layout(ours: tuple[str, ...], layout: Layout) -> None:
    assert ours == tuple(field.name for field in layout.fields)


def test_the_labels_are_those_of_the_code() -> None:
    assert {name.upper(): octets for name, octets in model.LABELS.items()} == {
        label.name: label.value for label in Label
    }


def test_the_prologue_has_the_same_order() -> None:
    said = {"from_receiver": b"R" * 3, "from_sender": b"S" * 5}
    parts = b"".join(len(said[name]).to_bytes(4, "big") + said[name] for name in model.PROLOGUE)
    assert prologue(said["from_receiver"], said["from_sender"]) == b"Nightmail 1\0" + parts


# --- What is signed ------------------------------------------------------------------------------------


def test_the_offers_signature_covers_what_the_model_says() -> None:
    static = StaticKey.draw(entropy, TODAY)
    offer = HoldingHandshake(IDENTITY, static, Ephemerals.draw(entropy), SAID).make_offer(
        OfferForm.FULL, OfferFlags.UNUSED
    )
    h = noise.IXHFS.protocol_name.ljust(64, b"\0")
    h = hashlib.sha512(h + SAID).digest()
    rest = offer
    for token in model.MESSAGE_1:
        h, rest = hashlib.sha512(h + rest[: WIDTHS[token]]).digest(), rest[WIDTHS[token] :]
    payload = fields(rest, OFFER_PAYLOAD) | {"h": h}
    signed = b"".join(payload[name] for name in model.OFFER_SIGNED)
    verify(IDENTITY, "offer", signed, payload["signature"])


def test_the_endorsement_covers_what_the_model_says() -> None:
    endorsed = endorse(IDENTITY, StaticKey.draw(entropy, TODAY), TODAY)
    said = {
        "s": endorsed.static.public,
        "epoch": endorsed.static.epoch.to_bytes(4, "big"),
        "not_after": endorsed.not_after.to_bytes(4, "big"),
    }
    verify(IDENTITY, "static", b"".join(said[name] for name in model.ENDORSED), endorsed.endorsement)


def test_a_statement_covers_what_the_model_says() -> None:
    said = fields(make_statement(IDENTITY, OTHER, 7), STATEMENT)
    signed = b"".join(said[name] for name in model.STATEMENT_SIGNED)
    verify(IDENTITY, "statement_old", signed, said["by_old"])
    verify(OTHER, "statement_new", signed, said["by_new"])


def test_split_gives_rs_key_first() -> None:
    """What R seals under its sending key, S opens; and it is Split's first."""
    static = StaticKey.draw(entropy, TODAY)
    r = HoldingHandshake(IDENTITY, static, Ephemerals.draw(entropy), SAID)
    s = SendingHandshake(
        OTHER.public, endorse(OTHER, static, TODAY), Ephemerals.draw_for_answer(entropy), SAID
    )
    split = []
    original = noise.SymmetricState.split

    def watched(state: noise.SymmetricState) -> tuple[bytes, bytes]:
        split.append(original(state))
        return split[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noise.SymmetricState, "split", watched)
        s.read_offer(r.make_offer(OfferForm.FULL))
        answer, _ = s.write_answer(DialledAddress.from_text("192.0.2.1", 25))
        result = r.read_answer(answer, TODAY)
    keys = dict(zip(model.SPLIT, split[-1], strict=True))
    sending, receiving = result.ciphers.take()
    assert sending.encrypt_with_ad(b"", b"to S") == noise.CipherState(keys["toS"]).encrypt_with_ad(
        b"", b"to S"
    )
    assert receiving.encrypt_with_ad(b"", b"to R") == noise.CipherState(keys["toR"]).encrypt_with_ad(
        b"", b"to R"
    )


# --- The queries ---------------------------------------------------------------------------------------


def test_claims_have_different_names() -> None:
    claims = [query.claim for query in queries()]
    assert len(set(claims)) == len(claims)


def test_every_check_has_a_variant_in_which_the_attack_is_found() -> None:
    """And beside it the same question with the check in place, which holds."""
    asked = {query.claim: query for query in queries()}
    broken: set[Check] = set()
    for query in asked.values():
        whole = asked.get(query.claim.partition("/without-")[0])
        if "/without-" not in query.claim:
            continue
        assert whole is not None and whole.expected is Verdict.HOLDS, query.claim
        assert query.expected is Verdict.ATTACK and query.goal == whole.goal, query.claim
        broken |= query.world.without - whole.world.without
    assert broken == set(Check)


def test_every_problem_can_be_written() -> None:
    for query in queries():
        text = spass.problem(query)
        assert text.count("list_of_clauses") == 2
        arities = dict(spass.symbols(query.goal))
        assert all(f"({name},{arity})" in text for name, arity in arities.items()), query.claim


def test_a_check_left_out_changes_the_rules() -> None:
    for query in queries():
        if "/without-" in query.claim:
            whole = next(one for one in queries() if one.claim == query.claim.partition("/without-")[0])
            assert spass.problem(query) != spass.problem(whole)


def test_the_answer_walks_the_tokens() -> None:
    keys = model.Keys(x="x", u="u", y="y", z="z", kem="k", ciphertext="c")
    assert model.answer(World(), keys, "m", "p").chain == "mix(mix(mix(dh(x,y),k),dh(u,y)),dh(x,z))"


def test_the_resumed_handshake_walks_the_tokens() -> None:
    """With a pre-shared key every `e` is mixed into the key, too."""
    opening, chain = model.resumed(World(), "t", "x", "y")
    assert opening == "mix(t,pub(x))"
    assert chain == "mix(mix(mix(t,pub(x)),pub(y)),dh(x,y))"
