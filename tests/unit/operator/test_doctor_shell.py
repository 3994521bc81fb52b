"""The line that mends: copied into a shell, it does what it says."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import pytest

from gateway.cli.shell import shown
from gateway.config import Config, load
from gateway.operator.doctor.configfile import setting
from gateway.operator.doctor.snapshot import (
    Daemon,
    Link,
)
from gateway.operator.doctor.trouble import shell
from tests.unit.operator.healthy import found, healthy


def run(line: str) -> None:
    """As it is printed, for that is what is copied."""
    subprocess.run(["sh", "-c", shown(line)], check=True, timeout=20)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 1\n",
        'version = 1\n[kernel]\nzone = 7\n[interfaces]\ninside = ["lan"]\n',
        "version = 1\n[kernel]\nfirst_queue = 4\n",
        "version = 1\n\n[interfaces]\n# inside\n\n[log]\nlevel = 'info'\n",
    ],
)
def test_a_key_is_set_by_the_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "etc" / "night mail.toml"
    if text:
        path.parent.mkdir()
        path.write_text(text)
    before = tomllib.loads(text)
    for key, value in (("kernel.first_queue", "2532"), ("interfaces.inside", '["eth1"]'), ("log.file", '""')):
        now = path.read_text() if path.exists() else ""
        run(setting(healthy(config_path=path, config_text=now, daemon=Daemon()), key, value))
    config = load(path)
    assert (config.first_queue, config.inside, config.log_file) == (2532, ("eth1",), None)
    after = tomllib.loads(path.read_text())
    assert after.get("kernel", {}).get("zone") == before.get("kernel", {}).get("zone")


def test_two_interfaces_that_cannot_be_guessed_are_set_by_one_line(tmp_path: Path) -> None:
    path = tmp_path / "nightmail.toml"
    links = tuple(Link(number, name) for number, name in enumerate(("lo", "wan", "lan", "dmz"), start=1))
    seen = healthy(
        config=Config(), config_path=path, links=links, interfaces_unknown="name them", daemon=Daemon()
    )
    run(next(one.mend for name, one in found(seen) if name == "interfaces"))
    assert (load(path).inside, load(path).outside) == (("lan",), ("wan",))


def test_a_list_over_several_lines_is_for_an_editor(tmp_path: Path) -> None:
    text = '[interfaces]\ninside = [\n"lan",\n]\n'
    assert "EDITOR" in setting(healthy(config_text=text), "interfaces.inside", '["eth1"]')


def test_a_running_daemon_loads_what_was_set() -> None:
    seen = healthy(config_is_default=False, config_path=Path("/etc/x.toml"))
    assert setting(seen, "kernel.zone", "7").endswith("&& nightmail --config /etc/x.toml reload")


def test_shell_quotes_what_others_wrote() -> None:
    assert shell("echo", "$(reboot)", 25) == "echo '$(reboot)' 25"
