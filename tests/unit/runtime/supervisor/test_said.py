"""What a worker says is not believed to be well formed: it may be others who say it.

With real ears, and no process. Counterpart: tests/lab, where workers are real ones.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.errors import Reason
from gateway.intercept.ruleset import Slot
from gateway.observe.counters import Counters, Direction, Tally, empty_snapshot
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.source_store import SourceStore
from gateway.policy import limits
from gateway.runtime import link as link_module
from gateway.runtime import said
from gateway.runtime.hardening import LAYERS
from gateway.runtime.link import Link, Message
from gateway.runtime.supervisor.spared import Visit
from gateway.runtime.supervisor.worker_process import State, WorkerProcess
from tests.unit.runtime.supervisor.ears import Ears


@pytest.mark.parametrize(
    "message",
    [
        {"remember": {}},
        {"remember": {"identity": "zz", "epoch": 1, "full": True, "address": "192.0.2.7", "port": 25}},
        {"remember": 5},
        {"failure": {"address": "192.0.2.7"}},
        {"source": "192.0.2.7"},
        {"source": {"address": "192.0.2.7", "seen": "never heard of"}},
        {"look": {"host": 1, "keywords": 2, "address": "192.0.2.7", "port": 25}},
        {
            "look": {
                "host": "x" * (limits.SAID_TEXT_LETTERS + 1),
                "keywords": "",
                "address": "192.0.2.7",
                "port": 25,
            }
        },
        {"alarm": {"reason": "never-heard-of", "subject": "x", "detail": "y"}},
        {"alarm": []},
        {"cause": {"likely": "reset-unclear"}},
        {"cause": None},
        {"dead-end": {"address": "192.0.2.7 . 25 }; flush ruleset; add element x { ", "port": 25}},
        {"dead-end": {"address": "fe80::1%} ; flush ruleset", "port": 25}},
        {"dead-end": {"address": "192.0.2.7", "port": "25 }; flush ruleset"}},
        {"dead-end": {"address": "mx.example", "port": 25}},
        {"dead-end": {"address": "192.0.2.7", "port": 0}},
        {"dead-end": {"address": "192.0.2.7", "port": 1 << 16}},
        {"rests": {"client": "192.0.2.7 . 192.0.2.8 . 25 }; x {", "address": "192.0.2.8", "port": 25}},
        {"rests": {"client": "192.0.2.7", "address": "192.0.2.8 . 25 }; flush ruleset", "port": 25}},
        {"rests": {"client": "fe80::1%} ; flush ruleset", "address": "192.0.2.8", "port": 25}},
        {"rests": {"client": "192.0.2.7", "address": "192.0.2.8", "port": "25 }; flush ruleset"}},
        {"rests": {"client": "192.0.2.7", "port": 25}},
        {"rests": {"client": "192.0.2.7", "address": "2001:db8::7", "port": 25}},
        {"wakes": {"client": "mx.example"}},
        {"cause": {"likely": "reset-unclear", "address": "192.0.2.7", "port": 25, "client": "x } ; y"}},
        {"counters": 5},
        {"counters": {"others": {}}},
        {"counters": {"tallies": 5}},
        {"counters": {"tallies": {"sessions-open": "many"}}},
        {"counters": {"tallies": {"sessions-open": -1}}},
        {"counters": {"tallies": {"sessions-open": True}}},
        {"counters": {"tallies": {"sessions-open": 1 << 63}}},
        {"counters": {"tallies": {'x"} 1\n# EVIL': 1}}},
        {"counters": {"tallies": {f"name-{number}": 1 for number in range(limits.COUNTER_NAMES + 1)}}},
        {"counters": {"decided": {"out": {"clear": {"deeper": {"still": 1}}}}}},
        {"counters": {"decided": {"out": 5}}},
        {"counters": {"decided": {"out": {"clear": 5}}}},
        {"counters": {"decided": {"up": {"clear": {"no-offer": 1}}}}},
        {"counters": {"decided": {"out": {"half": {"no-offer": 1}}}}},
        {"counters": {"ended": {"in": 5}}},
        {"counters": {"tallies": {"sessions-open": {"deeper": 1}}}},
        {"ready": "x"},
        {"ready": 7, "layers": 5},
        {"ready": 7, "layers": [["user"]]},
        {"ready": 7, "layers": ["user"] * 17},
        {"ready": 7, "layers": ["\x1b[31m"]},
        {"answered": 5},
        {"answered": ["192.0.2.7"]},
        {"answered": ["192.0.2.7", 25, 25]},
        {"answered": ["mx.example", 25]},
        {"answered": ["192.0.2.7", True]},
        {"alarm": {"reason": "internal", "subject": "x" * 257, "detail": ""}},
    ],
    ids=lambda message: str(message)[:60],
)
def test_what_a_worker_should_not_say_rings_and_ends_nothing(ears: Ears, message: Any) -> None:
    ears.hear(message)
    ((reason, detail),) = ears.rung
    assert reason is Reason.INTERNAL
    assert "said what it should not" in detail
    assert (ears.dead_ends.known, ears.resting.known, ears.asked) == ([], [], [])
    ears.hear({"ready": 7, "layers": list(LAYERS)})
    assert ears.worker.state is State.SERVING
    assert len(ears.rung) == 1
    assert ears.worker.counters == empty_snapshot()


GOOD: dict[str, Any] = {
    "identity": "05" * 32,
    "epoch": 20_000,
    "full": True,
    "new": True,
    "rang": True,
    "address": "192.0.2.7",
    "port": 25,
    "client": "192.0.2.9",
    "seen": "upgraded",
    "name": "6d78",
    "host": "mx.example",
    "keywords": "PIPELINING",
    "likely": "reset-unclear",
    "reason": "offer-missing",
    "session": "0123456789abcdef",
    "subject": "192.0.2.7:25",
    "detail": "",
    "in_a_row": 33,
    "rests": True,
}
ODD: tuple[Any, ...] = (
    *(0, -1, 1 << 31, 1 << 63, 1 << 64, 10**30, 1.5, float("nan"), True, None, [], {}),
    *("", "x", "05", "zz", "ff" * 32, "\x1b[31m\n", "a" * 100_000, "\ud800", "\0", "::1", "2001:DB8::7"),
)


def test_nothing_that_a_worker_can_say_breaks_what_hears_it(ears: Ears) -> None:
    """Random messages, each nearly right; all that is written from them can be read back."""
    chance = random.Random(4)

    async def hear_all() -> None:
        for _ in range(1500):
            kind = chance.choice([*said._FIELDS])
            names = [name.rstrip("?") for name in said._FIELDS[kind]]
            body = {
                name: GOOD[name] if chance.random() < 0.8 else chance.choice(ODD)
                for name in names
                if name != "statement"
            }
            if chance.random() < 0.2:
                serial = chance.choice((7, *ODD))
                body["statement"] = {"old": "05" * 32, "new": "06" * 32, "serial": serial}
            ears.hear({kind: body})

    asyncio.run(hear_all())
    ears.memory.sources.write()
    assert ears.memory.pins is not None
    for pin in ears.memory.pins.pins():
        assert ears.memory.pins.history(pin.destination)
    assert ears.memory.database is not None
    assert SourceStore(ears.memory.database).sources()
    assert ears.dead_ends.known
    assert all(reason is Reason.INTERNAL for reason, _ in ears.rung)


@pytest.mark.parametrize("kind", said._FIELDS)
def test_what_workers_do_say_is_heard(ears: Ears, kind: str) -> None:
    body = {name.rstrip("?"): GOOD.get(name.rstrip("?")) for name in said._FIELDS[kind]}
    body.pop("statement", None)

    async def hear() -> None:
        ears.hear({kind: body, "of a later version": 1})

    asyncio.run(hear())
    assert ears.rung == []


def test_a_pinned_peer_is_no_dead_end_whoever_says_so(ears: Ears) -> None:
    pinned, other = Destination("192.0.2.7", 25), Destination("192.0.2.8", 25)
    assert ears.memory.pins is not None
    ears.memory.pins.remember(pinned, MetPeer(b"\x05" * 32, 20_000, True), 1_800_000_000)
    for one in (pinned, other):
        ears.hear({"dead-end": {"address": one.address, "port": one.port}})
    assert (ears.dead_ends.known, ears.rung) == ([other], [])


def test_where_the_memory_could_not_be_opened_nobody_is_a_dead_end(
    ears: Ears, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hold a pin, whose mail would pass in clear without a word."""
    with monkeypatch.context() as without:
        without.setattr(ears.memory, "pins", None)
        ears.hear({"dead-end": {"address": "192.0.2.7", "port": 25}})
    assert (ears.dead_ends.known, ears.rung) == ([], [])


