"""Limits of the gate: what is over one passes as without us, strangers first; what ends makes room again."""

from __future__ import annotations

import pytest

from gateway.intercept.admission import Bounds, Limit
from gateway.intercept.gate import Claim, Gate, GiveVerdict
from gateway.intercept.marks import Verdict
from gateway.intercept.outcomes import DialOutcome
from gateway.intercept.syn import Flow
from gateway.policy import limits
from gateway.smtp.events import Role

SENDING, RECEIVING = Role.SENDING, Role.RECEIVING
PEER = "192.0.2.99"


def flow(port: int, source: str = "192.0.2.1", server: str = "198.51.100.7") -> Flow:
    return Flow(source, port, server, 25)


def gate(**bounds: int) -> Gate:
    return Gate(bounds=Bounds(**bounds), is_known=lambda flow, role: flow.source == PEER)


def begin(made: Gate, each: Flow, role: Role = SENDING, now: float = 0) -> Limit | None:
    """Bring one flow as far as a session; the limit that it met instead."""
    commands = made.syn_arrived(each, each, role, now)
    for command in commands:
        if isinstance(command, GiveVerdict) and command.limit is not None:
            assert command.verdict is Verdict.PASS
            assert made.held == 0
            return command.limit
    if made.asked_to_dial(each):
        made.dial_finished(each, DialOutcome.CONNECTED, now)
    assert made.accepted(each) in (Claim.DIALLED, Claim.DIAL_NOW)
    return None


@pytest.mark.parametrize("role", [SENDING, RECEIVING])
def test_sessions_over_the_total_pass_and_an_end_makes_room(role: Role) -> None:
    made = gate(sessions=8)
    flows = [flow(port) for port in range(1, 8)]
    assert [begin(made, each, role) for each in flows] == [None] * 6 + [Limit.SESSIONS]
    made.ended(flows[0])
    assert begin(made, flows[6], role) is None
    assert made.live == 6


@pytest.mark.parametrize("role", [SENDING, RECEIVING])
def test_one_source_meets_its_own_limit_and_others_do_not(role: Role) -> None:
    made = gate(sessions_per_source=4)
    assert [begin(made, flow(port), role) for port in range(1, 6)] == [None] * 3 + [Limit.SESSIONS] * 2
    assert begin(made, flow(1, "192.0.2.2"), role) is None


@pytest.mark.parametrize("role", [SENDING, RECEIVING])
def test_strangers_leave_a_quarter_to_those_that_have_upgraded(role: Role) -> None:
    made = gate(sessions=8)
    for port in range(1, 7):
        assert begin(made, flow(port), role) is None
    assert begin(made, flow(7), role) is Limit.SESSIONS
    assert begin(made, flow(1, PEER), role) is None
    assert begin(made, flow(2, PEER), role) is None
    assert begin(made, flow(3, PEER), role) is Limit.SESSIONS


def test_dials_over_the_limit_pass_and_an_outcome_makes_room() -> None:
    made = gate(connects=4)
    for port in (1, 2, 3):
        made.syn_arrived(port, flow(port), SENDING, 0)
    assert made.syn_arrived(4, flow(4), SENDING, 0) == [GiveVerdict(4, Verdict.PASS, Limit.CONNECTS)]
    made.dial_finished(flow(1), DialOutcome.REFUSED, 1)
    assert begin(made, flow(4)) is None


def test_dials_of_one_source_meet_its_own_limit() -> None:
    made = gate(connects_per_source=4)
    for port in (1, 2, 3):
        made.syn_arrived(port, flow(port), SENDING, 0)
    assert made.syn_arrived(4, flow(4), SENDING, 0) == [GiveVerdict(4, Verdict.PASS, Limit.CONNECTS)]
    assert begin(made, flow(1, "192.0.2.2")) is None


def test_a_dialled_connection_counts_until_its_client_comes_or_is_given_up() -> None:
    made = gate(connects=4)
    for port in (1, 2, 3):
        made.syn_arrived(port, flow(port), SENDING, 0)
        made.dial_finished(flow(port), DialOutcome.CONNECTED, 0)
    assert begin(made, flow(4)) is Limit.CONNECTS
    assert made.accepted(flow(1)) is Claim.DIALLED
    assert begin(made, flow(4)) is None
    made.tick(limits.UNCLAIMED_SECONDS + 1)
    for port in (5, 6, 7):
        made.syn_arrived(port, flow(port), SENDING, limits.UNCLAIMED_SECONDS + 1)
    assert made.held == 3


