"""What `nightmail ring` makes of the daemon's answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.operator import ringing, status
from gateway.policy import limits

CONFIG = Config(run_dir=Path("/nowhere"))


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any] | None]:
    answers: list[dict[str, Any] | None] = []

    def ask(_: Path, question: bytes, seconds: float) -> dict[str, Any] | None:
        assert question == b"ring\n"
        assert seconds > limits.ALARM_COMMAND_SECONDS
        return answers.pop()

    monkeypatch.setattr(status, "ask", ask)
    return answers


def test_each_way_is_told(answered: list[dict[str, Any] | None]) -> None:
    answered.append({"ways": {"command": "tell: exit status 3", "mail": ""}})
    tried = ringing.ring(CONFIG)
    assert [way.told for way in tried] == ["command: FAILED, tell: exit status 3", "mail: went"]
    assert [way.went for way in tried] == [False, True]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "no daemon is running"),
        ({"ways": {}}, r"`alarms\.mail_to` or `alarms\.command`"),
        ({"error": "this daemon knows the questions status, reload, ignored"}, "`nightmail reload` first"),
    ],
    ids=["no daemon", "no way", "an older daemon"],
)
def test_where_nothing_is_tried_that_is_a_failure(
    answered: list[dict[str, Any] | None], answer: dict[str, Any] | None, told: str
) -> None:
    answered.append(answer)
    with pytest.raises(EnvironmentFailureError, match=told):
        ringing.ring(CONFIG)


def test_the_daemon_may_answer_for_as_long_as_what_it_does_may_last() -> None:
    assert min(limits.ANSWER_SECONDS, limits.ALARM_COMMAND_SECONDS) >= limits.RELOAD_SECONDS
    assert limits.ANSWER_SECONDS >= limits.ALARM_COMMAND_SECONDS
