from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from bench.eve import guess, sessions, sight
from gateway.eyes.wire import ACK, SYN, Endpoint, Segment, WireSession

ROOT = Path(__file__).parents[3]
S, R = Endpoint("192.0.2.1", 40000), Endpoint("192.0.2.2", 25)


@pytest.mark.parametrize("octets", [200, 201, 202, 2_000, 2_500, 40_000, 40_450, 400_001])
def test_a_mail_has_exactly_the_size_asked_for(octets: int) -> None:
    mail = sessions.mail_of("name", octets, 1)
    assert len(mail) == octets
    assert mail.endswith(b"\r\n")
    assert max(len(line) for line in mail.split(b"\r\n")) <= 998


def test_every_size_of_every_question_differs() -> None:
    for question in sessions.QUESTIONS:
        assert len(set(question.labels)) == len(question.labels) >= 5


def frame(kind: int, octets: int) -> bytes:
    return bytes((kind,)) + (octets - 3).to_bytes(2, "big") + bytes(octets - 3)


def captured(*said: tuple[bool, bytes]) -> WireSession:
    """Greeting and EHLO, then what is said, one segment each, a millisecond apart."""
    clear = [(False, b"220 mx\r\n"), (True, b"EHLO a\r\n"), (False, b"250 mx\r\n")]
    session = WireSession(S, R)
    session.take(Segment(0.0, S, R, SYN, 99, b""))
    session.take(Segment(0.0, R, S, SYN | ACK, 499, b""))
    at = {True: 100, False: 500}
    for number, (up, octets) in enumerate([*clear, *said]):
        ends = (S, R) if up else (R, S)
        session.take(Segment(0.001 * number, *ends, ACK, at[up], octets))
        at[up] += len(octets)
    return session


FIRST = b"XNIGHTMAIL\r\n" + frame(0x81, 1327)


def test_flights_are_counted_without_verb_and_answer() -> None:
    one = sight._sight(
        captured(
            (True, FIRST + frame(0x82, 512)),
            (False, frame(0x82, 512)),
            (False, frame(0x82, 100)),
            (True, frame(0x82, 700)),
            (True, frame(0x82, 68)),
        )
    )
    assert one is not None
    assert one.flights == [512, -612, 768]
    assert sight.share_on_steps([one]) == pytest.approx(2 / 3)


def test_a_session_in_clear_is_not_seen_as_one_in_frames() -> None:
    assert sight._sight(captured((True, b"MAIL FROM:<a@a.test>\r\n"), (False, b"250 Ok\r\n"))) is None


def test_sessions_differ_in_numbers_and_never_in_columns() -> None:
    short = sight._sight(captured((True, FIRST + frame(0x82, 512)), (False, frame(0x82, 512))))
    long = sight._sight(
        captured(
            (True, FIRST), *((bool(n % 2), frame(0x82, 600)) for n in range(200)), (False, frame(0x82, 512))
        )
    )
    assert short is not None
    assert long is not None
    assert len(short.sizes) == len(long.sizes)
    assert len(short.times) == len(long.times)
    assert short.sizes != long.sizes


def test_the_switch_takes_the_padding_out_of_a_process_that_is_given_it() -> None:
    """It names things inside the product; where one is renamed, the bench must not compare nothing."""
    script = (
        "from gateway.session import flights; from gateway.policy import limits;"
        "print(flights.flight_padding(100), limits.LARGE_FLIGHT_OCTETS > 1 << 40)"
    )
    paths = {"off": f"{ROOT / 'bench/eve/unpadded'}:{ROOT}", "on": str(ROOT)}
    said = {
        name: subprocess.run(
            [sys.executable, "-P", "-c", script],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for name, path in paths.items()
    }
    assert said == {"off": ["0", "True"], "on": ["412", "False"]}


def test_the_forest_guesses_what_can_be_told_and_nothing_else() -> None:
    chance = random.Random(3)
    labels = [number % 4 for number in range(200)]
    noise = [[chance.random() for _ in range(8)] for _ in labels]
    told = [[*row, float(label)] for row, label in zip(noise, labels, strict=True)]
    assert guess.guess(told, labels).accuracy > 0.98
    blind = guess.guess(noise, labels)
    assert blind.chance == 0.25
    assert abs(blind.accuracy - blind.chance) < 2 * blind.margin
