"""What a query is, what the answers are, and the worlds that most queries are asked in.

Counterparts: `queries` and `queries_of_tickets`, the claims; `spass`, which answers.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final

from tests.model.world import Check, World


class Verdict(enum.Enum):
    """What the prover found."""

    HOLDS = "holds"
    """The fact does not follow: there is no such attack."""
    ATTACK = "attack"
    """The fact follows: the attacker gets there."""
    REACHED = "reached"
    """The fact follows, and it is what the gateways are for: an honest run."""


@dataclass(frozen=True, slots=True)
class Query:
    """`claim` is its name, unique; `goal` the fact that is asked about."""

    claim: str
    goal: str
    expected: Verdict
    world: World
    option: str = ""
    """How the prover is asked first, where that is much quicker than the usual way."""


ALL_KEYS: Final = ("id(r1)", "st(r1)", "id(s1)", "st(s1)")
KEYS_OF_S: Final = ("id(s1)", "st(s1)")
KEYS_OF_R: Final = ("id(r1)", "st(r1)")
EPHEMERALS: Final = ("ex(r1,c)", "kx(r1,c)")

PINNED: Final = World()
FIRST_CONTACT: Final = World(pinned=False)
PASSIVE: Final = World(active=False, pinned=False)


def left_out(query: Query) -> str:
    """The checks that this query goes without, in words."""
    return ", ".join(sorted(check.value for check in query.world.without))


def holds(claim: str, goal: str, world: World) -> Query:
    return Query(claim, goal, Verdict.HOLDS, world)


def attack(claim: str, goal: str, world: World) -> Query:
    return Query(claim, goal, Verdict.ATTACK, world)


def without(
    query: Query, check: Check, *, stolen: tuple[str, ...] = (), stolen_later: tuple[str, ...] = ()
) -> Query:
    """The same question in a world that lacks `check`; the attack must be found there.

    What is stolen is that of `query`, or other things where the attack needs them.
    """
    world = replace(
        query.world,
        without=query.world.without | {check},
        stolen=stolen or query.world.stolen,
        stolen_later=stolen_later or query.world.stolen_later,
    )
    return Query(f"{query.claim}/without-{name_of(check)}", query.goal, Verdict.ATTACK, world)


def name_of(check: Check) -> str:
    return check.name.lower().replace("_", "-")


def know(secret: str) -> str:
    return f"know({secret})"


def later(secret: str) -> str:
    return f"later({secret})"
