"""Every list of cases under tests/vectors is in its table, and every test that the table names is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
VECTORS = TESTS / "vectors"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (VECTORS / "COVERAGE.md").read_text().splitlines()
    if ".json |" in line
]


def test_every_list_of_cases_is_in_the_table() -> None:
    named = {(row[0], name) for row in ROWS for name in row[1].split(", ")}
    found = set()
    for path in VECTORS.glob("*.json"):
        for name, value in json.loads(path.read_text()).items():
            cases = isinstance(value, list) and value and isinstance(value[0], dict | list | str)
            if cases and name not in ("patterns", "pattern", "formula"):
                found.add((path.name, name))
    assert found - named == set()


def test_the_counts_are_right() -> None:
    for file, names, counts, _ in ROWS:
        document = json.loads((VECTORS / file).read_text())
        for name, count in zip(names.split(", "), counts.split(", "), strict=False):
            if isinstance(document[name], list) and count:
                assert len(document[name]) == int(count.replace(",", "")), (file, name)


def test_every_named_test_is_there() -> None:
    for row in ROWS:
        paths = re.findall(r"`((?:unit|lab)/[a-z_/]+\.py)`", row[3])
        assert paths or row[3].startswith("none: "), row
        assert [path for path in paths if not (TESTS / path).is_file()] == []
