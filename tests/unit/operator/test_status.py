"""What the daemon says, for a person; and a daemon that says nothing good."""

import copy
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import __version__
from gateway.errors import EnvironmentFailureError
from gateway.observe.counters import empty_snapshot
from gateway.observe.protection import is_protecting
from gateway.operator.status import ask, is_running, kept, told
from gateway.peers.database import Database
from gateway.peers.day_store import DayStore, Kind
from gateway.policy import limits
from tests.unit.operator.fake_daemon import STATUS, daemon


@pytest.fixture
def control(tmp_path: Path) -> Path:
    return tmp_path / "run" / "control.sock"


def changed(**keys: Any) -> dict[str, Any]:
    return {**copy.deepcopy(STATUS), **keys}


def test_asks_and_gets_the_answer(control: Path) -> None:
    with daemon(control) as asked:
        assert ask(control) == STATUS
    assert asked == [b"status\n"]


def test_nobody_there(control: Path) -> None:
    assert ask(control) is None
    assert not is_running(control)
    control.parent.mkdir()
    left_over = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left_over.bind(str(control))
    left_over.close()
    assert ask(control) is None
    assert not is_running(control)


def test_somebody_there(control: Path) -> None:
    with daemon(control):
        assert is_running(control)


@pytest.mark.parametrize("answer", [b"", b"[]", b"{", b"\xff"])
def test_no_good_answer_is_one_line(control: Path, answer: bytes) -> None:
    with daemon(control, answer), pytest.raises(EnvironmentFailureError, match="no JSON object"):
        ask(control)


