"""Every key stands in its document and in the example, and nothing else does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.config import (
    KEYS,
    Config,
    load,
)
from gateway.policy import limits
from tests.unit.configured import loaded

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "packaging" / "nightmail.toml.example"
DOCUMENT = ROOT / "docs" / "configuration.md"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nightmail.toml"


def test_every_key_is_documented_and_nothing_else() -> None:
    document = DOCUMENT.read_text()
    assert re.findall(r"^\| \[`([a-z_.]+)`\]", document, re.MULTILINE) == list(KEYS)
    anchors = {
        re.sub(r"\W+", "-", title.lower()) for title in re.findall(r"^## (.+)$", document, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([a-z-]+)\)", document)) <= anchors


def test_documented_limits_are_the_real_ones() -> None:
    document = DOCUMENT.read_text()
    assert f"1024 to {limits.LAST_FIRST_LISTEN_PORT}" in document
    assert f"0 to {limits.LAST_FIRST_QUEUE}" in document
    assert f"1 to {limits.WORKERS} |" in document
    assert f"rows of {limits.NUMBERS_IN_A_ROW} packet queues" in document


def test_example_loads_as_the_defaults_and_has_every_key() -> None:
    assert load(EXAMPLE) == Config()
    text = EXAMPLE.read_text()
    found = []
    section = ""
    for line in text.splitlines():
        if header := re.match(r"\[(\w+)\]", line):
            section = header[1] + "."
        elif setting := re.match(r"#?(\w+) = ", line):
            found.append(section + setting[1])
    assert found == list(KEYS)


def test_example_loads_with_every_line_in_force(path: Path) -> None:
    text = re.sub(r"^#(\w+ = )", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert loaded(path, text).inside == ("eth1",)
