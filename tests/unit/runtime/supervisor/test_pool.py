"""What a worker says is not believed to be well formed: it may be others who say it.

With real ears, and no process. Counterpart: tests/lab, where workers are real ones.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.config import Config
from gateway.errors import Reason
from gateway.intercept.ruleset import Slot
from gateway.observe import sinks
from gateway.observe.counters import Counters, Direction, Tally, empty_snapshot
from gateway.peers.pins import Destination, MetPeer
from gateway.peers.source_store import SourceStore
from gateway.policy import limits
from gateway.runtime import said
from gateway.runtime.hardening import LAYERS, Confinement
from gateway.runtime.link import Link, Message
from gateway.runtime.order import Presented
from gateway.runtime.supervisor.causes import Causes
from gateway.runtime.supervisor.child import Child
from gateway.runtime.supervisor.hearing import Hearing
from gateway.runtime.supervisor.peer_memory import PeerMemory
from gateway.runtime.supervisor.pool import Pool
from gateway.runtime.supervisor.worker_process import State, WorkerProcess
from tests.unit.runtime.sockets import open_descriptors

PRESENTED = Presented(bytes(32), bytes(32), 1, 15, bytes(64))


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Kernel:
    """What it would be told of dead ends."""

    def __init__(self) -> None:
        self.known: list[Destination] = []
        self.ended: list[str] = []

    def found(self, destination: Destination) -> None:
        self.known.append(destination)

    def is_none(self, destination: Destination) -> None: ...

    def is_none_at(self, address: str) -> None:
        self.ended.append(address)


class Ears:
    """A pool that listens to one worker, and what hears of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        state = folder / "state"
        state.mkdir(0o700)
        config = Config(state_dir=state, run_dir=folder / "run", log_file=folder / "log")
        self.log = sinks.opened(config, config.log_file)
        self.memory = PeerMemory(config.pins_file, None, self.log, self._ring)
        self.memory.open()
        self.dead_ends = Kernel()
        self.asked: list[tuple[str, str]] = []
        """What nft would be asked about resets."""

        async def was_odd(server: str, client: str) -> bool | None:
            self.asked.append((server, client))
            return None

        causes = Causes(was_odd, self.log, self.memory.note_cause)
        hearing = Hearing(self.memory, self.dead_ends, causes, self._ring)  # type: ignore[arg-type]
        self.rung: list[tuple[Reason, str]] = []
        """What the pool has rung for."""

        async def made() -> Pool:
            return Pool(
                config,
                (),
                PRESENTED,
                Confinement(None, None),
                lambda slot: -1,
                self.log,
                lambda: None,
                hearing.hear,
                lambda reason, subject, detail: self.rung.append((reason, detail)),
            )

        self.pool = loop.run_until_complete(made())
        self.worker = WorkerProcess(Slot(0, 2500, 12525), (), state=State.SERVING)

    def _ring(self, reason: Reason, subject: str, detail: str, cause: Reason | None = None) -> None: ...

    def hear(self, message: Any) -> None:
        self.pool._told(self.worker, message)


@pytest.fixture
def ears(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Iterator[Ears]:
    ears = Ears(loop, tmp_path)
    yield ears
    assert ears.memory.pins is not None
    ears.memory.pins.close()
    ears.log.close()


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
    ],
    ids=lambda message: str(message)[:60],
)
def test_what_a_worker_should_not_say_rings_and_ends_nothing(ears: Ears, message: Any) -> None:
    ears.hear(message)
    ((reason, detail),) = ears.rung
    assert reason is Reason.INTERNAL
    assert "said what it should not" in detail
    assert (ears.dead_ends.known, ears.asked) == ([], [])
    ears.hear({"ready": 7, "layers": list(LAYERS)})
    assert ears.worker.state is State.SERVING
    assert len(ears.rung) == 1
    assert ears.worker.counters == empty_snapshot()


