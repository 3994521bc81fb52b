"""Attackers between two real Postfix: each mail arrives once, at the first try or at the next.

A handful of the table's attacks; what is on the wire is the listener's capture. Counterpart:
`test_attackers`, which has all of them, with scripted mail servers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest

from gateway.eyes import wire
from gateway.lab import postfix
from gateway.lab.mail import Mail
from tests.attackers import ground
from tests.attackers.altering import (
    ChangeLarge,
    ChangeOctet,
    EhloRefused,
    MaskGreeting,
    StripOffer,
    mask_offer,
)
from tests.attackers.attack import Attack, End, Kind
from tests.attackers.cutting import CutInContent, How
from tests.attackers.ground import Ground
from tests.attackers.impersonating import OwnKeys
from tests.attackers.injecting import COMMANDS, AnswerVerb, Inject
from tests.lab.conftest import slot
from tests.lab.probes import eventually

LARGE = 100_000
SECONDS = 60.0
WORDS = {"envelope", "subject", "body"}


@dataclass(frozen=True)
class Case:
    """`decided`: by the sending gateway, at the first try. `waits`: Postfix puts the mail aside."""

    name: str
    attack: Callable[[], Attack]
    decided: str
    in_clear: bool = False
    waits: bool = False
    alarm: bool = False


CASES = [
    Case("honest", Attack, "upgraded"),
    Case("strip", StripOffer, "offer-missing", in_clear=True, alarm=True),
    Case("mask", mask_offer, "offer-missing", in_clear=True, alarm=True),
    Case(
        "refuse EHLO",
        lambda: EhloRefused(b"502 5.5.2 Error: command not recognized\r\n"),
        "offer-missing",
        in_clear=True,
        alarm=True,
    ),
    Case("mask the greeting", MaskGreeting, "offer-missing", in_clear=True, alarm=True),
    Case("fail once", lambda: AnswerVerb(b"454 4.7.0 No\r\n"), "upgraded"),
    Case("fail always", lambda: AnswerVerb(b"454 4.7.0 No\r\n", 9), "handshake-failed",
         in_clear=True, alarm=True),
    Case("octet of message 2", lambda: ChangeOctet(End.S, Kind.ANSWER, 700), "upgraded"),
    Case("commands behind the verb", lambda: Inject(End.S, Kind.VERB, COMMANDS), "upgraded"),
    Case("octet of the content", lambda: ChangeLarge(5000), "upgraded", waits=True),
    Case("close without CLOSE", lambda: CutInContent(0, How.FIN), "upgraded", waits=True),
    Case("reset in the content", lambda: CutInContent(700, How.RST), "upgraded", waits=True),
    Case("own keys", lambda: OwnKeys("postfix"), "upgraded-changed-peer", alarm=True),
]  # fmt: skip


@pytest.fixture(scope="module")
def field() -> Iterator[Ground]:
    with slot() as lab:
        lab.up(with_gateways=False, temporary=True)
        with ground.opened(lab, scripted=False) as made:
            (one,) = lab.compose("a", "b")
            lab.deliver("a", "b", [one], SECONDS)
            eventually(made.pinned, what="the pin")
            yield made


def decision_since(field: Ground, began: float) -> str:
    """The first one; lines of the session before may be written later than that, with their own times."""

    def found() -> list[str]:
        lines = [line for line in field.log_lines("a") if " session decided direction=out" in line]
        return [line for line in lines if datetime.fromisoformat(line.split()[0]).timestamp() > began - 0.001]

    return str(eventually(found, what="a decision")[0])


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_a_mail_between_two_postfix_arrives_once(case: Case, field: Ground) -> None:
    lab = field.lab
    (one,) = lab.compose("a", "b", size=LARGE)
    began = time.time()
    with lab.watch("b") as watch:
        field.wire.by_default = case.attack
        field.wire.sessions.clear()
        lab.send("a", [one])
        if case.waits:
            # Tried once and put aside; then the attacker has gone.
            postfix.wait_deferred(lab.mail_server("a"), SECONDS)
            assert watch.copies(one.name) == 0
            field.wire.by_default = Attack
            postfix.flush(lab.mail_server("a"))
        stored = watch.wait([one.name], SECONDS)[one.name].path.read_bytes()
        field.wire.by_default = Attack
        assert body(one) in stored.replace(b"\r\n", b"\n")
        # Whatever is delivered twice is delivered before the queue is empty.
        eventually(lambda: not postfix.queued(lab.mail_server("a")), what="an empty queue")
        assert watch.copies(one.name) == 1
    line = decision_since(field, began)
    assert line.rpartition("reason=")[2].split()[0] == case.decided, line
    assert (" notice " in line) == case.alarm, line
    found = on_the_wire(field, one, began)
    assert found == (WORDS | {"attachment"} if case.in_clear else set())


def body(one: Mail) -> bytes:
    return one.octets().partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n").rstrip(b"\n")


def on_the_wire(field: Ground, one: Mail, since: float) -> set[str]:
    """Which of the mail's words the listener has heard."""
    sessions = field.lab.wire_sessions(since)
    assert sessions
    return set().union(*(wire.found_words(session, one.words) for session in sessions))
