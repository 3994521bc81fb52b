"""What would end the next supervisor at its start is found before there is no way back."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.errors import EnvironmentFailureError
from gateway.intercept import kernel, tproxy
from gateway.runtime.supervisor import preflight


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    for name in ("require_interfaces", "inside_networks", "require_taken"):
        monkeypatch.setattr(kernel, name, lambda config: None)
    return Config(
        inside=("lan",), outside=("wan",), state_dir=tmp_path / "state", run_dir=tmp_path / "made" / "run"
    )


def test_directories_that_are_gone_are_made(config: Config) -> None:
    preflight.require_startable(config)
    assert config.run_dir.is_dir()


def test_a_directory_that_cannot_be_made_is_named(config: Config) -> None:
    config.run_dir.parent.touch()
    with pytest.raises(EnvironmentFailureError, match=rf"^{config.run_dir}: cannot be made: "):
        preflight.require_startable(config)


def test_one_that_cannot_be_written_needs_the_socket_that_is_there(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As within systemd's sandbox, where a directory that somebody has made anew is read-only."""
    config.run_dir.mkdir(parents=True)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(EnvironmentFailureError, match=rf"^{config.run_dir}: cannot be written$"):
        preflight.require_startable(config)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(config.control_socket))
        preflight.require_startable(config)


def test_a_stranger_among_the_ports_leaves_no_room_for_as_many_workers(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next supervisor would find that, too, and end."""
    serving = range(config.first_listen_port, config.first_listen_port + 16)
    stranger = config.first_listen_port + 20
    monkeypatch.setattr(tproxy, "is_in_use", lambda port: port in serving)
    preflight.require_startable(replace(config, workers=16))
    monkeypatch.setattr(tproxy, "is_in_use", lambda port: port in serving or port == stranger)
    with pytest.raises(EnvironmentFailureError, match="no room for 16 workers"):
        preflight.require_startable(replace(config, workers=16))


@pytest.mark.parametrize(
    ("library", "config", "whole"),
    [
        ("uvloop", "Config()", False),
        ("netfilterqueue", "Config()", False),
        ("gateway.runtime.signer", "Config()", False),
        ("prometheus_client", "Config()", True),
        ("prometheus_client", "Config(metrics_listen=Path('/run/metrics'))", False),
    ],
)
def test_a_program_of_which_a_part_cannot_be_loaded_is_no_successor(
    library: str, config: str, whole: bool
) -> None:
    """The daemon executed it all the same, and that was its end: mail passed in clear until somebody came."""
    program = (
        f"import sys; sys.modules[{library!r}] = None\n"
        "from pathlib import Path\nfrom gateway.config import Config\n"
        f"from gateway.runtime.supervisor import preflight\npreflight.require_whole({config})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode == 0) is whole, done.stderr
    assert whole or "ModuleNotFoundError" in done.stderr


def test_whoever_asks_is_told_of_it_in_one_line(tmp_path: Path) -> None:
    written = tmp_path / "nightmail.toml"
    written.write_text(f'version = 1\nplacement = "host"\n[daemon]\nstate_dir = "{tmp_path}/state"\n')
    program = (
        "import sys; sys.modules['uvloop'] = None\n"
        f"sys.argv = ['nightmail', '--config', {str(written)!r}, 'preflight']\n"
        "from gateway.cli import main\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "uvloop" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({}, ""),
        ({"kernel.zone": 77}, "kernel.zone: changes with a restart only"),
        ({"a key of a later version": 1}, ""),
        ({"bridge.table": None}, ""),
    ],
)
def test_what_another_version_says_is_compared_as_far_as_both_know_it(
    config: Config, monkeypatch: pytest.MonkeyPatch, other: dict[str, object], told: str
) -> None:
    """None: of an earlier version, which has no such key. It was refused, and why was the key's bare name."""
    facts = {key: value for key, value in {**preflight.facts(config), **other}.items() if value is not None}
    program = [sys.executable, "-c", f"print({json.dumps(json.dumps(facts))})"]
    monkeypatch.setattr(preflight, "command_for", lambda word: program)
    found = asyncio.run(preflight.trouble(config, ()))
    assert found.startswith(told)
    assert bool(found) is bool(told)