GOOD: dict[str, Any] = {
    "identity": "05" * 32,
    "epoch": 20_000,
    "full": True,
    "new": True,
    "address": "192.0.2.7",
    "port": 25,
    "client": "2001:db8::9",
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


def test_whose_mail_comes_encrypted_is_no_dead_end_any_more(ears: Ears) -> None:
    async def hear() -> None:
        source = {name: GOOD[name] for name in ("name", "identity", "epoch")} | {"address": "192.0.2.8"}
        ears.hear({"source": source | {"seen": "dropped"}})
        assert ears.dead_ends.ended == []
        ears.hear({"source": source | {"seen": "upgraded"}})

    asyncio.run(hear())
    assert ears.dead_ends.ended == ["192.0.2.8"]


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
def test_a_packet_that_is_no_message_is_passed_over(loop: asyncio.AbstractEventLoop, packet: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    heard: list[dict[str, Any]] = []
    link = Link(loop, ours, heard.append, lambda: None)
    theirs.send(packet)
    theirs.send(b'{"ready": 7}')
    link._readable()
    assert heard == [{"ready": 7}]
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


# --- Lives ------------------------------------------------------------------------------------------------


class Process:
    """Stands for a worker's process; `killed` counts."""

    pid = 7
    has_ended = False

    def __init__(self) -> None:
        self.killed = 0

    def kill(self) -> None:
        self.killed += 1


def test_a_worker_that_cannot_be_started_is_started_later(
    ears: Ears, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process to be had for a moment (a limit, no memory): the slot must not stay empty for good."""
    tries: list[float] = []
    started = asyncio.Event()

    def starts(*_: object) -> Process:
        tries.append(loop.time())
        if len(tries) < 3:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        started.set()
        return Process()

    monkeypatch.setattr(Child, "start", starts)
    monkeypatch.setattr(limits, "RESTART_SECONDS", 0.01)
    worker = ears.worker
    worker.process, worker.rest_seconds = Process(), 0.01  # type: ignore[assignment]
    ears.pool.workers.append(worker)
    monkeypatch.setattr(ears.pool, "_signer_end", lambda slot: 0)

    async def served() -> None:
        ears.pool._ended(worker, -9)
        async with asyncio.timeout(5):
            await started.wait()

    before = open_descriptors()
    loop.run_until_complete(served())
    assert (len(tries), worker.state) == (3, State.STARTING)
    assert [reason for reason, _ in ears.rung] == [Reason.WORKER_DIED]
    assert worker.link is not None
    worker.link.close()
    assert open_descriptors() == before


@pytest.mark.parametrize("state", [State.HUNG, State.DRAINING])
def test_a_worker_that_is_silent_for_long_is_killed(ears: Ears, state: State) -> None:
    """Also one that takes nothing new: its sessions would hang as long as it does."""
    process = Process()
    ears.worker.process, ears.worker.state = process, state  # type: ignore[assignment]
    ears.pool._judge(ears.worker, limits.KILL_HUNG_AFTER_SECONDS - 0.1)
    assert process.killed == 0
    ears.pool._judge(ears.worker, limits.KILL_HUNG_AFTER_SECONDS + 0.1)
    assert process.killed == 1


def test_at_a_stop_who_does_not_end_is_told_to_reset_what_is_left_and_then_killed(
    ears: Ears, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "STOP_SECONDS", 0.02)
    monkeypatch.setattr(limits, "ENDING_SECONDS", 0.02)
    told: list[Message] = []
    ended = loop.create_future()

    async def wait() -> None:
        await asyncio.shield(ended)

    process = Process()
    process.wait = wait  # type: ignore[attr-defined]
    process.kill = lambda: told.append({"killed": True}) or ended.set_result(None)  # type: ignore[method-assign, func-returns-value]
    ears.worker.process = process  # type: ignore[assignment]
    ears.worker.link = cast("Link", SimpleNamespace(send=told.append))
    ears.pool.workers.append(ears.worker)
    loop.run_until_complete(ears.pool.stop())
    assert told == [{"drain": True}, {"end": True}, {"killed": True}]


def test_workers_are_watched_though_one_look_at_them_fails(
    ears: Ears, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a bug of ours: a worker that hangs from then on would stay in the gate."""
    looks: list[float] = []
    seen_again = asyncio.Event()

    def judge(worker: WorkerProcess, silent: float) -> None:
        looks.append(silent)
        if len(looks) == 1:
            raise RuntimeError("a bug")
        seen_again.set()

    async def watched() -> None:
        ears.pool._watched_at = loop.time()
        ears.pool._watch()

    loop.set_exception_handler(lambda _loop, _context: None)
    monkeypatch.setattr(ears.pool, "_judge", judge)
    ears.pool.workers.append(ears.worker)
    with pytest.raises(RuntimeError, match="a bug"):
        loop.run_until_complete(watched())
    loop.run_until_complete(asyncio.wait_for(seen_again.wait(), 5))


def test_a_worker_whose_start_fails_by_a_bug_is_started_again(
    ears: Ears, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[WorkerProcess] = []
    started = asyncio.Event()

    def spawn(worker: WorkerProcess) -> None:
        tries.append(worker)
        if len(tries) == 1:
            raise TypeError("a bug")
        started.set()

    monkeypatch.setattr(ears.pool, "_spawn", spawn)
    ears.worker.rest_seconds = 0.01
    ears.pool.workers.append(ears.worker)
    ears.pool._start_again(ears.worker)
    loop.run_until_complete(asyncio.wait_for(started.wait(), 5))


# --- One that somebody else told to end ------------------------------------------------------------------


class Slots:
    """A pool whose processes are none, with one worker that serves."""

    def __init__(self, ears: Ears, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ears, self.loop, self.pool, self.worker = ears, loop, ears.pool, ears.worker
        self.spawned: list[WorkerProcess] = []
        self.due: list[tuple[float, Any]] = []
        monkeypatch.setattr(self.pool, "_spawn", self._spawn)
        monkeypatch.setattr(
            loop, "call_later", lambda after, call, *given: self.due.append((after, (call, given)))
        )
        self.worker.process = Process()  # type: ignore[assignment]
        self.pool.workers.append(self.worker)

    def _spawn(self, worker: WorkerProcess) -> None:
        worker.process = Process()  # type: ignore[assignment]
        worker.state, worker.started_at = State.SERVING, self.loop.time()
        self.spawned.append(worker)

    def turn(self) -> None:
        due, self.due = self.due, []
        for _, (call, given) in due:
            call(*given)

    def told_to_end(self, worker: WorkerProcess) -> None:
        self.pool._told(worker, {"drains": True})
        self.pool._told(worker, {"yields": True})


@pytest.fixture
def slots(ears: Ears, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> Slots:
    return Slots(ears, loop, monkeypatch)


def test_its_successor_starts_while_it_finishes_its_sessions(slots: Slots) -> None:
    slots.pool._told(slots.worker, {"drains": True})
    assert slots.pool.live_queues == [] and slots.due == []
    slots.told_to_end(slots.worker)
    slots.turn()
    (successor,) = slots.spawned
    assert (successor.slot, successor.generation) == (slots.worker.slot, slots.worker.generation)
    assert successor.restarts == 1
    assert slots.ears.rung == [(Reason.WORKER_DIED, "pid=7 was told to end, and finishes its sessions")]
    slots.pool._ended(slots.worker, 0)
    assert slots.pool.workers == [successor]
    assert len(slots.ears.rung) == 1, "its end is no news"
    assert slots.due == []


def test_one_slot_has_two_processes_at_most(slots: Slots) -> None:
    slots.told_to_end(slots.worker)
    slots.told_to_end(slots.worker)
    slots.turn()
    assert len(slots.spawned) == 1
    slots.told_to_end(slots.spawned[0])
    slots.turn()
    assert len(slots.spawned) == 1, "the first one has not ended"
    assert [after for after, _ in slots.due] == [limits.RESTART_MOST_SECONDS]
    slots.pool._ended(slots.worker, 0)
    slots.turn()
    assert len(slots.spawned) == 2


def test_a_successor_that_dies_is_started_again_beside_the_old_one(slots: Slots) -> None:
    slots.told_to_end(slots.worker)
    slots.turn()
    (successor,) = slots.spawned
    slots.pool._ended(successor, 9)
    slots.turn()
    assert slots.spawned == [successor, successor]
    assert slots.pool.workers == [slots.worker, successor]


@pytest.mark.parametrize("why", ["daemon stops", "reload", "it has ended"])
def test_nobody_succeeds_who_is_not_wanted(slots: Slots, why: str) -> None:
    slots.told_to_end(slots.worker)
    if why == "daemon stops":
        slots.pool._stopping = True
    elif why == "reload":
        slots.pool._newest += 1
    else:
        slots.pool._ended(slots.worker, 0)
        assert slots.ears.rung == [(Reason.WORKER_DIED, "pid=7 status=0")]
    slots.turn()
    assert slots.spawned == ([slots.worker] if why == "it has ended" else [])


def test_without_a_descriptor_its_successor_waits(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    class Listener:
        def dup(self) -> None:
            raise OSError(24, "Too many open files")

        def close(self) -> None: ...

    slots.worker.listeners = (Listener(),)  # type: ignore[assignment]
    slots.told_to_end(slots.worker)
    slots.turn()
    assert (slots.spawned, slots.worker.has_successor, slots.ears.rung) == ([], False, [])
    slots.worker.listeners = ()
    slots.turn()
    assert len(slots.spawned) == 1


def test_who_never_was_told_to_end_does_not_yield(slots: Slots) -> None:
    slots.pool._told(slots.worker, {"yields": True})
    assert slots.due == []
