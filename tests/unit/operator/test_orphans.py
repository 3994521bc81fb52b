"""Which processes are workers without a supervisor, and what they are told. Counterpart: tests/lab."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.operator import orphans
from gateway.policy import limits

WORKER = ("/usr/bin/python3", "-P", "-m", "gateway.runtime.worker", "17")
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
PLAIN = "import signal; print(flush=True); signal.pause()"


class Process:
    """A real one, and what the kernel is made to say of it."""

    def __init__(self, folder: Path, program: str) -> None:
        words = [sys.executable, "-c", program]
        self.child = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.child.stdout is not None
        self.child.stdout.readline()
        self._folder = folder / str(self.child.pid)
        (self._folder / "ns").mkdir(parents=True)
        (self._folder / "stat").write_text(f"{self.child.pid} (a) b) S 42 0 0")
        (self._folder / "ns" / "net").symlink_to("/proc/self/ns/net")
        self.is_said_to_be(*WORKER)

    def is_said_to_be(self, *words: str) -> None:
        (self._folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))

    def is_elsewhere(self) -> None:
        (self._folder / "ns" / "net").unlink()
        (self._folder / "ns" / "net").touch()

    @property
    def ended_by(self) -> int | None:
        """The number of the signal; None where it lives."""
        status = self.child.poll()
        return None if status is None else -status


@pytest.fixture
def processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As the kernel lists them: its own list has those of other tests, too."""
    monkeypatch.setattr(orphans, "_PROCESSES", tmp_path)
    (tmp_path / "self" / "ns").mkdir(parents=True)
    (tmp_path / "self" / "ns" / "net").symlink_to("/proc/self/ns/net")
    (tmp_path / "42").mkdir()
    (tmp_path / "42" / "cmdline").write_bytes(b"/sbin/init\0")
    yield tmp_path


@pytest.fixture
def made(processes: Path, request: pytest.FixtureRequest) -> Iterator[Process]:
    one = Process(processes, getattr(request, "param", PLAIN))
    try:
        yield one
    finally:
        one.child.kill()
        one.child.communicate()


def ended(process: Process, *, hurried: bool = False) -> list[float]:
    """The pauses that it took."""
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if process.child.args[-1] is PLAIN:  # type: ignore[index]
            process.child.wait(10)

    orphans.end(pause, hurried=hurried)
    return pauses


def test_one_that_has_no_supervisor_is_told_to_end_and_waited_for(made: Process) -> None:
    assert len(ended(made)) <= 1
    assert made.ended_by == signal.SIGTERM


@pytest.mark.parametrize("made", [STUBBORN], indirect=True)
@pytest.mark.parametrize(
    ("hurried", "seconds"),
    [(False, limits.STOP_SECONDS + 2 * limits.ENDING_SECONDS), (True, limits.ENDING_SECONDS)],
)
def test_one_that_does_not_end_is_killed(made: Process, hurried: bool, seconds: float) -> None:
    """Of an older version, whose sessions may last for hours, or one that hangs."""
    assert sum(ended(made, hurried=hurried)) == pytest.approx(seconds)
    made.child.wait(10)
    assert made.ended_by == signal.SIGKILL


@pytest.mark.parametrize("why", ["another program", "elsewhere", "a daemon's"])
def test_no_other_process_is_told_anything(processes: Path, made: Process, why: str) -> None:
    if why == "another program":
        made.is_said_to_be("vi", "gateway.runtime.worker", "17")
    elif why == "elsewhere":
        made.is_elsewhere()
    else:
        (processes / "42" / "cmdline").write_bytes(b"/usr/bin/python3\0/usr/bin/nightmail\0run\0")
    assert ended(made) == []
    assert made.ended_by is None
