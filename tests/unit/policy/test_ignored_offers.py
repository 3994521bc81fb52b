"""Who gets an offer: all, but those who ignore them session after session, and may not remember us."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import limits
from gateway.policy.ignored_offers import (
    GETS_AN_OFFER,
    TURN_BITS,
    IgnoredOffers,
    Neighbourhood,
    Run,
    is_turn_of,
    run_of,
)

HERE = "192.0.2.1"
THERE = "192.0.2.2"
PORT = 40_002
"""Whose turn it is not."""
ITS_TURN = 40_000
MANY = limits.OFFERS_IGNORED_IN_A_ROW
ONE_IN = limits.OFFERS_REST_ONE_IN
REST = [True] * (ONE_IN - 1) + [False]


def nobody(source: str) -> Neighbourhood:
    return Neighbourhood.NOBODY


def many_ignored(source: str = HERE) -> IgnoredOffers:
    offers = IgnoredOffers()
    for _ in range(MANY):
        assert not offers.rests(source, PORT, nobody)
        offers.ignored(source)
    return offers


def sessions(offers: IgnoredOffers, count: int, source: str = HERE) -> list[bool]:
    """Whether each rests, where none takes an offer."""
    seen = []
    for _ in range(count):
        seen.append(offers.rests(source, PORT, nobody))
        if not seen[-1]:
            offers.ignored(source)
    return seen


def test_the_table() -> None:
    """Of all there is one case without an offer."""
    without = [(run, near) for run in Run for near in Neighbourhood if not GETS_AN_OFFER[run][near]]
    assert without == [(Run.LONG, Neighbourhood.NOBODY)]


@pytest.mark.parametrize(
    ("count", "run"),
    [
        (0, Run.SHORT),
        (MANY - 1, Run.SHORT),
        (MANY, Run.LONG),
        (MANY + ONE_IN - 2, Run.LONG),
        (MANY + ONE_IN - 1, Run.ITS_TURN),
        (MANY + ONE_IN, Run.ITS_TURN),
    ],
)
def test_how_long_a_run_is(count: int, run: Run) -> None:
    assert run_of(count, PORT) is run


def test_whose_turn_it_is_a_port_says_one_in_so_many_of_each_parity() -> None:
    """Linux opens connections to one server from every second port, one behind the other."""
    assert TURN_BITS == 0x6
    for first in (32_768, 32_769):
        turns = [is_turn_of(port) for port in range(first, first + 2 * 10 * ONE_IN, 2)]
        assert turns == 10 * ([True] + [False] * (ONE_IN - 1))


@pytest.mark.parametrize(
    ("count", "run"), [(MANY - 1, Run.SHORT), (MANY, Run.ITS_TURN), (MANY + 1, Run.ITS_TURN)]
)
def test_from_a_port_whose_turn_it_is_a_run_is_never_long(count: int, run: Run) -> None:
    assert run_of(count, ITS_TURN) is run
    assert run_of(count, ITS_TURN + 1) is run


def test_a_turn_by_port_counts_as_an_offer() -> None:
    offers = many_ignored()
    for port in (PORT, PORT, ITS_TURN, PORT, PORT, PORT):
        assert offers.rests(HERE, port, nobody) is (port == PORT)
    assert not offers.rests(HERE, PORT, nobody), "at the latest"


def test_the_kernel_lets_by_only_whom_a_worker_would_make_no_offer() -> None:
    """As the rule in `iptables/*.nft` has it: `tcp sport and $turn_bits != 0x0`."""
    for port in range(1 << 16):
        passes = port & TURN_BITS != 0
        assert passes is not is_turn_of(port)


def test_it_takes_many_ignored_offers_and_then_one_session_in_four_has_one() -> None:
    assert sessions(many_ignored(), 3 * ONE_IN) == 3 * REST


@pytest.mark.parametrize("near", [Neighbourhood.ITSELF, Neighbourhood.NEIGHBOUR])
def test_who_has_upgraded_and_his_neighbours_never_rest(near: Neighbourhood) -> None:
    offers = many_ignored()
    assert not any(offers.rests(HERE, PORT, lambda _: near) for _ in range(2 * ONE_IN))
    assert sessions(offers, ONE_IN) == REST, "they are no more"


def test_memory_is_asked_only_of_a_source_that_would_rest() -> None:
    offers = IgnoredOffers()
    for _ in range(MANY):
        assert not offers.rests(HERE, PORT, lambda source: pytest.fail(f"asked of {source}"))
        offers.ignored(HERE)
    asked: list[str] = []

    def ask(source: str) -> Neighbourhood:
        asked.append(source)
        return Neighbourhood.NOBODY

    assert offers.rests(HERE, PORT, ask)
    assert asked == [HERE]


@given(st.lists(st.sampled_from(["ignored", "anything else", "somebody new"]), max_size=3 * MANY))
def test_a_run_is_one_of_ignored_offers_alone(happened: list[str]) -> None:
    offers, run = IgnoredOffers(), 0
    for what in happened:
        if what == "ignored":
            offers.ignored(HERE)
            run += 1
        else:
            run = 0
            offers.anything_else(HERE) if what == "anything else" else offers.somebody_is_new()
    assert offers.rests(HERE, PORT, nobody) is (run >= MANY)


def test_whoever_is_new_ends_the_rest_of_all() -> None:
    offers = many_ignored(HERE)
    for _ in range(MANY):
        offers.ignored(THERE)
    assert offers.rests(HERE, PORT, nobody)
    assert offers.rests(THERE, PORT, nobody)
    offers.somebody_is_new()
    assert not offers.rests(HERE, PORT, nobody)
    assert not offers.rests(THERE, PORT, nobody)


def test_sources_are_counted_apart() -> None:
    offers = many_ignored(HERE)
    assert sessions(offers, MANY, THERE) == [False] * MANY
    offers.anything_else(THERE)
    assert offers.rests(HERE, PORT, nobody)
    assert not offers.rests(THERE, PORT, nobody)


def test_what_is_counted_is_bounded_and_the_oldest_is_forgotten() -> None:
    offers = IgnoredOffers()
    for number in range(limits.SOURCES_IGNORING + 10):
        offers.ignored(str(number))
    assert len(offers._counts) == limits.SOURCES_IGNORING
    assert "9" not in offers._counts
    assert "10" in offers._counts


def test_a_source_that_rests_is_not_the_oldest() -> None:
    offers = many_ignored(HERE)
    for number in range(limits.SOURCES_IGNORING - 1):
        offers.ignored(str(number))
    assert offers.rests(HERE, PORT, nobody)
    offers.ignored("another")
    assert offers.rests(HERE, PORT, nobody)


def test_a_gateway_behind_a_resting_source_is_found_before_it_gives_us_up() -> None:
    """The sending side leaves a server alone that has offered nothing in so many sessions in a row."""
    assert ONE_IN < limits.DEAD_END_AFTER_SESSIONS


def test_who_asks_how_many_counts_none() -> None:
    offers = many_ignored()
    assert [offers.in_a_row(HERE), offers.in_a_row(HERE), offers.in_a_row(THERE)] == [MANY, MANY, 0]
    assert (offers.has_ignored_many(HERE), offers.has_ignored_many(THERE)) == (True, False)
    assert sessions(offers, ONE_IN) == REST
    assert offers.in_a_row(HERE) == MANY