class Heard:
    """The link to a worker, as far as it is spoken to."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, message: Message) -> bool:
        self.messages.append(message)
        return True


def test_the_other_workers_hear_of_a_dead_end_so_that_one_session_finds_it_again(ears: Ears) -> None:
    told, other = {"dead-end": {"address": "192.0.2.8", "port": 25}}, Heard()
    ears.pool.workers += [ears.worker, WorkerProcess(Slot(1, 2501, 12526), (), link=other)]  # type: ignore[arg-type]
    ears.hear(told)
    assert other.messages == [told]
    ears.hear({"dead-end": {"address": "mx.example", "port": 25}})
    assert other.messages == [told]


ORDERS: dict[str, Any] = {
    "drain": True,
    "end": True,
    "retire": True,
    "site": {"identity": "05" * 32},
    "inside": [],
    "asked": "192.0.2.7",
}
"""What workers do because the supervisor says so."""


@pytest.mark.parametrize(
    "told",
    [
        {"answered": ["192.0.2.7", 25]},
        {"source": {"address": "192.0.2.7", "seen": "dropped"}},
        {"dead-end": {"address": "192.0.2.8", "port": 25}},
    ],
    ids=lambda told: str(*told),
)
def test_a_worker_has_the_others_told_nothing_that_is_the_supervisors_to_say(
    ears: Ears, told: dict[str, Any]
) -> None:
    """They would end their sessions, take another site's keys, or take no network for one inside."""
    other = Heard()
    ears.pool.workers += [ears.worker, WorkerProcess(Slot(1, 2501, 12526), (), link=other)]  # type: ignore[arg-type]
    ears.hear(told | ORDERS)
    assert other.messages == [told]
    assert ears.rung == []


