"""Each finding turns bad when its thing is bad."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config import Config, FoundInterface
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel
from gateway.intercept.wanted import Wanted, record_wanted
from gateway.operator import check, lifecycle
from gateway.peers.store import PinStore
from gateway.runtime.identity_file import load_or_make

NAMES = ["privileges", "workers", "tools", "interfaces", "kernel", "ports", "identity", "peers", "wanted"]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A machine on which all is well."""
    monkeypatch.setattr(check.os, "geteuid", lambda: 0)
    monkeypatch.setattr(check.shutil, "which", lambda tool: f"/sbin/{tool}")
    monkeypatch.setattr(
        lifecycle, "discover", lambda: [FoundInterface("wan", True), FoundInterface("lan", False)]
    )
    monkeypatch.setattr(kernel, "remarks", lambda config: [])
    monkeypatch.setattr(check, "is_free", lambda port: True)
    return Config(state_dir=tmp_path, run_dir=tmp_path)


def bad(config: Config) -> list[str]:
    found = check.findings(config)
    assert sorted({one.name for one in found}) == sorted(NAMES)
    assert all("\n" not in one.text for one in found)
    return [one.name for one in found if not one.good]


def test_all_is_well_with_and_without_files(config: Config) -> None:
    assert bad(config) == []
    load_or_make(config.identity_file)
    PinStore(config.pins_file).close()
    assert bad(config) == []


def test_not_root(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.os, "geteuid", lambda: 1000)
    assert bad(config) == ["privileges"]


def test_a_kernel_without_landlock_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.landlock, "version", lambda: 0)
    assert bad(config) == []
    assert any("no Landlock" in one.text for one in check.findings(config))


def test_no_nft(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check.shutil, "which", lambda tool: None if tool == "nft" else tool)
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


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_port_taken(tmp_path: Path, taken: int) -> None:
    assert not check.is_free(taken)
    found = list(check._listen_ports(Config(first_listen_port=taken, workers=1, run_dir=tmp_path)))
    assert [one.good for one in found] == [False]
    assert str(taken) in found[0].text


def test_identity_others_can_read(config: Config) -> None:
    load_or_make(config.identity_file)
    config.identity_file.chmod(0o644)
    assert bad(config) == ["identity"]


def test_pins_damaged(config: Config) -> None:
    config.pins_file.write_bytes(b"x" * 4096)
    assert bad(config) == ["peers"]


def test_taken_down(config: Config) -> None:
    record_wanted(config.wanted_file, Wanted.DOWN)
    assert bad(config) == ["wanted"]
