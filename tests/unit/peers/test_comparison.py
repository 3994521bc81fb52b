"""compare as a table: every sight with every standing, and examples of each word."""

import itertools

import pytest

from gateway.peers.comparison import COMPARISONS, Comparison, Observed, Standing, compare
from gateway.peers.pins import (
    Acceptance,
    Destination,
    MetStatement,
    Pin,
    PinnedIdentity,
    is_accepted,
)

HERE = Destination("192.0.2.7", 25)
A, B, C = b"A" * 32, b"B" * 32, b"C" * 32
NOON = 20_000 * 86400 + 43200
EPOCH = 20_000


def known(
    identity: bytes, acceptance: Acceptance = Acceptance.FIRST_USE, epoch: int = EPOCH, serial: int = 0
) -> PinnedIdentity:
    return PinnedIdentity(identity, epoch, NOON, NOON, 1, acceptance, True, serial=serial)


def pin(*identities: PinnedIdentity) -> Pin:
    return Pin(HERE, identities)


def offered(identity: bytes, epoch: int = EPOCH, full: bool = True, fits: bool = True) -> Observed:
    return Observed.offered(identity, epoch, full=full, full_fits=fits)


SEEN_ONLY = known(B, Acceptance.NOT_YET)


@pytest.mark.parametrize(
    ("remembered", "observed", "word"),
    [
        (None, Observed.missing(), Comparison.UNKNOWN),
        (None, Observed.failed(), Comparison.FAILED),
        (None, offered(A), Comparison.NEW),
        (None, offered(A, full=False), Comparison.NEW),
        (pin(known(A)), Observed.missing(), Comparison.MISSING),
        (pin(known(A)), Observed.failed(), Comparison.FAILED),
        (pin(known(A)), offered(A), Comparison.SAME),
        (pin(known(A)), offered(A, EPOCH + 1), Comparison.SAME),
        (pin(known(A)), offered(A, EPOCH - 1), Comparison.OLD),
        (pin(known(A)), offered(A, full=False), Comparison.WEAKER),
        (pin(known(A)), offered(A, full=False, fits=False), Comparison.SAME),
        (pin(known(A)), offered(A, EPOCH - 1, full=False), Comparison.WEAKER),
        (pin(known(A)), offered(B), Comparison.CHANGED),
        (pin(known(A)), offered(B, full=False), Comparison.CHANGED),
        (pin(known(A), SEEN_ONLY), offered(B), Comparison.CHANGED_AGAIN),
        (pin(known(A), SEEN_ONLY), offered(B, EPOCH - 1), Comparison.CHANGED_AGAIN),
        (pin(known(A), SEEN_ONLY), offered(B, full=False), Comparison.WEAKER),
        (pin(known(A), SEEN_ONLY), offered(A), Comparison.SAME),
        (pin(known(A), SEEN_ONLY), offered(C), Comparison.CHANGED),
        (pin(known(A), known(B)), offered(B), Comparison.SAME),
        (pin(known(A, epoch=EPOCH + 9), known(B)), offered(B), Comparison.SAME),
    ],
)
def test_compare(remembered: Pin | None, observed: Observed, word: Comparison) -> None:
    assert compare(remembered, observed) is word


def test_every_word_is_in_the_table_above() -> None:
    parameters = test_compare.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {word for _, _, word in parameters} == set(Comparison) - {Comparison.ROLLED}


def test_the_table_is_total() -> None:
    assert {standing for row in COMPARISONS.values() for standing in row} == set(Standing)
    assert all(set(row) == set(Standing) for row in COMPARISONS.values())
    assert {word for row in COMPARISONS.values() for word in row.values()} == set(Comparison)


# --- With a statement --------------------------------------------------------------------------------------

TO_B = MetStatement(A, B, 7)


@pytest.mark.parametrize(
    ("remembered", "observed", "statement", "word"),
    [
        (pin(known(A)), offered(B), TO_B, Comparison.ROLLED),
        (pin(known(A), SEEN_ONLY), offered(B), TO_B, Comparison.ROLLED),
        (pin(known(A), SEEN_ONLY), offered(B, EPOCH - 1), TO_B, Comparison.ROLLED),
        (pin(known(A)), offered(B, full=False), TO_B, Comparison.WEAKER),
        (pin(known(A), SEEN_ONLY), offered(B, full=False), TO_B, Comparison.WEAKER),
        (pin(known(A)), offered(B, full=False, fits=False), TO_B, Comparison.ROLLED),
        (pin(known(A, serial=6)), offered(B), TO_B, Comparison.ROLLED),
        (pin(known(A, serial=7)), offered(B), TO_B, Comparison.CHANGED),
        (pin(known(A, serial=8)), offered(B), TO_B, Comparison.CHANGED),
        (pin(known(A)), offered(C), TO_B, Comparison.CHANGED),
        (pin(known(C)), offered(B), TO_B, Comparison.CHANGED),
        (pin(known(C), known(A, Acceptance.NOT_YET)), offered(B), TO_B, Comparison.CHANGED),
        (pin(known(A)), offered(B), MetStatement(B, A, 7), Comparison.CHANGED),
        (pin(known(A), known(B)), offered(B), TO_B, Comparison.SAME),
        (pin(known(A), known(B)), offered(B, EPOCH - 1), TO_B, Comparison.OLD),
        (None, offered(B), TO_B, Comparison.NEW),
        (pin(known(A)), Observed.missing(), TO_B, Comparison.MISSING),
        (pin(known(A)), Observed.failed(), TO_B, Comparison.FAILED),
    ],
)
def test_compare_with_a_statement(
    remembered: Pin | None, observed: Observed, statement: MetStatement, word: Comparison
) -> None:
    assert compare(remembered, observed, statement) is word


def test_a_statement_that_does_not_count_never_changes_the_word() -> None:
    pins = [None, pin(known(A)), pin(known(A, serial=7), SEEN_ONLY), pin(known(A, serial=9), known(B))]
    sights = [offered(identity, full=full) for identity in (A, B, C) for full in (True, False)]
    for remembered, observed in itertools.product(pins, sights):
        for bad in (MetStatement(C, B, 99), MetStatement(A, B, 7), MetStatement(A, A, 99)):
            counts = remembered is not None and remembered.find(A) == known(A) and bad.serial == 7
            if not counts:
                assert compare(remembered, observed, bad) is compare(remembered, observed)


def test_is_accepted() -> None:
    assert is_accepted(None, A)
    assert is_accepted(pin(known(A)), A)
    assert not is_accepted(pin(known(A), SEEN_ONLY), B)
    assert not is_accepted(pin(known(A)), C)
