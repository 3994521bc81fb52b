"""Every event in every state of the session machines: legal as a table says, or a misuse of ours."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.crypto.messages import OfferFlags
from gateway.errors import LocalMisuseError
from gateway.session import receiving, sending
from gateway.session.events import (
    DeadlineReached,
    EndReceived,
    Event,
    OctetsReceived,
    OfferSigned,
    RedialFailed,
    Redialled,
    ResetReceived,
    Side,
)
from gateway.smtp.capability import VERB_LINE
from tests.playbook import (
    BOTH,
    EVENTS,
    OTHER_KEYS,
    REPLY,
    FarReceivingGateway,
    Playbook,
    can_follow,
    table_of,
)
from tests.unit.session.receiving_steps import Channelled, greeted, offered, signing
from tests.unit.session.sending_steps import R_PIN, channelled, confirming, ready, started

TIMER = {(DeadlineReached, None)}
NEAR_ONLY = {(kind, side) for kind, side in BOTH if side is Side.NEAR}


def sending_in(state: sending.State) -> Playbook:
    r = FarReceivingGateway()
    if state is sending.State.OBSERVING:
        return started()
    if state is sending.State.RECEIVER_ENDED:
        book = started(pin=R_PIN)
        book.far_end()
        return book
    if state is sending.State.READY:
        return ready(r)
    if state is sending.State.CONFIRMING:
        return confirming(r)
    if state is sending.State.AWAITING_STATEMENT:
        stranger = FarReceivingGateway(keys=OTHER_KEYS, flags=OfferFlags.STATEMENT_FOLLOWS)
        return confirming(stranger, pin=R_PIN)
    if state is sending.State.CHANNEL:
        return channelled(r)
    if state is sending.State.RELAYED:
        book = started()
        book.far(REPLY)
        return book
    book = confirming(r)
    book.far_reset()
    if state is sending.State.REOBSERVING:
        book.redialled()
    elif state is sending.State.OVER:
        book.redial_failed()
    return book


def receiving_in(state: receiving.State) -> Playbook:
    if state is receiving.State.OBSERVING:
        return greeted()
    if state is receiving.State.SIGNING:
        return signing()
    if state is receiving.State.CHANNEL:
        return Channelled().book
    if state is receiving.State.RELAYED:
        return offered(may_offer=False)
    book = offered()
    if state is receiving.State.OFFER_VOID:
        book.near(b"421 Bye\r\n")
    elif state in (receiving.State.ANSWERING, receiving.State.OVER):
        book.far(VERB_LINE)
    if state is receiving.State.OVER:
        book.far_end()
    return book


@dataclass(frozen=True)
class Machine:
    """`legal`: what may happen in a state; nothing is told in one that is not there, and it says nothing."""

    kind: type[Any]
    states: type[sending.State] | type[receiving.State]
    in_state: Callable[[Any], Playbook]
    legal: Mapping[Any, set[tuple[type, Side | None]]]


SENDING = Machine(
    sending.SendingSession,
    sending.State,
    sending_in,
    {
        sending.State.OBSERVING: BOTH,
        sending.State.RECEIVER_ENDED: NEAR_ONLY | {(ResetReceived, Side.FAR)},
        sending.State.READY: BOTH,
        sending.State.CONFIRMING: BOTH | TIMER,
        sending.State.AWAITING_STATEMENT: BOTH | TIMER,
        sending.State.REDIALLING: NEAR_ONLY | TIMER | {(Redialled, None), (RedialFailed, None)},
        sending.State.REOBSERVING: BOTH | TIMER,
        sending.State.CHANNEL: BOTH | TIMER,
    },
)
RECEIVING = Machine(
    receiving.ReceivingSession,
    receiving.State,
    receiving_in,
    {
        receiving.State.OBSERVING: BOTH,
        receiving.State.SIGNING: BOTH | TIMER | {(OfferSigned, None)},
        receiving.State.OFFERED: BOTH,
        receiving.State.OFFER_VOID: BOTH,
        receiving.State.ANSWERING: {
            (kind, side) for kind, side in BOTH if side is Side.FAR or kind is ResetReceived
        }
        | TIMER,
        receiving.State.CHANNEL: BOTH | TIMER,
    },
)
MACHINES = pytest.mark.parametrize("machine", [SENDING, RECEIVING], ids=["sending", "receiving"])
STATES = [
    pytest.param(machine, state, id=f"{machine.kind.__name__}-{state.value}")
    for machine in (SENDING, RECEIVING)
    for state in machine.states
]


@pytest.mark.parametrize(("machine", "state"), STATES)
@pytest.mark.parametrize("event", EVENTS, ids=lambda e: f"{type(e).__name__}-{getattr(e, 'side', None)}")
def test_every_event_in_every_state(machine: Machine, state: Any, event: Event) -> None:
    book = machine.in_state(state)
    assert book.machine.state is state
    if state not in machine.legal:
        assert book.machine.handle(event, book.now) == []
        assert book.machine.state is state
    elif (type(event), getattr(event, "side", None)) in machine.legal[state]:
        book.happens(event)
    else:
        with pytest.raises(LocalMisuseError):
            book.happens(event)


@MACHINES
def test_the_table_holds_what_is_legal_and_no_more(machine: Machine) -> None:
    legal = {(state, kind, side) for state, pairs in machine.legal.items() for kind, side in pairs}
    assert set(table_of(machine.kind)) == legal
    assert {state.name for state in machine.states if state not in machine.legal} == {"OVER", "RELAYED"}


@MACHINES
def test_any_two_events_in_every_state_keep_what_always_holds(machine: Machine) -> None:
    """`Playbook` checks it; a legal event may bring about any state, never a contradiction."""
    for state in machine.legal:
        for first, second in itertools.product(EVENTS, repeat=2):
            if can_follow(first, second):
                lead_on(machine, machine.in_state(state), first, second)


def lead_on(machine: Machine, book: Playbook, *events: Event) -> None:
    """As far as they are legal."""
    for event in events:
        side = getattr(event, "side", None)
        if (type(event), side) not in machine.legal.get(book.machine.state, set()):
            return
        if side in book.paused and isinstance(event, OctetsReceived | EndReceived):
            return
        if isinstance(event, Redialled):
            book.redialled()
        elif isinstance(event, RedialFailed):
            book.redial_failed()
        else:
            book.happens(event)
