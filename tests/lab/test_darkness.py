"""What a listener on the wire learns of mail between two gateways: nothing of envelope, headers or body.

The same search finds everything in the mail to a site without a gateway, so it can find.
Counterpart: `darkness`.
"""

from __future__ import annotations

import pytest

from gateway.errors import Reason
from gateway.lab.topology import Family
from tests.lab.conftest import Guarded
from tests.lab.darkness import SPOKEN, assert_dark, secret_octets, windows
from tests.lab.dialogues import Dialogue
from tests.lab.dialogues.words import EHLO, GREETING, REPLY


@pytest.mark.parametrize("dialogue", [pytest.param(one, id=one.name.replace(" ", "-")) for one in SPOKEN])
def test_between_gateways_nothing_is_readable(dialogue: Dialogue, watched_sites: Guarded) -> None:
    outcome = watched_sites.sites.run(dialogue.steps, "a", "b", Family.V4)
    session = watched_sites.logs["a"].ended(outcome.source, outcome.destination)
    assert session.decided in (Reason.UPGRADED, Reason.UPGRADED_NEW_PEER), session
    assert_dark(watched_sites.sites.on_the_wire(outcome), outcome)


@pytest.mark.parametrize("dialogue", [pytest.param(one, id=one.name.replace(" ", "-")) for one in SPOKEN])
def test_the_same_search_finds_all_where_there_is_one_gateway(
    dialogue: Dialogue, watched_sites: Guarded
) -> None:
    outcome = watched_sites.sites.run(dialogue.steps, "a", "c", Family.V4)
    seen = watched_sites.sites.on_the_wire(outcome)
    assert seen.from_client == outcome.said_by_sender
    assert seen.from_server == outcome.said_by_receiver
    assert windows(secret_octets(outcome)) <= windows(
        outcome.said_by_sender[len(EHLO) :] + b"\0" + seen.from_server[len(GREETING + REPLY) :]
    )


@pytest.mark.parametrize("to", ["b", "c"], ids=["sealed", "in-clear"])
def test_no_word_of_a_mail_and_no_address_is_in_a_log(to: str, watched_sites: Guarded) -> None:
    """Of what mail servers say, greeting, EHLO and its reply alone may be told."""
    secret = set()
    for dialogue in SPOKEN:
        outcome = watched_sites.sites.run(dialogue.steps, "a", to, Family.V4)
        ended = watched_sites.logs["a"].ended(outcome.source, outcome.destination)
        assert ended.decided is not None, dialogue.name
        secret |= windows(secret_octets(outcome))
    secret -= windows(EHLO + GREETING + REPLY)
    assert b"MAIL FRO" in secret
    for letter in "ab":
        log = watched_sites.sites.lab.gateway(letter).log.read_bytes()
        assert b" session decided " in log
        assert not secret & windows(log)
