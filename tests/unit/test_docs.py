"""The documents against the code: what the gateway can say is explained, and what is explained it can say."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.errors import Reason

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"


def _explained() -> set[str]:
    """Every word in the first column of a table."""
    words: set[str] = set()
    for line in OPERATIONS.read_text().splitlines():
        if line.startswith("| `"):
            words |= set(re.findall(r"`([a-z-]+)`", line.split("|")[1]))
    return words


def test_every_reason_is_explained_to_the_operator() -> None:
    assert {reason.value for reason in Reason} - _explained() == set()


def test_nothing_is_explained_that_is_never_said() -> None:
    assert _explained() - {reason.value for reason in Reason} == set()
