"""`up` and `down` where there is a service: what one does to it the other takes back. systemd is a fake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel
from gateway.intercept.wanted import Wanted, Word, read_word, record_word
from gateway.operator import lifecycle, planning, service
from gateway.operator.service import Service
from tests.unit.operator.fake_daemon import daemon
from tests.unit.operator.fake_kernel import FakeKernel

NOBODY = "no daemon is running, and `up` starts none here: mail passes in clear until `nightmail run`"


class FakeSystemd:
    """`systemctl` as a program that keeps the unit's state in a file; `breaks` is a word that it fails at."""

    def __init__(self, folder: Path, fake: FakeKernel) -> None:
        self.folder, self.fake = folder, fake
        self.state = {"LoadState": "loaded", "ActiveState": "inactive", "UnitFileState": "disabled"}
        self.breaks = ""
        self.said: list[str] = []

    def systemctl(self, *words: str) -> str:
        verb = words[0]
        if verb == "show":
            return "".join(f"{key}={value}\n" for key, value in self.state.items())
        assert words[-1] == service.UNIT
        self.said.append(verb)
        if verb == self.breaks:
            raise EnvironmentFailureError(f"systemctl {verb}: no")
        if verb in ("start", "stop"):
            self.state["ActiveState"] = "active" if verb == "start" else "inactive"
            self.fake.counts = {"eth0": 0} if verb == "start" else {}
        else:
            self.state["UnitFileState"] = f"{verb}d"
        return ""


