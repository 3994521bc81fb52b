"""Two gateways in memory; then every octet changed, cut, replayed, swapped, reflected."""

from __future__ import annotations

import pytest

from gateway.crypto.handshake import (
    HandshakeResult,
    OfferForm,
    SendingHandshake,
    TrafficCiphers,
    prologue,
)
from gateway.crypto.keys import (
    EndorsedStatic,
    EndorsementCache,
    Ephemerals,
    IdentityKey,
)
from gateway.crypto.messages import AnswerFlags, DialledAddress, OfferFlags
from gateway.errors import CryptoRefusedError, LocalMisuseError, Reason
from tests.holding import HoldingHandshake
from tests.unit.crypto.pairs import (
    DIALLED,
    EHLO,
    GREETING,
    PROLOGUE,
    R_IDENTITY,
    R_STATIC,
    REPLY,
    S_ENDORSED,
    S_IDENTITY,
    TODAY,
    entropy_for_testing_only,
    handshaken,
    octets,
    receiving,
    sending,
)
from tests.unit.crypto.refusals import refused

each_form = pytest.mark.parametrize("form", OfferForm, ids=lambda form: str(form.value))
# --- Two honest gateways -------------------------------------------------------------------------------


@each_form
def test_both_sides_learn_the_same(form: OfferForm) -> None:
    done = handshaken(form, OfferFlags.STATEMENT_FOLLOWS)
    at_r, at_s = done.at_receiving, done.at_sending
    assert (len(done.offer), len(done.answer)) == (form.octets, form.answer_octets)
    assert (at_r.identity, at_s.identity) == (S_IDENTITY.public, R_IDENTITY.public)
    assert (at_r.epoch, at_s.epoch) == (TODAY, TODAY)
    assert at_s.flags == OfferFlags.STATEMENT_FOLLOWS
    assert at_r.flags == AnswerFlags.NONE
    assert at_r.form is at_s.form is form
    assert at_r.dialled == at_s.dialled == DIALLED
    assert at_r.handshake_hash == at_s.handshake_hash
    assert len(at_r.handshake_hash) == 64
    ours, theirs = at_r.ciphers.take(), at_s.ciphers.take()
    for sends, receives in ((ours[0], theirs[1]), (theirs[0], ours[1])):
        assert receives.decrypt_with_ad(b"", sends.encrypt_with_ad(b"", b"words")) == b"words"


def test_sizes_are_those_of_the_protocol() -> None:
    assert [len(handshaken(form).offer) for form in OfferForm] == [1350, 166]


@each_form
def test_no_field_of_the_answer_is_readable(form: OfferForm) -> None:
    answer = handshaken(form).answer
    hidden = (S_IDENTITY.public.octets, S_ENDORSED.static.public, S_ENDORSED.endorsement, DIALLED.address16)
    assert [field for field in hidden if field in answer] == []


def test_flags_and_epoch_travel_and_unknown_flags_are_kept() -> None:
    one, other = receiving(), sending()
    flags = OfferFlags.UNUSED | 0x4100 | OfferFlags.STATEMENT_FOLLOWS
    offered = other.read_offer(one.make_offer(OfferForm.FULL, flags))
    assert (offered.identity, offered.epoch, offered.flags) == (R_IDENTITY.public, TODAY, flags)
    answer, _ = other.write_answer(DIALLED, AnswerFlags.UNUSED | 0x0080)
    assert one.read_answer(answer, TODAY).flags == 0x8080


def test_two_handshakes_share_nothing() -> None:
    one, other = receiving("one").make_offer(OfferForm.FULL), receiving("other").make_offer(OfferForm.FULL)
    same = [index for index in range(0, 1216, 16) if one[index : index + 16] == other[index : index + 16]]
    assert same == []


