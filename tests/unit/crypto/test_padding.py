"""Padme against its vectors, and flights with their floor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.crypto.padding import flight_padding, padme, passed_step
from gateway.policy.limits import FLIGHT_HELD_STEP_OCTETS
from tests.unit.crypto.pairs import vectors


def test_padme_vectors() -> None:
    pairs = vectors("padme.json")["pairs"]
    assert len(pairs) == 200
    assert [padme(length) for length, _ in pairs] == [padded for _, padded in pairs]


@given(st.integers(1, 1 << 48))
def test_padme_grows_little_and_only_once(octets: int) -> None:
    assert octets <= padme(octets) <= octets * 1.12
    assert padme(padme(octets)) == padme(octets)
    if octets > 512:
        assert padme(octets) <= octets * 1.0625


def test_padme_at_a_million() -> None:
    assert max(padme(octets) / octets for octets in range(1_000_000, 1_000_500)) <= 1.031


@given(st.integers(1, 512))
def test_small_flights_look_alike(octets: int) -> None:
    assert octets + flight_padding(octets) == 512


@given(st.integers(1, 1 << 30))
def test_a_padded_flight_needs_no_more(octets: int) -> None:
    assert flight_padding(octets + flight_padding(octets)) == 0


def test_no_flight_no_padding() -> None:
    assert flight_padding(0) == 0


@given(st.integers(1, 1 << 20), st.integers(0, 1 << 22))
def test_a_part_of_a_flight_is_never_seen_under_the_floor(since: int, padded: int) -> None:
    added = since + flight_padding(since, padded)
    assert added >= 512
    assert padme(padded + added) == padded + added


@given(st.integers(1, 1 << 30))
def test_something_is_left_for_the_end_and_never_more_than_the_grid(octets: int) -> None:
    assert 0 < octets - passed_step(octets) <= FLIGHT_HELD_STEP_OCTETS


@given(st.integers(2, 4 << 20))
def test_up_to_four_mebibytes_it_tells_no_more_than_the_padded_size(octets: int) -> None:
    assert passed_step(octets) == passed_step(padme(octets))
