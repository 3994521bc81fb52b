"""Each transition that the machines declare is taken by a test: docs/protocol.md prints no other ones.

`conftest` sees to the converse, that none is taken which is not declared.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from gateway.crypto.frames import FrameKind, frame
from gateway.crypto.records import RecordType
from gateway.session.receiving import State
from gateway.smtp.capability import VERB_LINE
from tests.playbook import EHLO, GREETING, OTHER_KEYS, Playbook, flip, sending
from tests.unit.session import (
    receiving_steps,
    test_receiving,
    test_receiving_answers,
    test_receiving_channel,
    test_redialling,
    test_rollover,
    test_sending,
    test_sending_channel,
    test_sending_ends,
    test_tables,
    test_tickets,
)
from tests.unit.session.transitions import MACHINES, TAKEN, declared, recording

SENDING = (test_sending, test_sending_ends, test_redialling, test_sending_channel)
RECEIVING = (test_receiving, test_receiving_answers, test_receiving_channel)


def cases(test: Callable[..., None]) -> Iterator[dict[str, Any]]:
    """The arguments of each case of a parametrised test."""
    choices: list[list[dict[str, Any]]] = []
    for mark in getattr(test, "pytestmark", []):
        names = mark.args[0].replace(" ", "").split(",") if isinstance(mark.args[0], str) else mark.args[0]
        rows = [getattr(row, "values", row) if not isinstance(row, dict) else row for row in mark.args[1]]
        choices.append([dict(zip(names, row if len(names) > 1 else [row], strict=True)) for row in rows])
    for chosen in itertools.product(*choices):
        yield {name: value for part in chosen for name, value in part.items()}


def run_all(module: ModuleType) -> None:
    for name, test in inspect.getmembers(module, inspect.isfunction):
        if name.startswith("test_") and not hasattr(test, "hypothesis"):
            for arguments in cases(test):
                # What fails is told where it belongs; here only the ways count.
                with contextlib.suppress(Exception, pytest.fail.Exception):
                    test(**arguments)


@pytest.fixture(scope="module", autouse=True)
def _all_cases() -> None:
    """Only what is run here counts, so that this module says the same alone and among others."""
    TAKEN.clear()
    for module in (*SENDING, *RECEIVING, test_rollover, test_tables, test_tickets):
        run_all(module)
    for test in (
        test_early_commands_wait_for_the_statement_as_well,
        test_a_reset_ends_the_wait_for_a_statement,
        test_half_a_verb_in_vain_is_waited_for,
        test_a_bad_answer_in_a_read_of_its_own,
    ):
        test()


# --- Ways that no other test goes -----------------------------------------------------------------------


def test_early_commands_wait_for_the_statement_as_well() -> None:
    r = test_rollover.stranger()
    book = Playbook(sending(pin=test_rollover.pinned()))
    book.far(GREETING)
    book.near(EHLO + b"MAIL FROM:<alice@a.example>\r\n")
    book.far(r.reply)
    assert book.state == "awaiting-statement"
    assert r.take(book.to_far).data == b""


def test_a_reset_ends_the_wait_for_a_statement() -> None:
    r = test_rollover.stranger()
    book = test_rollover.awaiting(r)
    book.far(r.params() + r.layer.seal(RecordType.RESET))
    assert book.state == "over"


def test_half_a_verb_in_vain_is_waited_for() -> None:
    book = test_tables.receiving_in(State.OFFER_VOID)
    book.far(VERB_LINE[:4])
    assert book.state == "offer-void"
    assert book.to_near == EHLO


def test_a_bad_answer_in_a_read_of_its_own() -> None:
    book = receiving_steps.offered()
    s = receiving_steps.far_s(book, keys=OTHER_KEYS)
    book.far(VERB_LINE)
    book.far(frame(FrameKind.ANSWER, flip(s.message, 50)))
    assert book.state == "over"
    assert book.to_near == EHLO


# --- The tables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.__name__)
def test_every_declared_transition_is_taken(machine: type[Any]) -> None:
    assert declared(machine) - TAKEN == set()


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.__name__)
def test_next_states_are_declared_of_the_tables_own_handlers(machine: type[Any]) -> None:
    assert set(machine._NEXT) <= set(machine._TABLE.values())


def test_a_transition_that_is_not_declared_is_seen() -> None:
    class Machine:
        state = "here"

        def _moves(self) -> None: ...

        _TABLE = {("here", int, None): _moves}  # noqa: RUF012 - as the machines have it
        _NEXT: dict[Any, Any] = {}  # noqa: RUF012

        def handle(self, event: Any, now: float) -> None:
            self.state = "there"

    with pytest.raises(AssertionError, match="_moves: here to there"):
        recording(Machine.handle)(Machine(), 1, 0.0)
