"""Alarms that leave: real children get them, on stdin and in the environment; no failure holds anybody up."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import EnvironmentFailureError, Reason
from gateway.observe.counters import Alarm
from gateway.peers.alarm_store import AlarmStore
from gateway.policy import limits
from gateway.runtime.supervisor import alarms_out
from gateway.runtime.supervisor.alarm_text import facts
from gateway.runtime.supervisor.alarms_out import AlarmsOut, _Words
from tests.unit.runtime.supervisor.alarming import ALARM, NOW, Out, eventually, run, rung, script


def test_of_what_a_command_says_the_beginning_is_kept() -> None:
    async def work() -> None:
        words = _Words()
        os.write(words.inlet, b"first " + b"x" * 30_000)
        assert words.close() == "first " + "x" * (limits.ENV_TEXT_OCTETS - 6)

    run(work)


def test_the_command_gets_the_alarm_as_json_and_in_its_environment(tmp_path: Path) -> None:
    command = script(tmp_path, f'cd {tmp_path}; cat >json; env >env; echo "$@" >words; echo $OLDPWD >pwd')
    out = Out(tmp_path, alarm_command=(command, "--all", "$(id) two"))
    rung(out, ALARM)
    assert "alarms told by=command subject=192.0.2.7:25 reason=offer-missing" in out.told()
    out.close()
    told = json.loads((tmp_path / "json").read_text())
    assert told == facts(ALARM)
    assert (told["reason"], told["subject"], told["unheard"]) == ("offer-missing", "192.0.2.7:25", 2)
    environment = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert environment["NIGHTMAIL_LIKELY"] == "keyword-masked"
    assert {name.removeprefix("NIGHTMAIL_").lower() for name in environment if "NIGHTMAIL_" in name} == set(
        told
    )
    assert "PYTEST_CURRENT_TEST" not in environment
    assert (tmp_path / "words").read_text() == "--all $(id) two\n", "no shell has seen the words"
    assert (tmp_path / "pwd").read_text() == "/\n"


def test_once_a_day_for_each_cause_over_restarts(tmp_path: Path) -> None:
    command = script(tmp_path, f"cat >>{tmp_path}/json")
    out = Out(tmp_path, alarm_command=(command,))
    other = Alarm(Reason.OFFER_MISSING, "192.0.2.8:25", NOW)

    def told() -> list[str]:
        path = tmp_path / "json"
        return (
            [json.loads(line)["subject"] for line in path.read_text().splitlines()] if path.exists() else []
        )

    rung(out, ALARM)
    for _ in range(3):
        rung(out, ALARM)
    assert told() == ["192.0.2.7:25"]
    rung(out, other, ALARM)
    assert told() == ["192.0.2.7:25", "192.0.2.8:25"]
    out.now += 24 * 3600 - 1
    rung(out, ALARM)
    assert len(told()) == 2
    out.now += 1
    rung(out, ALARM)
    assert told()[2:] == ["192.0.2.7:25"]
    out.close()


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("cat >/dev/null; echo it went wrong >&2; exit 3", "exit status 3: it went wrong"),
        ("exit 4", "exit status 4"),
        ("kill -9 $$", "killed by signal 9"),
        ("cat >/dev/null; head -c 300000 /dev/zero | tr '\\0' x >&2; exit 5", "exit status 5: xxx"),
        ("printf 'a\\033[31m\\nerror fake line' >&2; exit 6", "exit status 6: a\\x1b[31m error fake line"),
    ],
)
def test_a_failure_is_told_once_until_it_works_again(tmp_path: Path, text: str, detail: str) -> None:
    out = Out(tmp_path, alarm_command=(script(tmp_path, text),))

    async def work() -> None:
        telling = out.start()
        for number, body in enumerate((text, text, text, "cat >/dev/null", text)):
            script(tmp_path, body)
            await telling._tell(Alarm(Reason.OFFER_MISSING, f"192.0.2.{number}:25", NOW))
        await telling.close()

    run(work)
    lines = [line for line in out.told().splitlines() if " alarms failed " in line]
    out.close()
    assert len(lines) == 2
    assert detail in lines[0]
    assert lines[0].startswith("error alarms failed by=command ")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ALARM_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(limits, "ALARM_PAUSE_MOST_SECONDS", 0.05)


def test_what_could_not_be_told_is_told_later(tmp_path: Path, soon: None) -> None:
    """A mail server that is down for an hour loses nobody an alarm; the way that works is not taken twice."""
    out = Out(
        tmp_path,
        alarm_command=(script(tmp_path, f"cat >>{tmp_path}/json"),),
        alarm_mail_to="postmaster@a.test",
        alarm_sendmail=tmp_path / "sendmail",
    )
    other = Alarm(Reason.OFFER_MISSING, "192.0.2.8:25", NOW)

    async def work() -> None:
        telling = out.start()
        telling.ring(ALARM)
        telling.ring(other)
        await eventually(lambda: out.told().count("alarms told by=command") == 2)
        await eventually(lambda: set(telling.untold()) == {ALARM, other})
        assert AlarmStore(out.database).sent_at((ALARM.reason, f"{ALARM.subject} by command")) == NOW
        assert AlarmStore(out.database).sent_at((ALARM.reason, f"{ALARM.subject} by mail")) is None
        (tmp_path / "sendmail").write_text(f"#!/bin/sh\ngrep Subject >>{tmp_path}/mails\n")
        (tmp_path / "sendmail").chmod(0o755)
        await eventually(lambda: out.told().count("alarms told by=mail") == 2)
        assert telling.untold() == []
        await telling.close()

    run(work)
    assert out.told().count("alarms failed") == 1
    assert len((tmp_path / "json").read_text().splitlines()) == 2
    assert len((tmp_path / "mails").read_text().splitlines()) == 2
    assert AlarmStore(out.database).sent_at((ALARM.reason, f"{ALARM.subject} by mail")) == NOW
    out.close()


def test_a_command_that_always_fails_costs_the_postmaster_no_second_mail_after_a_restart(
    tmp_path: Path,
) -> None:
    sendmail = tmp_path / "sendmail"
    sendmail.write_text(f"#!/bin/sh\ngrep Subject >>{tmp_path}/mails\n")
    sendmail.chmod(0o755)
    out = Out(
        tmp_path,
        alarm_command=(script(tmp_path, f"echo tried >>{tmp_path}/tries; exit 1"),),
        alarm_mail_to="postmaster@a.test",
        alarm_sendmail=sendmail,
    )
    for _ in range(3):
        rung(out, ALARM)
    assert len((tmp_path / "mails").read_text().splitlines()) == 1
    assert len((tmp_path / "tries").read_text().splitlines()) == 3, "what has failed is tried after a restart"
    out.close()


def test_one_alarm_that_fails_for_ever_keeps_no_other_back_and_is_given_up(
    tmp_path: Path, soon: None
) -> None:
    text = (
        f'[ "$NIGHTMAIL_SUBJECT" = bad ] && exit 1; [ -e {tmp_path}/well ] || exit 2; cat >>{tmp_path}/json'
    )
    out = Out(tmp_path, alarm_command=(script(tmp_path, text),))

    async def work() -> None:
        telling = out.start()
        telling.ring(Alarm(Reason.OFFER_MISSING, "bad", NOW))
        telling.ring(Alarm(Reason.OFFER_MISSING, "good", NOW))
        await eventually(lambda: len(telling.untold()) == 2)
        (tmp_path / "well").touch()
        await eventually((tmp_path / "json").exists)
        await eventually(lambda: "alarms told by=command subject=good" in out.told())
        out.now += 24 * 3600
        await eventually(lambda: "alarms not-told" in out.told())
        assert telling.untold() == []
        await telling.close()

    run(work)
    assert 'by=command subject=bad detail="given up" reason=offer-missing' in out.told()
    out.close()


def test_a_program_that_is_not_there_is_a_failure_and_nothing_more(tmp_path: Path) -> None:
    sendmail = script(tmp_path, f"cat >{tmp_path}/mail")
    out = Out(
        tmp_path,
        alarm_command=("/nonexistent/tell",),
        alarm_mail_to="postmaster@a.test",
        alarm_sendmail=Path(sendmail),
    )
    rung(out, ALARM)
    assert 'alarms failed by=command detail="/nonexistent/tell: No such file or directory"' in out.told()
    assert (tmp_path / "mail").exists(), "the other way is tried all the same"
    out.close()


def test_a_command_that_hangs_is_killed_with_its_children_and_the_next_alarm_goes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ALARM_COMMAND_SECONDS", 2.0)
    text = f"cd {tmp_path}; echo $$ >>pids; [ -e hung ] && exit 0; >hung; sleep 1000 & echo $! >>pids; wait"
    out = Out(tmp_path, alarm_command=(script(tmp_path, text),))
    ticks: list[float] = []

    async def work() -> None:
        loop = asyncio.get_running_loop()
        telling = out.start()
        telling.ring(ALARM)
        telling.ring(Alarm(Reason.OFFER_MISSING, "192.0.2.8:25", NOW))
        ticks.append(loop.time())
        while out.told().count("alarms told") < 2:
            await asyncio.sleep(0.01)
            ticks.append(loop.time())
        await telling.close()

    run(work)
    told = out.told()
    assert "not done within 2 s, killed" in told
    assert re.search("told .*subject=192.0.2.8:25.*\n(.*\n)*.*told .*subject=192.0.2.7:25", told), (
        "once it works, what has failed is tried again at once"
    )
    assert len(ticks) > 10, "the loop turned on meanwhile"
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 4
    for pid in pids:
        assert not alive(pid)
    out.close()


def alive(pid: int) -> bool:
    """Not even as a zombie of ours; an orphan that is dead may wait for its reaper."""
    try:
        return re.search(r"\) [^Z]", Path(f"/proc/{pid}/stat").read_text()) is not None
    except FileNotFoundError:
        return False


def test_a_child_that_lives_on_with_the_pipe_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Out(tmp_path, alarm_command=(script(tmp_path, f"sleep 1000 & echo $! >{tmp_path}/pid"),))
    try:
        rung(out, ALARM)
        assert "alarms told by=command" in out.told()
        assert alive(int((tmp_path / "pid").read_text()))
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        out.close()


def test_at_a_stop_what_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ALARMS_CLOSE_SECONDS", 0.3)
    out = Out(tmp_path, alarm_command=(script(tmp_path, f"echo $$ >{tmp_path}/pid; exec sleep 1000"),))

    async def work() -> None:
        telling = out.start()
        telling.ring(ALARM)
        telling.ring(Alarm(Reason.OFFER_MISSING, "192.0.2.8:25", NOW))
        await eventually((tmp_path / "pid").exists)
        await telling.close()

    run(work)
    assert "alarms not-told waiting=2" in out.told()
    assert not alive(int((tmp_path / "pid").read_text()))
    out.close()


def test_rung_from_another_thread(tmp_path: Path) -> None:
    """The rules are kept by a thread, and what is wrong with them rings there."""
    out = Out(tmp_path, alarm_command=(script(tmp_path, f"cat >{tmp_path}/json"),))

    async def work() -> None:
        telling = out.start()
        await asyncio.sleep(0)
        thread = threading.Thread(target=telling.ring, args=(ALARM,))
        thread.start()
        await eventually(lambda: "alarms told" in out.told())
        thread.join()
        await telling.close()

    run(work)
    out.close()


def test_what_rings_before_it_begins_is_told_then(tmp_path: Path) -> None:
    out = Out(tmp_path, alarm_command=(script(tmp_path, f"cat >{tmp_path}/json"),))

    async def work() -> None:
        telling = AlarmsOut(out.config, out.log, lambda: None)
        telling.ring(ALARM)
        telling.open()
        await telling.close()

    run(work)
    assert (tmp_path / "json").exists()
    out.close()


def test_without_command_and_address_nothing_is_kept_or_run(tmp_path: Path) -> None:
    out = Out(tmp_path)
    rung(out, ALARM)
    assert out.told() == ""
    assert AlarmStore(out.database).sent_at((ALARM.reason, ALARM.subject)) is None
    out.close()


def test_a_memory_that_cannot_be_read_or_written_keeps_no_alarm_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise EnvironmentFailureError("disk full")

    monkeypatch.setattr(AlarmStore, "sent_at", broken)
    monkeypatch.setattr(AlarmStore, "note", broken)
    out = Out(tmp_path, alarm_command=(script(tmp_path, f"cat >{tmp_path}/json"),))
    rung(out, ALARM)
    assert (tmp_path / "json").exists()
    out.close()


def test_without_a_descriptor_it_is_told_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of its own is left to the daemon for a moment: alarms would have been told never again."""
    monkeypatch.setattr(limits, "ALARM_PAUSE_SECONDS", 0.01)
    out = Out(tmp_path, alarm_command=(script(tmp_path, f"echo x >>{tmp_path}/ran"),))
    pipe = os.pipe

    def refuses() -> tuple[int, int]:
        monkeypatch.setattr(os, "pipe", pipe)
        raise OSError(24, "Too many open files")

    async def work() -> None:
        monkeypatch.setattr(os, "pipe", refuses)
        telling = out.start()
        telling.ring(ALARM)
        await eventually((tmp_path / "ran").exists)
        await telling.close()

    run(work)
    assert "tell: Too many open files" in out.told().replace("\\x20", " ")
    out.close()


def test_a_bug_costs_one_alarm_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "KEEPER_RESTS_SECONDS", 0.01)
    out = Out(tmp_path, alarm_command=(script(tmp_path, f"echo $NIGHTMAIL_SUBJECT >>{tmp_path}/ran"),))

    def fails(alarm: Alarm) -> dict[str, str | int]:
        if alarm.subject == "odd":
            raise KeyError("a bug")
        return facts(alarm)

    monkeypatch.setattr(alarms_out, "facts", fails)

    async def work() -> None:
        telling = out.start()
        telling.ring(replace(ALARM, subject="odd"))
        telling.ring(ALARM)
        await eventually((tmp_path / "ran").exists)
        await telling.close()

    run(work)
    assert (tmp_path / "ran").read_text() == "192.0.2.7:25\n"
    assert "alarms failed" in out.told()
    out.close()
