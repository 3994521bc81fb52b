"""What becomes of a worker's tickets when its site is presented anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.crypto.keys import IdentityPublic
from gateway.crypto.tickets import Ticket
from gateway.runtime.order import Presented
from gateway.runtime.worker.surroundings import Surroundings
from tests.playbook import OTHER_KEYS, R_KEYS
from tests.unit.runtime.worker.without_sockets import CLIENT, Worker, flow

NOW = 1000.0
TICKET = Ticket(b"name", b"secret", IdentityPublic(OTHER_KEYS.identity.octets), 1, None)
PRESENTED = Presented(
    R_KEYS.identity.octets, bytes(range(32)), 1, R_KEYS.endorsed.not_after, bytes(64), (b"a statement",)
)


@pytest.fixture
def surroundings(tmp_path: Path) -> Iterator[Surroundings]:
    with closing(Worker(tmp_path)) as worker:
        worker._surroundings.present(PRESENTED)
        keep(worker._surroundings)
        yield worker._surroundings


def keep(surroundings: Surroundings) -> None:
    of_pair = surroundings.receiving(flow(CLIENT), NOW).tickets
    held = surroundings.sending(flow(CLIENT)).tickets
    assert of_pair is not None
    assert held is not None
    of_pair.keep(TICKET, NOW)
    held.keep(TICKET, NOW)


def left(surroundings: Surroundings) -> tuple[bool, bool]:
    """As S, as R."""
    of_pair = surroundings.receiving(flow(CLIENT), NOW).tickets
    held = surroundings.sending(flow(CLIENT)).tickets
    assert of_pair is not None
    assert held is not None
    return held.take(TICKET.name, NOW) is not None, of_pair.take(NOW) is not None


def test_a_new_static_key_costs_no_ticket(surroundings: Surroundings) -> None:
    surroundings.present(replace(PRESENTED, epoch=2, static=bytes(range(1, 33))))
    assert left(surroundings) == (True, True)


def test_another_identity_takes_all_tickets_away(surroundings: Surroundings) -> None:
    surroundings.present(replace(PRESENTED, identity=OTHER_KEYS.identity.octets))
    assert left(surroundings) == (False, False)


def test_another_statement_is_shown_in_whole_handshakes_first(surroundings: Surroundings) -> None:
    surroundings.present(replace(PRESENTED, statements=()))
    assert left(surroundings) == (True, False)
    keep(surroundings)
    surroundings.present(replace(PRESENTED, statements=(b"another one",)))
    assert left(surroundings) == (True, False)


@pytest.mark.parametrize(
    ("presented", "as_s"),
    [
        (replace(PRESENTED, identity=OTHER_KEYS.identity.octets), False),
        (replace(PRESENTED, statements=(b"another one",)), True),
    ],
    ids=["identity", "statements"],
)
def test_what_a_session_leaves_that_began_before_is_gone_too(
    surroundings: Surroundings, presented: Presented, as_s: bool
) -> None:
    left(surroundings)  # takes what is there
    of_pair = surroundings.receiving(flow(CLIENT), NOW).tickets
    held = surroundings.sending(flow(CLIENT)).tickets
    assert of_pair is not None
    assert held is not None
    surroundings.present(presented)
    of_pair.keep(TICKET, NOW)
    held.keep(TICKET, NOW)
    assert left(surroundings) == (as_s, False)