@pytest.fixture
def systemd(tmp_path: Path, fake: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    made = FakeSystemd(tmp_path, fake)
    monkeypatch.setattr(service, "_SYSTEMD", tmp_path)
    monkeypatch.setattr(service, "_systemctl", made.systemctl)
    monkeypatch.setattr(kernel, "plan", lambda config, rules, queues: [])
    monkeypatch.setattr(kernel, "remarks", lambda config: [])
    monkeypatch.setattr(kernel, "notes", list)
    return made


def test_the_service_is_started_and_enabled_and_back(config: Config, systemd: FakeSystemd) -> None:
    planned = planning.plan(config, service.found())
    assert planned.services == ["start   service nightmail.service", "enable  service nightmail.service"]
    assert f"add     file {config.identity_file} (stays)" in planned.files
    assert NOBODY not in planned.remarks
    assert "the daemon keeps them" in lifecycle.up(config, service.found())
    assert service.found() == Service(is_active=True, is_enabled=True)
    assert planning.plan(config, service.found()).changes == []
    assert systemd.fake.done == [], "the daemon puts its rules in itself"
    lifecycle.down(config)
    assert service.found() == Service(is_active=False, is_enabled=False)
    assert read_word(config.wanted_file) == Word(Wanted.DOWN, downs=1)


def test_a_bridge_that_is_refused_is_said_before_any_service_starts(
    config: Config, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "bridge_refusal", lambda _: "br0 tells VLANs apart")
    with pytest.raises(EnvironmentFailureError, match="br0 tells VLANs apart"):
        lifecycle.up(config, service.found())
    assert systemd.said == []
    assert not config.wanted_file.exists()


def test_a_plan_says_when_nobody_will_carry_mail(config: Config, systemd: FakeSystemd) -> None:
    assert NOBODY in planning.plan(config).remarks
    with daemon(config.control_socket, questions=0):
        assert NOBODY not in planning.plan(config).remarks


def test_until_the_next_boot_the_service_is_not_enabled(config: Config, systemd: FakeSystemd) -> None:
    assert len(planning.plan(config, service.found(), until_reboot=True).services) == 1
    lifecycle.up(config, service.found(), until_reboot=True)
    assert service.found() == Service(is_active=True, is_enabled=False)
    lifecycle.down(config, until_reboot=True)
    assert systemd.said == ["start"], "the operator has not said that the service is to go"
    lifecycle.down(config)
    assert systemd.said == ["start", "stop"]


def test_a_service_that_was_there_before_stays(config: Config, systemd: FakeSystemd) -> None:
    systemd.state |= {"ActiveState": "active", "UnitFileState": "enabled"}
    with daemon(config.control_socket):
        systemd.fake.counts = {"eth0": 0}
        assert planning.plan(config, service.found()).services == []
        lifecycle.up(config, service.found())
        lifecycle.down(config, pause=lambda seconds: None)
    assert systemd.said == []


def test_a_daemon_that_somebody_else_runs_is_theirs(config: Config, systemd: FakeSystemd) -> None:
    with daemon(config.control_socket):
        systemd.fake.counts = {"eth0": 0}
        lifecycle.up(config, service.found())
    assert systemd.said == []


def test_a_service_that_is_about_to_end_is_started_again(config: Config, systemd: FakeSystemd) -> None:
    """By another terminal, up to 20 s ago: its daemon was taken for somebody else's, which goes on."""
    systemd.state |= {"ActiveState": "deactivating"}
    systemd.fake.counts = {"eth0": 0}
    with daemon(config.control_socket, questions=0):
        lifecycle.up(config, service.found())
    assert service.found() == Service(is_active=True, is_enabled=True)
    assert systemd.said == ["start", "enable"]


@pytest.mark.parametrize(
    ("breaks", "said"),
    [("start", ["start", "stop"]), ("enable", ["start", "enable", "disable", "stop"])],
)
def test_a_service_that_fails_is_undone(
    config: Config, systemd: FakeSystemd, breaks: str, said: list[str]
) -> None:
    record_word(config.wanted_file, Word(Wanted.DOWN))
    before = config.wanted_file.read_bytes()
    systemd.breaks = breaks
    with pytest.raises(EnvironmentFailureError, match=f"systemctl {breaks}: no"):
        lifecycle.up(config, service.found())
    assert systemd.said == said
    assert systemd.state["ActiveState"] == "inactive"
    assert config.wanted_file.read_bytes() == before
    assert systemd.fake.done == [("remove", Wanted.DOWN)], "no daemon is to miss them"


def test_what_was_done_to_the_service_is_known_until_it_is_taken_back(
    config: Config, systemd: FakeSystemd
) -> None:
    lifecycle.up(config, service.found())
    systemd.breaks = "disable"
    with pytest.raises(EnvironmentFailureError):
        lifecycle.down(config)
    assert json.loads(config.wanted_file.read_text())["service"] == ["started", "enabled"]
    systemd.breaks = ""
    lifecycle.down(config)
    assert service.found() == Service(is_active=False, is_enabled=False)


def test_the_daemon_ends_before_its_rules_go(
    config: Config, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lets its sessions end, or resets them: else they would stand still, and go on in clear."""
    lifecycle.up(config, service.found())
    systemd.said.clear()
    monkeypatch.setattr(systemd.fake, "remove", lambda: systemd.said.append("remove"))
    lifecycle.down(config)
    assert systemd.said == ["disable", "stop", "remove"]


def test_an_interrupted_stop_of_the_service_is_seen_through_behind_the_rules(
    config: Config, systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its daemon resets its sessions at once; who has asked for its end waits for that no longer."""
    lifecycle.up(config, service.found())
    systemd.said.clear()
    take_back, interrupts = service.take_back, iter([True, False, False])

    def interrupted(done: str) -> None:
        if next(interrupts):
            raise KeyboardInterrupt
        take_back(done)

    monkeypatch.setattr(service, "take_back", interrupted)
    monkeypatch.setattr(systemd.fake, "remove", lambda: systemd.said.append("remove"))
    assert lifecycle.down(config).startswith("rules are out and stay out")
    assert systemd.said == ["remove", "disable", "stop"]
    assert read_word(config.wanted_file) == Word(Wanted.DOWN, downs=1)


@pytest.mark.parametrize("breaks", ["stop", "disable"])
def test_the_rules_go_also_where_the_service_does_not(
    config: Config, systemd: FakeSystemd, breaks: str
) -> None:
    lifecycle.up(config, service.found())
    systemd.breaks = breaks
    with pytest.raises(EnvironmentFailureError, match=f"systemctl {breaks}: no"):
        lifecycle.down(config)
    assert systemd.fake.done == [("remove", Wanted.DOWN)]
    assert systemd.said[-2:] == ["disable", "stop"], "a daemon's sessions end before the rules go"


@pytest.mark.parametrize("state", ["not-found", "masked"])
def test_no_service(config: Config, systemd: FakeSystemd, state: str) -> None:
    systemd.state["LoadState"] = state
    assert service.found() is None


def test_how_a_daemon_is_started(config: Config, systemd: FakeSystemd) -> None:
    assert service.starting(is_default=True).startswith("`nightmail up` starts it")
    assert service.starting(is_default=False) == "`nightmail run` starts it"
    down = "`nightmail down` was said: `nightmail up`{} takes mail over again"
    assert service.starting(is_default=True, is_down=True) == down.format("")
    assert service.starting(is_default=False, is_down=True) == down.format(", then `nightmail run`,")
    systemd.state["LoadState"] = "not-found"
    assert service.starting(is_default=True) == "`nightmail run` starts it"


def test_no_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(service, "_SYSTEMD", tmp_path / "none")
    assert service.found() is None
