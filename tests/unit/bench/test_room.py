from __future__ import annotations

import resource
import socket
from collections import Counter
from pathlib import Path

import pytest

from bench import planes
from bench.planes import Plane, Variant
from bench.rivals import driver, growth, room
from bench.rivals.room import Taken
from gateway.lab import topology

GIB = 1 << 30
EVEN = Taken(5000, 1300, 5000 * 40_000)
"""As four workers share five thousand sessions of many pairs of addresses."""


@pytest.mark.parametrize(
    ("sessions", "taken", "allowed", "free", "words"),
    [
        (1000, Taken(), 20_000, 16 * GIB, ""),
        (20_000, Taken(), 20_000, 16 * GIB, "one worker may get 24000 of them and takes 9744 at most"),
        (20_000, EVEN, 20_000, 16 * GIB, ""),
        (20_000, Taken(5000, 2100, 0), 20_000, 16 * GIB, "one worker may get 10080 of them"),
        (20_000, EVEN, 4096, 16 * GIB, "this machine lets a process have 4096"),
        (100_000, EVEN, 262_144, 16 * GIB, "takes 12000 at most"),
        (20_000, EVEN, 20_000, GIB // 2, "they take 572 MB more of memory, and 512 MB are free"),
        # Of so few it is not known how they fall to workers, or what they need.
        (1000, Taken(100, 25, GIB), 20_000, GIB, ""),
        (9000, Taken(100, 25, 0), 20_000, 16 * GIB, "one worker may get 10800 of them"),
    ],
)
def test_room_is_judged_by_what_open_sessions_take(
    sessions: int, taken: Taken, allowed: int, free: int, words: str
) -> None:
    found = room.lack(sessions, taken, allowed, free)
    assert words in found
    assert bool(words) is bool(found)


def test_the_busiest_worker_is_one_of_all_gateways() -> None:
    assert room.busiest([[5, 7, 6, 2], [4, 3, 8, 5]]) == 8


@pytest.mark.parametrize(
    ("hard", "may_lift", "found"), [(20_000, False, 20_000), (20_000, True, 262_144), (10**6, False, 10**6)]
)
def test_descriptors_are_as_many_as_may_be_had(
    hard: int, may_lift: bool, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [(1024, hard)]

    def change(_: int, pair: tuple[int, int]) -> None:
        if pair[1] > hard and not may_lift:
            raise ValueError("not allowed to raise maximum limit")
        now[0] = pair

    monkeypatch.setattr(resource, "getrlimit", lambda _: now[0])
    monkeypatch.setattr(resource, "setrlimit", change)
    assert room.descriptors(growth.DESCRIPTORS) == found
    assert now[0] == (found, found)


# --- How held sessions fall to workers ---------------------------------------------------------------------


def plane() -> Plane:
    return Plane(Variant.CHANNEL, "unit", Path(), topology.load(), ())


def held_pairs(sessions: int, sources: list[str]) -> Counter[tuple[str, str | None]]:
    return Counter(driver.ends(plane().destinations, sources, number) for number in range(sessions))


def test_holders_are_addresses_of_their_own() -> None:
    sender = plane().table.mail_server("a")
    others = {planes._numbered(sender, planes.FIRST_EXTRA + i) for i in range(planes.SOURCES)}
    named = {one.v4 for node in plane().table.nodes.values() for one in node.addresses.values()}
    assert len(set(plane().holders)) == planes.HOLDERS
    assert not set(plane().holders) & (others | named)


def test_held_sessions_come_from_all_pairs_of_addresses_alike() -> None:
    found = held_pairs(5000, plane().holders)
    assert len(found) == planes.HOLDERS * planes.PAIRS
    assert max(found.values()) - min(found.values()) <= 1
    assert all(source is None for _, source in held_pairs(100, []))


def shares(pairs: list[tuple[str, str]], workers: int, seed: int) -> Counter[int]:
    """How the kernel's queue balance spreads them (`nfqueue_hash`), with a seed that it draws at boot."""
    found: Counter[int] = Counter()
    for source, destination in pairs:
        low, high = sorted(int.from_bytes(socket.inet_aton(one), "little") for one in (source, destination))
        found[_jhash((low, high, 6), seed) * workers >> 32] += 1
    return found


def _jhash(words: tuple[int, int, int], seed: int) -> int:
    """`jhash_3words` of include/linux/jhash.h."""
    a, b, c = ((word + 0xDEADBEEF + (3 << 2) + seed) & 0xFFFFFFFF for word in words)

    def mixed(into: int, other: int, bits: int) -> int:
        turned = (other << bits | other >> 32 - bits) & 0xFFFFFFFF
        return ((into ^ other) - turned) & 0xFFFFFFFF

    c = mixed(c, b, 14)
    a = mixed(a, c, 11)
    b = mixed(b, a, 25)
    c = mixed(c, b, 16)
    a = mixed(a, c, 4)
    b = mixed(b, a, 14)
    return mixed(c, b, 24)


def test_no_worker_has_far_more_than_its_part_of_held_sessions_whatever_the_seed() -> None:
    """The load's own pairs are too few for that: with many a seed one worker has more than it could hold."""
    many = [(source, to) for source in plane().holders for to in plane().destinations]
    few = [(plane().holders[i % planes.SOURCES], to) for i, to in enumerate(plane().destinations)]

    def worst(pairs: list[tuple[str, str]]) -> float:
        seeds = range(0, 1 << 32, (1 << 32) // 200)
        return max(max(shares(pairs, growth.HELD_WORKERS, seed).values()) for seed in seeds) / len(pairs)

    assert worst(many) < 0.4
    assert worst(few) > 0.5
