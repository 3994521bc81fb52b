"""When alarms were sent, on disk."""

from pathlib import Path

from gateway.errors import Reason
from gateway.peers.alarm_store import AlarmStore
from gateway.peers.database import Database

DAY, NOW = 86400, 1_800_000_000
ONE, OTHER = (Reason.OFFER_MISSING, "192.0.2.7:25"), (Reason.OFFER_MISSING, "192.0.2.8:25")


def test_kept_over_a_reopening_and_as_long_as_it_matters(tmp_path: Path) -> None:
    database = Database(tmp_path / "peers.db")
    store = AlarmStore(database)
    assert store.sent_at(ONE) is None
    store.note(ONE, NOW, DAY)
    database.close()
    database = Database(tmp_path / "peers.db")
    store = AlarmStore(database)
    assert store.sent_at(ONE) == NOW
    store.note(OTHER, NOW + DAY - 1, DAY)
    assert store.sent_at(ONE) == NOW
    store.note(OTHER, NOW + DAY, DAY)
    assert (store.sent_at(ONE), store.sent_at(OTHER)) == (None, NOW + DAY)
    store.note(ONE, NOW, DAY)  # a clock set back must not silence what was noted in its future
    assert (store.sent_at(ONE), store.sent_at(OTHER)) == (NOW, None)
    database.close()
