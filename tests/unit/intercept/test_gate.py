"""The gate's judgements: each held SYN gets exactly one verdict, in both roles, whatever happens when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.intercept.gate import (
    Claim,
    CloseUnclaimed,
    Dial,
    Gate,
    GateCommand,
    GiveVerdict,
)
from gateway.intercept.marks import Verdict
from gateway.intercept.outcomes import DialOutcome
from gateway.intercept.syn import Flow
from gateway.policy import limits
from gateway.smtp.events import Role

SENDING, RECEIVING = Role.SENDING, Role.RECEIVING


def flow(port: int = 40025, source: str = "192.0.2.1", server: str = "198.51.100.7") -> Flow:
    return Flow(source, port, server, 25)


ONE, TWO, THREE = flow(1), flow(2), flow(3)


# --- Sending --------------------------------------------------------------------------------------------

OUTCOMES = [
    (DialOutcome.CONNECTED, Verdict.TAKE),
    (DialOutcome.REFUSED, Verdict.REFUSE),
    (DialOutcome.HOST_UNREACHABLE, Verdict.HOST_UNREACHABLE),
    (DialOutcome.NET_UNREACHABLE, Verdict.NET_UNREACHABLE),
    (DialOutcome.ADMIN_PROHIBITED, Verdict.ADMIN_PROHIBITED),
    (DialOutcome.SILENT, Verdict.DROP),
    (DialOutcome.SWALLOWED, Verdict.PASS),
    (DialOutcome.PORTS_BUSY, Verdict.DROP),
    (DialOutcome.NO_DESCRIPTOR, Verdict.PASS),
    (DialOutcome.LOCAL_TROUBLE, Verdict.PASS),
]


def test_every_outcome_is_in_the_table() -> None:
    assert {outcome for outcome, _ in OUTCOMES} == set(DialOutcome)


@pytest.mark.parametrize("role", [SENDING, RECEIVING])
@pytest.mark.parametrize(("outcome", "verdict"), OUTCOMES)
def test_the_verdict_is_the_outcome_of_the_dial(role: Role, outcome: DialOutcome, verdict: Verdict) -> None:
    gate = Gate()
    assert gate.syn_arrived("a", ONE, role, 0) == [Dial(ONE)]
    assert gate.held == 1
    assert gate.dial_finished(ONE, outcome, 1) == [GiveVerdict("a", verdict)]
    assert gate.held == 0
    claim = gate.accepted(ONE)
    assert claim is (Claim.DIALLED if outcome is DialOutcome.CONNECTED else Claim.STRANGER)


def test_a_retransmitted_syn_takes_the_place_of_the_held_one() -> None:
    gate = Gate()
    gate.syn_arrived("a", ONE, SENDING, 0)
    assert gate.syn_arrived("b", ONE, SENDING, 1) == [GiveVerdict("a", Verdict.DROP)]
    assert gate.held == 1
    assert gate.dial_finished(ONE, DialOutcome.CONNECTED, 2) == [GiveVerdict("b", Verdict.TAKE)]
    # The SYN-ACK was lost: taken again, not dialled again.
    assert gate.syn_arrived("c", ONE, SENDING, 3) == [GiveVerdict("c", Verdict.TAKE)]
    assert gate.accepted(ONE) is Claim.DIALLED


def test_sending_dials_run_side_by_side() -> None:
    gate = Gate()
    for each in (ONE, TWO, THREE):
        assert gate.syn_arrived(each.source_port, each, SENDING, 0) == [Dial(each)]


@pytest.mark.parametrize("limits_given", [{"held_limit": 2}, {"held_per_source_limit": 2}])
@pytest.mark.parametrize("role", [SENDING, RECEIVING])
def test_over_the_limit_syns_are_taken_first(limits_given: dict[str, Any], role: Role) -> None:
    gate = Gate(**limits_given)
    gate.syn_arrived(1, ONE, role, 0)
    gate.syn_arrived(2, TWO, role, 0)
    assert gate.syn_arrived(3, THREE, role, 0) == [GiveVerdict(3, Verdict.TAKE)]
    assert gate.held == 2
    assert gate.accepted(THREE) is Claim.DIAL_NOW
    assert gate.dial_finished(THREE, DialOutcome.REFUSED, 1) == []


def test_the_limit_per_source_is_that_source_alone() -> None:
    gate = Gate(held_per_source_limit=1)
    gate.syn_arrived(1, ONE, SENDING, 0)
    other = flow(source="192.0.2.2")
    assert gate.syn_arrived(2, other, SENDING, 0) == [Dial(other)]
    gate.dial_finished(ONE, DialOutcome.SILENT, 1)
    assert gate.syn_arrived(3, TWO, SENDING, 2) == [Dial(TWO)]


# --- The same ports again ------------------------------------------------------------------------------


def live(gate: Gate, each: Flow, role: Role = SENDING) -> None:
    gate.syn_arrived("first", each, role, 0)
    gate.dial_finished(each, DialOutcome.CONNECTED, 0)
    assert gate.accepted(each) in (Claim.DIALLED, Claim.DIAL_NOW)


def test_a_syn_on_a_closing_connection_waits_for_its_end() -> None:
    gate = Gate()
    live(gate, ONE)
    assert gate.syn_arrived("a", ONE, SENDING, 1) == []
    assert gate.ended(ONE) == [Dial(ONE)]
    assert gate.dial_finished(ONE, DialOutcome.CONNECTED, 2) == [GiveVerdict("a", Verdict.TAKE)]
    assert gate.accepted(ONE) is Claim.DIALLED


def test_a_syn_that_comes_again_asks_the_old_socket() -> None:
    """The client has forgotten the connection: its kernel must hear so from ours, to reset it."""
    gate = Gate()
    live(gate, ONE)
    gate.syn_arrived("a", ONE, SENDING, 1)
    assert gate.syn_arrived("b", ONE, SENDING, 2) == [
        GiveVerdict("a", Verdict.DROP),
        GiveVerdict("b", Verdict.TAKE),
    ]


def test_a_syn_after_the_end_is_a_new_one() -> None:
    gate = Gate()
    live(gate, ONE)
    assert gate.ended(ONE) == []
    assert gate.live == 0
    assert gate.syn_arrived("a", ONE, SENDING, 1) == [Dial(ONE)]


def test_a_syn_that_waited_in_vain_is_dropped() -> None:
    gate = Gate()
    live(gate, ONE)
    gate.syn_arrived("a", ONE, SENDING, 1)
    assert gate.tick(limits.UNCLAIMED_SECONDS) == []
    assert gate.tick(1 + limits.UNCLAIMED_SECONDS) == [GiveVerdict("a", Verdict.DROP)]
    assert gate.held == 0


# --- Receiving -------------------------------------------------------------------------------------------


def test_one_probe_answers_for_all_when_it_connects() -> None:
    gate = Gate()
    assert gate.syn_arrived(1, ONE, RECEIVING, 0) == [Dial(ONE)]
    assert gate.syn_arrived(2, TWO, RECEIVING, 0.1) == []
    assert gate.syn_arrived(3, THREE, RECEIVING, 0.2) == []
    assert gate.dial_finished(ONE, DialOutcome.CONNECTED, 0.3) == [
        GiveVerdict(1, Verdict.TAKE),
        GiveVerdict(2, Verdict.TAKE),
        GiveVerdict(3, Verdict.TAKE),
    ]
    assert [gate.accepted(each) for each in (ONE, TWO, THREE)] == [
        Claim.DIALLED,
        Claim.DIAL_NOW,
        Claim.DIAL_NOW,
    ]


@pytest.mark.parametrize("outcome", [DialOutcome.REFUSED, DialOutcome.HOST_UNREACHABLE])
def test_a_refusal_is_for_its_own_client_and_the_next_one_probes(outcome: DialOutcome) -> None:
    """The server may refuse that one source: others must not be refused for it."""
    gate = Gate()
    gate.syn_arrived(1, ONE, RECEIVING, 0)
    gate.syn_arrived(2, TWO, RECEIVING, 0)
    assert gate.dial_finished(ONE, outcome, 0.1)[1:] == [Dial(TWO)]
    assert gate.dial_finished(TWO, DialOutcome.CONNECTED, 0.2) == [GiveVerdict(2, Verdict.TAKE)]


def test_a_server_that_has_answered_is_not_probed_again() -> None:
    gate = Gate()
    gate.syn_arrived(1, ONE, RECEIVING, 0)
    gate.dial_finished(ONE, DialOutcome.CONNECTED, 0)
    assert gate.syn_arrived(2, TWO, RECEIVING, 9.9) == [GiveVerdict(2, Verdict.TAKE)]
    assert gate.accepted(TWO) is Claim.DIAL_NOW
    assert gate.syn_arrived(3, THREE, RECEIVING, 10) == [Dial(THREE)]


def test_servers_that_nobody_waits_for_are_forgotten() -> None:
    """Whoever knocks at all addresses inside must not have each of them remembered."""
    gate, answers = Gate(), ("198.51.100.99", 25)
    gate.server_answers(answers, 0)
    for number in range(4):
        each = flow(server=f"198.51.100.{number}")
        gate.syn_arrived(number, each, RECEIVING, 0)
        gate.dial_finished(each, DialOutcome.HOST_UNREACHABLE, 1)
    gate.tick(1)
    assert list(gate._servers) == [answers]
    gate.tick(limits.SERVER_ANSWERS_SECONDS)
    assert not gate._servers


def test_dials_after_an_accept_keep_the_server_known() -> None:
    gate = Gate()
    live(gate, ONE, RECEIVING)
    gate.syn_arrived(2, TWO, RECEIVING, 5)
    gate.accepted(TWO)
    assert gate.dial_finished(TWO, DialOutcome.CONNECTED, 9) == []
    assert gate.syn_arrived(3, THREE, RECEIVING, 18) == [GiveVerdict(3, Verdict.TAKE)]
    gate.accepted(THREE)
    assert gate.dial_finished(THREE, DialOutcome.SILENT, 19) == []
    assert gate.syn_arrived(4, flow(4), RECEIVING, 19) == [Dial(flow(4))]


def test_servers_are_probed_each_for_itself() -> None:
    gate = Gate()
    gate.syn_arrived(1, ONE, RECEIVING, 0)
    other = flow(server="198.51.100.8")
    assert gate.syn_arrived(2, other, RECEIVING, 0) == [Dial(other)]


def test_a_silent_probe_does_not_hold_up_the_others() -> None:
    gate = Gate()
    gate.syn_arrived(1, ONE, RECEIVING, 0)
    gate.syn_arrived(2, TWO, RECEIVING, 0.5)
    assert gate.tick(0.9) == []
    assert gate.tick(limits.PROBE_SECONDS) == [Dial(TWO)]
    assert gate.dial_finished(TWO, DialOutcome.CONNECTED, 1.1) == [GiveVerdict(2, Verdict.TAKE)]
    assert gate.dial_finished(ONE, DialOutcome.SILENT, 130) == [GiveVerdict(1, Verdict.DROP)]


def test_a_source_that_is_ignored_cannot_fill_the_row() -> None:
    gate = Gate()
    for port in range(1, 50):
        gate.syn_arrived(port, flow(port), RECEIVING, 0)
    honest = flow(source="192.0.2.2")
    gate.syn_arrived("honest", honest, RECEIVING, 0.1)
    assert gate.tick(limits.PROBE_SECONDS) == [Dial(honest)]


def test_forged_syns_make_one_dial() -> None:
    """A flood from everywhere at a server that has not answered yet: one connection to it, no more."""
    gate = Gate()
    commands: list[GateCommand] = []
    for number in range(limits.HELD_SYNS + 100):
        source = f"192.0.{number % 200}.{number // 200}"
        commands += gate.syn_arrived(number, flow(source=source), RECEIVING, 0)
    assert sum(isinstance(command, Dial) for command in commands) == 1
    assert gate.held == limits.HELD_SYNS


# --- Time ------------------------------------------------------------------------------------------------


def test_unclaimed_connections_are_closed() -> None:
    gate = Gate()
    gate.syn_arrived(1, ONE, RECEIVING, 0)
    gate.dial_finished(ONE, DialOutcome.CONNECTED, 0)
    gate.syn_arrived(2, TWO, RECEIVING, 1)
    assert gate.tick(limits.UNCLAIMED_SECONDS) == [CloseUnclaimed(ONE)]
    assert gate.tick(limits.UNCLAIMED_SECONDS + 1) == [CloseUnclaimed(TWO)]
    assert gate._admission.connects.total == 0
    assert gate.accepted(ONE) is Claim.STRANGER
    assert gate.accepted(TWO) is Claim.STRANGER


def test_giving_up_lets_pass_what_nobody_has_dialled_for() -> None:
    gate = Gate()
    gate.syn_arrived(1, ONE, RECEIVING, 0)
    gate.syn_arrived(2, TWO, RECEIVING, 0)
    gate.syn_arrived(3, flow(9, server="198.51.100.9"), SENDING, 0)
    verdicts = (Verdict.DROP, Verdict.PASS, Verdict.DROP)
    assert gate.give_up() == [GiveVerdict(n, verdict) for n, verdict in zip((1, 2, 3), verdicts, strict=True)]
    assert gate.held == 0
    assert gate.dial_finished(ONE, DialOutcome.REFUSED, 1) == []


def test_a_syn_that_waited_for_a_connection_that_was_reset_is_to_come_again() -> None:
    gate = Gate()
    gate.syn_arrived(1, ONE, SENDING, 0)
    gate.dial_finished(ONE, DialOutcome.CONNECTED, 0)
    gate.accepted(ONE)
    assert gate.syn_arrived(2, ONE, SENDING, 1) == []
    assert gate.ended(ONE, by_reset=True) == [GiveVerdict(2, Verdict.DROP)]
    assert gate.held == 0
    assert gate.syn_arrived(3, ONE, SENDING, 2) == [Dial(ONE)]


# --- Whatever happens --------------------------------------------------------------------------------------


class AnyOrder(RuleBasedStateMachine):
    """Random SYNs, outcomes, accepts, ends and ticks: no token twice, none lost, no dial of a flow twice."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate(held_limit=4, held_per_source_limit=3)
        self.now = 0.0
        self.tokens = 0
        self.open: set[object] = set()
        self.dials: set[Flow] = set()
        self.live: set[Flow] = set()
        self.taken: set[Flow] = set()

    def carry_out(self, commands: list[GateCommand]) -> None:
        for command in commands:
            match command:
                case GiveVerdict(token, _):
                    self.open.remove(token)  # KeyError: twice, or never given to the gate
                case Dial(each):
                    assert each not in self.dials
                    self.dials.add(each)
                case CloseUnclaimed(each):
                    assert each not in self.live

    @rule(
        port=st.integers(1, 3),
        host=st.integers(1, 2),
        server=st.integers(1, 2),
        role=st.sampled_from([SENDING, RECEIVING]),
    )
    def syn(self, port: int, host: int, server: int, role: Role) -> None:
        # One server, one role: what is inside and outside does not change.
        role = SENDING if server == 1 else RECEIVING
        self.tokens += 1
        self.open.add(self.tokens)
        each = flow(port, f"192.0.2.{host}", f"198.51.100.{server}")
        self.carry_out(self.gate.syn_arrived(self.tokens, each, role, self.now))

    @precondition(lambda self: self.dials)
    @rule(data=st.data(), outcome=st.sampled_from(DialOutcome))
    def dialled(self, data: st.DataObject, outcome: DialOutcome) -> None:
        each = data.draw(st.sampled_from(sorted(self.dials)))
        self.dials.remove(each)
        self.carry_out(self.gate.dial_finished(each, outcome, self.now))

    @rule(port=st.integers(1, 3), host=st.integers(1, 2), server=st.integers(1, 2))
    def accept(self, port: int, host: int, server: int) -> None:
        each = flow(port, f"192.0.2.{host}", f"198.51.100.{server}")
        if self.gate.accepted(each) is not Claim.STRANGER:
            self.live.add(each)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        each = data.draw(st.sampled_from(sorted(self.live)))
        self.live.remove(each)
        self.carry_out(self.gate.ended(each))

    @rule(port=st.integers(1, 3), host=st.integers(1, 2), server=st.integers(1, 2))
    def forget(self, port: int, host: int, server: int) -> None:
        """The dial, if one is out, is dropped with it."""
        each = flow(port, f"192.0.2.{host}", f"198.51.100.{server}")
        self.dials.discard(each)
        self.live.discard(each)
        self.carry_out(self.gate.forget(each))
        assert not self.gate.knows(each)

    @rule(seconds=st.sampled_from([0.1, 1.0, 11.0, 61.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.gate.tick(self.now))

    @rule()
    def give_up(self) -> None:
        self.carry_out(self.gate.give_up())
        assert not self.open

    @invariant()
    def books_agree(self) -> None:
        assert self.gate.held == len(self.open) <= 4
        assert self.gate.live == len(self.live)

    def teardown(self) -> None:
        """When all dials have ended and time has passed, nobody is held any more."""
        for _ in range(60):
            for each in sorted(self.dials):
                self.dials.discard(each)
                self.carry_out(self.gate.dial_finished(each, DialOutcome.SILENT, self.now))
            self.now += limits.UNCLAIMED_SECONDS
            self.carry_out(self.gate.tick(self.now))
        assert not self.open
        for each in sorted(self.live):
            self.carry_out(self.gate.ended(each))
        self.now += limits.UNCLAIMED_SECONDS
        self.carry_out(self.gate.tick(self.now))
        assert self.gate._admission.sessions.total == self.gate._admission.connects.total == 0


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
