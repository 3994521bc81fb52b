"""What a line may be, and what is believed of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.lab import wan
from gateway.lab.processes import start_time
from gateway.lab.wan import Line, Wan


@pytest.mark.parametrize("bad", [Wan(-0.1), Wan(11.0), Wan(0.1, 1.0), Wan(0.1, -0.1)])
def test_impossible_lines_change_nothing(bad: Wan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(line: Line) -> None:
        raise AssertionError("touched")

    monkeypatch.setattr(wan, "_take_off", never)
    with pytest.raises(EnvironmentFailureError, match="is not possible; allowed: 0 to 10 s"):
        wan.set_to(Line("nmu-wire", tmp_path), bad)


def test_a_line_whose_process_is_dead_is_short_and_good(tmp_path: Path) -> None:
    line = Line("nmu-wire", tmp_path)
    assert wan.now(line) == Wan()
    (tmp_path / "wan.json").write_text('{"rtt_seconds": 0.08, "loss": 0.01}')
    assert wan.now(line) == Wan()
    pid = os.getpid()
    (tmp_path / "delay-line.pid").write_text(json.dumps({"pid": pid, "started": start_time(pid)}))
    assert wan.now(line) == Wan(0.08, 0.01)
    (tmp_path / "wan.json").write_text("{")
    assert wan.now(line) == Wan()


def test_off() -> None:
    assert Wan().is_off
    assert not Wan(0.0, 0.01).is_off
