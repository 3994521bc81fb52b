"""Whether mail servers see the same with gateways as without: one dialogue both ways, compared.

Counterparts: `dialogues`, what is said; `test_equality`, and the tests of the other placements.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from gateway.errors import Reason
from gateway.lab.topology import Family
from tests.lab.conftest import Guarded
from tests.lab.dialogues import DIALOGUES, Dialogue
from tests.lab.exchange import MailSites, Outcome, Over
from tests.lab.gateway_log import LOG_SECONDS, Session

UPGRADED = (Reason.UPGRADED, Reason.UPGRADED_NEW_PEER)


@dataclass(frozen=True)
class Route:
    """Which way a dialogue goes, and which gateways are on it."""

    name: str
    sender: str
    receiver: str
    gateways: str

    def expected(self, dialogue: Dialogue) -> dict[str, Reason]:
        """Each gateway's decision."""
        if self.gateways == "ab":
            return {"a": dialogue.sending, "b": dialogue.receiving}
        if self.gateways == "a":
            return {"a": dialogue.sending_alone}
        return {"b": dialogue.receiving_alone}


BOTH = Route("both", "a", "b", "ab")
GOES_ON = next(dialogue for dialogue in DIALOGUES if dialogue.name == "plain")
ROUTES = (BOTH, Route("sending alone", "a", "c", "a"), Route("receiving alone", "c", "b", "b"))


def parameters(dialogues: list[Dialogue]) -> list[object]:
    return [
        pytest.param(one, id=one.name.replace(" ", "-"), marks=[pytest.mark.long] if one.long else [])
        for one in dialogues
    ]


def assert_equal(via: Outcome, direct: Outcome, dialogue: Dialogue) -> None:
    if dialogue.repeatable:
        assert via.receiver == direct.receiver
        assert via.sender == direct.sender
    else:
        assert via.receiver.plain == direct.receiver.plain
        assert via.sender.plain == direct.sender.plain
        assert via.receiver.over == direct.receiver.over
        assert via.sender.over == direct.sender.over
    # Whoever was not cut off by a reset has heard every octet, and nothing else.
    for heard, said in (
        (via.receiver.octets, via.said_by_sender),
        (via.sender.octets, via.said_by_receiver),
    ):
        assert said.startswith(heard)
    if via.receiver.over is Over.END:
        assert via.receiver.octets == via.said_by_sender
    assert via.seen_source == via.source


def assert_logged(guarded: Guarded, route: Route, outcome: Outcome, dialogue: Dialogue) -> None:
    for letter, expected in route.expected(dialogue).items():
        patience = 1.0 if dialogue.may_end_unbegun else LOG_SECONDS
        session = guarded.logs[letter].ended(outcome.source, outcome.destination, patience)
        if dialogue.may_end_unbegun:
            if not session.lines:
                continue
            session = guarded.logs[letter].ended(outcome.source, outcome.destination)
        if session.decided is Reason.SOURCE_IN_CLEAR:
            # The same client has upgraded in other dialogues: the receiving gateway says so, and why not now.
            assert any(f"cause={expected.value}" in line for line in session.lines), told(
                letter, expected, session
            )
            continue
        assert session.decided is expected, told(letter, expected, session)
        assert session.protected == (expected in UPGRADED), told(letter, expected, session)
        assert session.ended is not None, told(letter, "ended", session)
    for letter, log in guarded.logs.items():
        assert not log.errors, f"gw-{letter}: {log.errors}"


def told(letter: str, expected: object, session: Session) -> str:
    return f"gw-{letter}, expected {expected}:\n{session}"


def through(guarded: Guarded, dialogue: Dialogue, route: Route, family: Family) -> Outcome:
    """To a sender without a gateway an offer is what it is to any mailer: a keyword that it does not know.

    There, and only there, the lines of the offer are looked past.
    """
    return guarded.sites.run(
        dialogue.steps,
        route.sender,
        route.receiver,
        family,
        dialogue.patience,
        cut_offer=route.gateways == "b",
    )


def compare(
    dialogue: Dialogue, guarded: Guarded, bare: MailSites, routes: tuple[Route, ...], family: Family
) -> None:
    def run(route: Route) -> tuple[Outcome, Outcome]:
        direct = bare.run(dialogue.steps, route.sender, route.receiver, family, dialogue.patience)
        try:
            return direct, through(guarded, dialogue, route, family)
        except AssertionError as error:
            raise AssertionError(f"{route.name}: {error}") from None

    # Those that wait for a mail server's leisure wait together.
    with ThreadPoolExecutor(len(routes) if dialogue.takes_its_time else 1) as pool:
        outcomes = list(zip(routes, pool.map(run, routes), strict=True))
    for _route, (direct, via) in outcomes:
        assert_equal(via, direct, dialogue)
    for route, (_direct, via) in outcomes:
        assert_logged(guarded, route, via, dialogue)
        if route.gateways == "b":
            # A client that has twice in a row gone away right behind an offer gets none for a day. This one
            # has only done as it was told, so it goes on once.
            through(guarded, GOES_ON, route, family)
