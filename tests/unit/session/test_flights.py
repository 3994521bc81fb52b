"""Flights of one side: their sizes on the wire, and that padding never holds back, loses or reorders."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.crypto.records import RecordType
from gateway.policy import limits
from gateway.session.flights import now_and_then
from tests.unit.crypto.pairs import octets
from tests.unit.session.line import ALMOST, FULL, SILENCE, Line, frames_of, padme

# --- The table of docs/protocol.md --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "size"), [(1, 512), (30, 512), (490, 512), (491, 544), (1000, 1024), (1003, 1088)]
)
def test_a_small_flight_leaves_at_once(said: int, size: int) -> None:
    line = Line()
    line.says(bytes(said))
    assert line.sizes == [size]
    assert line.frames() == [size]
    assert line.flights.deadline is None


def test_each_part_of_a_flight_is_at_least_the_floor() -> None:
    line = Line()
    for _ in range(3):
        line.says(bytes(30))
    assert line.sizes == [512, 512, 512]


def test_after_a_turn_the_count_begins_anew() -> None:
    line = Line()
    line.says(bytes(9_000))
    line.says(bytes(30))
    assert line.sizes == [9216, 512]
    line.hears()
    line.says(bytes(600))
    assert line.sizes[2:] == [padme(622)]


def test_the_end_of_a_large_flight_waits_for_silence() -> None:
    line = Line()
    line.says(octets("mail", 20_000))
    assert line.sizes == [FULL]
    line.wait(SILENCE - ALMOST)
    assert line.sizes == [FULL]
    line.wait(2 * ALMOST)
    assert line.sizes == [FULL, 4074]
    assert sum(line.sizes) == 20_480
    assert line.heard == octets("mail", 20_000)
    assert line.flights.deadline is None


def test_a_very_large_flight_ends_in_pad_records_as_long_as_others() -> None:
    line = Line()
    mail = octets("large", 10_000_000)
    for begin in range(0, len(mail), 65_536):
        line.says(mail[begin : begin + 65_536])
        line.wait(0.0005)
    line.wait(SILENCE)
    assert line.frames() == [FULL] * 610 + [FULL] * 13 + [2678]
    assert line.kinds == [RecordType.DATA] * 611 + [RecordType.PAD] * 13
    assert sum(line.sizes) == 10_223_616
    assert line.heard == mail
    assert len(line.writes[-1]) == 3 * FULL + 215_956, "the padding is one write with the last data"


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(20_000, 3_000_000),
    shift=st.integers(1, 1 << 17),
    chunk=st.sampled_from([16_384, 65_536]),
)
def test_what_leaves_before_the_pause_is_the_same_for_all_sizes_of_one_step(
    size: int, shift: int, chunk: int
) -> None:
    """The pause before a large flight's end must show no more than its padded size does."""
    before: dict[int, int] = {}
    for content in (size, size + shift):
        line = Line()
        for begin in range(0, content, chunk):
            line.says(bytes(min(chunk, content - begin)))
        left = sum(line.sizes)
        line.wait(SILENCE)
        padded = sum(line.sizes)
        assert left < padded, "something is left for the write that carries the padding"
        assert before.setdefault(padded, left) == left


def test_no_more_than_the_grid_and_a_record_is_ever_held() -> None:
    line = Line()
    said = 0
    for _ in range(400):
        line.says(bytes(50_000))
        said += 50_000
        assert said - len(line.heard) <= limits.FLIGHT_HELD_STEP_OCTETS + limits.RECORD_SEND_OCTETS


def test_silence_ends_a_large_flight_and_what_follows_is_another() -> None:
    line = Line()
    line.says(bytes(40_000))
    line.wait(1.0)
    assert sum(line.sizes) == padme(40_000 + 3 * 22)
    line.says(bytes(30))
    assert line.sizes[-1] == 512


def test_a_turn_ends_a_large_flight_at_once() -> None:
    line = Line()
    line.says(bytes(40_000))
    line.hears()
    assert sum(line.sizes) == padme(40_000 + 3 * 22)
    assert line.flights.deadline is None
    assert len(line.heard) == 40_000


@pytest.mark.parametrize("said", [16_384 - 1, 16_384])
def test_where_large_begins(said: int) -> None:
    line = Line()
    line.says(bytes(said))
    assert bool(line.sizes) == (said < limits.LARGE_FLIGHT_OCTETS)
    line.wait(SILENCE)
    assert line.sizes == [padme(said + 22)]


def test_a_flight_that_has_grown_large_gathers_small_reads() -> None:
    line = Line()
    for _ in range(16):
        line.says(bytes(3000))
        line.wait(0.001)
    line.wait(SILENCE)
    assert sum(line.sizes) == padme(sum(line.sizes))
    assert len(line.heard) == 48_000
    assert len(line.writes) < 16, "full records are gathered"