def test_whose_mail_comes_encrypted_is_no_dead_end_any_more(ears: Ears) -> None:
    async def hear() -> None:
        source = {name: GOOD[name] for name in ("name", "identity", "epoch")} | {"address": "192.0.2.8"}
        ears.hear({"source": source | {"seen": "dropped"}})
        assert ears.dead_ends.ended == []
        ears.hear({"source": source | {"seen": "upgraded"}})

    asyncio.run(hear())
    assert ears.dead_ends.ended == ["192.0.2.8"]


def told_of(address: str, seen: str, *, new: bool = False) -> dict[str, Any]:
    met = {name: GOOD[name] for name in ("name", "identity", "epoch")} if seen == "upgraded" else {}
    return {"source": {"address": address, "seen": seen, "new": new} | met}


def test_who_may_remember_us_does_not_rest_whoever_says_so(ears: Ears) -> None:
    """Nor his neighbours: a session without an offer would ring over there, and its mail be in clear."""
    ears.hear(told_of("192.0.2.8", "upgraded", new=True))
    ears.memory.sources.write()
    for client in ("192.0.2.8", "192.0.2.200", "198.51.100.9"):
        ears.hear({"rests": {"client": client, "address": "203.0.113.7", "port": 25}})
    assert ears.resting.known == [Visit("198.51.100.9", "203.0.113.7", 25)]
    assert ears.rung == []


def test_mail_to_a_pinned_peer_does_not_pass_as_that_of_one_who_rests(ears: Ears) -> None:
    """As if a mail server here were a client from outside."""
    pinned = Destination("192.0.2.7", 25)
    assert ears.memory.pins is not None
    ears.memory.pins.remember(pinned, MetPeer(b"\x05" * 32, 20_000, True), 1_800_000_000)
    ears.hear({"rests": {"client": "203.0.113.7", "address": pinned.address, "port": pinned.port}})
    assert (ears.resting.known, ears.rung) == ([], [])


@pytest.mark.parametrize("memory", ["pins", "sources"])
def test_where_the_memory_could_not_be_opened_nobody_rests(
    ears: Ears, monkeypatch: pytest.MonkeyPatch, memory: str
) -> None:
    with monkeypatch.context() as without:
        if memory == "pins":
            without.setattr(ears.memory, "pins", None)
        else:
            without.setattr(ears.memory.sources, "_store", lambda: None)
        ears.hear({"rests": {"client": "198.51.100.9", "address": "203.0.113.7", "port": 25}})
    assert (ears.resting.known, ears.rung) == ([], [])


