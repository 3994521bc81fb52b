"""A configuration of a test, for the commands."""

from pathlib import Path

import pytest

from gateway.config import FoundInterface
from gateway.operator import lifecycle


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nightmail.toml"
    path.write_text(f'[daemon]\nstate_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"\n')
    (tmp_path / "state").mkdir(mode=0o700)
    return path


@pytest.fixture
def two_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        lifecycle, "discover", lambda: [FoundInterface("wan", True), FoundInterface("lan", False)]
    )