def test_encapsulation_is_fresh_even_if_all_else_repeats() -> None:
    """The same ephemerals twice (a test's doing): the two answers still differ, keys too."""
    offer = receiving().make_offer(OfferForm.FULL)
    answers = []
    for _ in range(2):
        handshake = sending()
        handshake.read_offer(offer)
        answers.append(handshake.write_answer(DIALLED)[0])
    assert answers[0][:32] == answers[1][:32]
    assert answers[0][32:] != answers[1][32:]


# --- Tampering -----------------------------------------------------------------------------------------


@each_form
def test_every_octet_of_the_offer_is_protected(form: OfferForm) -> None:
    offer = receiving().make_offer(form)
    for index in range(len(offer)):
        changed = bytearray(offer)
        changed[index] ^= 0x80 if index % 2 else 0x01
        refused(lambda changed=changed: sending().read_offer(bytes(changed)))


@each_form
def test_every_octet_of_the_answer_is_protected(form: OfferForm) -> None:
    answer = handshaken(form).answer
    for index in range(len(answer)):
        changed = bytearray(answer)
        changed[index] ^= 0x80 if index % 2 else 0x01
        one = receiving()
        one.make_offer(form)
        refused(lambda one=one, changed=changed: one.read_answer(bytes(changed), TODAY))


def test_the_ignored_bit_of_a_point_is_protected() -> None:
    """X25519 ignores the highest bit; the transcript does not."""
    offer = bytearray(receiving().make_offer(OfferForm.FULL))
    offer[31] ^= 0x80
    assert refused(lambda: sending().read_offer(bytes(offer))) is Reason.BAD_SIGNATURE


@each_form
def test_an_offer_cut_anywhere_isrefused(form: OfferForm) -> None:
    offer = receiving().make_offer(form)
    for length in range(len(offer)):
        assert refused(lambda length=length: sending().read_offer(offer[:length])) in (
            Reason.BAD_OFFER,
            Reason.BAD_SIGNATURE,
            Reason.BAD_KEY,
        )
    assert refused(lambda: sending().read_offer(offer + b"\0")) is Reason.BAD_OFFER


@each_form
def test_an_answer_cut_anywhere_isrefused(form: OfferForm) -> None:
    answer = handshaken(form).answer
    for length in range(len(answer)):
        one = receiving()
        one.make_offer(form)
        refused(lambda one=one, length=length: one.read_answer(answer[:length], TODAY))
    one = receiving()
    one.make_offer(form)
    assert refused(lambda: one.read_answer(answer + b"\0", TODAY)) is Reason.BAD_FRAME


@pytest.mark.parametrize(
    "seen",
    [
        prologue(GREETING + REPLY.replace(b"250-PIPELINING\r\n", b""), EHLO),
        prologue(GREETING + REPLY.replace(b"SIZE", b"SIZF"), EHLO),
        prologue(GREETING.replace(b"mx.b", b"mx.c") + REPLY, EHLO),
        prologue(GREETING + REPLY, EHLO.replace(b"EHLO", b"ehlo")),
        prologue(GREETING + REPLY, b""),
        prologue(b"", GREETING + REPLY + EHLO),
    ],
)
@each_form
def test_what_the_mail_servers_saw_must_agree(form: OfferForm, seen: bytes) -> None:
    assert (
        refused(lambda: sending(prologue=seen).read_offer(receiving().make_offer(form)))
        is Reason.BAD_SIGNATURE
    )


@each_form
def test_a_transcript_that_only_r_sees_differently_fails_at_r(form: OfferForm) -> None:
    """As if S did not check the signature: the tag alone must refuse it."""
    answer = handshaken(form).answer
    one = receiving(prologue=prologue(GREETING + REPLY, EHLO + EHLO))
    one.make_offer(form)
    assert refused(lambda: one.read_answer(answer, TODAY)) is Reason.BAD_TAG


# --- Replays, swaps, reflections, downgrades -----------------------------------------------------------