def test_a_first_upgrade_ends_the_rest_of_all(ears: Ears) -> None:
    ears.hear(told_of("192.0.2.8", "upgraded", new=True))
    assert ears.resting.emptied == 1


@pytest.mark.parametrize(
    "told",
    [
        told_of("192.0.2.8", "upgraded"),
        told_of("192.0.2.8", "dropped"),
        {"wakes": {"client": "192.0.2.8"}},
    ],
    ids=["upgraded", "dropped", "handshake failed"],
)
def test_whoever_does_something_else_than_ignoring_rests_no_more(ears: Ears, told: dict[str, Any]) -> None:
    ears.hear(told)
    assert (ears.resting.ended, ears.resting.emptied) == (["192.0.2.8"], 0)


def test_who_goes_on_behind_an_offer_may_rest(ears: Ears) -> None:
    ears.hear(told_of("192.0.2.8", "went-on"))
    assert ears.resting.ended == []


def test_counters_as_workers_make_them_are_taken(ears: Ears) -> None:
    counters = Counters()
    for direction, reason in itertools.product(Direction, Reason):
        counters.decided(direction, True, reason)
        counters.decided(direction, False, reason)
        counters.ended(direction, reason)
    for tally in Tally:
        counters.add(tally, 7)
    ears.hear({"counters": counters.snapshot()})
    assert ears.rung == []
    assert ears.worker.counters == counters.snapshot()


def test_a_worker_without_one_of_its_layers_rings(ears: Ears) -> None:
    ears.hear({"ready": 7, "layers": list(LAYERS)})
    assert ears.rung == []
    ears.hear({"ready": 7, "layers": [layer for layer in LAYERS if layer != "file-system"]})
    assert ears.rung == [(Reason.WORKER_UNCONFINED, "without file-system")]
    assert ears.worker.as_json()["confined"] == ["user", "capabilities", "no-new-privileges", "system-calls"]


@pytest.mark.parametrize(
    "packet", [b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b"null"], ids=lambda p: str(p[:4])
)
def test_a_packet_that_is_no_message_is_passed_over(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch, packet: bytes
) -> None:
    # However long a busy machine takes over the first: a turn of the link has its end.
    monkeypatch.setattr(link_module, "time", SimpleNamespace(monotonic=lambda: 0.0))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    heard: list[dict[str, Any]] = []
    link = Link(loop, ours, heard.append, lambda: None)
    theirs.send(packet)
    theirs.send(b'{"ready": 7}')
    link._readable()
    assert heard == [{"ready": 7}]
    link.close()
    theirs.close()


def test_who_says_much_that_takes_long_leaves_the_others_their_turn(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watchdog among them, which would judge nobody behind a turn that took long."""
    clock = [0.0]
    monkeypatch.setattr(link_module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    heard: list[Message] = []

    def written(message: Message) -> None:
        heard.append(message)
        clock[0] += 0.6 * limits.LINK_TURN_SECONDS

    link = Link(loop, ours, written, lambda: None)
    for number in range(5):
        theirs.send(b'{"ready": %d}' % number)
    turns = []
    for _ in range(3):
        link._readable()
        turns.append(len(heard))
    assert turns == [2, 4, 5]
    assert heard == [{"ready": number} for number in range(5)]
    link.close()
    theirs.close()


@pytest.mark.parametrize(
    ("seen", "is_told"),
    [
        ({"seen": "upgraded", "new": True}, True),
        ({"seen": "upgraded", "new": False}, False),
        ({"seen": "upgraded"}, False),
        ({"seen": "dropped"}, True),
        ({"seen": "went-on"}, True),
    ],
)
def test_what_the_other_workers_are_told_of_a_client(ears: Ears, seen: dict[str, Any], is_told: bool) -> None:
    """That somebody has upgraded for the first time, so that nobody of his site rests with them."""
    others: list[Any] = []
    other = WorkerProcess(Slot(1, 2501, 12526), (), state=State.SERVING)
    other.link = cast("Link", SimpleNamespace(send=others.append))
    ears.pool.workers += [ears.worker, other]
    said = {"source": {"address": "192.0.2.7", "name": "6d78", "identity": "05" * 32, "epoch": 1, **seen}}
    ears.hear(said)
    assert others == ([said] if is_told else [])
    assert ears.rung == []
