"""Each mail server sees, octet for octet, what it sees without gateways: the main property of this software.

Every dialogue runs in a lab without gateways and then through both gateways, through the sending one alone
(to a site without) and through the receiving one alone; what each party heard, how it learned of the end, and
where the sender comes from must be the same. The gateways' logs tell whether the dialogue was upgraded.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from gateway.errors import Reason
from gateway.lab.topology import Family
from tests.lab.conftest import Guarded
from tests.lab.dialogues import DIALOGUES, FIRST_CONTACT, SMUGGLING, Dialogue
from tests.lab.dialogues.from_vectors import real_openings
from tests.lab.exchange import MailSites, Outcome, Over
from tests.lab.gateway_log import Session
from tests.lab.steps import HearReset, Party, Reset

LOG_SECONDS = 10.0
"""Logs go out every 0.1 s; sessions are over when both of their connections are."""
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


@pytest.fixture(scope="module")
def acquainted(guarded_sites: Guarded) -> Guarded:
    """Gateways that have met: the first sessions to mta-b, by both families, are upgraded and remembered."""
    for family in Family:
        outcome = guarded_sites.sites.run(FIRST_CONTACT.steps, "a", "b", family)
        session = guarded_sites.logs["a"].ended(outcome.source, outcome.destination, LOG_SECONDS)
        assert session.decided in (Reason.UPGRADED_NEW_PEER, Reason.UPGRADED), session
    return guarded_sites


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
        if dialogue.may_end_unbegun and not session.lines:
            continue
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


@pytest.mark.parametrize("dialogue", parameters(DIALOGUES))
def test_dialogue(dialogue: Dialogue, acquainted: Guarded, bare_sites: MailSites) -> None:
    compare(dialogue, acquainted, bare_sites, ROUTES, Family.V4)


@pytest.mark.parametrize("dialogue", parameters(SMUGGLING))
def test_false_end_of_data(dialogue: Dialogue, acquainted: Guarded, bare_sites: MailSites) -> None:
    compare(dialogue, acquainted, bare_sites, ROUTES, Family.V4)


# By IPv6 the same code runs from the accept on: enough to see that each kind of session passes.
@pytest.mark.parametrize("dialogue", parameters(DIALOGUES[::4]))
def test_dialogue_by_ipv6(dialogue: Dialogue, acquainted: Guarded, bare_sites: MailSites) -> None:
    compare(dialogue, acquainted, bare_sites, ROUTES, Family.V6)


def test_openings_of_real_mail_servers(acquainted: Guarded, bare_sites: MailSites) -> None:
    """173 greetings and EHLO replies from the wild: nobody's is altered."""
    dialogues = real_openings()
    assert len(dialogues) > 150
    for dialogue in dialogues:
        for route in ROUTES:
            direct = bare_sites.run(dialogue.steps, route.sender, route.receiver)
            via = through(acquainted, dialogue, route, Family.V4)
            assert_equal(via, direct, dialogue)


def test_a_sender_that_resets_at_once_leaves_nothing_behind(acquainted: Guarded) -> None:
    """Often before the gateway has accepted it: yet the receiver must not sit there with the connection."""
    steps = (Reset(Party.SENDER), HearReset(Party.RECEIVER))
    for route in ROUTES * 15:
        acquainted.sites.run(steps, route.sender, route.receiver)