@each_form
def test_a_replayed_answer_fails_under_another_offer(form: OfferForm) -> None:
    answer = handshaken(form).answer
    one = receiving("another connection")
    one.make_offer(form)
    assert refused(lambda: one.read_answer(answer, TODAY)) is Reason.BAD_TAG


def test_an_answer_is_read_once() -> None:
    one, other = receiving(), sending()
    other.read_offer(one.make_offer(OfferForm.FULL))
    answer, _ = other.write_answer(DIALLED)
    one.read_answer(answer, TODAY)
    with pytest.raises(LocalMisuseError):
        one.read_answer(answer, TODAY)


def test_a_failed_answer_was_the_only_try() -> None:
    one, other = receiving(), sending()
    other.read_offer(one.make_offer(OfferForm.FULL))
    answer, _ = other.write_answer(DIALLED)
    refused(lambda: one.read_answer(bytes(len(answer)), TODAY))
    with pytest.raises(LocalMisuseError):
        one.read_answer(answer, TODAY)


def test_a_replayed_offer_is_worth_nothing_on_another_transcript() -> None:
    offer = receiving().make_offer(OfferForm.FULL)
    seen = prologue(GREETING.replace(b"ESMTP", b"ESMTP 2") + REPLY, EHLO)
    assert refused(lambda: sending(prologue=seen).read_offer(offer)) is Reason.BAD_SIGNATURE


def test_swapped_offers_of_two_connections() -> None:
    """Two connections of one R: each S answers the other's offer, and neither R takes it."""
    ones = [receiving("first"), receiving("second")]
    offers = [one.make_offer(OfferForm.FULL) for one in ones]
    for one, offer in zip(ones, reversed(offers), strict=True):
        other = sending()
        other.read_offer(offer)
        answer, _ = other.write_answer(DIALLED)
        assert refused(lambda one=one, answer=answer: one.read_answer(answer, TODAY)) is Reason.BAD_TAG


def test_an_offer_of_another_site_shows_itself_at_that_site() -> None:
    """One in the middle leads S from R1 to R2: R2 sees where S believes that it dialled."""
    second = receiving("R2", identity=IdentityKey.from_seed(octets("identity of R2", 32)))
    other = sending()
    other.read_offer(second.make_offer(OfferForm.FULL))
    answer, _ = other.write_answer(DialledAddress.from_text("192.0.2.25", 25))
    assert second.read_answer(answer, TODAY).dialled != DialledAddress.from_text("198.51.100.1", 25)


def test_a_full_offer_without_its_kem_key_is_no_short_offer() -> None:
    offer = receiving().make_offer(OfferForm.FULL)
    stripped = offer[:32] + offer[32 + 1184 :]
    assert len(stripped) == OfferForm.SHORT.octets
    assert refused(lambda: sending().read_offer(stripped)) is Reason.BAD_SIGNATURE


def test_a_short_answer_to_a_full_offer_is_refused_and_the_other_way_round() -> None:
    for offered, answered in ((OfferForm.FULL, OfferForm.SHORT), (OfferForm.SHORT, OfferForm.FULL)):
        one = receiving()
        one.make_offer(offered)
        answer = handshaken(answered).answer
        assert refused(lambda one=one, answer=answer: one.read_answer(answer, TODAY)) is Reason.BAD_FRAME


@each_form
def test_our_own_identity_offered_back(form: OfferForm) -> None:
    offer = receiving(identity=S_IDENTITY).make_offer(form)
    assert refused(lambda: sending().read_offer(offer)) is Reason.OWN_IDENTITY


def test_an_offer_reflected_as_an_answer() -> None:
    one = receiving()
    offer = one.make_offer(OfferForm.FULL)
    assert refused(lambda: one.read_answer(offer[:1324], TODAY)) in (Reason.BAD_TAG, Reason.BAD_KEY)


