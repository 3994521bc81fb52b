"""What one supervisor leaves to the next: all of it comes over an exec, and nothing else does."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.observe.counters import empty_snapshot
from gateway.runtime.supervisor import handover

NEXT = """
import json, os, sys
from dataclasses import asdict
from gateway.runtime.supervisor import handover
if sys.argv[1:2] == ["first"]:
    sys.orig_argv[:] = [sys.executable, "-c", sys.argv[2], "run"]
    handover.execute_anew(handover.Handover.from_json(json.loads(sys.argv[3])))
found = handover.received()
worker = found.workers[0]
assert not any(map(os.get_inheritable, found.descriptors))
os.fstat(found.control)
os.fstat(found.sole)
os.write(worker.link, b"alive")
assert "NIGHTMAIL_HANDOVER" not in os.environ
assert handover.received() is None
print(json.dumps([os.getpid(), asdict(found)]))
"""


def told(link: int, listener: int, control: int, sole: int) -> dict[str, Any]:
    worker = {
        "index": 3,
        "queue": 2503,
        "port": 12528,
        "generation": 4,
        "pid": 77,
        "draining": True,
        "restarts": 1,
        "link": link,
        "listeners": [listener],
        "counters": empty_snapshot(),
        "confined": ["user", "system-calls"],
        "identity": "ab" * 32,
    }
    return {
        "workers": [worker],
        "past": empty_snapshot(),
        "began": 1234.5,
        "bypassed": 6,
        "alarms": [{"reason": "worker-died", "subject": "worker 1", "rang": 5, "unheard": 2, "likely": ""}],
        "rules": {"nft": "table", "listing": "list"},
        "signers": [],
        "untold": [{"reason": "worker-died", "subject": "worker 1", "at": 5}],
        "control": control,
        "sole": sole,
        "ending": [78],
        "dead_ends": {"until": [["192.0.2.7", 25, 17.5]], "counted": 3},
        "resting": {"until": [["192.0.2.8", "203.0.113.7", 17.5]], "counted": 4},
        "newest": 5,
    }


def test_everything_comes_over_an_exec_in_the_same_process() -> None:
    ours, link = socket.socketpair()
    with ours, link, socket.socket() as listener, socket.socket() as control, socket.socket() as sole:
        descriptors = [one.fileno() for one in (link, listener, control, sole)]
        left = told(*descriptors)
        process = subprocess.Popen(
            [sys.executable, "-c", NEXT, "first", NEXT, json.dumps(left)],
            stdout=subprocess.PIPE,
            pass_fds=descriptors,
        )
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        pid, found = json.loads(out)
        assert pid == process.pid
        assert found == left
        assert ours.recv(100) == b"alive"


TOLD_TOO_EARLY = """
import os, signal, sys
from gateway.runtime.supervisor import handover
if sys.argv[1:2] == ["first"]:
    sys.orig_argv[:] = [sys.executable, "-c", sys.argv[2], "run"]
    handover.execute_anew(handover.Handover.of_nobody(0.0))
os.kill(os.getpid(), getattr(signal, "NUMBER"))
signal.signal(getattr(signal, "NUMBER"), lambda number, _: print("heard"))
handover.hear_signals()
"""


@pytest.mark.parametrize("number", handover.SIGNALS)
def test_what_the_next_one_is_told_before_it_can_hear_is_heard_then(number: signal.Signals) -> None:
    """A second reload within the same second, for instance: it ended the daemon."""
    program = TOLD_TOO_EARLY.replace("NUMBER", number.name)
    command = [sys.executable, "-c", program, "first", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_a_first_start_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NIGHTMAIL_HANDOVER", raising=False)
    assert handover.received() is None


def test_a_daemon_that_was_started_in_another_way_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "something.else"])
    with pytest.raises(EnvironmentFailureError, match="restart it instead"):
        handover.command_for("run")


def test_the_next_command_is_the_same_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "gateway", "--config", "/x.toml", "run"])
    expected = [sys.executable, "-m", "gateway", "--config", "/x.toml", "preflight"]
    assert handover.command_for("preflight") == expected


def test_the_descriptors_of_a_failed_exec_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python3", "run"])
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with socket.socket() as link:
        left = handover.Handover.from_json(told(*[link.fileno()] * 4))
        with pytest.raises(EnvironmentFailureError, match="/nonexistent/python"):
            handover.execute_anew(left)


def test_what_another_version_left_is_taken_as_far_as_it_is_known() -> None:
    left = told(8, 9, 10, 11)
    del left["control"], left["sole"], left["ending"], left["dead_ends"], left["resting"], left["newest"]
    worker = left["workers"][0]
    del worker["confined"], worker["identity"]
    worker["mood"] = "good"
    found = handover.Handover.from_json(left)
    (heir,) = found.workers
    assert (found.control, found.sole, found.descriptors) == (None, None, [8, 9])
    assert (found.ending, found.dead_ends, found.resting, found.newest) == ((), {}, {}, None)
    assert (heir.pid, heir.listeners, heir.confined, heir.identity) == (77, (9,), (), "")
