"""Whose hand is at the rules; and that nobody waits for it for ever. A lock is of who opened the file."""

import contextlib
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.intercept import rules_lock
from gateway.policy import limits


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(run_dir=tmp_path)


def test_who_comes_second_waits_until_the_first_has_ended(config: Config) -> None:
    with contextlib.ExitStack() as first:
        first.enter_context(rules_lock.held(config, 0.0))
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                first.close()

        with rules_lock.held(config, 1.0, pause):
            assert len(pauses) == 3
            with rules_lock.held(config, 0.05, pauses.append):
                assert len(pauses) > 3, "the second has it by now"
    pauses.clear()
    with rules_lock.held(config, 1.0, pauses.append):
        assert pauses == [], "all have ended"


def test_one_that_never_ends_is_not_waited_for(config: Config) -> None:
    pauses: list[float] = []
    with rules_lock.held(config, 0.0), rules_lock.held(config, limits.RULES_HAND_SECONDS, pauses.append):
        assert sum(pauses) == pytest.approx(limits.RULES_HAND_SECONDS)


def test_what_fails_lets_go(config: Config) -> None:
    with pytest.raises(ZeroDivisionError), rules_lock.held(config, 0.0):
        raise ZeroDivisionError
    pauses: list[float] = []
    with rules_lock.held(config, 1.0, pauses.append):
        assert pauses == []


def test_without_a_run_directory_nothing_is_made_and_nobody_waits(tmp_path: Path) -> None:
    nowhere = Config(run_dir=tmp_path / "run")
    with rules_lock.held(nowhere, 1.0), rules_lock.held(nowhere, 1.0):
        pass
    assert not nowhere.run_dir.exists()


def test_only_root_can_hold_it(config: Config) -> None:
    with rules_lock.held(config, 0.0):
        assert config.rules_lock.stat().st_mode & 0o777 == 0o600