# --- Ends ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RecordType.CLOSE, RecordType.RESET])
def test_an_end_alone_looks_like_any_small_flight(kind: RecordType) -> None:
    line = Line()
    line.says(bytes(30))
    line.ends(kind)
    assert line.sizes == [512, 512]
    assert line.kinds == [RecordType.DATA, kind]


@pytest.mark.parametrize("kind", [RecordType.CLOSE, RecordType.RESET])
def test_an_end_takes_what_is_held_with_it_at_once(kind: RecordType) -> None:
    """The bare end stands behind the padding, so that the frame before it does not show where data ends."""
    line = Line()
    line.says(octets("mail", 40_000))
    line.ends(kind)
    assert line.heard == octets("mail", 40_000)
    assert line.kinds[-1] is kind
    assert sum(line.sizes) == padme(40_000 + 4 * 22)
    assert line.frames() == [*frames_of(sum(line.sizes) - 22), 22]
    assert line.flights.deadline is None


def test_an_end_behind_a_very_large_first_flight() -> None:
    """More padding than one record holds: PAD records in front, then the bare end."""
    line = Line()
    line._write(line.flights.at_once(bytes(2_000_000)))
    assert sum(line.sizes) == padme(2_000_000 + 123 * 22)
    line.ends()
    assert sum(line.sizes) == padme(line.sizes[0] + 512)
    assert line.kinds[-1] is RecordType.CLOSE


# --- Records of other types ---------------------------------------------------------------------------------


def test_other_records_leave_with_the_next_octets_and_count() -> None:
    line = Line()
    line.flights.add(RecordType.PARAMS, b"")
    line.flights.add(RecordType.IGNORABLE)
    line._write(line.flights.at_once(b"MAIL FROM:<a@a.example>\r\n"))
    assert line.kinds == [RecordType.PARAMS, RecordType.IGNORABLE, RecordType.DATA]
    assert line.sizes == [512]


def test_other_records_alone_are_padded_within_the_last() -> None:
    line = Line()
    line.flights.add(RecordType.PARAMS, b"")
    line.flights.add(RecordType.STATEMENT, bytes(196))
    line._write(line.flights.at_once())
    assert line.kinds == [RecordType.PARAMS, RecordType.STATEMENT]
    assert line.sizes == [512]
    assert line.frames() == [22, 490]


def test_nothing_at_all_is_one_pad_record() -> None:
    line = Line()
    line._write(line.flights.at_once())
    assert (line.sizes, line.kinds) == ([512], [RecordType.PAD])


def test_other_records_leave_in_front_of_a_large_flight() -> None:
    line = Line()
    line.flights.add(RecordType.PARAMS, b"")
    line.says(bytes(20_000))
    assert line.kinds == [RecordType.PARAMS, RecordType.DATA]
    line.wait(SILENCE)
    assert sum(line.sizes) == padme(20_000 + 3 * 22)


def test_now_and_then() -> None:
    assert now_and_then(lambda count: b"\0" * count)
    assert not now_and_then(lambda count: b"\xff" * count)


# --- Timers -------------------------------------------------------------------------------------------------


def test_octets_put_the_deadline_off() -> None:
    line = Line()
    line.says(bytes(20_000))
    for _ in range(20):
        line.wait(0.0045)
        line.says(b"x")
    assert line.sizes == [FULL]
    line.wait(SILENCE - ALMOST)
    assert line.sizes == [FULL]
    line.wait(2 * ALMOST)
    assert len(line.heard) == 20_020


def test_a_deadline_that_nobody_asked_for_means_nothing() -> None:
    line = Line()
    assert line.flights.silence(line.now) == b""
    assert line.flights.silence(line.now) == b""
    assert line.flights.deadline is None


def test_a_late_loop_reads_before_it_believes_in_silence() -> None:
    """The deadline comes 20 ms late, with octets waiting in the socket: they are read in between."""
    line = Line()
    for _ in range(10):
        line.says(bytes(65_536))
        line.now += 0.02
        line._write(line.flights.silence(line.now))
    assert all(size % FULL == 0 for size in line.sizes), "no padding in mid-flight"
    line.wait(SILENCE)
    assert len(line.heard) == 10 * 65_536


def test_a_deadline_stays_while_octets_come() -> None:
    """A timer that moved with each read would cost one call for each."""
    line = Line()
    line.says(bytes(65_536))
    first = line.flights.deadline
    line.now += 0.001
    line.says(bytes(65_536))
    assert line.flights.deadline == first


def test_bulk_is_not_sealed_in_more_records_than_it_needs() -> None:
    line = Line()
    for _ in range(16):
        line.says(bytes(65_536))
    line.wait(SILENCE)
    assert line.kinds.count(RecordType.DATA) == 64


def test_rekey_in_the_midst_of_a_large_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.crypto.records._REKEY_MASK", 7)
    line = Line()
    mail = octets("rekeyed", 700_000)
    for begin in range(0, len(mail), 10_000):
        line.says(mail[begin : begin + 10_000])
    line.wait(SILENCE)
    assert line.heard == mail