def test_forged_syns_are_bounded_and_their_names_do_not_count() -> None:
    """They are taken, and never accepted; beyond the bound they pass, and in time they are forgotten."""
    made = gate(awaited=8, sessions_per_source=4)
    server = ("198.51.100.7", 25)
    made.server_answers(server, 0)
    taken = [made.syn_arrived(port, flow(port), RECEIVING, 1) for port in range(1, 7)]
    assert [command.verdict for (command,) in taken] == [Verdict.TAKE] * 6  # type: ignore[union-attr]
    assert made.syn_arrived(7, flow(7), RECEIVING, 1) == [GiveVerdict(7, Verdict.PASS, Limit.AWAITED)]
    assert begin(made, flow(1, PEER), RECEIVING, 1) is None
    assert made.awaited == 6
    made.tick(limits.UNCLAIMED_SECONDS + 2)
    assert made.awaited == 0
    made.server_answers(server, limits.UNCLAIMED_SECONDS + 2)
    assert begin(made, flow(7), RECEIVING, limits.UNCLAIMED_SECONDS + 2) is None


def test_syns_forged_in_a_peers_name_take_what_strangers_leave() -> None:
    """For as long as they come; then it is the peer's again."""
    made = gate(awaited=8)
    made.server_answers(("198.51.100.7", 25), 0)
    for port in range(1, 9):
        assert made.syn_arrived(port, flow(port, PEER), RECEIVING, 1) == [GiveVerdict(port, Verdict.TAKE)]
    assert begin(made, flow(9, PEER), RECEIVING, 1) is Limit.AWAITED
    made.tick(limits.UNCLAIMED_SECONDS + 2)
    assert begin(made, flow(9, PEER), RECEIVING, limits.UNCLAIMED_SECONDS + 2) is None


def test_whoever_sends_all_syns_before_answering_is_reset_far_over_the_limit() -> None:
    made = gate(sessions_per_source=4)
    made.server_answers(("198.51.100.7", 25), 0)
    flows = [flow(port) for port in range(1, 21)]
    for each in flows:
        assert made.syn_arrived(each, each, RECEIVING, 1) == [GiveVerdict(each, Verdict.TAKE)]
    claims = [made.accepted(each) for each in flows]
    assert claims == [Claim.DIAL_NOW] * 8 + [Claim.TOO_MANY] * 12
    assert made.live == 8
    assert begin(made, flow(1, "192.0.2.2"), RECEIVING, 1) is None


def test_without_descriptors_new_flows_pass_and_old_ones_go_on() -> None:
    made = gate()
    made.syn_arrived(1, flow(1), SENDING, 0)
    made.has_room = False
    assert made.syn_arrived(2, flow(2), SENDING, 0) == [GiveVerdict(2, Verdict.PASS, Limit.DESCRIPTORS)]
    assert made.dial_finished(flow(1), DialOutcome.CONNECTED, 0) == [GiveVerdict(1, Verdict.TAKE)]
    assert made.accepted(flow(1)) is Claim.DIALLED
    made.has_room = True
    assert begin(made, flow(2)) is None


def test_a_session_that_is_taken_up_twice_counts_once() -> None:
    """A client that uses its port again: the second one waits for the end of the first."""
    made = gate(sessions=4)
    each = flow(1)
    for _ in range(5):
        assert begin(made, each) is None
        made.ended(each)
    assert made.live == 0
    assert [begin(made, flow(port)) for port in (2, 3, 4)] == [None] * 3
    assert begin(made, flow(5)) is Limit.SESSIONS


def test_the_limits_that_ship_are_in_order() -> None:
    bounds = Bounds()
    assert bounds.sessions_per_source < bounds.sessions * limits.STRANGERS_SHARE
    assert bounds.connects_per_source < bounds.connects * limits.STRANGERS_SHARE
    # Held SYNs turn to accept-first before dials pass: the mild remedy comes first.
    assert bounds.connects_per_source * limits.STRANGERS_SHARE > limits.HELD_SYNS_PER_SOURCE
    assert bounds.connects * limits.STRANGERS_SHARE > limits.HELD_SYNS
