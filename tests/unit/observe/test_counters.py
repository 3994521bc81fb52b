"""Counting, merging, and the bell."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Reason
from gateway.observe.counters import (
    Alarm,
    AlarmBell,
    Counters,
    Direction,
    Tally,
    empty_snapshot,
    merged,
    without_gauges,
)
from gateway.policy import limits

NOW = 1_800_000_000
DAY = 86400


def test_snapshot_is_json_and_says_what_was_counted() -> None:
    counters = Counters()
    counters.decided(Direction.OUT, True, Reason.UPGRADED)
    counters.decided(Direction.OUT, True, Reason.UPGRADED)
    counters.decided(Direction.IN, False, Reason.NO_VERB)
    counters.ended(Direction.IN, Reason.CLOSED)
    counters.add(Tally.OCTETS_CLEAR, 1000)
    counters.set(Tally.SESSIONS_OPEN, 3)
    counters.set(Tally.SESSIONS_OPEN, 2)
    found = counters.snapshot()
    assert json.loads(json.dumps(found)) == found
    assert found == {
        "decided": {
            "out": {"upgraded": {"upgraded": 2}, "clear": {}},
            "in": {"upgraded": {}, "clear": {"no-verb": 1}},
        },
        "ended": {"out": {}, "in": {"closed": 1}},
        "tallies": {"octets-clear": 1000, "sessions-open": 2},
    }


def test_snapshot_is_a_copy() -> None:
    counters = Counters()
    before = counters.snapshot()
    counters.add(Tally.REDIALS)
    assert before == empty_snapshot()


def test_merge_of_nothing_is_empty() -> None:
    assert merged([]) == empty_snapshot()


counts = st.lists(
    st.tuples(st.sampled_from(Direction), st.booleans(), st.sampled_from(Reason), st.sampled_from(Tally))
)


@given(st.lists(counts, max_size=5))
def test_merge_of_many_is_as_if_one_had_counted_all(
    parts: list[list[tuple[Direction, bool, Reason, Tally]]],
) -> None:
    one, snapshots = Counters(), []
    for part in parts:
        mine = Counters()
        for counters in (one, mine):
            for direction, upgraded, reason, tally in part:
                counters.decided(direction, upgraded, reason)
                counters.ended(direction, reason)
                counters.add(tally, 2)
        snapshots.append(json.loads(json.dumps(mine.snapshot())))
    copies = json.dumps(snapshots)
    assert merged(snapshots) == one.snapshot()
    assert json.dumps(snapshots) == copies


def test_a_dead_process_leaves_its_counts_and_no_open_sessions() -> None:
    counters = Counters()
    counters.add(Tally.SESSIONS_OPEN, 5)
    counters.add(Tally.SESSIONS_BEGUN, 9)
    assert without_gauges(counters.snapshot())["tallies"] == {"sessions-begun": 9}
    assert counters.snapshot()["tallies"]["sessions-open"] == 5


# --- The bell ----------------------------------------------------------------------------------------


def test_rings_once_a_day_per_cause_and_tells_what_was_suppressed() -> None:
    bell = AlarmBell()
    first = bell.ring(Reason.UPGRADED_CHANGED_PEER, "192.0.2.7:25", NOW, "x")
    assert first is not None
    assert (first.detail, first.unheard) == ("x", 0)
    assert bell.ring(Reason.UPGRADED_CHANGED_PEER, "192.0.2.7:25", NOW + 5) is None
    assert bell.ring(Reason.UPGRADED_CHANGED_PEER, "192.0.2.7:25", NOW + DAY - 1) is None
    assert bell.ring(Reason.UPGRADED_CHANGED_PEER, "192.0.2.8:25", NOW + 5) is not None
    assert bell.ring(Reason.HANDSHAKE_FAILED, "192.0.2.7:25", NOW + 5) is not None
    again = bell.ring(Reason.UPGRADED_CHANGED_PEER, "192.0.2.7:25", NOW + DAY)
    assert again is not None
    assert again.unheard == 2


def test_the_pause_is_the_operators_choice() -> None:
    bell = AlarmBell(again_seconds=60)
    assert bell.ring(Reason.INTERNAL, "x", NOW) is not None
    assert bell.ring(Reason.INTERNAL, "x", NOW + 59) is None
    assert bell.ring(Reason.INTERNAL, "x", NOW + 60) is not None


def test_a_clock_set_back_does_not_silence_it() -> None:
    bell = AlarmBell()
    bell.ring(Reason.INTERNAL, "x", NOW)
    assert bell.ring(Reason.INTERNAL, "x", NOW - 30 * DAY) is not None


def test_causes_are_bounded() -> None:
    bell = AlarmBell()
    for number in range(limits.ALARM_CAUSES + 10):
        bell.ring(Reason.OFFER_MISSING, str(number), NOW)
    assert len(bell.known(NOW)) == limits.ALARM_CAUSES
    assert bell.ring(Reason.OFFER_MISSING, "0", NOW) is not None


@pytest.mark.parametrize("first", [Reason.OFFER_MISSING, Reason.SOURCE_IN_CLEAR])
def test_causes_that_clients_can_make_leave_half_of_the_places_to_others(first: Reason) -> None:
    """Whoever has very many addresses must not make `status` forget what he does elsewhere."""
    bell, half = AlarmBell(), limits.ALARM_CAUSES // 2
    second = ({Reason.OFFER_MISSING, Reason.SOURCE_IN_CLEAR} - {first}).pop()
    for number in range(limits.ALARM_CAUSES):
        bell.ring(first, str(number), NOW)
    for number in range(half):
        bell.ring(second, str(number), NOW)
    successor = AlarmBell()
    successor.recall(bell.remembered())
    successor.ring(Reason.SOURCE_IN_CLEAR, "one more", NOW)
    for one in (bell, successor):
        reasons = Counter(alarm.reason for alarm in one.known(NOW))
        assert reasons == {Reason.OFFER_MISSING: half, Reason.SOURCE_IN_CLEAR: half}


def test_known_is_newest_first_and_of_one_day() -> None:
    bell = AlarmBell()
    bell.ring(Reason.INTERNAL, "old", NOW)
    bell.ring(Reason.INTERNAL, "new", NOW + DAY - 1)
    assert [alarm.subject for alarm in bell.known(NOW + DAY - 1)] == ["new", "old"]
    assert [alarm.subject for alarm in bell.known(NOW + DAY)] == ["new"]
    assert json.dumps([alarm.as_json() for alarm in bell.known(NOW + DAY)])


def test_a_clock_set_back_hides_no_alarm() -> None:
    """As where the machine's own clock shows local time, until the network has told the right one."""
    bell = AlarmBell()
    bell.ring(Reason.INTERNAL, "early", NOW + 2 * 3600)
    bell.ring(Reason.INTERNAL, "of another time", NOW + 2 * DAY)
    assert [alarm.subject for alarm in bell.known(NOW)] == ["early"]


