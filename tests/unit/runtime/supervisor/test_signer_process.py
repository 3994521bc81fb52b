"""A signer that hangs is found, told of and killed; one that lives is left alone. No process, a real link."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import Reason
from gateway.observe.log import Log, LogSink
from gateway.policy import limits
from gateway.runtime.hardening import Confinement
from gateway.runtime.supervisor.child import Child
from gateway.runtime.supervisor.signer_process import SignerProcess
from tests.unit.runtime.supervisor.ears import Process

SECOND = limits.COUNTERS_EVERY_SECONDS


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time goes on as it is told, and whose timers do not run."""

    now = 1000.0

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, *_: object, **__: object) -> asyncio.TimerHandle:
        return asyncio.TimerHandle(self.now + delay, lambda: None, (), self)


class Watched:
    """A signer that says what the test says for it."""

    def __init__(self, loop: Clock, folder: Path) -> None:
        self.loop, self.file = loop, folder / "log"
        self.log = Log(LogSink.to_file(self.file))
        self.rung: list[tuple[Reason, str]] = []
        self.process = Process()
        self.ends: list[socket.socket] = []

    def begin(self) -> None:
        self.signer = SignerProcess(
            Confinement(None, None),
            (),
            bytes(32),
            self.log,
            lambda reason, subject, detail: self.rung.append((reason, detail)),
            lambda: None,
        )
        self.signer.start()

    def says(self, message: dict[str, Any]) -> None:
        self.ends[-1].send(json.dumps(message).encode())
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.run_until_complete(asyncio.sleep(0))

    def seconds_pass(self, count: int, *, each: Callable[[], None] = lambda: None) -> None:
        for _ in range(count):
            self.loop.now += SECOND
            each()
            self.signer._watch()


READY = {"ready": 7, "layers": ["user"]}


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    loop = Clock()
    made = Watched(loop, tmp_path)

    def start(_loop: object, _module: str, _words: object, inherited: Sequence[int], _end: object) -> Process:
        made.ends.append(socket.socket(fileno=socket.dup(inherited[0])))
        return made.process

    async def begin() -> None:
        made.begin()

    monkeypatch.setattr(Child, "start", start)
    loop.run_until_complete(begin())
    yield made
    assert made.signer._link is not None
    made.signer._link.close()
    for end in made.ends:
        end.close()
    made.log.close()
    loop.close()


def test_one_that_says_something_every_second_is_left_alone(watched: Watched) -> None:
    watched.says(READY)
    watched.seconds_pass(100, each=lambda: watched.says({"signed": 0, "refused": 0}))
    assert (watched.rung, watched.process.killed) == ([], 0)
    assert watched.signer.as_json()["serves"]


def test_one_that_hangs_rings_once_and_is_killed_in_the_end(watched: Watched) -> None:
    watched.says(READY)
    watched.seconds_pass(int(limits.SIGNER_HUNG_AFTER_SECONDS))
    assert watched.rung == []
    watched.seconds_pass(int(limits.KILL_HUNG_AFTER_SECONDS - limits.SIGNER_HUNG_AFTER_SECONDS))
    assert [reason for reason, _ in watched.rung] == [Reason.SIGNER_SILENT]
    assert watched.signer.as_json()["hangs"]
    assert not watched.signer.as_json()["serves"]
    assert watched.process.killed == 0
    watched.seconds_pass(1)
    assert watched.process.killed == 1
    watched.log.flush()
    assert "signer kill-hung" in watched.file.read_text()


def test_one_that_speaks_again_hangs_no_more(watched: Watched) -> None:
    watched.says(READY)
    watched.seconds_pass(5)
    watched.says({"signed": 0, "refused": 0})
    assert not watched.signer.as_json()["hangs"]
    watched.seconds_pass(5)
    assert (len(watched.rung), watched.process.killed) == (2, 0)


def test_one_that_starts_has_longer(watched: Watched) -> None:
    assert not watched.signer.as_json()["serves"]
    watched.seconds_pass(int(limits.START_SECONDS))
    assert (watched.rung, watched.process.killed) == ([], 0)
    watched.seconds_pass(1)
    assert watched.process.killed == 1


def test_a_silence_that_the_supervisor_slept_through_is_none(watched: Watched) -> None:
    watched.says(READY)
    watched.loop.now += 1000
    watched.signer._watch()
    assert (watched.rung, watched.process.killed) == ([], 0)


@pytest.mark.parametrize("how", [socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])
def test_a_way_that_one_has_shut_is_made_anew_for_the_next_in_its_slot(watched: Watched, how: int) -> None:
    """A worker that others have taken over leaves its slot to one that is well."""
    for slot in (3, 4):
        watched.signer._pairs[slot] = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ends = [watched.signer.worker_end(slot) for slot in (3, 4)]
    assert [watched.signer.worker_end(slot) for slot in (3, 4)] == ends
    assert watched.process.killed == 0
    with socket.socket(fileno=socket.dup(ends[0])) as worker:
        worker.shutdown(how)
    with socket.socket(fileno=socket.dup(watched.signer.worker_end(3))) as successor:
        successor.send(b"question")
    assert watched.signer._pairs[3][1].recv(100) == b"question"
    assert watched.process.killed == 1, "it knows the ways that were there at its start, and no others"
    assert watched.signer.worker_end(4) == ends[1]
    watched.signer.worker_end(3)
    assert watched.process.killed == 1
    for pair in watched.signer._pairs.values():
        for end in pair:
            end.close()
