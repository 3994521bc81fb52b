from __future__ import annotations

from pathlib import Path

import pytest

from bench.rivals import growth
from gateway.peers.store import PinStore


def test_peers_are_written_and_found_by_the_products_own_store(tmp_path: Path) -> None:
    path = tmp_path / "peers.db"
    growth.fill(path, 0, 30)
    growth.fill(path, 30, 50)
    with PinStore(path) as store:
        assert len(store.pins()) == 50
        assert store.lookup(growth.destination(49)) is not None
        assert store.lookup(growth.destination(50)) is None
    found = growth.look_ups(path, 50)
    assert found["look_up_us"] > 0
    assert found["file_octets"] > 0


def test_a_million_peers_have_a_million_addresses() -> None:
    assert len({growth.destination(number) for number in range(0, 1_000_000)}) == 1_000_000


@pytest.mark.parametrize(
    ("sessions", "allowed", "found"),
    [
        (10, 20_000, [10]),
        (5000, 20_000, [5000]),
        (12_000, 20_000, [5000, 5000, 2000]),
        (5000, 4096, [3584, 1416]),
    ],
)
def test_sessions_are_shared_out_to_drivers(sessions: int, allowed: int, found: list[int]) -> None:
    assert growth.parts(sessions, allowed) == found


def level(held: int, octets: int) -> growth.Level:
    return growth.Level(held, 4.0, 0.3, 0.1, octets, {}, 1.0, 1.0)


def test_memory_grows_by_what_sessions_need_and_not_by_what_others_have_left() -> None:
    """The first hundred have found room; each of 20,000 needs as much as each of 1,000, or twice as much."""
    linear = [level(10, 0), level(100, 1), *(level(held, held * 12_000) for held in (1000, 5000, 20_000))]
    assert growth._sessions_found(linear, 0)["memory_exponent"] == pytest.approx(1.0)
    worse = [*linear[:-1], level(20_000, 20_000 * 24_000)]
    assert growth._sessions_found(worse, 0)["memory_exponent"] > 1.2
    assert growth._sessions_found(linear[1:3], 0)["memory_exponent"] > 5.0
