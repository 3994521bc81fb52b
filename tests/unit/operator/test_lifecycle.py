"""The word first, the deed second; and both with a daemon that runs. The kernel is a fake here."""

from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, ConfigurationError, FoundInterface
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel
from gateway.intercept.wanted import Wanted, read_wanted
from gateway.operator import lifecycle
from tests.unit.operator.fake_daemon import daemon


class FakeKernel:
    """Stands for one namespace's rules; notes what was asked of it, and what was wanted at that moment."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.done: list[tuple[str, Wanted]] = []
        self.fails = False
        self.counts: dict[str, int] = {}

    def note(self, what: str) -> None:
        self.done.append((what, read_wanted(self.config.wanted_file)))
        if self.fails:
            raise EnvironmentFailureError("not permitted")

    def rules(self, config: Config) -> "FakeKernel":
        return self

    def apply(self, wanted: Any, live_queues: list[int]) -> None:
        self.note(f"apply {live_queues}")

    def remove(self) -> None:
        self.note("remove")


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(inside=("eth1",), outside=("eth0",), state_dir=tmp_path / "state", run_dir=tmp_path / "run")


@pytest.fixture
def fake(config: Config, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    made = FakeKernel(config)
    monkeypatch.setattr(kernel, "KernelRules", made.rules)
    monkeypatch.setattr(kernel, "gate_counts", lambda: made.counts)
    return made


def test_up_without_a_daemon(config: Config, fake: FakeKernel) -> None:
    assert "no daemon is running" in lifecycle.up(config)
    assert fake.done == [("apply [2500, 2501]", Wanted.UP)]


def test_up_leaves_the_rules_to_a_running_daemon_and_waits_for_them(config: Config, fake: FakeKernel) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            fake.counts = {"eth0": 0}

    with daemon(config.control_socket):
        assert "the daemon keeps them" in lifecycle.up(config, pause)
    assert fake.done == []
    assert read_wanted(config.wanted_file) is Wanted.UP
    assert len(pauses) == 3


def test_up_says_when_the_daemon_does_not(config: Config, fake: FakeKernel) -> None:
    with daemon(config.control_socket), pytest.raises(EnvironmentFailureError, match="its log says why"):
        lifecycle.up(config, lambda seconds: None)


def test_up_that_fails_is_undone(config: Config, fake: FakeKernel) -> None:
    lifecycle.down(config)
    fake.done.clear()
    fake.fails = True
    with pytest.raises(EnvironmentFailureError, match="not permitted"):
        lifecycle.up(config)
    assert [what for what, _ in fake.done] == ["apply [2500, 2501]", "remove"]
    assert read_wanted(config.wanted_file) is Wanted.DOWN


def test_up_that_is_interrupted_is_undone(
    config: Config, fake: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(wanted: Any, live_queues: list[int]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fake, "apply", interrupted)
    with pytest.raises(EnvironmentFailureError, match="as it was before"):
        lifecycle.up(config)
    assert [what for what, _ in fake.done] == ["remove"]


def test_a_second_up_that_fails_leaves_the_rules_of_the_first(config: Config, fake: FakeKernel) -> None:
    fake.counts, fake.fails = {"eth0": 3}, True
    with pytest.raises(EnvironmentFailureError):
        lifecycle.up(config)
    assert [what for what, _ in fake.done] == ["apply [2500, 2501]"]
    assert read_wanted(config.wanted_file) is Wanted.UP


def test_down(config: Config, fake: FakeKernel) -> None:
    assert "rules are out" in lifecycle.down(config)
    assert fake.done == [("remove", Wanted.DOWN)]


def test_down_outlasts_a_repair_under_way(config: Config, fake: FakeKernel) -> None:
    with daemon(config.control_socket):
        lifecycle.down(config, lambda seconds: fake.done.append(("pause", Wanted.DOWN)))
    assert [what for what, _ in fake.done] == ["remove", "pause", "remove"]


def test_down_is_remembered_even_if_the_kernel_refuses(config: Config, fake: FakeKernel) -> None:
    fake.fails = True
    with pytest.raises(EnvironmentFailureError):
        lifecycle.down(config)
    assert read_wanted(config.wanted_file) is Wanted.DOWN


def test_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        lifecycle, "discover", lambda: [FoundInterface("wan", True), FoundInterface("lan", False)]
    )
    assert lifecycle.resolved(Config()).inside == ("lan",)
    with pytest.raises(ConfigurationError):
        lifecycle.resolved(Config(inside=("nope",)))
