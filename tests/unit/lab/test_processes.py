"""Processes are known by id and start time, and nothing else is ever signalled."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.lab import processes
from gateway.lab.processes import Process, read_pid_file, start_time


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for its standard input to end."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as one:
        try:
            yield one
        finally:
            one.kill()


def process_of(child: subprocess.Popen[bytes]) -> Process:
    started = start_time(child.pid)
    assert started is not None
    return Process(child.pid, started)


def test_a_command_with_odd_characters_does_not_hide_the_start_time(tmp_path: Path) -> None:
    odd = tmp_path / "a) S 1 (b"
    odd.write_text("#!/bin/sh\nread x\n")
    odd.chmod(0o755)
    with subprocess.Popen([odd], stdin=subprocess.PIPE) as one:
        assert isinstance(start_time(one.pid), int)


def test_a_process_of_another_start_time_is_not_signalled(child: subprocess.Popen[bytes]) -> None:
    right = process_of(child)
    impostor = Process(child.pid, right.started - 1)
    assert not impostor.alive
    assert not impostor.signal(signal.SIGKILL)
    assert impostor.wait_gone(0)
    assert child.poll() is None
    assert right.signal(signal.SIGKILL)
    assert child.wait(10) == -signal.SIGKILL


def test_waiting_for_the_end(child: subprocess.Popen[bytes]) -> None:
    one = process_of(child)
    assert not one.wait_gone(0)
    assert one.signal(signal.SIGTERM)
    assert one.wait_gone(10)
    assert not one.alive
    assert not one.signal(signal.SIGTERM)


def test_one_whose_number_is_still_a_groups_is_gone(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As kernel 6.1 says it."""

    def refuses(pid: int) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    one = process_of(child)
    monkeypatch.setattr(os, "pidfd_open", refuses)
    assert one.wait_gone(0)
    assert not one.signal(signal.SIGTERM)


def test_pid_files(tmp_path: Path, child: subprocess.Popen[bytes]) -> None:
    one = process_of(child)
    path = tmp_path / "x.pid"
    assert read_pid_file(path) is None
    path.write_text(json.dumps({"pid": one.pid, "started": one.started}))
    assert read_pid_file(path) == one
    path.write_text(json.dumps({"pid": one.pid, "started": one.started + 1}))
    assert read_pid_file(path) is None
    for spoilt in ("", "{", "[]", '{"pid": 1}', '{"pid": "x", "started": 1}', "7"):
        path.write_text(spoilt)
        assert read_pid_file(path) is None


def test_our_own_namespace_is_never_searched_for_victims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "namespace_path", lambda name: Path("/proc/self/ns/net"))
    assert processes.living_in(["anything"]) == []
    assert processes.kill_all_in(["anything"]) == 0


def test_a_command_is_never_built_for_our_own_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.lab.network.namespace_path", lambda name: Path("/proc/self/ns/net"))
    with pytest.raises(EnvironmentFailureError, match="machine's own"):
        processes.command_in("anything", ["true"])


def test_a_missing_process_has_no_start_time() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert start_time(gone.pid) is None


def test_children_are_found_by_their_parent(child: subprocess.Popen[bytes]) -> None:
    started = processes.start_time(os.getpid())
    assert started is not None
    found = processes.children_of(Process(os.getpid(), started))
    assert child.pid in [one.pid for one in found]
    assert all(one.alive for one in found)
    assert processes.children_of(Process(child.pid, 0)) == []
