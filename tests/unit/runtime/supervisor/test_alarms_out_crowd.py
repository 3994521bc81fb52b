"""More alarms than a person reads: how many wait and go out, and those that strangers make hide no other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import Reason
from gateway.observe.counters import Alarm
from gateway.policy import limits
from gateway.runtime.supervisor.alarms_out import AlarmsOut
from tests.unit.runtime.supervisor.alarming import ALARM, NOW, Out, run, script


def test_only_so_many_wait_and_the_newest_are_told(tmp_path: Path) -> None:
    out = Out(tmp_path, alarm_command=(script(tmp_path, "exit 0"),))
    telling = AlarmsOut(out.config, out.log, lambda: None, lambda: out.now)

    async def work() -> None:
        for number in range(limits.ALARMS_WAITING + 3):
            telling.ring(replace(ALARM, subject=f"number-{number}"))
        telling.open()
        await telling.close()

    run(work)
    assert "number-2 " not in out.told()
    assert "number-3 " in out.told()
    out.close()


def test_no_more_than_a_person_reads_in_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ALARMS_OUT_PER_HOUR", 3)
    out = Out(tmp_path, alarm_command=(script(tmp_path, f"cat >>{tmp_path}/json"),))

    async def work() -> None:
        telling = out.start()
        for hour in range(2):
            for number in range(5):
                await telling._tell(Alarm(Reason.OFFER_MISSING, f"192.0.2.{10 * hour + number}:25", NOW))
            out.now += 3600
        await telling.close()

    run(work)
    subjects = [json.loads(line)["subject"] for line in (tmp_path / "json").read_text().splitlines()]
    assert subjects == [f"192.0.2.{number}:25" for number in (0, 1, 2, 10, 11, 12)]
    assert out.told().count("alarms not-told") == 2
    out.close()


def of_client(number: int) -> Alarm:
    """Each in a network of its own."""
    return Alarm(Reason.SOURCE_IN_CLEAR, f"2001:db8:{number:x}::1", NOW)


def test_alarms_that_clients_can_make_leave_half_of_an_hour_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has very many addresses could else keep people from hearing what he does on the line."""
    monkeypatch.setattr(limits, "ALARMS_OUT_PER_HOUR", 4)
    out = Out(tmp_path, alarm_command=(script(tmp_path, f"cat >>{tmp_path}/json"),))

    async def work() -> None:
        telling = out.start()
        for number in range(9):
            await telling._tell(of_client(number))
        await telling._tell(ALARM)
        out.now += 3600
        await telling._tell(of_client(9))
        await telling.close()

    run(work)
    subjects = [json.loads(line)["subject"] for line in (tmp_path / "json").read_text().splitlines()]
    assert subjects == ["2001:db8:0::1", "2001:db8:1::1", "192.0.2.7:25", "2001:db8:9::1"]
    assert out.told().count("alarms not-told") == 1
    out.close()


def test_clients_of_one_network_leave_most_of_that_half_to_those_of_others(tmp_path: Path) -> None:
    """Whoever has a network could else keep people from hearing of other clients, hour by hour."""
    most = limits.ALARMS_OUT_PER_HOUR // limits.ALARMS_OF_NETWORK_ONE_IN
    out = Out(tmp_path, alarm_command=(script(tmp_path, f"cat >>{tmp_path}/json"),))
    of_network = [Alarm(Reason.SOURCE_IN_CLEAR, f"2001:db8:5:{number:x}::1", NOW) for number in range(20)]

    async def work() -> None:
        telling = out.start()
        for alarm in (*of_network, of_client(1), Alarm(Reason.SOURCE_IN_CLEAR, "no address", NOW)):
            await telling._tell(alarm)
        await telling.close()

    run(work)
    subjects = [json.loads(line)["subject"] for line in (tmp_path / "json").read_text().splitlines()]
    assert subjects == [*(alarm.subject for alarm in of_network[:most]), "2001:db8:1::1", "no address"]
    out.close()


def test_alarms_that_clients_can_make_push_no_other_out_of_those_that_wait(tmp_path: Path) -> None:
    out = Out(tmp_path, alarm_command=(script(tmp_path, "exit 0"),))
    telling = AlarmsOut(out.config, out.log, lambda: None, lambda: out.now)
    telling.ring(ALARM)
    for number in range(2 * limits.ALARMS_WAITING):
        telling.ring(of_client(number))
    assert telling.untold()[0] == ALARM
    assert len(telling.untold()) == 1 + limits.ALARMS_WAITING // 2
    out.close()


def test_nor_out_of_those_that_could_not_be_told_yet(tmp_path: Path) -> None:
    out = Out(tmp_path, alarm_command=(script(tmp_path, "exit 3"),))

    async def work() -> None:
        telling = out.start()
        await telling._tell(ALARM)
        for number in range(limits.ALARMS_WAITING):
            out.now += 3600
            await telling._tell(of_client(number))
        assert telling.untold()[0] == ALARM
        await telling.close()

    run(work)
    out.close()
