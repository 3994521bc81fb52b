"""Each mail server sees, octet for octet, what it sees without gateways: the main property of this software.

Every dialogue runs in a lab without gateways and then through both gateways, through the sending one alone
(to a site without) and through the receiving one alone; what each party heard, how it learned of the end, and
where the sender comes from must be the same. The gateways' logs tell whether the dialogue was upgraded.
"""

from __future__ import annotations

import pytest

from gateway.lab.topology import Family
from tests.lab import in_any_placement
from tests.lab.conftest import Guarded
from tests.lab.dialogues import DIALOGUES, SMUGGLING, Dialogue
from tests.lab.dialogues.from_vectors import real_openings
from tests.lab.equality import ROUTES, assert_equal, compare, parameters, through
from tests.lab.exchange import MailSites
from tests.lab.steps import HearReset, Party, Reset


@pytest.fixture(scope="module")
def acquainted(guarded_sites: Guarded) -> Guarded:
    """Gateways that have met."""
    in_any_placement.meet(guarded_sites)
    return guarded_sites


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
