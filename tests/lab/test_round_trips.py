"""How often the sender has to wait: with gateways just as often as without, also at first contact.

Counted in captures of the wire, not in time. Two rare senders wait once more, and only once: one that sends
content of a mail before it has heard the reply to its first command, and one that sends behind its EHLO
unasked (docs/protocol.md, "First flight").
"""

from __future__ import annotations

import pytest

from gateway.errors import Reason
from gateway.eyes import wire
from gateway.lab.topology import Family
from tests.lab.conftest import Guarded
from tests.lab.dialogues import DIALOGUES, FIRST_CONTACT, Dialogue
from tests.lab.exchange import MailSites

BY_NAME = {dialogue.name: dialogue for dialogue in DIALOGUES}
NO_LATER = [
    "plain",
    "pipelining",
    "several transactions",
    "several recipients",
    "auth login",
    "starttls",
    "bdat",
    "bdat in chunks",
    "bdat chunks pipelined",
    "lower case ehlo",
    "50-line banner",
    "early ehlo",
    "reply of 1.9 kB",
    "helo only",
    "nothing but quit",
]
ONE_LATER = ["bdat before the first reply", "200 kB bdat before the first reply", "octets behind the ehlo"]


def extra(dialogue: Dialogue, watched: Guarded, bare: MailSites, family: Family) -> tuple[int, Reason | None]:
    """How many round trips more with gateways, and what the sending gateway decided."""
    direct = bare.run(dialogue.steps, "a", "b", family)
    via = watched.sites.run(dialogue.steps, "a", "b", family)
    session = watched.logs["a"].ended(via.source, via.destination)
    more = wire.round_trips(watched.sites.on_the_wire(via)) - wire.round_trips(bare.on_the_wire(direct))
    return more, session.decided


def test_first_contact_costs_no_round_trip(watched_sites: Guarded, watched_bare_sites: MailSites) -> None:
    # By IPv6, which no other test of this lab uses before: whoever was met before is no stranger.
    first = extra(FIRST_CONTACT, watched_sites, watched_bare_sites, Family.V6)
    assert first == (0, Reason.UPGRADED_NEW_PEER)
    later = extra(FIRST_CONTACT, watched_sites, watched_bare_sites, Family.V6)
    assert later == (0, Reason.UPGRADED)


@pytest.mark.parametrize("name", NO_LATER)
def test_no_round_trip_more(name: str, watched_sites: Guarded, watched_bare_sites: MailSites) -> None:
    assert extra(BY_NAME[name], watched_sites, watched_bare_sites, Family.V4)[0] == 0


@pytest.mark.parametrize("name", ONE_LATER)
def test_one_round_trip_more(name: str, watched_sites: Guarded, watched_bare_sites: MailSites) -> None:
    assert extra(BY_NAME[name], watched_sites, watched_bare_sites, Family.V4)[0] == 1
