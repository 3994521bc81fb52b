"""A trial alarm: by each way, as often as somebody asks, and in the way of no real one."""

from __future__ import annotations

from pathlib import Path

from gateway.errors import Reason
from gateway.observe.counters import Alarm
from gateway.policy import limits
from tests.unit.runtime.supervisor.alarming import ALARM, NOW, Out, eventually, run, script


def test_a_trial_goes_by_each_way_as_often_as_somebody_asks_and_says_how_each_went(tmp_path: Path) -> None:
    sendmail = tmp_path / "sendmail"
    sendmail.write_text(f"#!/bin/sh\ncat >>{tmp_path}/mails\n")
    sendmail.chmod(0o755)
    out = Out(
        tmp_path,
        alarm_command=(script(tmp_path, "echo it went wrong >&2; exit 3"),),
        alarm_mail_to="postmaster@a.test",
        alarm_sendmail=sendmail,
    )
    tried: list[dict[str, str]] = []

    async def work() -> None:
        telling = out.start()
        for _ in range(limits.ALARMS_OUT_PER_HOUR + 1):
            tried.append(await telling.try_out())
        await telling.close()

    run(work)
    failed = f"{tmp_path}/tell: exit status 3: it went wrong"
    assert tried == [{"command": failed, "mail": ""}] * (limits.ALARMS_OUT_PER_HOUR + 1)
    assert f'alarms failed by=command detail="{failed}"' in out.told()
    assert "alarms told by=mail subject=alarms reason=trial" in out.told()
    out.close()
    mails = (tmp_path / "mails").read_text()
    assert mails.count("Nothing is wrong.") >= len(tried)
    assert "No mail waits" not in mails
    assert "told again after" not in mails


def test_a_trial_is_no_alarm_that_has_gone_out_and_holds_none_back(tmp_path: Path) -> None:
    out = Out(tmp_path, alarm_command=(script(tmp_path, f"cat >>{tmp_path}/json"),))

    async def work() -> None:
        telling = out.start()
        await telling.try_out()
        assert telling.untold() == []
        telling.ring(Alarm(Reason.TRIAL, "alarms", NOW))
        await eventually(lambda: out.told().count("alarms told") == 2)
        await telling.close()

    run(work)
    out.close()


def test_what_waits_goes_once_a_trial_has_gone(tmp_path: Path) -> None:
    """Its next try may be an hour away, and somebody has just mended the mail server."""
    out = Out(tmp_path, alarm_command=(script(tmp_path, f"[ -e {tmp_path}/well ] && cat >>{tmp_path}/json"),))

    async def work() -> None:
        telling = out.start()
        telling.ring(ALARM)
        await eventually(lambda: "alarms failed" in out.told())
        assert (await telling.try_out())["command"]
        (tmp_path / "well").touch()
        assert await telling.try_out() == {"command": ""}
        await eventually(lambda: "alarms told by=command subject=192.0.2.7:25" in out.told())
        await telling.close()

    run(work)
    out.close()


def test_without_a_way_a_trial_tries_none(tmp_path: Path) -> None:
    out = Out(tmp_path)

    async def work() -> None:
        telling = out.start()
        assert await telling.try_out() == {}
        await telling.close()

    run(work)
    out.close()
