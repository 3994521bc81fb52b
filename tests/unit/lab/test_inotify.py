"""Waiting for files."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.lab.inotify import CREATED, MODIFIED, Inotify


def test_what_happened_before_the_wait_counts(tmp_path: Path) -> None:
    watch = Inotify(tmp_path, CREATED)
    (tmp_path / "x").touch()
    assert watch.wait(10)
    assert not watch.wait(0)
    assert not watch.wait(0.001)
    watch.close()
    watch.close()


def test_what_happens_during_the_wait_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.touch()
    watch = Inotify(path, MODIFIED)
    writer = threading.Thread(target=path.write_text, args=("line\n",))
    writer.start()
    assert watch.wait(10)
    writer.join()
    watch.close()


def test_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailureError, match=r"cannot watch .*No such file"):
        Inotify(tmp_path / "none", MODIFIED)
