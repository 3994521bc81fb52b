"""What `scripts/demo` leaves behind, however it ends. (What it shows is in `test_verdicts`.)"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.lab import demo
from gateway.lab.lab import Lab
from gateway.lab.place import Place
from gateway.lab.verdicts import Evidence


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done with the lab."""
    done: list[str] = []
    monkeypatch.setattr(Lab, "up", lambda self, **_: done.append("up"))
    monkeypatch.setattr(Lab, "keep", lambda self: done.append("keep"))
    monkeypatch.setattr(Lab, "down", lambda self: done.append("down"))
    return done


def ends_with(error: BaseException) -> Callable[..., Evidence]:
    def gather(*_: object) -> Evidence:
        raise error

    return gather


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("error", [KeyboardInterrupt("signal 2"), EnvironmentFailureError("no greeting")])
def test_a_demonstration_that_is_broken_off_leaves_no_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: list[str], error: BaseException, keep: bool
) -> None:
    monkeypatch.setattr(demo, "gather", ends_with(error))
    with pytest.raises(type(error)):
        run(tmp_path, keep=keep)
    assert done == ["up", "down"]


@pytest.mark.parametrize(("keep", "end"), [(False, "down"), (True, "keep")])
def test_one_that_comes_to_its_end_leaves_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: list[str], keep: bool, end: str
) -> None:
    monkeypatch.setattr(demo, "gather", lambda *_: Evidence())
    assert run(tmp_path, keep=keep) == 1, "no evidence holds no claim"
    assert done == ["up", end]


def run(folder: Path, *, keep: bool) -> int:
    place = Place("nmu-", folder / "lab", folder / "lock")
    return demo.run(place, as_json=True, keep=keep, progress=lambda _: None)
