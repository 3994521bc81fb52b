"""What dpkg runs at an installation, with a `nightmail` that answers as it is told to."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

POSTINST = Path(__file__).parents[2] / "packaging" / "debian" / "nightmail.postinst"
RUNS, NONE = """echo '  "running": true,'""", """echo '  "running": false,'; exit 1"""
NOT_TAKEN = "echo 'nightmail: nightmail.toml:4: log.levle: unknown key' >&2; exit 2"
SILENT = "echo 'nightmail: the daemon has not answered within 3 s' >&2; exit 1"
GOES_ON = "nightmail: the old version goes on; restart it when it suits\n"


def configured(
    folder: Path, status: str, by_defaults: str, reload: str, before: str = "0.1.0"
) -> tuple[str, str]:
    """What it asked for at last, and what it said. Each answer is a line for a shell."""
    for name, script in (
        (
            "nightmail",
            f'echo "$*" >>{folder}/asked\ncase "$*" in\n"status --json") {status} ;;\n'
            f'"--config /dev/null status --json") {by_defaults} ;;\nreload) {reload} ;;\nesac\n',
        ),
        ("systemctl", ""),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{script}")
        (folder / name).chmod(0o755)
    (folder / "asked").touch()
    done = subprocess.run(
        ["/bin/sh", str(POSTINST), "configure", before],
        env={"PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    asked = (folder / "asked").read_text().splitlines()
    return asked[-1] if asked else "", done.stderr


@pytest.mark.parametrize(
    ("status", "by_defaults", "reload", "asked", "said"),
    [
        (RUNS, "", "", "reload", ""),
        (RUNS, "", "exit 1", "reload", GOES_ON),
        (NONE, RUNS, "", "status --json", ""),
        (
            NOT_TAKEN,
            RUNS,
            NOT_TAKEN,
            "reload",
            f"nightmail: nightmail.toml:4: log.levle: unknown key\n{GOES_ON}",
        ),
        (NOT_TAKEN, NONE, "", "--config /dev/null status --json", ""),
        (SILENT, "", SILENT, "reload", f"nightmail: the daemon has not answered within 3 s\n{GOES_ON}"),
    ],
)
def test_an_upgrade_reloads_or_says_that_the_old_version_goes_on(
    tmp_path: Path, status: str, by_defaults: str, reload: str, asked: str, said: str
) -> None:
    assert configured(tmp_path, status, by_defaults, reload) == (asked, said)


def test_a_first_installation_asks_nobody(tmp_path: Path) -> None:
    assert configured(tmp_path, RUNS, RUNS, "", before="") == ("", "")
