"""Each attack of the table, on a real wire between two real gateways: it achieves what the table says.

All rows run at the same time on one lab, each against a destination of its own; the tests look at what came
of them. Counterpart: `tests.attackers.expectations`.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator

import pytest

from gateway.lab.network import inside
from gateway.smtp.capability import append_offer
from tests.attackers import ground, verdict
from tests.attackers.altering import StripOffer
from tests.attackers.attack import Attack, End, Kind
from tests.attackers.expectations import BY_NAME, ROWS, Row
from tests.attackers.ground import Ground, Trial
from tests.attackers.impersonating import OwnKeys
from tests.attackers.injecting import AnswerVerb
from tests.attackers.parties import EHLO, GREETING, REPLY, Receiver, mail
from tests.attackers.replaying import FromBefore, of_kind
from tests.lab.conftest import build_bare, slot
from tests.lab.probes import eventually
from tests.playbook import FarReceivingGateway, gateway_keys

CONTENT_LINES = 1300
"""Of 78 octets: some 100 KB, so that the content takes several records."""
PATIENCE = 15.0
SINGLE = [row for row in ROWS if row.attack is not None and not row.ticket]


@pytest.fixture(scope="module")
def field() -> Iterator[Ground]:
    with slot() as lab:
        build_bare(lab, with_gateways=False, with_listener=False)
        with ground.opened(lab) as made:
            yield made


def trial(field: Ground, row: Row, attack: Callable[[], Attack] | None = None) -> Trial:
    made = field.trial(
        attack or row.attack or Attack, field.target(), patience=row.patience, thinks=row.thinks
    )
    if row.large:
        made.mail = mail(made.mail.name, (b"y" * 76 + b"\r\n") * CONTENT_LINES)
    return made


@pytest.fixture(scope="module")
def outcomes(field: Ground) -> dict[str, Trial]:
    """Every row that is one session, run; stalls beside everything else."""
    trials = {row.name: trial(field, row) for row in SINGLE}
    field.meet(trials[row.name].target for row in SINGLE if row.pinned)
    field.attempt(list(trials.values()), at_once=len(trials))
    return trials


@pytest.mark.parametrize("row", SINGLE, ids=lambda row: row.name)
def test_an_attack_achieves_what_the_table_says(row: Row, outcomes: dict[str, Trial], field: Ground) -> None:
    verdict.check(row, outcomes[row.name])
    check_bell(field, row, outcomes[row.name].target)


def check_bell(field: Ground, row: Row, target: str) -> None:
    if row.may_wait:
        return
    if row.alarm:
        eventually(lambda: rings(field, target), what="the bell")
    rung = rings(field, target)
    assert len(rung) == row.alarm, f"the bell rang for {rung}"
    assert set(rung) <= set(row.decided.split("|"))


def rings(field: Ground, target: str) -> list[str]:
    """Reasons for which the sending gateway's bell rang about a destination."""
    pattern = re.compile(rf" alarm rings .*subject={re.escape(target)}:25 ")
    lines = [line for line in field.log_lines("a") if pattern.search(line)]
    return [found[1] for line in lines if (found := re.search(r"reason=([a-z-]+)", line))]


def test_the_counters_say_what_was_decided(outcomes: dict[str, Trial], field: Ground) -> None:
    """`status` knows as many sessions of each kind as the log."""
    told = [line for line in field.log_lines("a") if " session decided " in line]

    def counted() -> bool:
        decided = field.status("a")["counters"]["decided"]["out"]
        sums = {f"{kind} {reason}": n for kind in decided for reason, n in decided[kind].items()}
        wanted: dict[str, int] = {}
        for line in told:
            kind = "upgraded" if "protected=yes" in line else "clear"
            reason = line.rpartition("reason=")[2].split()[0]
            wanted[f"{kind} {reason}"] = wanted.get(f"{kind} {reason}", 0) + 1
        return sums == wanted

    eventually(counted, what="counters that agree with the log")


# --- What takes more than one session ---------------------------------------------------------------------


@pytest.fixture
def target(field: Ground) -> str:
    """A destination that the sending gateway knows."""
    made = field.target()
    field.meet([made])
    return made


def staged(field: Ground, name: str, attack: Callable[[], Attack], target: str, **words: str) -> Trial:
    (made,) = field.attempt([field.trial(attack, target, **words)])
    verdict.check(BY_NAME[name], made)
    check_bell(field, BY_NAME[name], target)
    return made


@pytest.fixture
def recorded(field: Ground, target: str) -> Trial:
    """An honest session to the same destination, with all that was said in it."""
    (made,) = field.attempt([field.trial(Attack, target)])
    assert made.at_s.decided == "upgraded"
    return made


def said(recorded: Trial, origin: End, kind: Kind) -> bytes:
    assert recorded.wire is not None
    pieces = [p for p in recorded.wire.pieces if p.number == 0]
    return of_kind(pieces, origin, kind)


@pytest.mark.parametrize(
    ("name", "origin", "kind", "dials"),
    [
        ("offer from before", End.R, Kind.REPLY, 1),
        ("offer from before, always", End.R, Kind.REPLY, 9),
        ("message 2 from before", End.S, Kind.ANSWER, 1),
        ("R's record from before", End.R, Kind.RECORD, 1),
    ],
)
def test_what_was_said_before_opens_nothing(
    name: str, origin: End, kind: Kind, dials: int, field: Ground, target: str, recorded: Trial
) -> None:
    old = said(recorded, origin, kind)
    staged(field, name, lambda: FromBefore(origin, kind, old, dials), target)


