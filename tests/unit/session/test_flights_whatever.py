"""Flights, whatever happens in whatever order: only padded sizes are seen, and nothing is lost or late."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto.records import RecordType
from gateway.policy import limits
from tests.unit.session.line import ALMOST, FULL, SILENCE, START, Line, frames_of, padme

Happening = tuple[str, int]
HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("says"), st.integers(1, 600)),
        st.tuples(st.just("says"), st.integers(1, 40_000)),
        st.tuples(st.just("says"), st.just(65_536)),
        st.tuples(st.just("says"), st.sampled_from((16_383, 16_384, 16_385, 32_768))),
        st.tuples(st.just("waits"), st.integers(0, 12_000)),
        st.tuples(st.just("hears"), st.just(0)),
    ),
    max_size=25,
)


class Watched:
    """The line, and what must hold for it whatever happens: kept by counting, not by asking `Flights`."""

    def __init__(self, late: float) -> None:
        self.line = Line(late=late)
        self.said = b""
        self.said_at = START
        self.seen = 0
        """Writes looked at so far."""
        self.flight = 0
        """Size of the flight of now,"""
        self.padded_at = 0
        """and where in `writes` the part of it begins that is not padded yet."""

    def happens(self, what: str, amount: int) -> None:
        line = self.line
        if what == "says":
            data = random.Random(len(self.said)).randbytes(amount)
            self.said += data
            self.said_at = line.now
            line.says(data)
            self._look(ends=False)
        elif what == "hears":
            line.hears()
            self._look(ends=True)
            self.flight = 0
        else:
            self._wait(amount / 1e6)

    def _wait(self, seconds: float) -> None:
        """In steps, so that the flight that silence has ended is looked at before the next begins."""
        line = self.line
        until = line.now + seconds
        while line.flights.deadline is not None and line.flights.deadline + line.late <= until:
            line.wait(line.flights.deadline + line.late - line.now)
            if len(line.writes) > self.seen:
                assert line.now >= self.said_at + SILENCE - ALMOST, "silence is not over"
                self._look(ends=True)
                self.flight = 0
        line.wait(until - line.now)
        self.never_late()

    def never_late(self) -> None:
        """5 ms after its last octets, and as much more as the loop was late, nothing is held."""
        line = self.line
        assert self.said.startswith(line.heard)
        longest = SILENCE + 2 * line.late + limits.FLIGHT_LOOK_SECONDS * bool(line.late)
        if line.now > self.said_at + longest + ALMOST:
            assert line.heard == self.said

    def _look(self, *, ends: bool) -> None:
        line = self.line
        assert self.said.startswith(line.heard), "in order, and nothing else"
        self.flight += sum(line.sizes[self.seen :])
        self.seen = len(line.writes)
        nothing_held = line.heard == self.said
        if ends:
            assert nothing_held
        if not nothing_held:
            assert all(size == FULL for size in line.frames(self.padded_at))
            return
        if self.flight:
            assert self.flight >= 512
            assert self.flight == padme(self.flight)
        if self.padded_at < self.seen:
            assert line.frames(self.padded_at) == frames_of(sum(line.sizes[self.padded_at :]))
            self.padded_at = self.seen


@settings(max_examples=150)
@given(HAPPENINGS, st.sampled_from((0.0, 0.0, 0.003, 0.05)))
def test_only_padme_steps_are_seen_and_nothing_is_lost_late_or_reordered(
    happenings: list[Happening], late: float
) -> None:
    watched = Watched(late)
    for what, amount in happenings:
        watched.happens(what, amount)
    watched.happens("waits", 200_000)
    assert watched.line.heard == watched.said


@settings(max_examples=60)
@given(HAPPENINGS, st.sampled_from((RecordType.CLOSE, RecordType.RESET)))
def test_an_end_at_any_moment_leaves_nothing_behind(happenings: list[Happening], kind: RecordType) -> None:
    watched = Watched(0.0)
    for what, amount in happenings:
        watched.happens(what, amount)
    line = watched.line
    line.ends(kind)
    assert line.heard == watched.said
    assert line.kinds[-1] is kind
    assert line.flights.records.sends.value == "closed"
    flight = watched.flight + sum(line.sizes[watched.seen :])
    assert flight == padme(flight) >= 512
    line.wait(1.0)
    assert line.kinds[-1] is kind


@settings(max_examples=100)
@given(st.integers(1, 120_000), st.integers(0, 2**32))
def test_two_flights_of_one_padded_size_have_the_same_frames(said: int, seed: int) -> None:
    """Whoever reads the headers learns the padded size and nothing more."""

    def seen(size: int) -> tuple[int, list[int]]:
        line = Line()
        line.says(bytes(size))
        line.wait(SILENCE)
        return sum(line.sizes), line.frames()

    other = random.Random(seed).randint(max(1, said - 2000), said + 2000)
    (one_size, one), (other_size, another) = seen(said), seen(other)
    assert (one == another) == (one_size == other_size)