def test_endless_answer(control: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONTROL_REPLY_OCTETS", 100)
    with daemon(control, b" " * 101), pytest.raises(EnvironmentFailureError, match="too long"):
        ask(control)


def test_silent_daemon(control: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONTROL_SECONDS", 0.05)
    control.parent.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(control))
        listener.listen()
        with pytest.raises(EnvironmentFailureError, match="has not answered"):
            ask(control)


@pytest.mark.parametrize(
    ("keys", "first"),
    [
        ({}, "YES, mail to and from sites with a gateway is protected now"),
        ({"wanted": "down"}, "NO, mail passes in clear: rules were taken down by `nightmail down`"),
        ({"rules": {"missing": ["a", "b"]}}, "NO, mail passes in clear: 2 of our rules are missing"),
        (
            {"rules": {"missing": [], "queues": []}},
            "NO, mail passes in clear: the rules send no connection to a worker",
        ),
        (
            {"rules": {"missing": [], "queues": [2500]}},
            "YES, mail to and from sites with a gateway is protected now",
        ),
        (
            {"inside_networks": []},
            "NO, mail passes in clear: the inside interfaces have no network yet, so no mail server is known",
        ),
        (
            {"inside_networks": [], "placement": "host"},
            "NO, mail passes in clear: this machine has no address yet, so no mail is known to be its own",
        ),
        (
            {"inside_networks": [], "placement": "bridge"},
            "YES, mail to and from sites with a gateway is protected now",
        ),
        (
            {"inside_networks": ["10.11.0.0/24"]},
            "YES, mail to and from sites with a gateway is protected now",
        ),
        ({"workers": []}, "NO, mail passes in clear: no worker serves"),
        ({"workers": [{"slot": 0, "state": "dead"}]}, "NO, mail passes in clear: no worker serves"),
        (
            {"wanted": "down", "wanted_until_reboot": True},
            "NO, mail passes in clear: rules were taken down by `nightmail down --until-reboot`, until the"
            " next boot",
        ),
        (
            {"wanted": "down", "workers": []},
            "NO, mail passes in clear: rules were taken down by `nightmail down`; no worker serves",
        ),
    ],
)
def test_first_line_answers_the_question(keys: dict[str, Any], first: str) -> None:
    status = changed(**keys)
    assert next(iter(told(status))) == first
    assert is_protecting(status) == first.startswith("YES")


@pytest.mark.parametrize(("wanted", "until_reboot"), [("up", True), ("up", False), ("down", True)])
def test_what_the_next_boot_takes_back_is_noted(wanted: str, until_reboot: bool) -> None:
    lines = list(told(changed(wanted=wanted, wanted_until_reboot=until_reboot)))
    note = "note: rules are up until the next boot (`nightmail up` keeps them)"
    assert (note in lines) is (wanted == "up" and until_reboot)


def test_what_confines_the_workers_and_what_does_not() -> None:
    def lines(*confined: list[str]) -> list[str]:
        workers = [{"slot": slot, "state": "serving", "confined": one} for slot, one in enumerate(confined)]
        return [line for line in told(changed(workers=workers)) if line.startswith("workers: ")]

    whole = ["user", "capabilities", "no-new-privileges", "file-system", "system-calls"]
    assert lines(whole, whole) == [f"workers: confined by {', '.join(whole)}"]
    assert lines(whole, whole[:3]) == [
        "workers: confined by user, capabilities, no-new-privileges; NOT by file-system, system-calls"
    ]
    assert lines([]) == [f"workers: confined by nothing; NOT by {', '.join(whole)}"]


def test_the_signers_line() -> None:
    signer = {"pid": 7, "signed": 12, "refused": 1, "restarts": 0, "confined": []}
    assert "signer: pid=7 signed=12 refused=1 restarts=0" in list(told(changed(signer=signer)))


def test_all_lines() -> None:
    assert list(told(STATUS))[1:] == [
        "sent by this site: 3 of 12 sessions protected (25.0 %)",
        "         2  protected, upgraded",
        "         1  protected, upgraded-new-peer",
        "         9  in clear, no-offer",
        "received by this site: no session yet",
        "peers: 4 remembered",
        "bypassed: 6 connections passed by the gateway while it could not take them",
        "worker 0: serving pid=17 queue=2500 sessions=3 restarts=0",
        "worker 1: hung pid=18 queue=2501 sessions=0 restarts=2",
        "alarm: 2027-01-15 08:00 UTC offer-missing 192.0.2.7:25 (and 2 times since; this is the last)",
    ]


TODAY = {"out": {"upgraded": {"upgraded": 2}, "clear": {"no-offer": 9}}, "in": {"upgraded": {}, "clear": {}}}
WEEK = {
    "out": {"upgraded": {"upgraded": 30, "upgraded-new-peer": 31}, "clear": {"no-offer": 61}},
    "in": {"upgraded": {}, "clear": {"no-verb": 4}},
}


def test_sessions_of_today_and_of_this_week() -> None:
    assert list(told(changed(today=TODAY, week=WEEK)))[1:9] == [
        "sent by this site: today 2 of 11 sessions protected (18.2 %);"
        " this week 61 of 122 sessions protected (50.0 %)",
        "     today      week",
        "         0        31  protected, upgraded-new-peer",
        "         2        30  protected, upgraded",
        "         9        61  in clear, no-offer",
        "received by this site: today no session; this week 0 of 4 sessions protected (0.0 %)",
        "     today      week",
        "         0         4  in clear, no-verb",
    ]


def test_versions_and_a_reload_that_waits() -> None:
    lines = list(told(changed(versions={"nightmail": "0.1.0", "python": "3.11.2"}, version="0.0.9")))
    assert "versions: nightmail 0.1.0, python 3.11.2" in lines
    assert lines[-1] == f"note: {__version__} is installed, 0.0.9 runs: `nightmail reload` changes over"
    assert not any(line.startswith("note: ") for line in told(changed(version=__version__)))


def test_without_a_daemon_the_days_are_read_from_the_disk(tmp_path: Path) -> None:
    path, today = tmp_path / "peers.db", 20_800
    assert kept(path, today * 86400) == {}
    database = Database(path)
    DayStore(database).add({today: {Kind("out", True, "upgraded"): 2}}, today)
    database.close()
    assert kept(path, today * 86400)["today"]["out"]["upgraded"] == {"upgraded": 2}
    path.write_bytes(b"no database")
    assert kept(path, today * 86400) == {}


def test_a_single_connection_is_one() -> None:
    one = "bypassed: 1 connection passed by the gateway while it could not take it"
    assert one in list(told(changed(bypassed=1)))


def test_quiet_gateway() -> None:
    assert "alarms: none within the last day" in list(told(changed(alarms=[])))
    now = int(time.time())
    assert "alarms: none within the last day" in list(told(changed(alarms=[], since=now - 90_000)))
    new = "alarms: none since the daemon's start, "
    assert any(line.startswith(new) for line in told(changed(alarms=[], since=now - 3600)))


def test_a_fresh_snapshot_is_understood() -> None:
    lines = list(told(changed(counters=empty_snapshot())))
    assert "sent by this site: no session yet" in lines


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*STATUS, "out", "in"]), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*STATUS, "decided", "else"]), json_values))
def test_any_answer_is_told_without_an_error(status: dict[str, Any]) -> None:
    """An older daemon, or a later one."""
    first = next(iter(told(status)))
    assert first.startswith(("YES", "NO"))
    list(told(status))


def test_clients_and_likely_causes_are_told() -> None:
    alarm = {"reason": "offer-missing", "subject": "192.0.2.7:25", "at": 1_800_000_000, "unheard": 2}
    lines = list(
        told(
            changed(
                sources={"upgraded": 7, "resting": 1}, alarms=[{**alarm, "likely": "keyword-masked"}, alarm]
            )
        )
    )
    assert "clients: 7 remembered to have a gateway; 1 that dropped our offers get none for a day" in lines
    told_alarms = [line for line in lines if line.startswith("alarm: ")]
    assert told_alarms[0].endswith(
        "offer-missing 192.0.2.7:25, likely keyword-masked (and 2 times since; this is the last)"
    )
    assert told_alarms[1].endswith("offer-missing 192.0.2.7:25 (and 2 times since; this is the last)")