def test_a_session_said_again_reaches_no_mail_server(field: Ground, target: str, recorded: Trial) -> None:
    """All that S said once, by the attacker, in a connection of his own."""
    assert recorded.wire is not None
    before = len(field.log)

    async def again() -> bytes:
        made = inside(field.lab.namespace("mta-c"), lambda: socket.socket())
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (target, 25))
        reader, writer = await asyncio.open_connection(sock=made)
        await reader.readuntil(b"ESMTP at your service\r\n")
        writer.write(said(recorded, End.S, Kind.EHLO))
        await reader.readuntil(b"4/4 ")
        await reader.readline()
        assert recorded.wire is not None
        writer.write(of_kind(recorded.wire.pieces, End.S, Kind.VERB, Kind.ANSWER, Kind.RECORD))
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
        return answer

    assert field.run(again()).startswith(b"454 4.7.0 ")
    (received,) = field.log[before:]
    assert bytes(received.heard) == EHLO
    assert not received.mails


def test_an_offer_of_another_gateway_is_not_remembered(field: Ground, target: str) -> None:
    other = FarReceivingGateway(
        "another", keys=gateway_keys("another R"), greeting=GREETING, reply=REPLY, ehlo=EHLO
    )
    reply = append_offer(REPLY, other.offer)
    staged(field, "offer of another gateway", lambda: FromBefore(End.R, Kind.REPLY, reply), target)
    (pin,) = [pin for pin in field.pins() if pin["address"] == target]
    assert len(pin["identities"]) == 1


def test_the_senders_own_offer_is_no_silent_way_to_clear(field: Ground, target: str) -> None:
    """He has it from S's own gateway, for the very same greeting, EHLO and reply."""
    home = field.lab.mail_server("a").node.home.v4

    async def reflected() -> bytes:
        listener = inside(field.lab.namespace("mta-a"), lambda: socket.create_server((home, 25)))
        server = await asyncio.get_running_loop().create_server(lambda: Receiver([]), sock=listener)
        made = inside(field.lab.namespace("mta-c"), lambda: socket.socket())
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (home, 25))
        reader, writer = await asyncio.open_connection(sock=made)
        await reader.readline()
        writer.write(EHLO)
        reply = await reader.readuntil(b"4/4 ") + await reader.readline()
        writer.close()
        server.close()
        return reply

    reply = field.run(reflected())
    staged(field, "the sender's own offer", lambda: FromBefore(End.R, Kind.REPLY, reply, 9), target)


def test_a_reply_put_in_while_the_sender_thinks_rings(field: Ground, target: str) -> None:
    """The sender has its reply, and the verb waits for its first command."""
    row = BY_NAME["reply behind the reply, in a segment of its own"]
    (made,) = field.attempt([field.trial(row.attack or Attack, target, thinks=row.thinks)])
    verdict.check(row, made)
    assert made.at_s.decided == "no-verb"
    eventually(lambda: rings(field, target) == ["no-verb"], what="the bell")


def test_a_session_led_to_another_address_is_noticed(field: Ground, target: str) -> None:
    elsewhere = field.target()
    made = staged(field, "led to another address", Attack, target, led_to=elsewhere)
    assert made.received[0].destination[0] == elsewhere
    facts = made.at_r[0].of("dialled-address-not-confirmed")
    assert [fact["reason"] for fact in facts] == ["wrong-dialled-address"]


# --- What a gateway remembers -----------------------------------------------------------------------------


def test_a_known_destination_is_tried_every_time(field: Ground, target: str) -> None:
    fail = lambda: AnswerVerb(b"454 4.7.0 No\r\n", 9)  # noqa: E731
    for _ in range(5):
        (made,) = field.attempt([field.trial(fail, target)])
        verdict.check(BY_NAME["fail always"], made)
        assert made.wire is not None
        assert made.wire.dials == 3
    (made,) = field.attempt([field.trial(Attack, target)])
    assert made.at_s.decided == "upgraded"


def test_an_unknown_destination_is_left_in_peace_after_three_failures(field: Ground) -> None:
    fail = lambda: AnswerVerb(b"454 4.7.0 No\r\n", 9)  # noqa: E731
    target = field.target()
    decided = []
    for _ in range(5):
        (made,) = field.attempt([field.trial(fail, target)])
        decided.append(made.at_s.decided)
    assert decided[:3] == ["handshake-failed"] * 3
    assert decided[-1] == "recently-failed"
    assert target not in field.pinned()


def test_false_identities_do_not_drive_out_the_true_one(field: Ground, target: str) -> None:
    """More of them than a pin has room for."""
    for number in range(6):
        (made,) = field.attempt([field.trial(lambda n=number: OwnKeys(f"{target} {n}"), target)])
        assert made.at_s.decided == "upgraded-changed-peer", str(made)
        assert made.at_s.alarmed
    (made,) = field.attempt([field.trial(Attack, target)])
    assert (made.at_s.decided, made.at_s.alarmed) == ("upgraded", False)
    (pin,) = [pin for pin in field.pins() if pin["address"] == target]
    assert [known["accepted"] for known in pin["identities"]].count(True) == 1
    assert len(pin["identities"]) <= 4


def test_a_stripped_destination_is_protected_again_at_once(field: Ground, target: str) -> None:
    (made,) = field.attempt([field.trial(StripOffer, target)])
    assert made.at_s.decided == "offer-missing"
    (made,) = field.attempt([field.trial(Attack, target)])
    assert made.at_s.decided == "upgraded"