def test_an_alarm_keeps_what_it_likely_was_the_last_time() -> None:
    bell = AlarmBell()
    first = bell.ring(Reason.HANDSHAKE_FAILED, "192.0.2.7:25", 1000, likely="verb-refused")
    assert first is not None
    assert first.likely == "verb-refused"
    assert bell.ring(Reason.HANDSHAKE_FAILED, "192.0.2.7:25", 1001, likely="frames-damaged") is None
    assert bell.ring(Reason.HANDSHAKE_FAILED, "192.0.2.7:25", 1002) is None
    (known,) = bell.known(1003)
    assert (known.likely, known.unheard) == ("frames-damaged", 2)
    assert known.as_json()["likely"] == "frames-damaged"


def test_why_it_rang_the_last_time_is_kept_for_whoever_asks_later() -> None:
    """A reload that is refused again, for another reason: the first one is mended by then."""
    bell = AlarmBell()
    bell.ring(Reason.RELOAD_REFUSED, "reload", NOW, "/x.toml, line 3: log.level: 'loud'")
    (known,) = bell.known(NOW + 1)
    assert known.detail == "/x.toml, line 3: log.level: 'loud'"
    bell.ring(Reason.RELOAD_REFUSED, "reload", NOW + 2, "kernel.zone: " + "x" * 1000)
    assert bell.ring(Reason.RELOAD_REFUSED, "reload", NOW + 3) is None
    successor = AlarmBell()
    successor.recall(json.loads(json.dumps(bell.remembered())))
    for one in (bell, successor):
        (known,) = one.known(NOW + 4)
        assert known.detail == ("kernel.zone: " + "x" * 1000)[: limits.ALARM_DETAIL_CHARACTERS]


def test_what_an_earlier_version_remembers_has_no_detail() -> None:
    bell = AlarmBell()
    bell.recall([{"reason": "internal", "subject": "x", "rang": NOW, "unheard": 0, "likely": ""}])
    assert [alarm.detail for alarm in bell.known(NOW)] == [""]


def test_an_alarm_of_another_version_is_read() -> None:
    """At a reload into this one: an earlier one had another name for what went unheard."""
    alarm = Alarm(Reason.INTERNAL, "x", NOW, "why", 2, "likely")
    assert Alarm.from_json(json.loads(json.dumps(alarm.as_json()))) == alarm
    earlier = {"reason": "internal", "subject": "x", "at": NOW, "suppressed": 2}
    assert Alarm.from_json(earlier) == Alarm(Reason.INTERNAL, "x", NOW, unheard=2)
    later = {**alarm.as_json(), "more": 1}
    assert Alarm.from_json(later) == alarm
    with pytest.raises(ValueError, match="of-tomorrow"):
        Alarm.from_json({**earlier, "reason": "of-tomorrow"})


def test_all_alarms_fit_into_the_answer_of_status() -> None:
    bell = AlarmBell()
    for number in range(limits.ALARM_CAUSES):
        detail = "x" * limits.ALARM_DETAIL_CHARACTERS
        bell.ring(
            Reason.UPGRADED_CHANGED_PEER, f"[2001:db8:ffff:ffff:ffff:ffff:ffff:{number:x}]:25", NOW, detail
        )
    known = bell.known(NOW)
    assert len(json.dumps([alarm.as_json() for alarm in known])) < limits.CONTROL_REPLY_OCTETS * 0.8
    assert sum(bool(alarm.detail) for alarm in known) == limits.ALARMS_IN_DETAIL
