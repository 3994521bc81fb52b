"""Sessions by day: counted once, over restarts and reloads, midnights, dead workers and a broken disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError, Reason
from gateway.observe.counters import Counters, Direction, Snapshot, empty_snapshot, merged
from gateway.peers.database import Database
from gateway.peers.day_store import DayStore
from gateway.policy import limits
from gateway.runtime.supervisor.days import Days

DAY = limits.DAY_SECONDS
NOON = 20_800 * DAY + DAY // 2


class Gateway:
    """One state directory, and daemons that come and go on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = float(NOON)
        self.told: list[str] = []
        self.database: Database | None = Database(path)
        self.counters = Counters()
        self.start()

    def start(self, inherited: Snapshot | None = None) -> None:
        self.days = Days(self._store, self.told.append, lambda: self.now)
        self.days.begin(inherited or empty_snapshot())

    def _store(self) -> DayStore | None:
        return DayStore(self.database) if self.database is not None else None

    def session(self, reason: Reason = Reason.UPGRADED, *, upgraded: bool = True) -> None:
        self.counters.decided(Direction.OUT, upgraded, reason)

    def look(self) -> None:
        self.days.note(self.counters.snapshot())

    def sent(self) -> tuple[int, int]:
        """Today and this week, of what was sent protected."""
        told = self.days.as_json(self.counters.snapshot())
        return tuple(sum(told[period]["out"]["upgraded"].values()) for period in ("today", "week"))


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(tmp_path / "peers.db")
    yield made
    if made.database is not None:
        made.database.close()


def test_what_is_counted_once_stays_counted_once(gateway: Gateway) -> None:
    for _ in range(3):
        gateway.session()
        gateway.look()
        gateway.look()
    gateway.session(Reason.NO_OFFER, upgraded=False)
    told = gateway.days.as_json(gateway.counters.snapshot())
    expected = {"out": {"upgraded": {"upgraded": 3}, "clear": {"no-offer": 1}}}
    assert told["today"] == {**expected, "in": {"upgraded": {}, "clear": {}}}
    assert told["week"] == told["today"]


def test_a_restart_goes_on_where_the_last_write_was(gateway: Gateway) -> None:
    gateway.session()
    gateway.look()
    gateway.days.write()
    gateway.session()  # and is lost: it was neither looked at nor written before the kill
    gateway.counters = Counters()
    gateway.start()
    assert gateway.sent() == (1, 1)
    gateway.session()
    gateway.look()
    gateway.days.write()
    gateway.days.write()
    gateway.counters = Counters()
    gateway.start()
    assert gateway.sent() == (2, 2)


def test_a_reload_inherits_counters_that_were_counted_already(gateway: Gateway) -> None:
    gateway.session()
    gateway.look()
    gateway.days.write()
    gateway.start(inherited=gateway.counters.snapshot())
    gateway.session()
    assert gateway.sent() == (2, 2)


def test_a_worker_that_died_is_not_counted_again(gateway: Gateway) -> None:
    gateway.session()
    past = gateway.counters.snapshot()
    gateway.days.note(past)
    successor = Counters()
    gateway.days.note(merged([past, successor.snapshot()]))
    successor.decided(Direction.OUT, True, Reason.UPGRADED)
    gateway.days.note(merged([past, successor.snapshot()]))
    assert gateway.days.as_json(merged([past, successor.snapshot()]))["today"]["out"]["upgraded"] == {
        "upgraded": 2
    }


def test_midnight_begins_a_day_and_the_eighth_leaves_the_week(gateway: Gateway) -> None:
    gateway.session()
    assert gateway.sent() == (1, 1)
    gateway.now += DAY
    gateway.session()
    assert gateway.sent() == (1, 2)
    gateway.days.write()
    gateway.now += 6 * DAY
    assert gateway.sent() == (0, 1)
    gateway.start(inherited=gateway.counters.snapshot())
    assert gateway.sent() == (0, 1)
    gateway.now += DAY
    assert gateway.sent() == (0, 0)


def test_a_clock_set_back_loses_nothing_for_good(gateway: Gateway) -> None:
    gateway.session()
    gateway.look()
    gateway.days.write()
    gateway.now -= DAY
    gateway.session()
    assert gateway.sent() == (1, 1)
    gateway.days.write()
    gateway.now += DAY
    gateway.start(inherited=gateway.counters.snapshot())
    assert gateway.sent() == (1, 2)


@pytest.mark.parametrize("off", [-30 * DAY, 30 * DAY])
def test_a_clock_that_was_wrong_at_the_start_hides_the_week_until_it_is_right(
    gateway: Gateway, off: int
) -> None:
    """As on a machine that boots without a clock of its own, and asks the network for the time later."""
    gateway.session()
    gateway.look()
    gateway.days.write()
    gateway.now += off
    gateway.counters = Counters()
    gateway.start()
    gateway.session()
    assert gateway.sent() == (1, 1)
    gateway.now -= off
    gateway.session()
    assert gateway.sent() == (2, 2)
    gateway.days.write()
    gateway.start(inherited=gateway.counters.snapshot())
    assert gateway.sent() == (2, 2)


def test_what_cannot_be_written_is_told_and_written_later(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise EnvironmentFailureError("disk full")

    gateway.session()
    gateway.look()
    with monkeypatch.context() as patched:
        patched.setattr(DayStore, "add", full)
        gateway.days.write()
    assert gateway.told == ["disk full"]
    assert gateway.sent() == (1, 1)
    gateway.days.write()
    gateway.start(inherited=gateway.counters.snapshot())
    assert gateway.sent() == (1, 1)


def test_without_a_memory_it_counts_for_its_own_life(gateway: Gateway) -> None:
    assert gateway.database is not None
    gateway.database.close()
    gateway.database = None
    gateway.start()
    gateway.session()
    gateway.days.write()
    assert gateway.sent() == (1, 1)
    assert gateway.told == []


def test_counts_that_the_file_has_no_room_for_are_trouble_and_no_end(gateway: Gateway) -> None:
    """Workers that are in other hands may say so much together; a stop or a reload writes, too."""
    most = {"decided": {"out": {"upgraded": {"upgraded": (1 << 63) - 1}}}}
    gateway.days.note(merged([most, most]))
    gateway.days.write()
    assert len(gateway.told) == 1
    assert "too large" in gateway.told[0]
