"""Each finding turns bad when its thing is bad."""

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config import Config, FoundInterface
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel, tproxy
from gateway.intercept.wanted import Wanted, Word, record_word
from gateway.operator import check, lifecycle
from gateway.operator.doctor import filters
from gateway.operator.doctor.trouble import Trouble
from gateway.peers.store import PinStore
from gateway.runtime import landlock
from gateway.runtime.identity_file import load_or_make

NAMES = [
    "privileges", "workers", "tools", "interfaces", "kernel", "firewall", "ports", "identity", "peers",
    "wanted",
]  # fmt: skip


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A machine on which all is well."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool: f"/sbin/{tool}")
    monkeypatch.setattr(filters, "hindrances", lambda config: iter(()))
    monkeypatch.setattr(
        lifecycle, "discover", lambda: [FoundInterface("wan", True), FoundInterface("lan", False)]
    )
    monkeypatch.setattr(kernel, "remarks", lambda config: [])
    monkeypatch.setattr(tproxy, "is_in_use", lambda port: False)
    return Config(state_dir=tmp_path, run_dir=tmp_path)


def bad(config: Config) -> list[str]:
    found = check.findings(config)
    assert sorted({one.name for one in found}) == sorted(NAMES)
    assert all("\n" not in one.text for one in found)
    return [one.name for one in found if not one.good]


def told_of(config: Config, name: str) -> str:
    return next(one.text for one in check.findings(config) if one.name == name)


def test_all_is_well_with_and_without_files(config: Config) -> None:
    assert bad(config) == []
    load_or_make(config.identity_file)
    PinStore(config.pins_file).close()
    assert bad(config) == []


def test_not_root(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's own ports are nobody else's because its socket is closed to who asks."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(tproxy, "is_in_use", lambda port: True)
    assert bad(config) == ["privileges"]


def test_a_kernel_without_landlock_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    assert bad(config) == []
    assert any("no Landlock" in one.text for one in check.findings(config))


def test_no_nft(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "nft" else tool)
    assert bad(config) == ["tools"]


def test_interfaces_not_told_apart(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "discover", list)
    assert bad(config) == ["interfaces"]


def test_the_kernel_is_asked_of_the_interfaces_that_are_found(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Config] = []

    def remarks(config: Config) -> list[str]:
        asked.append(config)
        return []

    monkeypatch.setattr(kernel, "remarks", remarks)
    assert bad(config) == []
    assert [(one.inside, one.outside) for one in asked] == [(("lan",), ("wan",))]


def test_kernel_does_not_route(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "remarks", lambda config: ["net.ipv4.ip_forward is not 1", "another"])
    assert bad(config) == ["kernel", "kernel"]


def test_kernel_that_cannot_be_asked(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: Config) -> list[str]:
        raise EnvironmentFailureError("not permitted")

    monkeypatch.setattr(kernel, "remarks", refuse)
    assert bad(config) == ["kernel"]


def test_a_firewall_that_would_stop_mail(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Config] = []

    def hindrances(config: Config) -> Iterator[Trouble]:
        asked.append(config)
        yield Trouble("a chain drops", "no mail passes", "nft insert it")

    monkeypatch.setattr(filters, "hindrances", hindrances)
    assert bad(config) == ["firewall"]
    assert [(one.inside, one.outside) for one in asked] == [(("lan",), ("wan",))]
    told = list(check.told(check.findings(config), ["nightmail", "doctor"]))
    at = told.index("BAD  firewall: a chain drops; no mail passes")
    assert told[at + 1] == "     mend: nft insert it"
    assert told[-1] == "1 BAD: `nightmail doctor` names the command that mends it"


def test_a_firewall_that_nobody_can_look_at(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not root, or without knowing the sides: what would be seen then means nothing, and is not asked for."""
    monkeypatch.setattr(filters, "hindrances", lambda config: pytest.fail("asked"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert bad(config) == ["privileges"]
    monkeypatch.setattr(lifecycle, "discover", list)
    assert bad(config) == ["privileges", "interfaces"]


def test_the_last_line_leads_on(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "remarks", lambda config: ["one", "another"])
    told = list(check.told(check.findings(config), ["nightmail", "--config", "/x y", "doctor"]))
    assert told[-1] == "2 BAD: `nightmail --config '/x y' doctor` names the command that mends each"
    monkeypatch.setattr(kernel, "remarks", lambda config: [])
    found = check.findings(config)
    assert len(list(check.told(found, ["nightmail", "doctor"]))) == len(found)


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.root
def test_a_port_that_somebody_has_is_passed_over(tmp_path: Path, taken: int) -> None:
    """As the daemon does; one of its two workers' ports made it BAD."""
    config = Config(first_listen_port=taken, workers=2, run_dir=tmp_path)
    (found,) = check._listen_ports(config)
    assert found.good
    assert f"somebody listens on {taken}" in found.text


@pytest.mark.root
@pytest.mark.parametrize(
    ("free", "good", "told"),
    [
        ([12528], True, "12528 to 12528 are free, for 1 of 2 workers (somebody listens on 12525, 12526, "),
        ([], False, "kernel.first_listen_port: somebody listens on 12525, 12526, "),
    ],
)
def test_little_room_among_the_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: list[int], good: bool, told: str
) -> None:
    monkeypatch.setattr(tproxy, "is_in_use", lambda port: port not in free)
    (found,) = check._listen_ports(Config(workers=2, run_dir=tmp_path))
    assert found.good is good
    assert found.text.startswith(told)


def test_identity_others_can_read(config: Config) -> None:
    load_or_make(config.identity_file)
    config.identity_file.chmod(0o644)
    assert bad(config) == ["identity"]


def test_pins_damaged(config: Config) -> None:
    config.pins_file.write_bytes(b"x" * 4096)
    assert bad(config) == ["peers"]


def test_taken_down(config: Config) -> None:
    record_word(config.wanted_file, Word(Wanted.DOWN))
    assert bad(config) == ["wanted"]
    assert "until the next boot" not in told_of(config, "wanted")
    record_word(config.wanted_file, Word(Wanted.UP, this_boot=Wanted.DOWN))
    assert "rules were taken down until the next boot" in told_of(config, "wanted")
