"""Identity, endorsement and its dates, ephemerals that serve once, and what prints."""

from __future__ import annotations

import pickle

import pytest

from gateway.crypto.keys import (
    EndorsementCache,
    Ephemerals,
    IdentityKey,
    IdentityPublic,
    Label,
    StaticKey,
    check_endorsement,
    endorse,
)
from gateway.errors import CryptoRefusedError, LocalMisuseError, Reason
from gateway.policy.limits import ENDORSEMENT_DAYS
from tests.unit.crypto.pairs import (
    R_IDENTITY,
    S_ENDORSED,
    S_IDENTITY,
    TODAY,
    entropy_for_testing_only,
    octets,
)

STATIC = S_ENDORSED.static


def _check(today: int, **changed: object) -> None:
    values: dict[str, object] = {
        "identity": S_IDENTITY.public,
        "static": STATIC.public,
        "dates": (STATIC.epoch, S_ENDORSED.not_after),
        "endorsement": S_ENDORSED.endorsement,
    }
    check_endorsement(**(values | changed), today=today)  # type: ignore[arg-type]


@pytest.mark.parametrize("day", [-1, 0, 1, ENDORSEMENT_DAYS])
def test_an_endorsement_is_good_from_the_day_before_to_its_end(day: int) -> None:
    _check(TODAY + day)


@pytest.mark.parametrize("day", [-2, ENDORSEMENT_DAYS + 1, 1000])
def test_an_endorsement_is_refused_outside_of_its_days(day: int) -> None:
    with pytest.raises(CryptoRefusedError) as caught:
        _check(TODAY + day)
    assert caught.value.reason is Reason.ENDORSEMENT_EXPIRED


def test_an_endorsement_for_too_long_is_refused_though_signed() -> None:
    dates = (TODAY, TODAY + ENDORSEMENT_DAYS + 1)
    body = STATIC.public + b"".join(date.to_bytes(4, "big") for date in dates)
    signed = S_IDENTITY.sign(Label.STATIC, body)
    with pytest.raises(CryptoRefusedError) as caught:
        _check(TODAY, dates=dates, endorsement=signed)
    assert caught.value.reason is Reason.ENDORSEMENT_EXPIRED


@pytest.mark.parametrize(
    "changed",
    [
        {"identity": R_IDENTITY.public},
        {"static": octets("another static", 32)},
        {"dates": (TODAY, TODAY + 13)},
        {"dates": (TODAY - 1, TODAY + 13)},
        {"endorsement": bytes(64)},
    ],
)
def test_an_endorsement_covers_identity_key_and_dates(changed: dict[str, object]) -> None:
    with pytest.raises(CryptoRefusedError) as caught:
        _check(TODAY, **changed)
    assert caught.value.reason is Reason.BAD_SIGNATURE


@pytest.mark.parametrize("label", [label for label in Label if label is not Label.STATIC])
def test_an_endorsement_under_another_label_is_none(label: Label) -> None:
    body = STATIC.public + TODAY.to_bytes(4, "big") + S_ENDORSED.not_after.to_bytes(4, "big")
    with pytest.raises(CryptoRefusedError):
        _check(TODAY, endorsement=S_IDENTITY.sign(label, body))


def test_no_label_begins_another() -> None:
    values = [label.value for label in Label]
    for value in values:
        assert value.endswith(b"\0")
        assert [other for other in values if other.startswith(value)] == [value]


@pytest.mark.parametrize("day", [-2, 1])
def test_only_a_key_of_today_or_yesterday_is_endorsed(day: int) -> None:
    static = StaticKey.draw(entropy_for_testing_only("static"), TODAY + day)
    with pytest.raises(LocalMisuseError):
        endorse(S_IDENTITY, static, TODAY)


def test_yesterdays_key_endorsed_today_does_not_live_longer() -> None:
    static = StaticKey.draw(entropy_for_testing_only("static"), TODAY - 1)
    assert endorse(S_IDENTITY, static, TODAY).not_after == TODAY - 1 + ENDORSEMENT_DAYS


def test_the_cache_saves_the_verification_but_not_the_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = EndorsementCache(2)
    _check(TODAY, cache=cache)
    assert len(cache) == 1
    monkeypatch.setattr("nacl.bindings.crypto_sign_open", _must_not_be_called)
    _check(TODAY, cache=cache)
    with pytest.raises(CryptoRefusedError):
        _check(TODAY + ENDORSEMENT_DAYS + 1, cache=cache)
    with pytest.raises(AssertionError):
        _check(TODAY, cache=cache, static=octets("another static", 32))


def _must_not_be_called(*_: object) -> None:
    raise AssertionError("verified again")


def test_the_cache_learns_nothing_that_did_not_verify() -> None:
    cache = EndorsementCache(2)
    for _ in range(2):
        with pytest.raises(CryptoRefusedError):
            _check(TODAY, endorsement=bytes(64), cache=cache)
    assert len(cache) == 0


def test_the_cache_is_bounded_and_forgets_what_was_used_least_recently() -> None:
    cache = EndorsementCache(2)
    for name in (b"a", b"b"):
        cache.remember(name)
    assert cache.knows(b"a")
    cache.remember(b"c")
    assert (len(cache), cache.knows(b"a"), cache.knows(b"b"), cache.knows(b"c")) == (2, True, False, True)


def test_ephemerals_serve_once() -> None:
    ephemerals = Ephemerals.draw(entropy_for_testing_only("ephemerals"))
    ephemerals.take()
    with pytest.raises(LocalMisuseError):
        ephemerals.take()


def test_entropy_is_used_as_it_comes_and_must_suffice() -> None:
    drawn: list[int] = []

    def draw(count: int) -> bytes:
        drawn.append(count)
        return octets(f"draw {len(drawn)}", count)

    Ephemerals.draw(draw)
    Ephemerals.draw_for_answer(draw)
    StaticKey.draw(draw, TODAY)
    assert drawn == [32, 64, 32, 32]
    with pytest.raises(LocalMisuseError):
        StaticKey.draw(lambda count: bytes(count - 1), TODAY)


def test_fingerprint_is_stable_and_legible() -> None:
    fingerprint = IdentityKey.from_seed(bytes(range(32))).public.fingerprint
    assert fingerprint == str(IdentityKey.from_seed(bytes(range(32))).public)
    groups = fingerprint.split("-")
    assert [len(group) for group in groups] == [4] * 8
    assert fingerprint == "ansu-xzou-b3x7-aywo-goed-mvwu-bfnr-s2hw"


def test_small_order_identities_do_not_exist() -> None:
    with pytest.raises(CryptoRefusedError) as caught:
        IdentityPublic(b"\x01" + bytes(31))
    assert caught.value.reason is Reason.BAD_KEY


def test_secrets_print_redacted_and_do_not_pickle() -> None:
    seed = octets("identity of S", 32)
    secrets = (S_IDENTITY, STATIC, S_ENDORSED, Ephemerals.draw(entropy_for_testing_only("e")))
    for secret in secrets:
        assert "redacted" in repr(secret)
        assert seed.hex() not in repr(secret)
        assert repr(seed)[2:20] not in repr(secret)
        with pytest.raises(LocalMisuseError):
            pickle.dumps(secret)