def test_endorsements_are_verified_once_with_a_cache() -> None:
    cache = EndorsementCache()
    for _ in range(2):
        one, other = receiving(cache=cache), sending()
        other.read_offer(one.make_offer(OfferForm.SHORT))
        answer, _ = other.write_answer(DIALLED)
        one.read_answer(answer, TODAY)
    assert len(cache) == 1


# --- Our own mistakes ----------------------------------------------------------------------------------


def test_every_call_out_of_turn() -> None:
    one = receiving()
    with pytest.raises(LocalMisuseError):
        one.read_answer(bytes(1324), TODAY)
    offer = one.make_offer(OfferForm.FULL)
    with pytest.raises(LocalMisuseError):
        one.make_offer(OfferForm.FULL)
    other = sending()
    with pytest.raises(LocalMisuseError):
        other.write_answer(DIALLED)
    other.read_offer(offer)
    with pytest.raises(LocalMisuseError):
        other.read_offer(offer)
    other.write_answer(DIALLED)
    with pytest.raises(LocalMisuseError):
        other.write_answer(DIALLED)


def test_a_sending_handshake_that_refused_is_dead() -> None:
    other = sending()
    refused(lambda: other.read_offer(b""))
    with pytest.raises(LocalMisuseError):
        other.read_offer(receiving().make_offer(OfferForm.FULL))
    with pytest.raises(LocalMisuseError):
        other.write_answer(DIALLED)


def test_ephemerals_are_never_used_twice() -> None:
    ephemerals = Ephemerals.draw(entropy_for_testing_only("twice"))
    HoldingHandshake(R_IDENTITY, R_STATIC, ephemerals, PROLOGUE).make_offer(OfferForm.FULL)
    again = HoldingHandshake(R_IDENTITY, R_STATIC, ephemerals, PROLOGUE)
    with pytest.raises(LocalMisuseError):
        again.make_offer(OfferForm.FULL)
    with pytest.raises(LocalMisuseError):
        SendingHandshake(S_IDENTITY.public, S_ENDORSED, ephemerals, PROLOGUE).read_offer(
            receiving().make_offer(OfferForm.FULL)
        )


def test_ephemerals_without_a_kem_key_make_no_full_offer() -> None:
    ephemerals = Ephemerals.draw_for_answer(entropy_for_testing_only("short"))
    with pytest.raises(LocalMisuseError):
        HoldingHandshake(R_IDENTITY, R_STATIC, ephemerals, PROLOGUE).make_offer(OfferForm.FULL)


def test_a_static_key_endorsed_by_another_identity() -> None:
    with pytest.raises(LocalMisuseError):
        SendingHandshake(
            R_IDENTITY.public,
            EndorsedStatic(
                S_IDENTITY.public, S_ENDORSED.static, S_ENDORSED.not_after, S_ENDORSED.endorsement
            ),
            Ephemerals.draw_for_answer(entropy_for_testing_only("e")),
            PROLOGUE,
        )


def test_results_are_made_by_handshakes_alone() -> None:
    done = handshaken().at_sending
    with pytest.raises(LocalMisuseError):
        HandshakeResult(
            identity=done.identity,
            epoch=done.epoch,
            flags=done.flags,
            form=done.form,
            dialled=done.dialled,
            handshake_hash=done.handshake_hash,
            ciphers=TrafficCiphers(bytes(32), bytes(32)),
            ticket=None,
            resumed=False,
            proof=object(),
        )


def test_traffic_ciphers_are_taken_once() -> None:
    result = handshaken().at_sending
    result.ciphers.take()
    with pytest.raises(LocalMisuseError):
        result.ciphers.take()


def test_refusals_by_primitives_are_told_apart() -> None:
    one = receiving()
    one.make_offer(OfferForm.SHORT)
    with pytest.raises(CryptoRefusedError):
        one.read_answer(octets("not an answer", 220), TODAY)


def test_results_print_no_secret() -> None:
    assert "TrafficCiphers: redacted" in repr(handshaken().at_receiving)
