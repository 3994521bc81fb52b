"""Moments of a watch: rates, peers, and what is shown where nobody answers."""

import copy
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config
from gateway.operator import watching
from gateway.operator.watching import Moment, Rates, Watch
from gateway.peers.database import Database
from gateway.peers.day_store import DayStore, Kind
from gateway.peers.history import Happening
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.store import PinStore
from gateway.policy import limits
from tests.unit.operator.fake_daemon import STATUS, daemon

NOW = 1_800_000_000


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "state").mkdir()
    return Config(state_dir=tmp_path / "state", run_dir=tmp_path / "run")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def counted(**tallies: int) -> dict[str, Any]:
    status = copy.deepcopy(STATUS)
    status["counters"]["tallies"] = {name.replace("_", "-"): count for name, count in tallies.items()}
    return status


def looked(watch: Watch, config: Config, status: dict[str, Any]) -> Moment:
    with daemon(config.control_socket, status):
        return watch.look()


def test_rates_are_told_over_the_last_looks(config: Config, clock: list[float]) -> None:
    watch = Watch(config, "`x` starts it")
    first = looked(watch, config, counted(sessions_begun=10, octets_protected=0))
    assert first.rates is None
    assert "/s" not in watching.now(first)
    for turn in range(1, limits.WATCH_LOOKS + 3):
        clock[0] += 2
        status = counted(sessions_begun=10 + 3 * turn, octets_protected=4000 * turn, sessions_open=7)
        moment = looked(watch, config, status)
    assert moment.rates == Rates(1.5, 2000.0, 0.0)
    assert watching.now(moment) == (
        "now: 7 sessions open, 0 SYNs held; 1.5 new/s, 2.0 kB/s protected, 0 B/s in clear"
    )


def test_another_daemon_counts_from_nothing(config: Config, clock: list[float]) -> None:
    watch = Watch(config, "`x` starts it")
    looked(watch, config, counted(sessions_begun=1000))
    clock[0] += 1
    assert looked(watch, config, counted(sessions_begun=2)).rates is None
    clock[0] += 1
    assert looked(watch, config, counted(sessions_begun=4)).rates == Rates(2.0, 0.0, 0.0)


@pytest.fixture
def peers(config: Config) -> Iterator[None]:
    with PinStore(config.pins_file) as store:
        for number in range(1, limits.WATCH_PEERS + 4):
            at = Destination(f"192.0.2.{number}", 25)
            store.remember(at, MetPeer(bytes([number]) * 32, 20_000, True), NOW + number)
        store.note_trouble(Destination("192.0.2.2", 25), Happening.MISSING, NOW)
        yield


@pytest.mark.usefixtures("peers")
def test_peers_in_trouble_stand_first_then_the_last_seen(config: Config) -> None:
    watch = Watch(config, "`x` starts it")
    moment = looked(watch, config, STATUS)
    watch.close()
    shown = [pin.destination.address for pin in moment.peers]
    assert shown[:3] == ["192.0.2.2", "192.0.2.15", "192.0.2.14"]
    assert len(shown) == limits.WATCH_PEERS
    assert watching.peer(moment.peers[0]).endswith("IN TROUBLE")


def test_nobody_answers(config: Config) -> None:
    database = Database(config.pins_file)
    watch = Watch(config, "`x` starts it")
    with_nothing = watch.look()
    DayStore(database).add({int(with_nothing.wall) // 86400: {Kind("out", True, "upgraded"): 2}}, 0)
    database.close()
    moment = watch.look()
    assert not moment.protects
    lines = list(watching.told(moment))
    assert lines[1].startswith("NO, mail passes in clear: no daemon is running")
    assert lines[2].startswith("sent by this site: today 2 of 2 sessions protected")
    assert watching.as_json(moment)["running"] is False


def test_a_silent_daemon_is_no_answer(config: Config) -> None:
    moment = looked(Watch(config, "`x` starts it"), config, b"rubbish")  # type: ignore[arg-type]
    assert moment.answer.startswith("NO ANSWER, so nobody knows: ")
    assert not moment.protects


@pytest.mark.usefixtures("peers")
def test_the_plain_block_and_the_json(config: Config) -> None:
    moment = looked(Watch(config, "`x` starts it"), config, STATUS)
    lines = list(watching.told(moment))
    assert lines[0].startswith("--- ")
    assert lines[1] == "YES, mail to and from sites with a gateway is protected now"
    assert lines[-1].startswith("peer: 192.0.2.")
    facts = json.loads(json.dumps(watching.as_json(moment)))
    assert facts["recent_peers"][0]["in_trouble"] is True
    assert facts["version"] == STATUS["version"]
    assert facts["rates"] is None


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2.5e6, "2.5 MB"), (3e15, "3000.0 TB")]
)
def test_octets(count: float, shown: str) -> None:
    assert watching.octets(count) == shown
