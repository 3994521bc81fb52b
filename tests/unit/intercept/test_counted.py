"""One stranger with a whole network is one source, at every limit; inside each machine is its own."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.intercept.admission import Bounds, Limit
from gateway.intercept.counted import counted_as
from gateway.intercept.gate import Claim, Dial, Gate, GiveVerdict
from gateway.intercept.marks import Verdict
from gateway.intercept.outcomes import DialOutcome
from gateway.intercept.syn import Flow
from gateway.peers.sources import is_translated
from gateway.policy import limits
from gateway.smtp.events import Role

SENDING, RECEIVING = Role.SENDING, Role.RECEIVING
SERVER = ("2001:db8:99::25", 25)
NEIGHBOUR = "2001:db8:5:1::25"
"""A peer, in the /64 of whoever sends from all of its other addresses."""
ELSEWHERE = "2001:db8:5:2::25"


def stranger(number: int) -> str:
    return f"2001:db8:5:1:{number:x}::1"


def flow(source: str, port: int = 40_000, server: str = SERVER[0]) -> Flow:
    return Flow(source, port, server, SERVER[1])


def gate(**bounds: int) -> Gate:
    made = Gate(bounds=Bounds(**bounds), is_known=lambda flow, role: flow.source == NEIGHBOUR)
    made.server_answers(SERVER, 0)
    return made


def begin(made: Gate, each: Flow, role: Role = RECEIVING) -> Limit | None:
    """As far as a session; the limit that it met instead."""
    for command in made.syn_arrived(each, each, role, 0):
        if isinstance(command, GiveVerdict) and command.limit is not None:
            return command.limit
    if made.asked_to_dial(each):
        made.dial_finished(each, DialOutcome.CONNECTED, 0)
    assert made.accepted(each) in (Claim.DIALLED, Claim.DIAL_NOW)
    return None


@pytest.mark.parametrize(
    ("source", "role", "name"),
    [
        ("2001:db8:5:1::25", RECEIVING, "2001:db8:5:1::/64"),
        ("2001:db8:5:1:ffff:ffff:ffff:ffff", RECEIVING, "2001:db8:5:1::/64"),
        ("2001:db8:5:2::25", RECEIVING, "2001:db8:5:2::/64"),
        ("2001:db8::1", RECEIVING, "2001:db8:0:0::/64"),
        ("2001:db8:5:1::25", SENDING, "2001:db8:5:1::25"),
        ("192.0.2.1", RECEIVING, "192.0.2.1"),
        ("192.0.2.1", SENDING, "192.0.2.1"),
        ("64:ff9b::c000:201", RECEIVING, "64:ff9b::c000:201"),
        ("64:ff9b:1::c000:201", RECEIVING, "64:ff9b:1::c000:201"),
        ("64:ff9:b::1", RECEIVING, "64:ff9:b:0::/64"),
    ],
)
def test_whom_a_connection_counts_for(source: str, role: Role, name: str) -> None:
    assert counted_as(flow(source), role) == name


PART = st.one_of(st.just(0), st.integers(0, 0xFFFF))


@given(st.lists(PART, min_size=8, max_size=8))
def test_however_its_text_leaves_out_zeros_its_network_is_named(parts: list[int]) -> None:
    address = str(IPv6Address(":".join(f"{part:x}" for part in parts)))
    assume(not is_translated(address))
    assert IPv6Network(counted_as(flow(address), RECEIVING)) == IPv6Network((address, 64), strict=False)
    assert counted_as(flow(address), RECEIVING).startswith(":".join(f"{part:x}" for part in parts[:4]) + "::")


def test_a_network_has_the_sessions_of_one_source() -> None:
    made = gate(sessions_per_source=4)
    found = [begin(made, flow(stranger(number))) for number in range(1, 6)]
    assert found == [None] * 3 + [Limit.SESSIONS] * 2
    assert begin(made, flow(ELSEWHERE)) is None
    made.ended(flow(stranger(1)))
    assert begin(made, flow(stranger(6))) is None


def test_a_peer_has_what_its_neighbours_leave_and_they_have_no_part_in_it() -> None:
    made = gate(sessions_per_source=4)
    for number in range(1, 4):
        assert begin(made, flow(stranger(number))) is None
    assert begin(made, flow(NEIGHBOUR)) is None
    assert begin(made, flow(NEIGHBOUR, 40_001)) is Limit.SESSIONS


def test_inside_a_machine_leaves_those_of_its_network_theirs() -> None:
    made = gate(sessions_per_source=4, connects_per_source=4)
    assert [begin(made, flow(stranger(number)), SENDING) for number in range(1, 9)] == [None] * 8
    again = [begin(made, flow(stranger(1), 40_000 + number), SENDING) for number in range(1, 4)]
    assert again == [None, None, Limit.SESSIONS]


def test_a_network_has_the_dials_of_one_source() -> None:
    made = gate(connects_per_source=4)
    servers = [f"2001:db8:99::{number}" for number in range(1, 6)]
    found = [
        made.syn_arrived(number, flow(stranger(number), server=server), RECEIVING, 0)
        for number, server in enumerate(servers)
    ]
    assert [type(command) for (command,) in found] == [Dial] * 3 + [GiveVerdict] * 2
    assert found[3] == [GiveVerdict(3, Verdict.PASS, Limit.CONNECTS)]
    made.dial_finished(flow(stranger(0), server=servers[0]), DialOutcome.REFUSED, 1)
    assert begin(made, flow(stranger(5), server=servers[4])) is None


def test_a_network_has_the_held_syns_of_one_source() -> None:
    made = Gate(held_per_source_limit=2)
    for number in range(2):
        made.syn_arrived(number, flow(stranger(number)), RECEIVING, 0)
    assert made.syn_arrived(2, flow(stranger(2)), RECEIVING, 0) == [GiveVerdict(2, Verdict.TAKE)]
    made.syn_arrived(3, flow(ELSEWHERE), RECEIVING, 0)
    assert made.held == 3


def test_a_network_that_answers_late_is_reset_far_over_the_limit() -> None:
    made = gate(sessions_per_source=4)
    flows = [flow(stranger(number)) for number in range(12)]
    for each in flows:
        made.syn_arrived(each, each, RECEIVING, 0)
    assert [made.accepted(each) for each in flows] == [Claim.DIAL_NOW] * 8 + [Claim.TOO_MANY] * 4


def test_a_network_that_the_server_ignores_does_not_fill_the_row_for_a_probe() -> None:
    made, there = Gate(), flow(ELSEWHERE)
    for number in range(3):
        made.syn_arrived(number, flow(stranger(number)), RECEIVING, 0)
    made.syn_arrived("elsewhere", there, RECEIVING, 0)
    assert made.tick(limits.PROBE_SECONDS) == [Dial(there)]


@pytest.mark.parametrize("role", [SENDING, RECEIVING])
def test_of_what_is_over_nothing_is_counted_any_more(role: Role) -> None:
    made = Gate()
    outcomes = [DialOutcome.CONNECTED, DialOutcome.REFUSED, DialOutcome.CONNECTED, DialOutcome.CONNECTED]
    for number, outcome in enumerate(outcomes):
        made.syn_arrived(number, flow(stranger(number), server=f"2001:db8:99::{number}"), role, 0)
        made.dial_finished(flow(stranger(number), server=f"2001:db8:99::{number}"), outcome, 0)
    made.syn_arrived(4, flow(stranger(4), server="2001:db8:99::4"), role, 0)
    made.accepted(flow(stranger(0), server="2001:db8:99::0"))
    made.ended(flow(stranger(0), server="2001:db8:99::0"))
    made.forget(flow(stranger(2), server="2001:db8:99::2"))
    made.forget(flow(stranger(4), server="2001:db8:99::4"))
    made.tick(limits.UNCLAIMED_SECONDS + 1)
    admission = made._admission
    # A counter takes what it has none of for what it does not know.
    left = [admission.sessions._by_source, admission.connects._by_source, made._held._of_source]
    assert [dict(one) for one in left] == [{}, {}, {}]
