"""A verdict holds only on evidence: each one is made to fail here by exactly what it is about."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from gateway.eyes.wire import ACK, SYN, Endpoint, Segment, WireSession
from gateway.lab.mail import Mail
from gateway.lab.verdicts import Evidence, Kill, Trip, judge, side_by_side

CLIENT, SERVER = Endpoint("10.11.0.10", 40025), Endpoint("10.12.0.10", 25)


def session(flights: list[tuple[bool, bytes]]) -> WireSession:
    one = WireSession(CLIENT, SERVER)
    position = {True: 0, False: 0}
    for to_server, octets in [(True, b""), (False, b""), *flights]:
        source, destination = (CLIENT, SERVER) if to_server else (SERVER, CLIENT)
        flags = ACK if position[to_server] else SYN
        one.take(Segment(1.0, source, destination, flags, position[to_server], octets))
        position[to_server] += len(octets) if position[to_server] else 1
    return one


def clear(mail: Mail) -> WireSession:
    envelope = f"MAIL FROM:<{mail.sender}>\r\nRCPT TO:<{mail.recipient}>\r\nDATA\r\n".encode()
    return session(
        [
            (False, b"220 b\r\n"),
            (True, b"EHLO a\r\n"),
            (False, b"250 b\r\n"),
            (True, envelope),
            (False, b"354 go\r\n"),
            (True, mail.octets() + b".\r\nQUIT\r\n"),
            (False, b"250 ok\r\n221 bye\r\n"),
        ]
    )


def frame(octets: int) -> bytes:
    return b"\x82" + octets.to_bytes(2, "big") + bytes(octets)


def sealed(mail: Mail, *extra: tuple[bool, bytes]) -> WireSession:
    return session(
        [
            (False, b"220 b\r\n"),
            (True, b"EHLO a\r\n"),
            (False, b"250 XNIGHTMAIL 1 1/1 abc\r\n"),
            *extra,
            (True, b"XNIGHTMAIL\r\n" + frame(1400)),
            (False, frame(90)),
            (True, frame(500) + frame(60_000)),
            (False, frame(70)),
            (True, frame(19)),
            (False, frame(19)),
        ]
    )


def trip(sender: str, recipient: str, one: WireSession | None = None, **fields: object) -> Trip:
    mail = Mail(f"{sender}{recipient}-1", f"x@{sender}.test", f"y@{recipient}.test", 1_000)
    found = one if one is not None else clear(mail)
    made = Trip(sender, recipient, mail, 0.0, stored=b"Subject: s\n\ntext\n", sessions=[found])
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


ROUTES = (("a", "b"), ("a", "c"), ("c", "b"))


def good() -> Evidence:
    direct = [trip(*route) for route in ROUTES]
    protected = [trip("a", "b", sealed(direct[0].mail)), trip("a", "c"), trip("c", "b")]
    return Evidence(
        direct, protected, Kill(3, True, 5.0, True, True, 1), trip("a", "b", sealed(direct[0].mail))
    )


def failing(evidence: Evidence) -> set[str]:
    return {verdict.claim for verdict in judge(evidence) if not verdict.holds}


def test_good_evidence_holds_all() -> None:
    assert failing(good()) == set()


def not_delivered(evidence: Evidence) -> None:
    evidence.protected[1].stored = None


def other_octets(evidence: Evidence) -> None:
    evidence.protected[1].stored = b"Subject: t\n\ntext\n"


def clear_to_b(evidence: Evidence) -> None:
    evidence.protected[0].sessions = [clear(evidence.protected[0].mail)]


def unseen_to_b(evidence: Evidence) -> None:
    evidence.protected[0].sessions = []


def hole_to_b(evidence: Evidence) -> None:
    one = evidence.protected[0].sessions[0]
    one.take(Segment(2.0, CLIENT, SERVER, ACK, 900_000, b"beyond a hole"))


def sealed_to_c(evidence: Evidence) -> None:
    evidence.protected[1].sessions = [sealed(evidence.protected[1].mail)]


def slower(evidence: Evidence) -> None:
    more = [(True, b"STARTTLS\r\n"), (False, b"220 go\r\n")]
    evidence.protected[0].sessions = [sealed(evidence.protected[0].mail, *more)]


def dialled_twice(evidence: Evidence) -> None:
    evidence.protected[0].sessions.append(session([]))


def deaf(evidence: Evidence) -> None:
    for one in evidence.direct:
        one.sessions = []


def killed_late(evidence: Evidence) -> None:
    evidence.killed.mid_work = False


def nobody_killed(evidence: Evidence) -> None:
    evidence.killed.processes = 0


def not_interrupted(evidence: Evidence) -> None:
    """It had another way, or was through by then."""
    evidence.killed.interrupted = False


def long_gap(evidence: Evidence) -> None:
    evidence.killed.gap_ms = 1003.0


def never_greeted(evidence: Evidence) -> None:
    evidence.killed.gap_ms = float("inf")


def next_lost(evidence: Evidence) -> None:
    evidence.killed.next_mail_came = False


def twice(evidence: Evidence) -> None:
    evidence.killed.copies = 2


def lost(evidence: Evidence) -> None:
    evidence.killed.copies = 0


def clear_again(evidence: Evidence) -> None:
    evidence.after_restart = trip("a", "b")


def nothing_again(evidence: Evidence) -> None:
    evidence.after_restart = None


GREETING = "gateway killed: next greeting after"


@pytest.mark.parametrize(
    ("spoil", "claims"),
    [
        (not_delivered, {"delivered", "octets as without gateways"}),
        (other_octets, {"octets as without gateways"}),
        (clear_to_b, {"words on the wire, a to b", "sealed, a to b"}),
        (unseen_to_b, {"words on the wire, a to b", "sealed, a to b", "extra round trips"}),
        (hole_to_b, {"words on the wire, a to b", "sealed, a to b", "extra round trips"}),
        (sealed_to_c, {"words on the wire, a to c (one gateway)"}),
        (slower, {"extra round trips"}),
        (dialled_twice, {"extra round trips"}),
        (deaf, {"words on the wire without gateways", "extra round trips"}),
        (killed_late, {GREETING}),
        (
            nobody_killed,
            {GREETING, "gateway killed: next mail comes", "gateway killed: interrupted mail, once"},
        ),
        (not_interrupted, {"gateway killed: interrupted mail, once"}),
        (long_gap, {GREETING}),
        (never_greeted, {GREETING}),
        (next_lost, {"gateway killed: next mail comes"}),
        (twice, {"gateway killed: interrupted mail, once"}),
        (lost, {"gateway killed: interrupted mail, once"}),
        (clear_again, {"sealed again after the restart"}),
        (nothing_again, {"sealed again after the restart"}),
    ],
)
def test_each_verdict_fails_by_what_it_is_about(spoil: Callable[[Evidence], None], claims: set[str]) -> None:
    evidence = good()
    spoil(evidence)
    assert failing(evidence) == claims


def test_no_evidence_holds_nothing() -> None:
    assert {verdict.claim for verdict in judge(Evidence())} == failing(Evidence())


def test_side_by_side() -> None:
    views = side_by_side(good())
    assert "> RCPT TO:<y@c.test>" in views["to_c"]
    assert "> XNIGHTMAIL" in views["to_b"]
    assert not any("RCPT" in line for line in views["to_b"])
