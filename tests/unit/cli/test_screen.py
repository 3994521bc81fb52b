"""`status --watch` on a real terminal (a pty), and in a pipe: it draws, follows, and leaves no trace."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.operator.fake_daemon import STATUS, daemon

SECONDS = 60.0
"""For a busy machine; every wait ends with its event."""
ENTERED, LEFT, SHOWN_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nightmail.toml"
    path.write_text(f'[daemon]\nstate_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"\n')
    return path


def command(file: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "gateway", "--config", str(file), "status", "--watch", *words]


class Terminal:
    """A pty with `status --watch` in it, as a shell would start it: in a session and a group of its own."""

    def __init__(self, file: Path, *words: str, rows: int = 40, columns: int = 120) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""

        def own_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            list(words) or command(file, "--every", "0.2"),
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""},
            start_new_session=True,
            preexec_fn=own_terminal,
        )

    def until(self, pattern: bytes, *, after: int = 0) -> int:
        """Where the pattern ends, once it has come."""
        deadline = time.monotonic() + SECONDS
        while (found := re.search(pattern, self.seen[after:], re.DOTALL)) is None:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.master], [], [], max(left, 0))
            assert ready, f"{pattern!r} has not come: {self.seen[-2000:]!r}"
            self.seen += os.read(self.master, 65536)
        return after + found.end()

    def ended(self) -> int:
        status = self.process.wait(SECONDS)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 65536)
        return status

    def require_as_before(self) -> None:
        """The screen left, the cursor shown, after all that was drawn; and the line discipline as it was."""
        assert self.seen.rindex(LEFT) > self.seen.rindex(ENTERED)
        assert self.seen.rindex(SHOWN_CURSOR) > self.seen.rindex(b"\x1b[?25l")
        assert b"q ends" not in self.seen[self.seen.rindex(LEFT) :]
        assert termios.tcgetattr(self.slave) == self.before

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def terminal(file: Path) -> Iterator[Terminal]:
    with daemon(file.parent / "run" / "control.sock", questions=0):
        made = Terminal(file)
        try:
            made.until(rb"q ends")
            yield made
        finally:
            made.close()


def test_the_whole_screen_says_what_matters(terminal: Terminal) -> None:
    for words in (rb"YES, mail to and from sites", rb"sent by this site", rb"no-offer", rb"worker 1: hung"):
        terminal.until(words)
    assert terminal.seen.index(ENTERED) < terminal.seen.index(b"YES")
    assert b"Traceback" not in terminal.seen


def test_a_small_screen_cuts_off_no_alarm_and_no_share(file: Path) -> None:
    kinds = {"upgraded": {"upgraded": 1}, "clear": {f"reason-{number}": 1 for number in range(30)}}
    period = {"out": kinds, "in": kinds}
    status = {**STATUS, "today": period, "week": period, "alarms": STATUS["alarms"] * 5}
    with daemon(file.parent / "run" / "control.sock", status, questions=0):
        # Drawn once: a second time would be in the same read where that comes late.
        terminal = Terminal(file, *command(file, "--every", "3600"), rows=16, columns=60)
        try:
            terminal.until(rb"reason-1")
        finally:
            terminal.close()
    screen = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|\r", b"", terminal.seen)
    words = b" ".join(screen.split())
    assert words.count(b"offer-missing 192.0.2.7:25") == 3
    assert b"and 2 alarms more: `nightmail status`" in words
    assert b"today 1 of 31 sessions protected (3.2 %); this week 1 of 31 sessions protected (3.2 %)" in words


@pytest.mark.parametrize("by", ["q", "ctrl-c", "sigint", "sigterm", "sighup"])
def test_whatever_ends_it_the_terminal_is_as_it_was(terminal: Terminal, by: str) -> None:
    if by == "q":
        os.write(terminal.master, b"q")
    elif by == "ctrl-c":
        os.write(terminal.master, b"\x03")
    else:
        os.kill(terminal.process.pid, getattr(signal, by.upper()))
    assert terminal.ended() == 0
    terminal.require_as_before()


def test_suspended_and_taken_up_again(terminal: Terminal) -> None:
    """Ctrl-Z gives the shell its terminal, `fg` gets the screen back."""
    at = len(terminal.seen)
    os.write(terminal.master, b"\x1a")
    terminal.until(re.escape(LEFT), after=at)
    pid, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
    assert (pid, os.WIFSTOPPED(status)) == (terminal.process.pid, True)
    assert termios.tcgetattr(terminal.slave) == terminal.before
    os.kill(terminal.process.pid, signal.SIGCONT)
    again = terminal.until(re.escape(ENTERED), after=terminal.seen.rindex(LEFT))
    terminal.until(rb"q ends", after=again)
    os.write(terminal.master, b"q")
    assert terminal.ended() == 0
    terminal.require_as_before()


def test_another_size_is_followed(terminal: Terminal) -> None:
    fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 5, 60, 0, 0))
    os.kill(terminal.process.pid, signal.SIGWINCH)
    at = terminal.until(rb"\x1b\[H", after=len(terminal.seen))
    # Five lines: the first three are drawn, and the last ones have no place.
    terminal.until(rb"YES, mail to and from", after=at)
    end = terminal.until(rb"\x1b\[H", after=at)
    later = terminal.until(rb"\x1b\[H", after=end)
    assert b"worker 1" not in terminal.seen[end:later]


def test_a_daemon_that_goes_away_is_told_and_the_watch_goes_on(file: Path) -> None:
    with daemon(file.parent / "run" / "control.sock", questions=0):
        terminal = Terminal(file)
        try:
            terminal.until(rb"YES, mail")
        except BaseException:
            terminal.close()
            raise
    try:
        terminal.until(rb"NO, mail passes in clear: no daemon is running")
        os.write(terminal.master, b"q")
        assert terminal.ended() == 1
        terminal.require_as_before()
    finally:
        terminal.close()


def blocks(file: Path, *words: str, count: int) -> tuple[list[str], int]:
    """So many blocks of a piped watch, then Ctrl-C's signal; what was printed, and the exit status."""
    with daemon(file.parent / "run" / "control.sock", questions=0):
        process = subprocess.Popen(
            command(file, "--every", "0.2", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines: list[str] = []
        marks = 0
        for line in process.stdout:
            lines.append(line)
            marks += line.startswith(("--- ", "{"))
            if marks > count:
                break
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=SECONDS)
    assert complaint == ""
    return lines, process.returncode


def test_piped_it_prints_a_plain_block_each_time(file: Path) -> None:
    lines, status = blocks(file, count=2)
    assert status == 0
    assert sum(line.startswith("YES, mail to and from sites") for line in lines) == 2
    assert "\x1b" not in "".join(lines)


def test_piped_json_is_one_object_a_line(file: Path) -> None:
    lines, status = blocks(file, "--json", count=2)
    assert status == 0
    for line in lines[:2]:
        facts: dict[str, Any] = json.loads(line)
        assert (facts["running"], facts["version"]) == (True, STATUS["version"])


def test_a_reader_that_goes_away_ends_it(file: Path) -> None:
    with daemon(file.parent / "run" / "control.sock", questions=0):
        process = subprocess.Popen(
            command(file, "--every", "0.2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(SECONDS) == 1
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
        process.stderr.close()


@pytest.mark.parametrize(
    ("workers", "colour"), [(STATUS["workers"], b"32m"), ([], b"31m")], ids=["yes", "no"]
)
def test_a_single_look_answers_in_colour_at_a_terminal_and_plainly_in_a_pipe(
    file: Path, workers: list[Any], colour: bytes
) -> None:
    once = [word for word in command(file) if word != "--watch"]
    with daemon(file.parent / "run" / "control.sock", {**STATUS, "workers": workers}, questions=2):
        terminal = Terminal(file, *once)
        try:
            terminal.until(rb"(YES|NO), mail")
            terminal.until(rb"alarm: ")
            terminal.ended()
        finally:
            terminal.close()
        piped = subprocess.run(once, capture_output=True, timeout=SECONDS)
    assert colour in terminal.seen.splitlines()[0]
    assert ENTERED not in terminal.seen
    assert b"\x1b" not in piped.stdout
