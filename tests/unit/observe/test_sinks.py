"""Logs over real datagram sockets: what a journal and a syslog get, and that neither can hold anybody up."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Config
from gateway.errors import Reason
from gateway.observe import sinks
from gateway.observe.log import Entry, Level, Log, LogSink
from gateway.observe.sinks import DatagramSink, for_journal, for_syslog
from gateway.policy import limits


class Collector:
    """The other end: a datagram socket in a temporary place."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(30)

    def received(self) -> bytes:
        return self.socket.recv(65536)

    def close(self) -> None:
        self.socket.close()
        self.path.unlink(missing_ok=True)


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collector]:
    made = Collector(tmp_path / "socket")
    yield made
    made.close()


def otherwise(tmp_path: Path) -> LogSink:
    return LogSink.to_file(tmp_path / "stderr")


def fields(datagram: bytes) -> dict[str, str]:
    """As systemd reads it: every line KEY=value."""
    assert datagram.endswith(b"\n")
    pairs = [line.split("=", 1) for line in datagram.decode("ascii").split("\n")[:-1]]
    assert all(re.fullmatch(r"[A-Z][A-Z_]*", name) for name, _ in pairs)
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)


def test_the_journal_gets_the_line_its_priority_and_fields(tmp_path: Path, collector: Collector) -> None:
    log = Log(DatagramSink(collector.path, for_journal, otherwise(tmp_path)))
    log.fact("session", "decided", session="98de18f3e2b2f338", reason=Reason.UPGRADED, to="192.0.2.7:25")
    log.fact("alarm", "rings", level=Level.ALARM, said="two\nlines")
    log.close()
    first, second = fields(collector.received()), fields(collector.received())
    assert first == {
        "MESSAGE": "info session=98de18f3e2b2f338 session decided to=192.0.2.7:25 reason=upgraded",
        "PRIORITY": "6",
        "SYSLOG_FACILITY": "2",
        "SYSLOG_IDENTIFIER": "nightmail",
        "SYSLOG_PID": str(os.getpid()),
        "NIGHTMAIL_SUBSYSTEM": "session",
        "NIGHTMAIL_EVENT": "decided",
        "NIGHTMAIL_SESSION": "98de18f3e2b2f338",
        "NIGHTMAIL_REASON": "upgraded",
    }
    assert second["MESSAGE"] == 'alarm alarm rings said="two\\x0alines"'
    assert second["PRIORITY"] == "3"
    assert "NIGHTMAIL_REASON" not in second
    assert log.lost_lines == 0


def test_syslog_gets_the_line_behind_its_priority(tmp_path: Path, collector: Collector) -> None:
    log = Log(DatagramSink(collector.path, for_syslog, otherwise(tmp_path)), least=Level.DEBUG)
    for level in Level:
        log.fact("gate", "speaks", level=level)
    log.close()
    mail = 2 << 3
    for level, priority in zip(Level, (7, 6, 5, 3, 2), strict=True):
        expected = f"<{mail | priority}>nightmail[{os.getpid()}]: {level.value} gate speaks"
        assert collector.received().decode() == expected


@given(st.text(), st.text(), st.text(max_size=40))
def test_no_value_breaks_out_of_its_field(subsystem: str, said: str, session: str) -> None:
    kept: list[Entry] = []

    class Keeping:
        def write_entries(self, entries: list[Entry]) -> None:
            kept.extend(entries)

        def close(self) -> None:
            pass

    log = Log(Keeping())  # type: ignore[arg-type]
    log.fact(subsystem, "said", session=session, words=said)
    log.flush()
    found = fields(for_journal(kept[0]))
    assert set(found) <= {
        "MESSAGE", "PRIORITY", "SYSLOG_FACILITY", "SYSLOG_IDENTIFIER", "SYSLOG_PID", "NIGHTMAIL_SUBSYSTEM",
        "NIGHTMAIL_EVENT", "NIGHTMAIL_SESSION",
    }  # fmt: skip
    assert b"\n" not in for_syslog(kept[0])


def test_a_collector_that_starts_anew_is_found_again(tmp_path: Path, collector: Collector) -> None:
    log = Log(DatagramSink(collector.path, for_syslog, otherwise(tmp_path)))
    log.fact("a", "first")
    log.flush()
    assert collector.received().endswith(b"info a first")
    collector.close()
    log.fact("a", "meanwhile")
    log.flush()
    again = Collector(collector.path)
    log.fact("a", "second")
    log.close()
    assert again.received().endswith(b"info a second")
    again.close()
    assert (tmp_path / "stderr").read_text() == "info a meanwhile\n"
    assert log.lost_lines == 0


