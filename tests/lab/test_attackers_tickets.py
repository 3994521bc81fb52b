"""Attacks where two gateways have tickets of each other, on a real wire: they achieve what the table says.

Each trial has a sender's address of its own, for what goes wrong with one ticket ends all of that sender's.
Counterpart: `tests.attackers.expectations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import pytest

from tests.attackers import ground, verdict
from tests.attackers.attack import Attack, End, Kind
from tests.attackers.expectations import BY_NAME, ROWS, Row
from tests.attackers.ground import Ground, Trial
from tests.attackers.replaying import FromBefore, of_kind
from tests.lab.conftest import build_bare, slot

SINGLE = [row for row in ROWS if row.attack is not None and row.ticket]
ONE_LINE, FOUR_LINES = b"XNIGHTMAIL 1 1/1 ", b"XNIGHTMAIL 1 4/4 "


@pytest.fixture(scope="module")
def field() -> Iterator[Ground]:
    with slot() as lab:
        build_bare(lab, with_gateways=False, with_listener=False)
        with ground.opened(lab, tickets=True) as made:
            yield made


@pytest.fixture(scope="module")
def outcomes(field: Ground) -> dict[str, tuple[Trial, Trial]]:
    """Every row that is one session, run; and an honest session behind it."""
    trials = {row.name: trial(field, cast("Callable[[], Attack]", row.attack)) for row in SINGLE}
    field.meet([one.target for one in trials.values()], {one.target: one.home for one in trials.values()})
    field.attempt(list(trials.values()), at_once=len(trials))
    behind = {name: again(field, Attack, one) for name, one in trials.items()}
    field.attempt(list(behind.values()))
    return {name: (trials[name], behind[name]) for name in trials}


def trial(field: Ground, attack: Callable[[], Attack]) -> Trial:
    return field.trial(attack, field.target(), home=field.source())


def again(field: Ground, attack: Callable[[], Attack], before: Trial) -> Trial:
    """The same two mail servers once more."""
    return field.trial(attack, before.target, home=before.home)


def offers(one: Trial) -> list[bytes]:
    """The replies that left R, of each dial."""
    assert one.wire is not None
    return [piece.octets for piece in one.wire.pieces if (piece.origin, piece.kind) == (End.R, Kind.REPLY)]


@pytest.mark.parametrize("row", SINGLE, ids=lambda row: row.name)
def test_an_attack_achieves_what_the_table_says(row: Row, outcomes: dict[str, tuple[Trial, Trial]]) -> None:
    attacked, behind = outcomes[row.name]
    first, *others = offers(attacked)
    assert ONE_LINE in first
    assert all(FOUR_LINES in other for other in others)
    verdict.check(row, attacked)
    assert (behind.at_s.decided, behind.at_s.alarmed, behind.at_s.failures) == ("upgraded", False, ())


# --- What takes more than one session ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "origin", "kind"),
    [
        ("offer from before, with a ticket", End.R, Kind.REPLY),
        ("message 2 from before, with a ticket", End.S, Kind.ANSWER),
    ],
)
def test_what_was_said_before_opens_nothing(name: str, origin: End, kind: Kind, field: Ground) -> None:
    """Of the session before, which had a ticket, too."""
    first = trial(field, Attack)
    field.meet([first.target], {first.target: first.home})
    (recorded,) = field.attempt([again(field, Attack, first)])
    assert ONE_LINE in offers(recorded)[0]
    assert recorded.wire is not None
    old = of_kind(recorded.wire.pieces, origin, kind)
    (attacked,) = field.attempt([again(field, lambda: FromBefore(origin, kind, old), first)])
    assert ONE_LINE in offers(attacked)[0]
    verdict.check(BY_NAME[name], attacked)


def test_a_record_that_was_changed_leaves_no_ticket_that_the_other_side_has_not(field: Ground) -> None:
    """In the very first session: R has accepted the answer, and S has not confirmed R."""
    row = BY_NAME["octet of R's first record"]
    attacked = trial(field, cast("Callable[[], Attack]", row.attack))
    field.attempt([attacked])
    assert attacked.at_s.decided == "upgraded-new-peer"
    assert [FOUR_LINES in offer for offer in offers(attacked)] == [True, True]
    assert attacked.mails == [attacked.mail.content]
    assert attacked.mail.envelope not in attacked.on_the_wire
