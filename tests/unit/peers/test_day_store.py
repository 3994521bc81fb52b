"""Sessions by day on disk: they add up, are kept over a reopening, and old days go."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.peers.database import Database
from gateway.peers.day_store import DayStore, Kind
from gateway.policy import limits

TODAY = 20_800
SENT, CLEAR = Kind("out", True, "upgraded"), Kind("in", False, "no-verb")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(tmp_path / "peers.db")
    yield opened
    opened.close()


def test_counts_add_up_and_are_kept_over_a_reopening(database: Database, tmp_path: Path) -> None:
    store = DayStore(database)
    store.add({TODAY: {SENT: 2, CLEAR: 1}, TODAY - 1: {SENT: 5}}, TODAY)
    store.add({TODAY: {SENT: 3, CLEAR: 0}}, TODAY)
    database.close()
    again = Database.read_only(tmp_path / "peers.db")
    reader = DayStore(again)
    assert reader.since(TODAY - 1) == {TODAY: Counter({SENT: 5, CLEAR: 1}), TODAY - 1: Counter({SENT: 5})}
    assert reader.since(TODAY) == {TODAY: Counter({SENT: 5, CLEAR: 1})}
    with pytest.raises(EnvironmentFailureError, match="written"):
        reader.add({TODAY: {SENT: 1}}, TODAY)
    again.close()


def test_days_go_after_their_weeks_and_not_before(database: Database) -> None:
    store = DayStore(database)
    store.add({TODAY: {SENT: 1}}, TODAY)
    store.add({}, TODAY + limits.DAYS_KEPT - 1)
    assert list(store.since(0)) == [TODAY]
    store.add({}, TODAY + limits.DAYS_KEPT)
    assert store.since(0) == {}


def test_a_direction_that_there_is_not_cannot_be_written(database: Database) -> None:
    with pytest.raises(EnvironmentFailureError, match="CHECK"):
        DayStore(database).add({TODAY: {Kind("sideways", True, "upgraded"): 1}}, TODAY)
