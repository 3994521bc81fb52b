"""Whatever keeps a tool from its work comes as one kind of error, and no tool is left running."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from typing import Any

import pytest

from gateway.errors import EnvironmentFailureError
from gateway.intercept.kernel import commands
from gateway.policy import limits


def test_what_a_tool_prints_and_how_it_answers() -> None:
    assert commands.run(["cat"], "a rule") == "a rule"
    assert commands.succeeds(["true"])
    assert not commands.succeeds(["false"])


@pytest.mark.parametrize("use", [commands.run, commands.succeeds], ids=["run", "succeeds"])
@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENOENT, errno.EACCES])
def test_a_tool_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, use: Any, code: int) -> None:
    """No process, no memory, no descriptor to be had for a moment: told, and tried again by whoever asks."""

    def refuses(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(subprocess, "Popen", refuses)
    with pytest.raises(EnvironmentFailureError, match=r"^nft"):
        use(["nft", "list", "tables"])


def test_of_a_set_that_is_not_there_is_said_who_names_it_and_what_makes_it() -> None:
    said = "iptables-restore v1.8.9 (nf_tables): Set traps doesn't exist.\nError occurred at line: 8"
    with pytest.raises(
        EnvironmentFailureError, match=r"^sh: no set traps, which exceptions\.never names: .*create traps"
    ):
        commands.run(["sh", "-c", "cat >&2; exit 2"], said)


def test_a_tool_that_is_killed_has_not_answered() -> None:
    """For want of memory, say: a dead end that was to be taken out would have passed for gone."""
    with pytest.raises(EnvironmentFailureError, match=r"^sh was killed by signal 9$"):
        commands.succeeds(["sh", "-c", "kill -KILL $$"])


@pytest.mark.parametrize("use", [commands.run, commands.succeeds], ids=["run", "succeeds"])
def test_a_tool_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, use: Any) -> None:
    started: list[int] = []

    class Kept(subprocess.Popen[str]):
        def __init__(self, *words: Any, **named: Any) -> None:
            super().__init__(*words, **named)
            started.append(self.pid)

    monkeypatch.setattr(subprocess, "Popen", Kept)
    monkeypatch.setattr(limits, "TOOL_SECONDS", 0.05)
    began = time.monotonic()
    with pytest.raises(EnvironmentFailureError, match="has not ended"):
        use(["sleep", "60"])
    assert time.monotonic() - began < 30
    (pid,) = started
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_complaint_is_one_line() -> None:
    with pytest.raises(EnvironmentFailureError, match=r"^sh: first$"):
        commands.run(["sh", "-c", "echo; echo first >&2; echo second >&2; exit 3"])


def test_what_a_tool_prints_may_be_in_any_encoding() -> None:
    """A comment in a rule of somebody else's, as iptables takes it and shows it again: one such rule kept us
    from seeing our own."""
    assert commands.run(["printf", r"B\374ro, B\303\274ro"]) == "B\\xfcro, B\u00fcro"