def test_a_full_socket_is_waited_for_a_moment_and_loses_nothing(tmp_path: Path, collector: Collector) -> None:
    """Nobody reads: the kernel takes some, all others go to standard error, and the loop has waited once."""
    log = Log(DatagramSink(collector.path, for_syslog, otherwise(tmp_path)))
    lines = limits.LOG_BUFFER_LINES
    for number in range(lines):
        log.fact("a", "b", number=number)
    began = time.monotonic()
    log.flush()
    assert time.monotonic() - began < 10, "a socket that blocks would never come back"
    log.close()
    collector.socket.setblocking(False)
    taken = 0
    while True:
        try:
            collector.received()
        except BlockingIOError:
            break
        taken += 1
    assert 0 < taken < lines
    assert taken + len((tmp_path / "stderr").read_text().splitlines()) == lines
    assert log.lost_lines == 0


class Patience:
    """A socket that notes how long it would be waited for, and takes something or nothing."""

    def __init__(self) -> None:
        self.takes = False
        self.waits: list[bool] = []

    def settimeout(self, seconds: float) -> None:
        self.waits.append(seconds > 0)

    def sendto(self, octets: bytes, path: str) -> None:
        if not self.takes:
            raise TimeoutError


def test_a_socket_that_took_nothing_is_not_waited_for_until_it_takes_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A journal that is stopped must not hold up the mail for a moment five times a second."""
    sink, patience = DatagramSink(tmp_path / "none", for_syslog, otherwise(tmp_path)), Patience()
    sink._socket.close()
    monkeypatch.setattr(sink, "_socket", patience)
    entry = Entry(Level.INFO, "info a b", "a", "b")
    for _ in range(3):
        sink.write_entries([entry, entry])
    assert patience.waits == [True, False, False]
    patience.takes = True
    sink.write_entries([entry])
    patience.waits.clear()
    sink.write_entries([entry])
    assert patience.waits == [True]


def test_where_nobody_takes_a_line_it_is_counted(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    log = Log(DatagramSink(tmp_path / "none", for_journal, LogSink(writer, owned=True)))
    log.fact("a", "b")
    log.close()
    assert log.lost_lines == 1


@pytest.mark.parametrize("place", ["journal", "syslog"])
def test_a_process_logs_where_the_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, collector: Collector, place: str
) -> None:
    monkeypatch.setattr(sinks, f"{place.upper()}_SOCKET", collector.path)
    log = sinks.opened(Config(log_to=place, log_level="notice"))
    log.fact("a", "silent")
    log.fact("a", "heard", level=Level.NOTICE)
    log.close()
    assert b"notice a heard" in collector.received()


FILE = """
import subprocess, sys
from pathlib import Path
from gateway.config import Config
from gateway.observe import sinks
file = Path(sys.argv[1])
sinks.stderr_into(file)
log = sinks.opened(Config(log_file=file), file)
log.fact("supervisor", "writes")
log.close()
program = "from gateway.config import Config; from gateway.observe import sinks; log = sinks.opened(Config())"
subprocess.run([sys.executable, "-c", program + "; log.fact('worker', 'writes'); log.close()"], check=True)
"""


def test_a_file_holds_the_lines_of_the_workers_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILE, str(tmp_path / "log")], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["info supervisor writes", "info worker writes"]


CONFINED = """
import os, sys
from pathlib import Path
from gateway.observe.log import Log
from gateway.observe.sinks import DatagramSink, for_syslog
from gateway.runtime import hardening, system_calls
from gateway.runtime.hardening import Confinement
uid = 65534 if os.geteuid() == 0 else None
layers = hardening.confine(Confinement(uid, uid))
log = Log(DatagramSink(Path(sys.argv[1]), for_syslog))
layers += hardening.filter_calls(system_calls.WORKER_CALLS)
log.fact("worker", "confined", layers=",".join(layers))
log.flush()
print("collector?", end="", flush=True)
sys.stdin.read()
log.fact("worker", "again")
log.flush()
os._exit(0)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Where everybody may look; what pytest gives is its user's alone."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_a_worker_that_is_confined_reaches_the_collector_and_its_successor(open_folder: Path) -> None:
    """As nobody, without a file of its own, and where no socket can be made any more."""
    first = Collector(open_folder / "socket")
    first.path.chmod(0o666)
    process = subprocess.Popen(
        [sys.executable, "-c", CONFINED, str(first.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.read(10) == b"collector?"
    line = first.received().decode()
    assert "info worker confined layers=" in line
    if os.geteuid() == 0:
        assert {"user", "system-calls"} <= set(line.rpartition("layers=")[2].split(","))
    first.close()
    second = Collector(open_folder / "socket")
    second.path.chmod(0o666)
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (0, b"")
    assert second.received().endswith(b"info worker again")
    second.close()
