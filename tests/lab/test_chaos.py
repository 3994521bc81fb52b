"""A short selection of `scripts/chaos`: faults under a load of real mail, with and without gateways.

Namespaces nmc-. The whole table is the command's; what it showed stands in docs/faults.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.chaos import ground
from bench.chaos.__main__ import line, meets_the_bar, strike
from bench.chaos.faults import FAULTS
from bench.chaos.ground import World

pytestmark = pytest.mark.usefixtures("has_its_turn")

PUT_BACK_SECONDS = 1.0
TRIES = 2
"""A machine that stands still for a second lets nobody through, whatever is or is not on the way."""
SELECTION = {
    "workers-killed": ["a worker-died"],
    "workers-stopped": ["a worker-hung"],
    "everything-stopped": [],
    "descriptors-b": ["b overloaded"],
    "nft-flush-ruleset": ["a rules-missing"],
    "queue-overrun": [],
    "far-gateway-off-and-on": [],
    "upgrade": [],
}
"""And what must ring. Who is hurt twice rings once: of the last ones it depends on what came before."""


@pytest.fixture(scope="module")
def worlds() -> Iterator[tuple[World, World]]:
    with ground.standing() as both:
        yield both


@pytest.mark.parametrize(
    "name", [name if name != "upgrade" else pytest.param(name, marks=pytest.mark.long) for name in SELECTION]
)
def test_mail_does_not_notice(worlds: tuple[World, World], name: str) -> None:
    for attempt in range(TRIES):
        row = strike(FAULTS[name], worlds)
        print(line(row))
        assert row["mails"] > 0, "a load that carries nothing shows nothing"
        assert not (row["lost"] or row["doubled"] or row["altered"])
        assert row["connections_dark"] > 0, "no session was encrypted: nothing was tested"
        assert set(SELECTION[name]) <= set(row["rang"])
        if meets_the_bar(row) and row.get("put_back_s", 0.0) <= PUT_BACK_SECONDS:
            return
        assert attempt + 1 < TRIES, line(row)
